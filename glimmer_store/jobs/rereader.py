"""The worker's end of the process that reads copies back (``rereading``)."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from glimmer_store.attest import Verdict

__all__ = ["Found", "Rereader", "rereader"]

_MOST = 64 << 20
_SECONDS_TO_END = 5.0


@dataclass(frozen=True, slots=True)
class Found:
    """What was read back of one key; *verdict* None: it could not be."""

    verdict: Verdict | None
    why: str
    size: int = 0
    seconds: float = 0.0
    method: str = ""


class Rereader:
    """Another process, with connections of its own. One question at a time; it is started anew when it died."""

    def __init__(self, job: Path, worker: str) -> None:
        self._argv = [sys.executable, "-m", "glimmer_store.jobs.rereading", str(job), worker]
        self._process: Process | None = None
        self._answers: BufferedByteReceiveStream | None = None
        self._turn = anyio.Lock()

    async def start(self) -> None:
        """Start it now, so that it is ready when the first copies are."""
        async with self._turn:
            await self._started()

    async def _started(self) -> None:
        if self._process is None:
            self._process = await anyio.open_process(self._argv, stderr=None)
            assert self._process.stdout is not None
            self._answers = BufferedByteReceiveStream(self._process.stdout)

    async def read(self, shard: str, dest: str, keys: Sequence[str]) -> list[Found]:
        """Read the stored contents of *keys*, and have what is found signed and written down."""
        async with self._turn:
            try:
                await self._started()
                assert self._process is not None
                assert self._process.stdin is not None
                assert self._answers is not None
                question = json.dumps({"shard": shard, "dest": dest, "keys": list(keys)}).encode()
                await self._process.stdin.send(question + b"\n")
                answer = json.loads(await self._answers.receive_until(b"\n", _MOST))
                return [Found(None if said is None else Verdict(said), *rest) for said, *rest in answer]
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, anyio.IncompleteRead) as e:
                await self.stop()
                return [Found(None, f"the process that reads back ended: {type(e).__name__}") for _ in keys]

    async def stop(self) -> None:
        """End it, and wait until it has."""
        process, self._process = self._process, None
        if process is None:
            return
        with anyio.CancelScope(shield=True):
            if process.stdin is not None:
                await process.stdin.aclose()
            with anyio.move_on_after(_SECONDS_TO_END):
                await process.wait()
            if process.returncode is None:
                process.kill()
            await process.aclose()


@asynccontextmanager
async def rereader(job: Path, worker: str) -> AsyncIterator[Rereader]:
    """One for a worker."""
    found = Rereader(job, worker)
    try:
        yield found
    finally:
        await found.stop()
