"""The server's end of HTTP/1.1 connections: requests one after the other, answers, and how long a client may take.

Requests that a client sends ahead are answered in order, and small answers to them leave in one write. Deadlines
count only while the client is waited for: how long an answer takes to make, or waits for its turn, is never held
against the client. One task looks after the deadlines of all connections.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from typing import Final

import anyio

from annexpy.clock import Clock
from annexpy.errors import AnnexError, ConnectionLost, LocalProtocolError, TimedOut, TransportError
from annexpy.system import CLOCK
from annexpy.transport.base import CHUNK, SendsFiles, Transport
from annexpy.transport.http import (
    CONTINUE,
    LAST_CHUNK,
    BadHTTP,
    BodyReader,
    RequestHead,
    RequestReader,
    chunk,
    format_response_head,
)
from annexpy.values import dataclass

__all__ = ["ClientLeft", "Exchange", "HTTPConnections", "HTTPDeadlines", "Handle"]

log = logging.getLogger(__name__)

_TOGETHER: Final = 64 * 1024  # pieces up to this size are joined to one write, larger ones are not copied
_BULK: Final = 1024 * 1024
_DRAIN: Final = 16 * 1024 * 1024  # this much of a body that nobody wanted is read, so that its sender hears why
_FILE_PIECE: Final = 8 * 1024 * 1024
_LOOK: Final = 1.0
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


_USUAL: Final = HTTPDeadlines()
_SERVER: Final = (b"Server", b"annexpy")
"""By this our clients know that they may send requests ahead of the answers."""


class ClientLeft(ConnectionLost):
    """The client's own connection is lost: not to be taken for one that is lost behind us."""


class Exchange:
    """One request and its answer. Given to the handler, and of no use after it.

    Attributes:
        head: What was asked.
        status: Of the answer; 0 while there is none.
        received, sent: Bytes of the two bodies so far.
    """

    __slots__ = ("_chunked", "_connection", "_left", "_patience", "_reader", "head", "received", "sent", "status")

    def __init__(self, connection: _Connection, head: RequestHead) -> None:
        self._connection, self.head = connection, head
        self._reader = BodyReader(head.length)
        self._patience = connection.deadlines.body
        self._left: int | None = None
        self._chunked = False
        self.status = self.received = self.sent = 0

    @property
    def peer(self) -> str:
        """Who asks, for messages."""
        return self._connection.peer

    @property
    def secure(self) -> bool:
        """Nobody between us can read along."""
        return self._connection.secure

    @property
    def at_eof(self) -> bool:
        """The client is known to have left."""
        return self._connection.transport.at_eof

    # -- the body that comes ------------------------------------------------------------------------

    @property
    def body_done(self) -> bool:
        """All of the request was read."""
        return self._reader.done

    async def receive(self, patience: float | None = None) -> bytes:
        """The next bytes of the request's body; ``b""`` at its end.

        Args:
            patience: Seconds to wait for them, instead of what the deadlines say about bodies.

        Raises:
            ClientLeft: Before the end; also when it sends too slowly, or nothing.
            BadHTTP: No end can be found.
        """
        connection = self._connection
        if self.head.expects and not self.status and not self.received and not connection.kept:
            connection.say(CONTINUE)
        while not self._reader.done:
            data, connection.kept = connection.kept, b""
            if not data:
                await connection.flush()
                if patience is None:
                    begun = anyio.current_time()
                    data = await connection.receive("body of a request", self._patience, _BULK)
                    self._patience -= anyio.current_time() - begun
                else:
                    data = await connection.receive("body of a request", patience, _BULK)
                if not data:
                    raise ClientLeft(self.peer, "the rest of a request")
            body, connection.kept = self._reader.take(data)
            if body:
                before, self.received = self.received, self.received + len(body)
                allowance = connection.deadlines.body
                if allowance < inf and before // (allowance * 1024) != self.received // (allowance * 1024):
                    self._patience = allowance
                return body
        return b""

    async def drain(self, most: float = _DRAIN) -> bool:
        """Read what is left of the body, up to about *most* bytes; was that all?"""
        before = self.received
        while self.received - before <= most:
            if not await self.receive():
                return True
        return False

    # -- the answer -----------------------------------------------------------------------------------

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]] = (), body: bytes = b"") -> None:
        """The whole answer at once. It leaves when nothing more can be answered without waiting."""
        with_length = [*headers, (b"Content-Length", b"%d" % len(body))]
        self._begin(status, with_length)
        if self.head.method != b"HEAD":
            self._connection.say(body)
            self.sent = len(body)
        self._left = 0

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]], length: int | None) -> None:
        """Begin an answer of *length* bytes; None where that is not known. ``send`` them, then ``end``."""
        if length is not None:
            self._begin(status, [*headers, (b"Content-Length", b"%d" % length)])
        elif self.head.old:
            self._connection.leaving = True
            self._begin(status, headers)
        else:
            self._begin(status, [*headers, (b"Transfer-Encoding", b"chunked")])
            self._chunked = True
        self._left = length

    def _begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if self.status:
            raise LocalProtocolError("a request is answered once")
        connection = self._connection
        self.status = status
        last = connection.leaving or not self.head.keep_alive or not self._worth_draining()
        more: list[tuple[bytes, bytes]] = [(b"Date", connection.date()), _SERVER, *headers]
        if last:
            connection.leaving = True
            more.append((b"Connection", b"close"))
        elif self.head.old:
            more.append((b"Connection", b"keep-alive"))
        connection.say(format_response_head(status, more))

    def _worth_draining(self) -> bool:
        """What is left of the request can be read after the answer. A client that waits for ``CONTINUE`` gets none."""
        if self._reader.done:
            return True
        if self.head.expects and not self.received:
            return False
        return self.head.length is None or self._reader.left <= _DRAIN

    async def send(self, data: bytes) -> None:
        """The next bytes of an answer that was started.

        Raises:
            ClientLeft: It left, or was made to, because it does not read.
        """
        if not data or self.head.method == b"HEAD":
            return
        if self._left is not None:
            if len(data) > self._left:
                raise LocalProtocolError("more bytes than the answer was said to have")
            self._left -= len(data)
        self.sent += len(data)
        await self._connection.pour(chunk(data) if self._chunked else data)

    @property
    def sends_files(self) -> bool:
        """``send_file`` may be used for the answer that was started."""
        return not self._chunked and isinstance(self._connection.transport, SendsFiles)

    async def send_file(self, fd: int, offset: int, size: int) -> int:
        """As ``send``, of *size* bytes of the file *fd* from *offset*; how many it had."""
        assert self._left is not None
        sent = await self._connection.pour_file(fd, offset, min(size, self._left))
        self._left -= sent
        self.sent += sent
        return sent

    def end(self) -> None:
        """All was sent."""
        if self._left and self.head.method != b"HEAD":
            raise LocalProtocolError(f"an answer that lacks {self._left} bytes")
        self._left = 0
        if self._chunked and self.head.method != b"HEAD":
            self._connection.say(LAST_CHUNK)

    async def flush(self) -> None:
        """Send what was said so far."""
        await self._connection.flush()

    @property
    def finished(self) -> bool:
        """The answer is whole."""
        return self.status != 0 and self._left == 0


