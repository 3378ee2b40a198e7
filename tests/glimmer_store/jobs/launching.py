"""A dataset with objects in two sources and an empty bare repository, and jobs that bring them there."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import pytest
from backfilling import Backfill, make_backfill

import annexpy as annex
from glimmer_store.jobs import plan as planning
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.plan import new_job, plan
from glimmer_store.jobs.shards import into_shards
from glimmer_store.jobs.spec import JobSpec
from glimmer_store.jobs.states import State

SECONDS = 1200  # nothing here takes that long; a machine that is busy may


@dataclass(frozen=True)
class Scene:
    """The sources are ``a`` and ``b``, the destination is ``new``."""

    backfill: Backfill

    @property
    def keys(self) -> list[annex.Key]:
        return self.backfill.keys

    @property
    def dataset(self) -> Path:
        return self.backfill.dataset

    @property
    def job(self) -> Path:
        return self.backfill.root / "job"

    @property
    def ledger(self) -> Ledger:
        return Ledger.open(self.job)

    async def plan(self, *, per_shard: int = 8, **settings: object) -> JobSpec:
        """Freeze a job."""
        spec = new_job(self.dataset, "backfill", ["new"], **{"heartbeat": 0.2, **settings})  # type: ignore[arg-type]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planning, "into_shards", partial(into_shards, keys=per_shard))
            await plan(spec, self.job)
        return spec

    def complete(self, git_annex: str) -> None:
        """Nothing is missing, says the real git-annex; and everything is right, say the files."""
        argv = [git_annex, "findkeys", "--not", "--in", "new"]
        assert subprocess.run(argv, cwd=self.dataset, capture_output=True, text=True, check=True).stdout == ""
        assert self.backfill.holds("new") == set(self.keys) == self.backfill.recorded("new")

    def moved_twice(self) -> int:
        """Keys that were brought to the destination more than once."""
        moved: Counter[str] = Counter()
        for shard in self.ledger.shards():
            moved.update(one.key for one in self.ledger.events(shard) if one.state is State.COPIED and one.size)
        return sum(number > 1 for number in moved.values())

    def workers(self) -> list[int]:
        """Processes of workers that have a shard."""
        return [holding.pid for holding in self.ledger.holdings() if holding.pid != os.getpid()]


async def make_scene(folder: Path, count: int) -> Scene:
    """*count* contents of 200 to 249 bytes: a third in a, a third in b, a third in both."""
    contents = ((b"%d " % n * 125)[: 200 + n % 50] for n in range(count))
    return Scene(await make_backfill(folder, ((c, ("a", "b", "a b")[n % 3]) for n, c in enumerate(contents))))


async def until(said: Callable[[], bool]) -> None:
    """Wait for it."""
    with anyio.fail_after(SECONDS):
        while not said():
            await anyio.sleep(0.02)
