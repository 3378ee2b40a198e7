"""The server's end of one HTTP/1.1 connection: heads that come, answers that are collected, and the client's time.

Deadlines count only while the client is waited for. ``HTTPConnections`` looks after them for all connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Final

import anyio

from annexpy.clock import Clock
from annexpy.errors import ConnectionLost, TimedOut, TransportError
from annexpy.transport.base import CHUNK, SendsFiles, Transport
from annexpy.transport.http_head import BadHTTP, RequestHead, RequestReader, format_response_head

__all__ = ["ClientLeft", "Date", "HTTPDeadlines", "ServerWire"]

_TOGETHER: Final = 64 * 1024  # pieces up to this size are joined to one write, larger ones are not copied
_FILE_PIECE: Final = 8 * 1024 * 1024
_SLOWEST: Final = 16 * 1024  # bytes a second that a reader of ours has to take beyond the first minute


@dataclass(frozen=True, slots=True)
class HTTPDeadlines:
    """Seconds that a server waits for its client, looked at every second. ``inf`` waits for ever.

    Attributes:
        head: From the connection, or the first byte of a request, to the end of its head.
        idle: Between requests.
        body: In which at least *body* KiB of a body have to come; only time spent waiting counts.
        send: Until the client has taken a piece of what we send.
    """

    head: float = 15.0
    idle: float = 600.0
    body: float = 60.0
    send: float = 60.0


class ClientLeft(ConnectionLost):
    """The client's own connection is lost: not to be taken for one that is lost behind us."""


class ServerWire:
    """One connection.

    Attributes:
        kept: Received and not used yet.
        busy: A request is being answered.
        leaving: No more requests after this one.
        until: When the client's time is up.
        out_of_time: Set when it was.
    """

    __slots__ = (
        "_answers",
        "_date",
        "_reader",
        "_said",
        "_since",
        "_waiting_for",
        "busy",
        "deadlines",
        "kept",
        "leaving",
        "out_of_time",
        "secure",
        "transport",
        "until",
    )

    def __init__(self, transport: Transport, deadlines: HTTPDeadlines, date: Date, secure: bool) -> None:
        self.transport, self.deadlines, self.secure = transport, deadlines, secure
        self._date, self._reader = date, RequestReader()
        self._answers: list[bytes] = []
        self._said = 0
        self.kept = b""
        self.busy = self.leaving = False
        self._waiting_for, self._since, self.until = "", 0.0, inf
        self.out_of_time: TimedOut | None = None

    @property
    def peer(self) -> str:
        return self.transport.peer

    def date(self) -> bytes:
        return self._date.now()

    # -- saying ---------------------------------------------------------------------------------------

    def say(self, data: bytes) -> None:
        """Collect *data*; it leaves before the client is waited for."""
        if data:
            self._answers.append(data)
            self._said += len(data)

    async def pour(self, data: bytes) -> None:
        """Say *data*: with what is collected if it is small, by itself and not copied if not."""
        if len(data) > _TOGETHER:
            await self.flush()
            await self._send(data)
            return
        self.say(data)
        await self.trim()

    async def pour_file(self, fd: int, offset: int, size: int) -> int:
        """Say a part of a file."""
        transport = self.transport
        assert isinstance(transport, SendsFiles)
        await self.flush()
        sent = 0
        while sent < size:
            piece = min(size - sent, _FILE_PIECE)
            self._wait("room for the answer", self.deadlines.send + piece / _SLOWEST)
            try:
                part = await transport.send_file(fd, offset + sent, piece)
            except TransportError as error:
                raise self._gone(error) from error
            finally:
                self.until = inf
            sent += part
            if part < piece:
                break
        return sent

    async def trim(self) -> None:
        """Send what is collected, if that is much."""
        if self._said > CHUNK:
            await self.flush()

    async def flush(self) -> None:
        """Send what is collected."""
        if self._answers:
            if len(self._answers[-1]) > _TOGETHER:
                *small, large = self._answers
                pieces = [b"".join(small), large] if small else [large]
            else:
                pieces = [self._answers[0] if len(self._answers) == 1 else b"".join(self._answers)]
            self._answers.clear()
            self._said = 0
            for piece in pieces:
                await self._send(piece)

    async def _send(self, data: bytes) -> None:
        self._wait("room for the answer", self.deadlines.send + len(data) / _SLOWEST)
        try:
            await self.transport.send(data)
        except TransportError as error:
            raise self._gone(error) from error
        finally:
            self.until = inf

    # -- hearing --------------------------------------------------------------------------------------

    async def receive(self, what: str, seconds: float, most: int = CHUNK) -> bytes:
        """What the client sends next; ``b""`` when it has left."""
        self._wait(what, seconds)
        try:
            return await self.transport.receive(most)
        except TransportError as error:
            raise self._gone(error) from error
        finally:
            self.until = inf

    def _wait(self, what: str, seconds: float) -> None:
        self._waiting_for, self._since = what, anyio.current_time()
        self.until = self._since + seconds

    def _gone(self, error: TransportError) -> ClientLeft:
        reason = str(self.out_of_time) if self.out_of_time is not None else getattr(error, "reason", "")
        return ClientLeft(self.peer, self._waiting_for, reason)

    async def head(self, *, first: bool) -> RequestHead | None:
        """The next head; None when the client has left, or we are to.

        Raises:
            BadHTTP, ClientLeft: There will be none.
        """
        limit = self.deadlines.head if first else self.deadlines.idle
        begun = -1.0
        while True:
            if self.kept:
                found = self._reader.read(self.kept)
                if found is not None:
                    head, self.kept = found
                    return head
                if begun < 0:
                    begun = anyio.current_time()
                limit = max(0.0, begun + self.deadlines.head - anyio.current_time())
            await self.flush()
            if self.leaving:
                return None
            data = await self.receive("request", limit)
            if not data:
                if self.kept.strip():
                    raise ClientLeft(self.peer, "the rest of a head")
                return None
            self.kept += data

    def ahead(self) -> tuple[RequestHead, bytes] | None:
        """The next head, if all of it is here already; whoever uses it sets ``kept`` to what comes after it."""
        try:
            return self._reader.read(self.kept) if self.kept else None
        except BadHTTP:
            return None  # met again when it is its turn

    async def expire(self) -> None:
        """The client's time is up."""
        self.out_of_time = TimedOut(self.peer, self._waiting_for, self.until - self._since)
        self.until = inf
        if not self.busy and self.kept:
            self.transport.send_soon(_TOO_LATE)
        await self.transport.aclose()


_TOO_LATE: Final = format_response_head(408, [(b"Content-Length", b"0"), (b"Connection", b"close")])


class Date:
    """The header ``Date``, made once a second."""

    __slots__ = ("_clock", "_second", "_text")

    def __init__(self, clock: Clock) -> None:
        self._clock, self._second, self._text = clock, -1, b""

    def now(self) -> bytes:
        second = int(self._clock.wall())
        if second != self._second:
            from email.utils import formatdate  # 10 ms of import, and only servers need it

            self._second, self._text = second, formatdate(second, usegmt=True).encode()
        return self._text
