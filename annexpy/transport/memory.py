"""A connection inside one event loop, and its variants that tests and the simulator need.

It behaves like a socket pair: a bounded buffer each way, bytes sent before a close still arrive,
sending to a closed peer fails. No byte ever sits in a queue that a test cannot see.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio
import anyio.lowlevel

from annexpy.errors import ConnectionLost
from annexpy.transport.base import CHUNK, Transport

__all__ = ["Cut", "MemoryTransport", "memory_pair"]


class _Way:
    """One direction: what was sent and not yet received."""

    __slots__ = ("capacity", "changed", "chunks", "ended", "refused", "size")

    def __init__(self, capacity: int) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.capacity = capacity
        self.ended = False  # the sender closed
        self.refused = False  # the receiver closed
        self.changed: list[anyio.Event] = []

    def wake(self) -> None:
        woken, self.changed = self.changed, []
        for event in woken:
            event.set()

    async def change(self) -> None:
        event = anyio.Event()
        self.changed.append(event)
        await event.wait()


class MemoryTransport:
    """One end of ``memory_pair()``."""

    def __init__(
        self, inward: _Way, outward: _Way, peer: str, split: Callable[[], int] | None = None, lockstep: bool = False
    ) -> None:
        self._in, self._out = inward, outward
        self.peer = peer
        self._split, self._lockstep = split, lockstep
        self.complaint = ""
        self._closed = False
        self._unsendable = ""

    @property
    def at_eof(self) -> bool:
        return self._closed or self._in.ended or self._out.refused

    @property
    def has_input(self) -> bool:
        return bool(self._in.chunks) or self._in.ended or self._closed

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        await anyio.lowlevel.checkpoint()
        way = self._in
        if self._split is not None:
            max_bytes = max(1, min(max_bytes, self._split()))
        while not way.chunks:
            if self._closed:
                raise ConnectionLost(self.peer, "data", "closed on this side")
            if way.ended:
                return b""
            await way.change()
        chunk = way.chunks.popleft()
        if len(chunk) > max_bytes:
            way.chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        way.size -= len(chunk)
        way.wake()
        return chunk

    async def send(self, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        way = self._out
        rest = memoryview(data)
        while True:
            if self._closed or way.refused or self._unsendable:
                reason = "closed on this side" if self._closed else self._unsendable
                raise ConnectionLost(self.peer, "the peer to read", reason)
            if rest:
                room = way.capacity - way.size
                if room > 0:
                    way.chunks.append(bytes(rest[:room]))
                    way.size += min(room, len(rest))
                    rest = rest[room:]
                    way.wake()
                    continue
            elif not (self._lockstep and way.size):
                return
            self._unsendable = "cancelled while sending"
            await way.change()
            self._unsendable = ""

    def send_soon(self, data: bytes) -> None:
        way = self._out
        if not (self._closed or way.refused or self._unsendable):
            way.chunks.append(data)
            way.size += len(data)
            way.wake()

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._out.ended = True
            self._in.refused = True
            self._in.chunks.clear()
            self._in.size = 0
            self._in.wake()
            self._out.wake()


def memory_pair(
    *,
    capacity: int = CHUNK,
    split: int | Callable[[], int] | None = None,
    lockstep: bool = False,
    names: tuple[str, str] = ("memory client", "memory server"),
) -> tuple[MemoryTransport, MemoryTransport]:
    """Two connected transports: what a *client* and a *server* would hold.

    Args:
        capacity: Bytes each way that may be under way before ``send`` waits.
        split: No ``receive`` gives more than this many bytes; a callable is asked each time.
        lockstep: ``send`` returns only when the other side has received everything, so that
            at any moment at most one side is ahead. Two sides that both speak first wait for ever.
        names: How the ends call each other in messages: the client's name, the server's name.
    """
    pieces = (lambda size=split: size) if isinstance(split, int) else split
    there, back = _Way(capacity), _Way(capacity)
    return (
        MemoryTransport(back, there, names[1], pieces, lockstep),
        MemoryTransport(there, back, names[0], pieces, lockstep),
    )


class Cut:
    """A transport that is lost after a number of bytes, as if a cable were cut.

    The peer sees the end of the stream right after the last byte that got through. Here ``send``
    raises ConnectionLost; ``receive`` ends the stream, or raises too when *reset* is set.
    """

    def __init__(
        self, transport: Transport, *, sent: int | None = None, received: int | None = None, reset: bool = False
    ) -> None:
        self._transport = transport
        self._sent, self._received, self._reset = sent, received, reset
        self._lost = False

    @property
    def peer(self) -> str:
        return self._transport.peer

    @property
    def at_eof(self) -> bool:
        return self._lost or self._transport.at_eof

    @property
    def has_input(self) -> bool:
        return self._lost or self._transport.has_input

    @property
    def complaint(self) -> str:
        return self._transport.complaint

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        if self._received == 0:
            await self._lose()
        if self._lost:
            if self._reset:
                raise ConnectionLost(self.peer, "data", "connection reset")
            return b""
        data = await self._transport.receive(max_bytes if self._received is None else min(max_bytes, self._received))
        if self._received is not None:
            self._received -= len(data)
        return data

    def send_soon(self, data: bytes) -> None:
        if self._sent is None:
            self._transport.send_soon(data)
        elif not self._lost:
            self._transport.send_soon(data[: self._sent])
            self._sent = max(0, self._sent - len(data))

    async def send(self, data: bytes) -> None:
        if self._sent is not None and len(data) >= self._sent:
            data, self._sent = data[: self._sent], 0
            if data and not self._lost:
                await self._transport.send(data)
            await self._lose()
        if self._lost:
            raise ConnectionLost(self.peer, "the peer to read", "connection reset")
        if self._sent is not None:
            self._sent -= len(data)
        await self._transport.send(data)

    async def _lose(self) -> None:
        self._lost = True
        await self._transport.aclose()

    async def aclose(self) -> None:
        await self._transport.aclose()
