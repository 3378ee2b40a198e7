"""Recorded conversations over HTTP: requests, answers, and the state that what was answered tells of."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from recorded_node import has_name
from recordings import TRANSCRIPTS, content_of

from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.p2p.http_query import decoded, key_of
from annexpy.server.auth import Access, open_to_all, users_of_environment
from annexpy.transport.http_body import BodyReader
from annexpy.uuids import is_cluster

_KEY = re.compile(rb"SHA256E?-s\d+--[0-9a-f]{64}(?:\.\w+)?")
_HEAD = re.compile(rb"[A-Z]+ \S+ HTTP/1\.[01]\r\n")
_WHOLE = 8 * 1024
"""Bytes above which a recording has only a digest of what was sent."""


@dataclass
class Answer:
    """As far as it does not depend on how it is framed."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def text(self) -> bytes:
        """What is compared: all but names of locks, times and the order of nodes."""
        told = [self.headers.get(name, b"") for name in (b"content-type", b"x-git-annex-data-length")]
        body = re.sub(rb'"lockid":"[^"]*"', b'"lockid":""', self.body)
        body = re.sub(rb'\A\{"timestamp":\d+\}\Z', b'{"timestamp":0}', body)
        body = re.sub(rb'(?<="plusuuids":\[)[^\]]+', lambda names: b",".join(sorted(names[0].split(b","))), body)
        return b"%d %b %b\n%b" % (self.status, *told, body)


def answer_in(data: bytes, method: bytes = b"", *, over: bool = False) -> Answer | None:
    """The answer that *data* is, once it is whole; *over*: no more will come."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        return answer_in(rest, method, over=over)
    if not end:
        return None
    first, *lines = head.split(b"\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    length = headers.get(b"content-length")
    if method == b"HEAD":
        body = b""
    elif headers.get(b"transfer-encoding") == b"chunked":
        reader = BodyReader(None)
        body = reader.take(rest)[0]
        if not reader.done and not over:
            return None
    else:
        body = rest[: int(length or 0)]
        if len(body) < int(length or 0) and not over:
            return None
    return Answer(int(first.split()[1]), headers, body)


@dataclass
class Turn:
    """Something that was sent on a connection, or an answer that came.

    Attributes:
        wire: Which connection; each begins with a request.
        sent: What the client sent; b"" for an answer.
        heard: The answer, None for what was sent.
        comment: What the recorder did before.
    """

    wire: object
    sent: bytes = b""
    heard: Answer | None = None
    comment: str = ""


@dataclass
class Recording:
    """All that was said, in its order.

    Attributes:
        comment: What the recorder says of all of it.
        contents: Key → content, as far as any recording knows.
    """

    comment: str
    turns: list[Turn] = field(default_factory=list)
    contents: dict[bytes, bytes] = field(default_factory=dict)

    def asked_for(self) -> dict[str, list[Answer]]:
        """UUID → answers to whoever asked for it."""
        found: dict[str, list[Answer]] = {}
        open_ones: dict[object, str] = {}
        for turn in self.turns:
            if match := re.match(rb"[A-Z]+ /git-annex/([^/ ]+)/", turn.sent):
                open_ones[turn.wire] = match[1].decode()
            elif turn.heard is not None and turn.wire in open_ones:
                found.setdefault(open_ones[turn.wire], []).append(turn.heard)
        return found

    def nodes(self) -> set[str]:
        """UUIDs of what was asked for and is there, and of what was named; clusters apart."""
        there = {uuid for uuid, answers in self.asked_for().items() if any(one.status == 200 for one in answers)}
        named = {
            uuid
            for turn in self.turns
            if turn.heard is not None and b'"plusuuids"' in turn.heard.body
            for uuid in json.loads(turn.heard.body)["plusuuids"]
        }
        return {uuid for uuid in there | named if re.fullmatch("[0-9a-f-]{36}", uuid) and not is_cluster(uuid)}

    def clusters(self) -> set[str]:
        return set(filter(is_cluster, self.asked_for()))


def key_in(request: bytes) -> Key | None:
    """What a request is about."""
    match = re.match(rb"[A-Z]+ \S*?(?:/key/|[?&]key=)([^?& ]+)", request)
    try:
        return key_of(decoded("key", match[1])) if match else None
    except AnnexError:
        return None


def offset_in(request: bytes) -> int:
    """Where it goes on."""
    match = re.search(rb"[?&]offset=(\d+)", request.partition(b"\r\n")[0])
    return int(match[1]) if match else 0


def recorded(path: Path) -> Recording:
    """One recording. Contents that it has in part or as digests only are replaced by others, with keys of their own."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    contents, renamed = dict(known_contents()), dict[bytes, bytes]()
    for old in sorted(set(_KEY.findall(b"".join(raw_of(row, {}) or b"" for row in lines)))):
        size = Key.parse(old).size or 0
        if size > _WHOLE or old not in contents:
            made = random.Random(old).randbytes(size)
            renamed[old] = re.sub(b"[0-9a-f]{64}", hashlib.sha256(made).hexdigest().encode(), old)
            contents[renamed[old]] = made
    comments = filter(None, [path.stem, *(row.get("comment") for row in lines[:1])])
    return Recording(" ".join(comments), list(_turns(lines, contents, renamed)), contents)


