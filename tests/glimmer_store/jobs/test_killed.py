"""A backfill that is killed at any moment goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from backfilling import Backfill, make_backfill, many
from killing import family, kill_session, started

from glimmer_store.jobs.launch.base import written
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.plan import new_job, plan
from glimmer_store.jobs.spec import Retry
from glimmer_store.jobs.states import State

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"]), pytest.mark.interop]

WORKERS = 2


async def planned(backfill: Backfill, heartbeat: float) -> Ledger:
    spec = new_job(backfill.dataset, "backfill", ["new"], retry=Retry(tries=50, base=0.05), heartbeat=heartbeat)
    _, ledger = await plan(spec, backfill.root / "job")
    assert ledger is not None
    return ledger


def killed_at(ledger: Ledger, mark: int, whole: bool, choose: random.Random) -> bool:
    """Run it until the ledger has *mark* bytes, then kill all of it, or one of its processes and then the rest."""
    run = started(ledger, "--workers", str(WORKERS))
    try:
        deadline = time.monotonic() + 900
        while written(ledger.folder) < mark and run.poll() is None:
            assert time.monotonic() < deadline, "it does not get on"
            time.sleep(0.002)
        if run.poll() is not None:
            return False
        if not whole and (others := family(run.pid)):
            os.kill(choose.choice(others), signal.SIGKILL)
            time.sleep(0.05)
        return True
    finally:
        kill_session(run)


async def test_a_run_that_is_killed_again_and_again_ends_with_every_key_registered(
    tmp_path: Path, git_annex: str
) -> None:
    kills, choose = 4, random.Random(6)
    backfill = await make_backfill(tmp_path, many(1000))
    ledger = await planned(backfill, heartbeat=0.1)
    whole = len(backfill.keys) * 700  # about what the ledger has in the end
    marks = sorted(choose.randrange(whole) for _ in range(kills))
    happened = sum(killed_at(ledger, mark, number % 2 == 0, choose) for number, mark in enumerate(marks))
    assert happened >= kills // 2

    last = started(ledger, "--workers", str(WORKERS))
    said, _ = last.communicate(timeout=1200)

    told = json.loads(said)
    assert (told["state"], told["states"]) == ("succeeded", {"registered": len(backfill.keys)})
    assert told["missing"] == 0
    argv = [git_annex, "findkeys", "--not", "--in", "new"]
    assert subprocess.run(argv, cwd=backfill.dataset, capture_output=True, text=True, check=True).stdout == ""
    assert backfill.holds("new") == set(backfill.keys) == backfill.recorded("new")
    copied: Counter[str] = Counter()
    for shard in ledger.shards():
        copied.update(event.key for event in ledger.events(shard) if event.state is State.COPIED and event.size)
    twice = sum(number > 1 for number in copied.values())
    print(f"\n{happened} kills, {len(backfill.keys)} keys, {twice} moved twice: {told}")
    assert twice <= happened * WORKERS * 2 * 500, "at most what was leased when it was killed"
