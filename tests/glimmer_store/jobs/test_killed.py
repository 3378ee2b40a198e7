"""A backfill that is killed at any moment goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from backfilling import Backfill, make_backfill, many

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


def written(folder: Path) -> int:
    """Bytes that the ledger has grown to: how far it is."""
    return sum(path.stat().st_size for path in (folder / "events").glob("*/*.jsonl"))


def started(ledger: Ledger) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "glimmer_store.cli.app", "backfill", "run", "--json", "--job", str(ledger.folder)]
    argv += ["--workers", str(WORKERS)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)


def family(pid: int) -> list[int]:
    """Its children, theirs, and so on."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in task.read_text().split()]
        except FileNotFoundError:
            continue
        for child in children:
            found += [child, *family(child)]
    return found


def killed_at(ledger: Ledger, mark: int, whole: bool, choose: random.Random) -> bool:
    """Run it until the ledger has *mark* bytes, then kill all of it, or one of its processes and then the rest."""
    run = started(ledger)
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
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        assert run.stdout is not None
        run.stdout.close()


async def campaign(backfill: Backfill, git_annex: str, kills: int, seed: int, heartbeat: float) -> None:
    choose = random.Random(seed)
    ledger = await planned(backfill, heartbeat)
    whole = len(backfill.keys) * 700  # about what the ledger has in the end
    marks = sorted(choose.randrange(whole) for _ in range(kills))
    happened = sum(killed_at(ledger, mark, number % 2 == 0, choose) for number, mark in enumerate(marks))
    assert happened >= kills // 2

    last = started(ledger)
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
    assert twice <= happened * WORKERS * 500, "at most what was leased when it was killed"


async def test_a_run_that_is_killed_again_and_again_ends_with_every_key_registered(
    tmp_path: Path, git_annex: str
) -> None:
    backfill = await make_backfill(tmp_path, many(1000))
    await campaign(backfill, git_annex, kills=4, seed=6, heartbeat=0.1)


@pytest.mark.campaign
async def test_a_hundred_thousand_keys_survive_twenty_kills(tmp_path: Path, git_annex: str) -> None:
    backfill = await make_backfill(tmp_path, many(100_000))
    await campaign(backfill, git_annex, kills=20, seed=20, heartbeat=1.0)