def _turns(lines: Iterable[dict], contents: dict[bytes, bytes], renamed: dict[bytes, bytes]) -> Iterator[Turn]:
    wires: dict[object, int] = {}
    requests: dict[object, bytes] = {}
    heard: dict[object, bytes] = {}
    number = 0
    for row in lines:
        raw, conn, kind = raw_of(row, renamed), row.get("conn", 0), row["dir"]
        if kind not in ("C>S", "S>C") or raw == b"<EOF>":
            continue
        if kind == "C>S":
            if raw is not None and _HEAD.match(raw):
                number += 1
                wires[conn], requests[conn], heard[conn] = number, raw, b""
            elif raw is None:  # a piece of a content that is not known: it goes with the head
                continue
            head, end, body = raw.partition(b"\r\n\r\n")
            key, offset = key_in(raw), offset_in(raw)
            if body and offset and key is not None and key.raw in renamed.values():
                raw = head + end + contents[key.raw][offset:][: len(body)]
            if b"\r\nTransfer-Encoding: chunked" in raw and b"/put?" in raw and raw.endswith(b"\r\n\r\n"):
                raw += _sent(raw, contents)
            elif b"/put?" in requests[conn] and not _HEAD.match(raw) and requests[conn].endswith(b"\r\n\r\n"):
                continue  # pieces of what was sent with the head
            yield Turn(wires[conn], raw, comment=row.get("comment") or "")
        elif conn in requests:
            request = requests[conn]
            if raw is None:  # its beginning, and the rest is known
                answer = _content_of(request, base64.b64decode(row["head_b64"]), contents)
            else:
                heard[conn] += raw
                answer = answer_in(heard[conn], request.split(b" ", 1)[0])
            if answer is not None:
                yield Turn(wires[conn], heard=answer)
                del requests[conn]


def _content_of(request: bytes, head: bytes, contents: dict[bytes, bytes]) -> Answer:
    key = key_in(request)
    assert key is not None
    body = contents[key.raw][offset_in(request) :]
    headers = {b"content-type": b"application/octet-stream", b"x-git-annex-data-length": b"%d" % len(body)}
    return Answer(int(head.split()[1]), headers, body)


def _sent(head: bytes, contents: dict[bytes, bytes]) -> bytes:
    """The content that is put, in chunks."""
    key = key_in(head)
    assert key is not None
    content = contents[key.raw][offset_in(head) :]
    return (b"%x\r\n%b\r\n" % (len(content), content) if content else b"") + b"0\r\n\r\n"


def raw_of(row: dict, renamed: dict[bytes, bytes]) -> bytes | None:
    """The bytes of a row, with keys *renamed*; None where only a digest of them was kept."""
    if "len" in row:
        return None
    raw = base64.b64decode(row["b64"]) if "b64" in row else str(row.get("text", "")).encode()
    for old, new in renamed.items():
        raw = raw.replace(old, new)
    return raw


