"""One HTTP request and its answer, as who answers it sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import Final, TypeVar

import anyio

from annexpy.errors import LocalProtocolError
from annexpy.transport.base import SendsFiles
from annexpy.transport.http_body import LAST_CHUNK, BodyReader, chunk
from annexpy.transport.http_head import CONTINUE, RequestHead, format_response_head
from annexpy.transport.http_wire import ClientLeft, ServerWire

__all__ = ["Exchange"]

T = TypeVar("T")

_BULK: Final = 512 * 1024  # 16 contents that come at once hold one each
_DRAIN: Final = 16 * 1024 * 1024  # this much of a body that nobody wanted is read, so that its sender hears why
_SERVER: Final = (b"Server", b"annexpy")
"""By this our clients know that they may send requests ahead of the answers."""


class Exchange:
    """One request and its answer. Given to the handler, and of no use after it.

    Attributes:
        head: What was asked.
        status: Of the answer; 0 while there is none.
        received, sent: Bytes of the two bodies so far.
    """

    __slots__ = (
        "_behind",
        "_chunked",
        "_connection",
        "_left",
        "_patience",
        "_reader",
        "head",
        "received",
        "sent",
        "status",
    )

    def __init__(self, connection: ServerWire, head: RequestHead) -> None:
        self._connection, self.head = connection, head
        self._reader = BodyReader(head.length)
        self._patience = connection.deadlines.body
        self._left: int | None = None
        self._chunked = False
        self._behind: Exchange | None = None
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

    def behind(self, wanted: Callable[[RequestHead], T | None]) -> tuple[Exchange, T] | None:
        """The client's next request, with what *wanted* says of it: if that is anything, and all of it is here already.

        It has no body, and its headers are those of this one, which has none either. It has to be answered after this
        one, and with it: the connection goes on only when both were.
        """
        connection, head = self._connection, self.head
        if head.length != 0 or not head.keep_alive or connection.leaving:
            return None
        found = connection.ahead()
        if found is None or found[0].headers is not head.headers:
            return None
        said = wanted(found[0])
        if said is None:
            return None
        connection.kept = found[1]
        self._behind = Exchange(connection, found[0])
        return self._behind, said

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
        last = last and self._behind is None
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
        """The answer is whole, and those to the requests that were taken with it."""
        one: Exchange | None = self
        while one is not None and one.status != 0 and one._left == 0:
            one = one._behind
        return one is None
