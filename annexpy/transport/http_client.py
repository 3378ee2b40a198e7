"""The client's end of an HTTP/1.1 connection: requests, ahead of the answers if need be, and their answers in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from anyio import CancelScope, current_time

from annexpy.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError, TimedOut
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.http_body import LAST_CHUNK, BodyReader, chunk
from annexpy.transport.http_head import Headers, ResponseHead, ResponseReader, format_request_head, read_response_head

__all__ = ["HTTPConnection", "Response"]

_TOGETHER: Final = 64 * 1024
_BULK: Final = 1024 * 1024
_DRAIN: Final = 64 * 1024


class HTTPConnection:
    """A connection to a server. Owned by one task at a time.

    A request goes out with ``ask``, and where it has a large body ``send`` and ``end`` follow; ``response`` is the
    answer to the oldest request that was not answered. Anything that fails, or is cancelled, leaves a connection
    that is not ``usable``: close it.

    Attributes:
        used: At least one answer has come.
        delivered: False while, or since, something went out only in part or not at all.
    """

    __slots__ = (
        "_asked",
        "_authority",
        "_broken",
        "_chunked",
        "_deadline",
        "_heads",
        "_kept",
        "_left",
        "_response",
        "_transport",
        "_unsent",
        "delivered",
        "used",
    )

    def __init__(self, transport: Transport, authority: bytes, *, deadline: float = 60.0) -> None:
        """Take over *transport*.

        Args:
            transport: Connected, and TLS where that is wanted.
            authority: For the header ``Host``.
            deadline: Seconds without a byte after which an answer or a body counts as stuck.
        """
        self._transport, self._authority, self._deadline = transport, authority, deadline
        self._asked: deque[bytes] = deque()
        self._unsent: list[bytes] = []
        self._kept = b""
        self._heads = ResponseReader()
        self._left: int | None = 0  # bytes of the request's body that are owed; None while it goes in chunks
        self._chunked = False
        self._response: Response | None = None
        self._broken = False
        self.used = False
        self.delivered = True

    @property
    def peer(self) -> str:
        """Who is at the other end, for messages."""
        return self._transport.peer

    @property
    def usable(self) -> bool:
        """The next request may be sent: nothing is owed either way, and the server has neither left nor said more."""
        return (
            not self._broken
            and not self._asked
            and self._left == 0
            and (self._response is None or self._response.done)
            and not self._kept
            and not self._transport.has_input
            and not self._transport.at_eof
        )

    @property
    def closing(self) -> bool:
        """Nothing more can be asked: the server has said so, or something went wrong."""
        return self._broken

    @property
    def has_input(self) -> bool:
        """The server has said something that was not looked at, or has left."""
        return bool(self._kept) or self._transport.has_input or self._transport.at_eof

    @property
    def outstanding(self) -> int:
        """Requests that were not answered."""
        return len(self._asked)

    # -- asking ---------------------------------------------------------------------------------------

    def ask(
        self,
        method: bytes,
        target: bytes,
        headers: Iterable[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        *,
        length: int | None = None,
        chunked: bool = False,
    ) -> None:
        """Say a request; it goes out with ``flush``, or when an answer is waited for.

        Args:
            method, target, headers: Of the head. ``Host`` and the framing of the body are added.
            body: All of a small body.
            length: Bytes that ``send`` will bring instead.
            chunked: ``send`` will bring as many as it likes, until ``end``.

        Raises:
            LocalProtocolError: The body before is not over, or a word would not arrive as it is.
        """
        if self._left != 0:
            raise LocalProtocolError("the body of the last request is not over")
        more = [(b"Host", self._authority), *headers]
        if chunked:
            more.append((b"Transfer-Encoding", b"chunked"))
        elif length is not None or body or method not in (b"GET", b"HEAD"):
            more.append((b"Content-Length", b"%d" % (len(body) if length is None else length)))
        self._unsent.append(format_request_head(method, target, more) + body)
        self._asked.append(method)
        self._chunked = chunked
        self._left = None if chunked else length or 0

    async def send(self, data: bytes) -> None:
        """The next bytes of the body of the request that was said last.

        Raises:
            ConnectionLost, TimedOut: The server left, or does not read. What it said before may still be there.
        """
        if not data:
            return
        if self._left is not None:
            if len(data) > self._left:
                raise LocalProtocolError("more bytes than the request was said to have")
            self._left -= len(data)
        elif not self._chunked:
            raise LocalProtocolError("a request without a body")
        piece = chunk(data) if self._chunked else data
        if len(piece) > _TOGETHER:
            await self.flush()
            await self._send(piece)
        else:
            self._unsent.append(piece)
            await self.flush()

    def end(self, data: bytes = b"") -> None:
        """The body is over, with *data* where it goes in chunks; they leave when the answer is waited for."""
        if data:
            if not self._chunked:
                raise LocalProtocolError("the end of a body whose length was said comes by itself")
            self._unsent.append(chunk(data))
        if self._chunked:
            self._unsent.append(LAST_CHUNK)
            self._chunked, self._left = False, 0
        elif self._left:
            raise LocalProtocolError(f"a request that lacks {self._left} bytes")

    async def flush(self) -> None:
        """Send what was said."""
        if self._unsent:
            data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
            self._unsent.clear()
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        self._broken, self.delivered = True, False
        # In pieces, because a deadline is about bytes that do not move, not about how fast they do.
        view = memoryview(data)
        for at in range(0, len(data), _BULK):
            piece = data if len(data) <= _BULK else bytes(view[at : at + _BULK])
            with CancelScope(deadline=current_time() + self._deadline) as scope:
                await self._transport.send(piece)
            if scope.cancelled_caught:
                raise TimedOut(self.peer, "room for a request", self._deadline)
        self._broken, self.delivered = False, True

    # -- the answers ------------------------------------------------------------------------------------

    async def response(self, deadline: float | None = None) -> Response:
        """The answer to the oldest request; the body of the one before must have been read.

        Args:
            deadline: Seconds to wait for it, in place of the usual ones.

        Raises:
            ConnectionLost: The server left; outcome unknown.
            TimedOut: Nothing came; outcome unknown.
            BadHTTP: That is no answer.
        """
        if not self._asked or (self._response is not None and not self._response.done):
            raise LocalProtocolError("nothing was asked, or the last answer was not read")
        self._broken = True
        method, seconds = self._asked[0], self._deadline if deadline is None else deadline
        while True:
            found = self._heads.read(self._kept, method) if self._kept else None
            if found is None:
                data = await self._next("answer", seconds)
                if not data:
                    raise ConnectionLost(self.peer, "an answer", self._transport.complaint)
                self._kept += data
                continue
            head, self._kept = found
            if head.status == 101:
                raise RemoteProtocolError(f"{self.peer}: another protocol than the one that was asked for")
            if head.status >= 200:
                break
        self._asked.popleft()
        self.used = True
        self._broken = not head.keep_alive
        self._response = Response(self, head)
        return self._response

    async def _next(self, what: str, seconds: float) -> bytes:
        """Send what was said, unless a body is to follow, and wait for the next bytes."""
        transport = self._transport
        if self._unsent and self._left == 0:
            data = self._unsent[0] if len(self._unsent) == 1 else b"".join(self._unsent)
            self._unsent.clear()
            if len(data) > _TOGETHER:
                await self._send(data)
                self._broken = True
            else:
                with CancelScope(deadline=current_time() + seconds):
                    self.delivered = False
                    await transport.send(data)
                    self.delivered = True
                    return await transport.receive(CHUNK)
                raise TimedOut(self.peer, what, seconds)
        return await self._receive(what, seconds, CHUNK)

    async def tunnel(self) -> int:
        """Read the head that answers a CONNECT; its status. After 2xx the transport is somebody else's."""
        await self.flush()
        while (found := read_response_head(self._kept, b"HEAD")) is None:
            data = await self._receive("answer to CONNECT", self._deadline, CHUNK)
            if not data:
                raise ConnectionLost(self.peer, "an answer to CONNECT", self._transport.complaint)
            self._kept += data
        self._broken = True
        head, rest = found
        if rest and 200 <= head.status < 300:
            raise RemoteProtocolError(f"{self.peer}: it speaks before it was asked")
        return head.status

    async def _receive(self, what: str, seconds: float, most: int) -> bytes:
        transport = self._transport
        if transport.has_input:
            return await transport.receive(most)
        with CancelScope(deadline=current_time() + seconds) as scope:
            return await transport.receive(most)
        assert scope.cancelled_caught
        raise TimedOut(self.peer, what, seconds)

    async def more(self, deadline: float | None = None) -> bytes:
        """For ``Response``: the next bytes from the wire; ``b""`` at its end."""
        if self._kept:
            data, self._kept = self._kept, b""
            return data
        return await self._receive("body of an answer", self._deadline if deadline is None else deadline, _BULK)

    def give_back(self, rest: bytes) -> None:
        """For ``Response``: what belongs to the next answer."""
        self._kept = rest

    async def aclose(self) -> None:
        """Close it now. Idempotent."""
        self._broken = True
        await self._transport.aclose()


