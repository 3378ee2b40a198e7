"""With ``min_copies`` set, a slow node costs others nothing. On a clock that only moves when everybody waits."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import anyio
import pytest
import trio.testing

from annexpy.clock import Clock, Deadline
from annexpy.keys.key import Key
from annexpy.remote.base import Download, LockedCopy, Removed, Stored, Upload
from annexpy.remote.cluster import Cluster
from annexpy.remote.memory import MemoryRemote
from annexpy.uuids import UUID

UUIDS = [UUID(f"{letter * 8}-0000-4000-8000-000000000000") for letter in "abc"]
QUICK, SLOW = 100e6, 200e3  # bytes a second
LATENCY = 0.001


class LoopClock:
    def now(self) -> float:
        return anyio.current_time() + 1.7e9


class Wired:
    """A node behind one wire of so many bytes a second, on which everything waits for what is before it."""

    def __init__(self, uuid: UUID, rate: float, clock: Clock) -> None:
        self.remote, self.rate = MemoryRemote(uuid, name=f"node {uuid[0]}", clock=clock), rate
        self._wire = anyio.Lock()

    @property
    def uuid(self) -> UUID:
        return self.remote.uuid

    @property
    def name(self) -> str:
        return self.remote.name

    @property
    def cost(self) -> int:
        return 100

    async def over(self, size: int = 100) -> None:
        async with self._wire:
            await anyio.sleep(size / self.rate)
        await anyio.sleep(LATENCY)

    async def check_present(self, key: Key) -> bool:
        await self.over()
        return await self.remote.check_present(key)

    @asynccontextmanager
    async def lock_content(self, key: Key) -> AsyncIterator[LockedCopy]:
        await self.over()
        async with self.remote.lock_content(key) as lock:
            yield lock

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        await self.over()
        return await self.remote.remove_content(key, deadline=deadline)

    @asynccontextmanager
    async def put(self, key: Key, *, associated_file: str = "") -> AsyncIterator[Upload]:
        await self.over()
        async with self.remote.put(key, associated_file=associated_file) as upload:
            yield WiredUpload(self, upload)

    @asynccontextmanager
    async def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AsyncIterator[Download]:
        await self.over()
        async with self.remote.get(key, offset=offset, end=end, associated_file=associated_file) as download:
            yield WiredDownload(self, download)

    async def aclose(self) -> None:
        await self.remote.aclose()


class WiredUpload:
    def __init__(self, wired: Wired, upload: Upload) -> None:
        self._wired, self._upload = wired, upload
        self.already, self.offset = upload.already, upload.offset

    async def start(self, length: int) -> None:
        await self._upload.start(length)

    async def write(self, data: bytes) -> None:
        await self._wired.over(len(data))
        await self._upload.write(data)

    async def finish(self, valid: bool = True) -> Stored:
        await self._wired.over()
        return await self._upload.finish(valid)

    async def data_present(self) -> Stored:
        return await self._upload.data_present()


class WiredDownload:
    def __init__(self, wired: Wired, download: Download) -> None:
        self._wired, self._download = wired, download
        self.length, self.source = download.length, download.source

    @property
    def valid(self) -> bool:
        return self._download.valid

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._download:
            await self._wired.over(len(chunk))
            yield chunk


CONTENTS = [Random(number).randbytes(50_000) for number in range(60)]
KEYS = [Key(b"SHA256", hashlib.sha256(content).hexdigest().encode(), len(content)) for content in CONTENTS]


def seconds_of(rates: list[float], *, jobs: int) -> dict[str, float]:
    """How long the puts, the checks, and the gets of all keys take through a cluster of such nodes."""
    took: dict[str, float] = {}

    async def all_of(name: str, one: Callable[[Cluster, int], Awaitable[None]], cluster: Cluster) -> None:
        begun, turn = anyio.current_time(), iter(range(len(KEYS)))

        async def job() -> None:
            for number in turn:
                await one(cluster, number)

        async with anyio.create_task_group() as group:
            for _ in range(jobs):
                group.start_soon(job)
        took[name] = anyio.current_time() - begun

    async def put(cluster: Cluster, number: int) -> None:
        async with cluster.put(KEYS[number]) as upload:
            await upload.start(len(CONTENTS[number]))
            await upload.write(CONTENTS[number])
            stored = await upload.finish()
            assert len(stored.copies) >= 2

    async def get(cluster: Cluster, number: int) -> None:
        async with cluster.get(KEYS[number]) as download:
            assert b"".join([chunk async for chunk in download]) == CONTENTS[number]

    async def check(cluster: Cluster, number: int) -> None:
        assert await cluster.check_present(KEYS[number])

    async def work() -> None:
        clock = LoopClock()
        nodes = [Wired(uuid, rate, clock) for uuid, rate in zip(UUIDS, rates, strict=True)]
        async with Cluster(nodes, clock=clock, min_copies=2) as cluster:
            await all_of("put", put, cluster)
            await all_of("check", check, cluster)
            await all_of("get", get, cluster)
            await anyio.sleep(600)
            for node in nodes:
                assert len(node.remote.objects) == len(KEYS), "in the end all have everything"

    anyio.run(work, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})
    return took


@pytest.mark.parametrize("jobs", [1, 4])
def test_it_costs_the_others_nothing(jobs: int) -> None:
    quick = seconds_of([QUICK] * 3, jobs=jobs)

    throttled = seconds_of([QUICK, QUICK, SLOW], jobs=jobs)

    print({name: (round(quick[name], 3), round(throttled[name], 3)) for name in quick})
    for name, seconds in throttled.items():
        assert seconds <= 1.1 * quick[name] + 1.0, name  # it takes a moment to find out