@cache
def known_contents() -> dict[bytes, bytes]:
    """Key → content of everything small that was put or got over HTTP in any recording."""
    known: dict[bytes, bytes] = {}
    for path in sorted(TRANSCRIPTS.glob("*http*.jsonl")):
        asked: dict[object, bytes] = {}
        for row in (json.loads(line) for line in path.read_text().splitlines() if line.strip()):
            raw, conn = raw_of(row, {}) or b"", row.get("conn", 0)
            head, _, body = raw.partition(b"\r\n\r\n")
            if row["dir"] == "C>S" and _HEAD.match(raw):
                asked[conn] = raw
            key = key_in(asked.get(conn, b""))
            carries = rb"GET \S+/key/" if row["dir"] == "S>C" else rb"POST \S+/put\?"
            if key is None or not re.match(carries, asked[conn]) or offset_in(asked[conn]):
                continue
            if not _HEAD.match(raw) and row["dir"] == "C>S":
                head, body = b"transfer-encoding: chunked", raw
            if re.search(rb"(?i)transfer-encoding: *chunked", head):
                try:
                    body = BodyReader(None).take(body)[0]
                except AnnexError:
                    continue
            body = body[: key.size]  # some sent more
            if has_name(key.raw, body):
                known.setdefault(key.raw, body)
    return known


def content(recording: Recording, key: Key) -> bytes:
    """What *key* has, or something of its size."""
    return recording.contents.get(key.raw) or content_of(key)


# -- who may do what --------------------------------------------------------------------------------------------------

_USERS = {  # those of the recordings
    "GIT_ANNEX_P2PHTTP_PASSWORD_alice": "foo123",
    "GIT_ANNEX_P2PHTTP_PASSWORD_bob": "b",
    "GIT_ANNEX_P2PHTTP_PERMISSIONS_bob": "readonly",
    "GIT_ANNEX_P2PHTTP_PASSWORD_carl": "c",
    "GIT_ANNEX_P2PHTTP_PERMISSIONS_carl": "appendonly",
}
LOGINS = {"alice": "alice:foo123", "bob": "bob:b", "carl": "carl:c"}
"""User → login and password."""


def login_of(request: bytes) -> str:
    """Login and password of a request; "" for nobody."""
    credentials = re.search(rb"(?i)Basic +(\S+)", request)
    try:
        return "" if credentials is None else base64.b64decode(credentials[1]).decode()
    except ValueError:
        return "malformed"


def known_there(recording: Recording) -> list[str]:
    """Whom the recorded server knew: who was allowed what nobody else was, or less than everybody else."""
    if "--authenv" not in recording.comment:
        return []
    sent: dict[object, bytes] = {}
    said: list[tuple[bytes, str, int]] = []
    for turn in recording.turns:
        if turn.heard is None:
            sent.setdefault(turn.wire, turn.sent)
        else:
            request = sent[turn.wire]
            said.append((request.partition(b"\r\n")[0], login_of(request), turn.heard.status))
    others = {line: status for line, who, status in said if not who}

    def differs(login: str) -> bool:
        mine = [(others.get(line), status) for line, who, status in said if who == login]
        return any((theirs == 200) != (status == 200) for theirs, status in mine if theirs in (200, 401, 403))

    return [name for name in LOGINS if name == "alice" or differs(LOGINS[name])]


def access_of(recording: Recording) -> Access:
    """The rules of the recorded server; where nothing is said of them, everything is open."""
    options = {word for word in recording.comment.split() if re.match("--(wideopen|authenv|unauth)", word)}
    names = known_there(recording)
    nothing_said = not options and not recording.comment.startswith("http-auth-")
    return Access(
        anonymous=open_to_all(
            wideopen=nothing_said or "--wideopen" in options,
            unauth_readonly="--unauth-readonly" in options,
            unauth_appendonly="--unauth-appendonly" in options,
            unauth_nolocking="--unauth-nolocking" in options,
        ),
        users=tuple(user for user in users_of_environment(_USERS) if user.name in names),
        allow_plain_http=not options or "--authenv-http" in options,
    )
