"""Requests over HTTP, with a deadline and a transcript."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Timer
from typing import Any, Final
from urllib.parse import quote, urlsplit

from protocol_tests.channel import Gone, Silent
from protocol_tests.keys import Content
from protocol_tests.subject import CLIENTS, Subject
from protocol_tests.transcript import Transcript
from protocol_tests.trial import Trial, must
from protocol_tests.wire import MOST, Violation

__all__ = ["LENGTH", "Answer", "Http", "encode"]

LENGTH = "X-git-annex-data-length"
"""The header that says how many bytes of content follow."""

_DRIPPING: Final = 6  # times the deadline of one wait, for an answer that comes bit by bit


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server says to one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool = True

    def json(self) -> dict[str, Any]:
        """The JSON object of an answer 200.

        Raises:
            Violation: It is none, or not called JSON.
        """
        must(self.status == 200, f"the status is {self.status}: {self.body[:200]!r}")
        kind = self.headers.get("content-type", "")
        must(kind.partition(";")[0].strip() == "application/json", f"the Content-Type is {kind!r}")
        try:
            read = json.loads(self.body)
        except ValueError as error:
            raise Violation(f"the answer is no JSON: {self.body[:200]!r}") from error
        if not isinstance(read, dict):
            raise Violation(f"the answer is no JSON object: {self.body[:200]!r}")
        return read


@dataclass
class Http:
    """The client's side of one connection to the server of *trial*."""

    trial: Trial
    conn: str = "H"
    subject: Subject | None = None
    connection: http.client.HTTPConnection = field(init=False)
    authorization: str = field(init=False)

    def __post_init__(self) -> None:
        """Connects with the first request."""
        of = self.subject or self.trial.subject
        url, seconds = urlsplit(of.url), self.trial.patience.seconds
        if url.scheme == "https":
            trusted = ssl.create_default_context(cafile=of.ca)
            self.connection = http.client.HTTPSConnection(url.netloc, timeout=seconds, context=trusted)
        else:
            self.connection = http.client.HTTPConnection(url.netloc, timeout=seconds)
        self.authorization = of.authorization
        self._base = url.path
        self._socket: socket.socket | None = None
        self.trial.when_closed(self.close)

    def ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, bytes | str] | None = None,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        client: int | None = 0,
        noted: bool = True,
    ) -> Answer:
        """One request below ``/git-annex/UUID``, and its answer; in the transcript only when it is to be *noted*.

        ``authorization`` goes with it, and is never in the transcript.
        """
        words = dict(params or {}) | ({} if client is None else {"clientuuid": CLIENTS[client]})
        query = "&".join(f"{name}={encode(value)}" for name, value in words.items())
        target = f"{self._base}/{path}" + (f"?{query}" if query else "")
        shown = body if isinstance(body, bytes) else b"(chunked)" if body else b""
        heads = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        note = self.trial.transcript if noted else Transcript()
        note.note(self.conn, "request", f"{method} {target}\r\n{heads}\r\n{shown[:200].decode('latin-1')}")
        with self.deadline():
            self.connection.request(
                method,
                target,
                body,
                dict(headers or {}) | self.credentials(),
                encode_chunked=body is not None and not isinstance(body, bytes),
            )
            got = self.connection.getresponse()
            read, whole = _body(got)
        answer = Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, read, whole)
        note.note(self.conn, "answer", f"{answer.status} {dict(answer.headers)}\r\n{read[:400].decode('latin-1')}")
        return answer

    def credentials(self) -> dict[str, str]:
        """The header that says who asks, where anything does."""
        return {"Authorization": self.authorization} if self.authorization else {}

    @contextmanager
    def deadline(self) -> Any:
        """Everything inside is in time, or Silent or Gone: each wait, and all of them together."""
        patience, begin = self.trial.patience, time.monotonic()
        if self.connection.sock is not None:
            self.connection.sock.settimeout(patience.seconds)
        self.connection.timeout = patience.seconds
        late = Event()
        watch = Timer(patience.whole(0) * _DRIPPING, self._break, (late,))
        watch.daemon = True
        watch.start()
        try:
            if self.connection.sock is None:
                self.connection.connect()
            self._socket = self.connection.sock
            yield
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            if not late.is_set() and not isinstance(error, TimeoutError):
                raise Gone(f"the connection broke: {error!r}") from error
            patience.late()
            raise Silent("the server did not answer in time") from error
        finally:
            watch.cancel()
        if late.is_set():
            patience.late()
            raise Silent("the server did not answer in time, though it sent something all the while")
        patience.answered(time.monotonic() - begin)

    def _break(self, late: Event) -> None:
        """It has taken too long in all, though something came in each wait."""
        late.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    # -- what the checks ask again and again ------------------------------------------------------------------------

    def post(self, verb: str, params: Mapping[str, bytes | str] | None = None, **more: Any) -> Answer:
        """POST to a verb of the version on trial."""
        return self.ask("POST", f"v{self.trial.version}/{verb}", params, **more)

    def present(self, key: bytes, *, noted: bool = True) -> bool:
        """Checkpresent."""
        present = self.post("checkpresent", {"key": key}, noted=noted).json().get("present")
        must(isinstance(present, bool), f"present is {present!r}")
        return present is True

    def put(
        self, content: Content, body: bytes | None = None, length: int | None = None, offset: int = 0
    ) -> dict[str, Any]:
        """put, the whole of it if *body* does not say otherwise; the JSON of the answer."""
        sent = content.body if body is None else body
        headers = {LENGTH: str(len(sent) if length is None else length), "Content-Type": "application/octet-stream"}
        params = {"key": content.key} | ({"offset": str(offset)} if offset else {})
        return self.post("put", params, body=sent, headers=headers).json()

    def store(self, content: Content) -> None:
        """A put that must succeed."""
        said = self.put(content)
        must(said.get("stored") is True, f"a put of new content is answered by {said}")

    def get(self, key: bytes, offset: int = 0) -> Answer:
        """GET of a key."""
        path = f"v{self.trial.version}/key/{encode(key)}"
        return self.ask("GET", path, {"offset": str(offset)} if offset else {})

    def close(self) -> None:
        """Leave."""
        self.connection.close()


def _body(got: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """What came of an answer, and whether that was all that it promised."""
    pieces: list[bytes] = []
    try:
        while piece := got.read(1 << 16):
            pieces.append(piece)
            if len(pieces) > MOST >> 16:
                raise Violation(f"the answer has more than {sum(map(len, pieces))} bytes, and no end")
    except http.client.IncompleteRead as short:
        return b"".join(pieces) + short.partial, False
    return b"".join(pieces), got.length in (None, 0)


def encode(value: bytes | str) -> str:
    """A word of the query, percent-encoded; what is no text, or looks as if it were encoded, as ``[base64url]``."""
    import base64

    raw = value.encode() if isinstance(value, str) else value
    try:
        raw.decode()
        plain = not (raw.startswith(b"[") and raw.endswith(b"]"))
    except UnicodeDecodeError:
        plain = False
    return quote(raw if plain else b"[" + base64.urlsafe_b64encode(raw) + b"]", safe="")