class Response:
    """One answer.

    Attributes:
        status, headers: Of its head; names of headers in lower case.
        length: Bytes of its body, where its head says so.
    """

    __slots__ = ("_connection", "_reader", "headers", "length", "status")

    def __init__(self, connection: HTTPConnection, head: ResponseHead) -> None:
        self._connection = connection
        self.status: int = head.status
        self.headers: Headers = head.headers
        self.length: int | None = head.length
        self._reader = BodyReader(head.length, to_the_end=head.to_the_end)

    @property
    def done(self) -> bool:
        """All of it was read."""
        return self._reader.done

    async def receive(self) -> bytes:
        """The next bytes of the body; ``b""`` at its end.

        Raises:
            ConnectionLost: The server left before the end. What came before it is good.
            TimedOut, BadHTTP: As for ``HTTPConnection.response``.
        """
        reader, connection = self._reader, self._connection
        while not reader.done:
            data = await connection.more()
            if not data:
                if reader.end():
                    break
                raise ConnectionLost(connection.peer, "the rest of an answer")
            body, rest = reader.take(data)
            connection.give_back(rest)
            if body:
                return body
        return b""

    async def body(self, most: int = _DRAIN) -> bytes:
        """All of a small body.

        Raises:
            RemoteProtocolError: More than *most* bytes.
        """
        pieces: list[bytes] = []
        size = 0
        while piece := await self.receive():
            size += len(piece)
            if size > most:
                raise RemoteProtocolError(f"{self._connection.peer}: an answer of more than {most} bytes")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
