"""A server of ours on one end of a memory wire, and on the other end somebody who sends bytes by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import anyio.lowlevel
import pytest

from annexpy.errors import AnnexError
from annexpy.remote.base import Remote
from annexpy.server.serve import serve
from annexpy.transport.memory import MemoryTransport, memory_pair


class FakeClock:
    """Stands still until it is told."""

    def __init__(self, now: float = 1386.5) -> None:
        self.time = now

    def now(self) -> float:
        return self.time

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1_700_000_000.0 + self.time


class Peer:
    """The far side of a server: sends bytes, and sees what came back once the server waits for more."""

    def __init__(self, wire: MemoryTransport, server: MemoryTransport) -> None:
        self.wire, self._server = wire, server
        self.ended: AnnexError | str | None = "not yet"
        self.writes: list[bytes] = []

    async def say(self, data: bytes) -> bytes:
        """Send *data* in one piece; everything that the server says to it."""
        await self.wire.send(data)
        return await self.hear()

    async def hear(self) -> bytes:
        said = b""
        while True:
            waiting = self.ended != "not yet" or (self._server._in.changed and not self._server.has_input)
            if self.wire.has_input:
                data = await self.wire.receive()
                if not data:
                    return said + b"<EOF>"
                said += data
            elif waiting:
                return said
            else:
                await anyio.lowlevel.checkpoint()

    async def leave(self) -> bytes:
        """Half of a hang-up: nothing more is sent, but the answers can still be read."""
        self.wire._out.ended = True
        self.wire._out.wake()
        return await self.hear()


Serving = Callable[..., AbstractAsyncContextManager[Peer]]


@pytest.fixture
def serving() -> Serving:
    @asynccontextmanager
    async def start(
        remote: Remote, *, hello: bytes = b"VERSION 4\n", split: int | None = None, **options
    ) -> AsyncIterator[Peer]:
        ours, theirs = memory_pair(split=split, capacity=1 << 20)
        peer = Peer(ours, theirs)
        send = theirs.send

        async def recorded(data: bytes) -> None:
            peer.writes.append(data)
            await send(data)

        theirs.send = recorded  # type: ignore[method-assign]

        async def run() -> None:
            peer.ended = await serve(theirs, remote, **options)

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await peer.hear()
            if hello:
                await peer.say(hello)
            peer.writes.clear()
            yield peer
            await ours.aclose()

    return start


@pytest.fixture
def clock_of() -> type[FakeClock]:
    return FakeClock
