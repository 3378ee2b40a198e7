"""Launchers: how workers get to machines. The ledger alone says what is done and what is left.

A launcher gets the shards that are left and runs workers on them, once. What it tells is a summary for people; when it
dies, or is another one the next time, nothing is lost, because whoever runs the job looks at the ledger again.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import anyio

from glimmer_store.jobs.control import ControlFile
from glimmer_store.jobs.ledger import Ledger

__all__ = ["Launched", "Launcher", "launch", "open_shards", "worker_argv", "written"]

log = logging.getLogger(__name__)

_PAUSE = 0.2, 15.0
"""Shortest and longest pause between two rounds in which nothing was settled."""
_IN_VAIN = 3
"""Rounds in a row in which every worker died and nothing was written, until a person is needed."""

Launched = Mapping[str, object]
"""What one worker says that it did, as in ``WorkerSummary.to_json``; with ``lost`` (a reason) when it died."""


class Launcher(Protocol):
    """Runs workers somewhere."""

    async def run(self, job: Path, shards: Sequence[str]) -> list[Launched]:
        """Run workers on *shards* until each of them has done what it can.

        Raises:
            JobError: This launcher cannot be used here.
        """
        ...


def open_shards(ledger: Ledger) -> list[str]:
    """Shards that something can be done about now."""
    settled, held = ledger.settled(), ledger.held()
    return [shard for shard in ledger.shards() if shard not in settled and ledger.dest(shard) not in held]


def worker_argv(job: Path, *options: str) -> list[str]:
    """A worker as a process of its own."""
    return [sys.executable, "-m", "glimmer_store.cli.app", "backfill", "worker", "--job", str(job), *options]


async def launch(job: Path, launcher: Launcher) -> list[Launched]:
    """Have *launcher* run workers until nothing is left that a worker can do, or the job is cancelled.

    Returns:
        What each worker said. When they die again and again and nothing gets written, shards are left.

    Raises:
        JobError: No such job, or the launcher cannot be used.
    """
    ledger = Ledger.open(job)
    said: list[Launched] = []
    pause, in_vain, before = _PAUSE[0], 0, -1
    while (left := open_shards(ledger)) and not ControlFile(job).read().cancelled:
        found = await launcher.run(job, left)
        said += found
        now = written(job)
        in_vain = in_vain + 1 if now == before and all("lost" in one for one in found) else 0
        if in_vain == _IN_VAIN:
            log.warning("%s: all workers died, %d times: %s", job, in_vain, said[-1:])
            break
        pause = _PAUSE[0] if now != before else min(2 * pause, _PAUSE[1])
        before = now
        if open_shards(ledger):
            await anyio.sleep(pause)
    return said


def written(job: Path) -> int:
    """Bytes of all events: when they grow, something happens."""
    return sum(file.stat().st_size for file in (job / "events").glob("*/*.jsonl"))
