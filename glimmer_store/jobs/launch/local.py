"""Workers as processes on this machine: the launcher that is used unless another one is named."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import anyio
from anyio.abc import Process

from glimmer_store.jobs.launch.base import Launched, worker_argv, written

__all__ = ["LocalLauncher"]

_IN_VAIN = 3
"""How often a worker may die in a row while nothing is written."""


class LocalLauncher:
    """``Launcher`` with *workers* processes, each of which claims shards until none is left."""

    def __init__(self, workers: int) -> None:
        self._workers = max(1, workers)

    async def run(self, job: Path, shards: Sequence[str]) -> list[Launched]:
        said: list[Launched] = []

        async def one() -> None:
            said.extend(await _worker(job))

        async with anyio.create_task_group() as group:
            for _ in range(min(self._workers, len(shards))):
                group.start_soon(one)
        return said


async def _worker(job: Path) -> list[Launched]:
    """One worker; another one in its place when it dies, as long as the job gets on."""
    said: list[Launched] = []
    in_vain, before = 0, written(job)
    while in_vain < _IN_VAIN:
        process = await anyio.open_process(worker_argv(job, "--json"), stdin=None, stderr=None)
        try:
            assert process.stdout is not None
            output = b"".join([chunk async for chunk in process.stdout])
            status = await process.wait()
        finally:
            await _end(process)
        if status == 0:
            said.append(json.loads(output.splitlines()[-1]))
            break
        said.append({"lost": f"a worker ended with {status}"})
        now = written(job)
        in_vain = in_vain + 1 if now == before else 0
        before = now
    return said


async def _end(process: Process) -> None:
    """Also when this run is cancelled no worker stays behind."""
    if process.returncode is None:
        process.terminate()
    with anyio.CancelScope(shield=True):
        await process.aclose()
