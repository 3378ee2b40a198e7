"""Remotes that fail on purpose. Kept out of the product: what a test needs to break, it wraps."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf

import anyio
from anyio.lowlevel import checkpoint

from annexpy.clock import Deadline
from annexpy.errors import AnnexError, ConnectionLost
from annexpy.keys.key import Key
from annexpy.remote.base import Download, LockedCopy, Remote, Removed, Stored, Upload
from annexpy.uuids import UUID


def lost() -> AnnexError:
    return ConnectionLost("peer", "an answer")


class Cancelled:
    """Cancels ``scope`` at the *stop*-th step of all that are given ``watch``; ``over``: there are not so many."""

    def __init__(self, stop: int) -> None:
        self.scope, self._left = anyio.CancelScope(), stop

    def watch(self, _: str) -> None:
        self._left -= 1
        if not self._left:
            self.scope.cancel()

    @property
    def over(self) -> bool:
        return self._left > 0


class Faulty:
    """*remote*, except that something goes wrong at one place.

    Args:
        at: "present", "remove", "put" (entering), "start", "write", "finish", "finished" (the answer
            is lost), "leave"; "get" (entering), "read".
        error: Makes what is raised there; None stalls for ever instead.
        after: For "write" and "read", the byte of this transfer at which it goes wrong.
        times: How often.
        delay: Seconds that each step takes.
        piece: Bytes of a chunk that a get gives at most.
        watch: Called at every step, before it.
    """

    def __init__(
        self,
        remote: Remote,
        at: str = "",
        error: Callable[[], AnnexError] | None = lost,
        *,
        after: int = 0,
        times: float = inf,
        delay: float = 0.0,
        piece: int = 1 << 30,
        watch: Callable[[str], None] | None = None,
    ) -> None:
        self.remote = remote
        self.at, self.error, self.after, self.times = at, error, after, times
        self.delay, self.piece, self.watch = delay, piece, watch
        self.calls: Counter[str] = Counter()
        self.inside = 0

    @property
    def uuid(self) -> UUID:
        return self.remote.uuid

    @property
    def name(self) -> str:
        return self.remote.name

    @property
    def cost(self) -> int:
        return self.remote.cost

    def wrong(self, step: str) -> bool:
        return step == self.at and self.times > 0

    async def step(self, step: str) -> None:
        self.calls[step] += 1
        if self.watch is not None:
            self.watch(step)
            await checkpoint()
        if self.delay:
            await anyio.sleep(self.delay)
        if self.wrong(step) and step not in ("write", "read"):
            await self.go_wrong()

    async def go_wrong(self) -> None:
        self.times -= 1
        if self.error is None:
            await anyio.sleep(inf)
        else:
            raise self.error()

    async def check_present(self, key: Key) -> bool:
        await self.step("present")
        return await self.remote.check_present(key)

    @asynccontextmanager
    async def lock_content(self, key: Key) -> AsyncIterator[LockedCopy]:
        async with self.remote.lock_content(key) as lock:
            yield lock

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        await self.step("remove")
        return await self.remote.remove_content(key, deadline=deadline)

    @asynccontextmanager
    async def put(self, key: Key, *, associated_file: str = "") -> AsyncIterator[Upload]:
        await self.step("put")
        async with self.remote.put(key, associated_file=associated_file) as upload:
            self.inside += 1
            try:
                yield FaultyUpload(self, upload)
                await self.step("leave")
            finally:
                self.inside -= 1

    @asynccontextmanager
    async def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AsyncIterator[Download]:
        await self.step("get")
        async with self.remote.get(key, offset=offset, end=end, associated_file=associated_file) as download:
            self.inside += 1
            try:
                yield FaultyDownload(self, download)
            finally:
                self.inside -= 1

    async def aclose(self) -> None:
        self.calls["aclose"] += 1
        await self.remote.aclose()


class FaultyUpload:
    def __init__(self, faulty: Faulty, upload: Upload) -> None:
        self.faulty, self.upload, self.written = faulty, upload, 0

    @property
    def already(self) -> frozenset[UUID] | None:
        return self.upload.already

    @property
    def offset(self) -> int:
        return self.upload.offset

    async def start(self, length: int) -> None:
        await self.faulty.step("start")
        await self.upload.start(length)

    async def write(self, data: bytes) -> None:
        await self.faulty.step("write")
        room = self.faulty.after - self.written
        if self.faulty.wrong("write") and len(data) >= room:
            await self.upload.write(data[:room])
            await self.faulty.go_wrong()
        self.written += len(data)
        await self.upload.write(data)

    async def finish(self, valid: bool = True) -> Stored:
        await self.faulty.step("finish")
        stored = await self.upload.finish(valid)
        await self.faulty.step("finished")
        return stored

    async def data_present(self) -> Stored:
        await self.faulty.step("data-present")
        return await self.upload.data_present()


class FaultyDownload:
    def __init__(self, faulty: Faulty, download: Download) -> None:
        self.faulty, self.download = faulty, download

    @property
    def length(self) -> int:
        return self.download.length

    @property
    def source(self) -> UUID:
        return self.download.source

    @property
    def valid(self) -> bool:
        return self.download.valid

    async def __aiter__(self) -> AsyncIterator[bytes]:
        faulty, read = self.faulty, 0
        async for chunk in self.download:
            for start in range(0, len(chunk), faulty.piece):
                piece = chunk[start : start + faulty.piece]
                await faulty.step("read")
                if faulty.wrong("read") and read + len(piece) > faulty.after:
                    if faulty.after > read:
                        yield piece[: faulty.after - read]
                    await faulty.go_wrong()
                read += len(piece)
                yield piece
        if faulty.wrong("read") and read >= faulty.after:
            await faulty.go_wrong()


class LoopClock:
    """The clock of the event loop, so that a virtual one moves everything."""

    def now(self) -> float:
        return anyio.current_time()

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1.7e9 + anyio.current_time()
