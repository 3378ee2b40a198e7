"""One conversation: lines and bytes, as this harness reads and writes them.

The codec is its own, on purpose: a harness that shared it with what it tests could not see a mistake in it.

A line is words with one blank between them and LF at its end. ``DATA n`` is followed by *n* bytes and nothing else.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from protocol_tests.channel import Channel, Gone, Patience, Silent
from protocol_tests.keys import Content
from protocol_tests.transcript import Transcript

__all__ = ["LONGEST", "MOST", "Got", "Talk", "Violation"]

LONGEST: Final = 32767
"""Characters that a line may have without its LF."""

MOST: Final = 16 << 20
"""Bytes that nothing here has."""


class Violation(Exception):
    """The server did something that a requirement forbids."""


@dataclass(frozen=True, slots=True)
class Got:
    """What answered a GET: *body* and ``VALID`` or ``INVALID``, or the *refusal* in its place."""

    body: bytes = b""
    validity: bytes = b""
    refusal: bytes = b""


class Talk:
    """The client's side of one connection.

    Messages are given and taken as bytes without LF. What takes too long raises ``Silent``, the end of the stream
    ``Gone``.
    """

    def __init__(self, channel: Channel, transcript: Transcript, patience: Patience, conn: str = "") -> None:
        """Speak over *channel*; everything goes into *transcript* as the wire *conn*."""
        self.channel, self.version = channel, 0
        self._transcript, self._patience, self._conn = transcript, patience, conn
        self._buffer = b""
        self._ended = False
        self._asks_for_lock = self._has_lock = False

    # -- lines and bytes --------------------------------------------------------------------------------------------

    def say(self, *messages: bytes) -> None:
        """Each as a line of its own."""
        self._asks_for_lock, self._has_lock = messages[-1].startswith(b"LOCKCONTENT "), False
        self.send(b"".join(message + b"\n" for message in messages))

    def send(self, *parts: bytes) -> None:
        """Raw bytes, in one piece."""
        for part in filter(None, parts):
            self._transcript.said(self._conn, True, part)
        data = b"".join(parts)
        try:
            self.channel.send(data, self._patience)
        except Silent:
            self._late(f"it did not take {len(data)} bytes")
            raise

    def hear(self) -> bytes:
        """The next line, without LF."""
        begin = time.monotonic()
        end = begin + self._patience.seconds
        while b"\n" not in self._buffer:
            if len(self._buffer) > 4 * LONGEST:
                raise Violation("the server sends a line without an end")
            self._more(end)
        self._patience.answered(time.monotonic() - begin)
        line, _, self._buffer = self._buffer.partition(b"\n")
        self._transcript.said(self._conn, False, line + b"\n")
        self._has_lock = self._asks_for_lock and line == b"SUCCESS"
        self._asks_for_lock = False
        return line

    def read(self, length: int) -> bytes:
        """Exactly *length* bytes; they may come slowly, but have to come."""
        if length > MOST:
            raise Violation(f"the server promises {length} bytes, and was never given as many")
        end = time.monotonic() + self._patience.whole(length)
        while len(self._buffer) < length:
            self._more(min(end, time.monotonic() + self._patience.seconds))
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        if body:
            self._transcript.said(self._conn, False, body)
        return body

    def ask(self, *messages: bytes) -> bytes:
        """Say them, and hear one line."""
        self.say(*messages)
        return self.hear()

    def expect(self, wanted: bytes, *messages: bytes) -> None:
        """Say *messages*, and hear just *wanted*."""
        answer = self.ask(*messages)
        if answer != wanted:
            raise Violation(f"{_shown(messages[-1:])} answered by {_shown([answer])} instead of {_shown([wanted])}")

    def quiet(self, seconds: float = 0.15) -> bool:
        """Nothing is said for *seconds* (or the server has left)."""
        if self._buffer:
            return False
        try:
            return not self._fill(seconds)
        except Silent:
            return True

    @property
    def at_end(self) -> bool:
        """The server has left, and all that it said was heard."""
        return self._ended and not self._buffer

    def ended(self) -> bool:
        """The server closes the connection without another word, in time."""
        try:
            return not self._buffer and not self._fill(self._patience.seconds)
        except Silent:
            self._late("it did not close the connection")
            return False

    def alive(self) -> bool:
        """The session goes on: a question is answered, by one line that fits it."""
        return self.ask(b"CHECKPRESENT SHA256-s1--" + b"0" * 64) == b"FAILURE"

    def must_live(self, after: str) -> None:
        """The session goes on, or a ``Violation`` says *after* what it did not."""
        try:
            if not self.alive():
                raise Violation(f"after {after} the next request was not answered as it should be")
        except Gone as gone:
            raise Violation(f"{after} ended the session") from gone

    def leave(self) -> None:
        """Leave when all is over; a lock would stay for minutes, and is given back."""
        if self._has_lock and self.channel.is_open:
            with suppress(Gone, Silent):
                self.channel.send(b"UNLOCKCONTENT\n", self._patience)
        self.channel.close()

    def close(self) -> None:
        """Leave."""
        self._transcript.note(self._conn, "EOF", "the client leaves")
        self.channel.close()

    # -- exchanges --------------------------------------------------------------------------------------------------

    def agree(self, version: int) -> None:
        """Agree on *version*. Nothing is said for 0, which needs no words."""
        if version:
            self.expect(b"VERSION %d" % version, b"VERSION %d" % version)
        self.version = version

    def present(self, key: bytes) -> bool:
        """CHECKPRESENT."""
        answer = self.ask(b"CHECKPRESENT " + key)
        if answer not in (b"SUCCESS", b"FAILURE"):
            raise Violation(f"CHECKPRESENT answered by {_shown([answer])}")
        return answer == b"SUCCESS"

    def must_have(self, key: bytes, why: str) -> None:
        """The server has *key*, or a ``Violation`` says *why* it should."""
        if not self.present(key):
            raise Violation(f"the content is not there, {why}")

    def must_lack(self, key: bytes, why: str) -> None:
        """The server does not have *key*, or a ``Violation`` says *why* it should not."""
        if self.present(key):
            raise Violation(f"the content is there, {why}")

    def offer_again(self, key: bytes) -> bytes:
        """PUT of what a client that has vanished was putting; the answer.

        The server may not have noticed yet that it is gone, and say ERROR as long as that is so.
        """
        end = time.monotonic() + self._patience.seconds
        while (answer := self.ask(b"PUT  " + key)).startswith(b"ERROR") and time.monotonic() < end:
            time.sleep(0.1)
        return answer

    def offer(self, key: bytes, name: bytes = b"", *, again: bool = False) -> int:
        """PUT; the offset that the server asks for. *again*: as ``offer_again``."""
        answer = self.offer_again(key) if again else self.ask(b"PUT %s %s" % (name, key))
        return self._number(answer, b"PUT-FROM ", b"PUT")

    def deliver(self, body: bytes, validity: bytes = b"VALID") -> bytes:
        """DATA and *body*, and *validity* where the version has it; the answer."""
        self.send(b"DATA %d\n" % len(body))
        self.send(body, validity + b"\n" if self.version else b"")
        return self.hear()

    def put(self, content: Content, *, again: bool = False) -> bytes:
        """A whole PUT; the answer that ends it. *again*: as ``offer_again``."""
        offset = self.offer(content.key, again=again)
        return self.deliver(content.body[offset:])

    def store(self, content: Content) -> None:
        """A PUT that must succeed."""
        answer = self.put(content)
        if answer.split(b" ")[0] not in (b"SUCCESS", b"SUCCESS-PLUS"):
            raise Violation(f"PUT of new content ended with {_shown([answer])}")

    def get(self, key: bytes, offset: int = 0, name: bytes = b"", done: bytes = b"SUCCESS") -> Got:
        """A whole GET; the client says *done* at its end."""
        self.say(b"GET %d %s %s" % (offset, name, key))
        return self.take(done)

    def take(self, done: bytes = b"SUCCESS") -> Got:
        """What follows a GET."""
        answer = self.hear()
        if answer.startswith(b"ERROR"):
            return Got(refusal=answer)
        body = self.read(self._number(answer, b"DATA ", b"GET"))
        validity = b""
        if self.version:
            validity = self.hear()
            if validity not in (b"VALID", b"INVALID"):
                raise Violation(f"the bytes of a GET are followed by {_shown([validity])}")
        if done:
            self.say(done)
        return Got(body, validity)

    def timestamp(self) -> int:
        """GETTIMESTAMP."""
        return self._number(self.ask(b"GETTIMESTAMP"), b"TIMESTAMP ", b"GETTIMESTAMP")

    # -- inside -----------------------------------------------------------------------------------------------------

    def _number(self, answer: bytes, verb: bytes, asked: bytes) -> int:
        digits = answer.removeprefix(verb)
        if not answer.startswith(verb) or not digits.isdigit() or len(digits) > 19:
            raise Violation(
                f"{_shown([asked])} answered by {_shown([answer])} instead of {_shown([verb])} and a number"
            )
        return int(digits)

    def _more(self, end: float) -> None:
        try:
            if not self._fill(max(0.0, end - time.monotonic())):
                raise Gone("the server has closed the connection")
        except Silent:
            self._late("it did not answer")
            raise

    def _fill(self, seconds: float) -> bool:
        """Bytes came; False at the end of the stream."""
        data = b"" if self._ended else self.channel.receive(seconds)
        if not data and not self._ended:
            self._ended = True
            self._transcript.note(self._conn, "EOF", "the server closed")
        self._buffer += data
        return bool(data)

    def _late(self, what: str) -> None:
        self._patience.late()
        if self._buffer:
            self._transcript.said(self._conn, False, self._buffer)
        self._transcript.note(self._conn, "comment", f"the deadline passed: {what}")


def _shown(messages: list[bytes] | tuple[bytes, ...]) -> str:
    text = b" ".join(messages).decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 80 else text[:77] + "...")
