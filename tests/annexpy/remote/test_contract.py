"""The contract of ``remote_contract`` for the remotes that need nothing but this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from remote_contract import A, HandClock, RemoteContract

from annexpy.remote.base import Remote
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.p2p import P2PRemote
from annexpy.server.serve import serve
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.memory import memory_pair
from annexpy.transport.sockets import DialUnix, listen_unix


class TestMemory(RemoteContract):
    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        yield MemoryRemote(A, clock=clock)


@asynccontextmanager
async def over_a_wire(
    shown: Remote,
    clock: HandClock,
    *,
    version: int = 4,
    split: int | None = None,
    capacity: int = CHUNK,
    wires: int = 4,
) -> AsyncIterator[P2PRemote]:
    """*shown*, behind ``serve()`` and seen through a ``P2PRemote``."""
    async with anyio.create_task_group() as tasks:

        async def dial() -> Transport:
            client, server = memory_pair(split=split, capacity=capacity)
            tasks.start_soon(lambda: serve(server, shown, clock=clock, max_version=version))
            return client

        remote = P2PRemote(dial, uuid=shown.uuid, name="far", clock=clock, connections=wires, deadline=20.0)
        yield remote
        await remote.aclose()
        tasks.cancel_scope.cancel()


class TestP2P(RemoteContract):
    """The two halves joined: whatever is served is the same Remote on the other side."""

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with over_a_wire(MemoryRemote(A, clock=clock), clock) as remote:
            yield remote


class TestP2PInSmallPieces(RemoteContract):
    patient_cancel = 25

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with over_a_wire(MemoryRemote(A, clock=clock), clock, split=997, capacity=5000) as remote:
            yield remote


class TestP2POneWire(RemoteContract):
    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with over_a_wire(MemoryRemote(A, clock=clock), clock, wires=1) as remote:
            yield remote


class TestP2PVersion0(RemoteContract):
    version = 0
    deadlines = False

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with over_a_wire(MemoryRemote(A, clock=clock), clock, version=self.version) as remote:
            yield remote


class TestP2PVersion1(TestP2PVersion0):
    version = 1


class TestP2PVersion2(TestP2PVersion0):
    version = 2


class TestP2PVersion3(TestP2PVersion0):
    version = 3
    deadlines = True


class TestP2PTwice(RemoteContract):
    """A proxy: a served P2PRemote."""

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        async with over_a_wire(MemoryRemote(A, clock=clock), clock) as near, over_a_wire(near, clock) as far:
            yield far


class TestP2POverUnixSockets(RemoteContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path) -> None:
        self.path = str(tmp_path / "annex")

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        shown = MemoryRemote(A, clock=clock)
        async with await listen_unix(self.path) as listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, lambda transport: serve(transport, shown, clock=clock))
            remote = P2PRemote(DialUnix(self.path), uuid=A, clock=clock)
            yield remote
            await remote.aclose()
            tasks.cancel_scope.cancel()