Handle = Callable[[Exchange], Awaitable[None]]
"""Answers one request. Errors of ours that it raises become a status where nothing was answered, else the end."""


class _Connection:
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

    def __init__(self, transport: Transport, deadlines: HTTPDeadlines, date: _Date, secure: bool) -> None:
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

    async def expire(self) -> None:
        """The client's time is up."""
        self.out_of_time = TimedOut(self.peer, self._waiting_for, self.until - self._since)
        self.until = inf
        if not self.busy and self.kept:
            self.transport.send_soon(_TOO_LATE)
        await self.transport.aclose()


_TOO_LATE: Final = format_response_head(408, [(b"Content-Length", b"0"), (b"Connection", b"close")])


class HTTPConnections:
    """All connections of a server.

    Attributes:
        open: How many there are.
        busy: How many of them are being answered.
    """

    def __init__(self, handle: Handle, *, deadlines: HTTPDeadlines = _USUAL, clock: Clock = CLOCK) -> None:
        self._handle, self._deadlines = handle, deadlines
        self._date = _Date(clock)
        self._connections: set[_Connection] = set()
        self._leaving = False
        self._empty = anyio.Event()

    @property
    def open(self) -> int:
        return len(self._connections)

    @property
    def busy(self) -> int:
        return sum(connection.busy for connection in self._connections)

    async def serve(self, transport: Transport, *, secure: bool = False) -> None:
        """Answer one client until it leaves, then close *transport*. What the client does is never raised."""
        connection = _Connection(transport, self._deadlines, self._date, secure)
        connection.leaving = self._leaving
        self._connections.add(connection)
        try:
            await self._serve(connection)
        except BadHTTP as error:
            log.info("%s: %s", connection.peer, error)
            body = f"{error}\n".encode("utf-8", "backslashreplace")
            length = (b"Content-Length", b"%d" % len(body))
            connection.say(format_response_head(error.status, [length, (b"Connection", b"close")]) + body)
            await self._last_words(connection)
        except AnnexError as error:
            log.debug("%s: %s", connection.peer, error)
        except Exception:
            # A defect that one request has found may not end the server for everybody else.
            log.exception("%s: hung up", connection.peer)
        finally:
            self._connections.discard(connection)
            if self._leaving and not self._connections:
                self._empty.set()
            with anyio.CancelScope(shield=True):
                await transport.aclose()

    @staticmethod
    async def _last_words(connection: _Connection) -> None:
        try:
            await connection.flush()
        except ClientLeft as error:
            log.debug("%s", error)

    async def _serve(self, connection: _Connection) -> None:
        first = True
        while (head := await connection.head(first=first)) is not None:
            first = False
            connection.busy = True
            exchange = Exchange(connection, head)
            await self._handle(exchange)
            if not exchange.finished:
                # The length is promised and the bytes are not there: only hanging up says so.
                await self._last_words(connection)
                return
            if not exchange.body_done:
                await connection.flush()
                if (head.expects and not exchange.received) or not await exchange.drain():
                    return
            await connection.trim()
            connection.busy = False
            if connection.leaving:
                await connection.flush()
                return

    async def watch(self) -> None:
        """Hang up on clients whose time is up, until cancelled."""
        while True:
            await anyio.sleep(_LOOK)
            now = anyio.current_time()
            for connection in [one for one in self._connections if one.until <= now]:
                await connection.expire()

    async def leave(self, grace: float) -> bool:
        """Take no more requests: close what is idle, wait *grace* seconds for what is being answered.

        Returns:
            Whether all were answered. What is left is to be cancelled.
        """
        self._leaving = True
        for connection in list(self._connections):
            connection.leaving = True
            if not connection.busy and not connection.kept:
                await connection.transport.aclose()
        if self._connections:
            with anyio.move_on_after(grace):
                await self._empty.wait()
        return not self._connections


class _Date:
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
