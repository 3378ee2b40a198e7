"""One job brings all keys of two sources to a new repository: killed again and again, moved to Dask and back.

``pytest --campaign --keys 100000 -s tests/glimmer_store/jobs/test_backfill_campaign.py``

It ends by itself, whatever happens: after half an hour and ``EACH`` for every key at the latest. A key takes about
45 KiB of disk and 11 inodes, so 100,000 of them 5 GB; ``--basetemp`` says where.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from backfilling import Backfill, make_backfill, many
from killing import backfill_argv, family, kill_session, started

import annexpy as annex
from glimmer_store.jobs.launch.base import open_shards, written
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.plan import new_job, plan
from glimmer_store.jobs.spec import Retry
from glimmer_store.jobs.states import State

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
    pytest.mark.interop,
    pytest.mark.campaign,
]

KILLS = 20
HEARTBEAT = 1.0
BYTES = 450
"""Of events, for one key, at least: so the last kill comes before the end."""
MOST_MEMORY = {"run": 128, "worker": 96, "re-reader": 96, "run with Dask": 192, "worker of Dask": 192}
"""MiB of each kind of process, for any number of keys."""
SECONDS = 1800
EACH = 0.15
"""Seconds in all, and for each key; nothing here takes that long, but a machine that is busy may."""


@dataclass
class Campaign:
    """What happened so far.

    Attributes:
        ledger: Of the job.
        seed: Of what is chosen.
        kills: Kind of process → how many were killed; ``all`` of a run at once among them.
        may_repeat: Shard → how often somebody was killed while it was leased.
        memory: Kind of process → MiB that one had at most.
        changes: Times that the job went on with another launcher.
    """

    ledger: Ledger
    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    may_repeat: Counter[str] = field(default_factory=Counter)
    memory: dict[str, float] = field(default_factory=dict)
    changes: int = 0

    def __post_init__(self) -> None:
        self.choose = random.Random(self.seed)
        keys = sum(1 for shard in self.ledger.shards() for _ in self.ledger.tasks(shard))
        self._end = time.monotonic() + SECONDS + EACH * keys

    @property
    def left(self) -> float:
        """Seconds until it has to be over."""
        left = self._end - time.monotonic()
        assert left > 0, "it does not get on"
        return left

    def note_leases(self) -> None:
        """Somebody is about to be killed: what is leased now may be moved once more."""
        self.may_repeat.update(holding.shard for holding in self.ledger.holdings() if not holding.expired)

    def watch(self, run: subprocess.Popen[bytes], launch: str) -> dict[int, str]:
        """Note the memory of every process of a run; pid → its kind."""
        found = {}
        for pid in (run.pid, *family(run.pid)):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                status = Path(f"/proc/{pid}/status").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            kind = _kind(words, launch) if pid != run.pid else "run with Dask" if launch == "dask" else "run"
            peak = [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")]
            if kind and peak:  # a process that has ended has none
                self.memory[kind] = max(self.memory.get(kind, 0.0), peak[0])
                found[pid] = kind
        return found

    def until(self, said: Callable[[], bool], run: subprocess.Popen[bytes], launch: str) -> bool:
        """Wait for it; False when the run ended before."""
        while not said() and self.left:
            if run.poll() is not None:
                return False
            self.watch(run, launch)
            time.sleep(0.05)
        return True

    def kill_one(self, run: subprocess.Popen[bytes], launch: str) -> bool:
        """Kill one process that works, and let the run go on; False when the run ended before there was one."""
        while run.poll() is None and self.left:
            workers = {pid: kind for pid, kind in self.watch(run, launch).items() if pid != run.pid}
            if workers:
                pid = self.choose.choice(sorted(workers))
                self.note_leases()
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
                self.kills[workers[pid]] += 1
                return True
            time.sleep(0.02)
        return False


def _kind(words: str, launch: str) -> str:
    if "jobs.rereading" in words:
        return "re-reader"
    if "backfill worker" in words:
        return "worker"
    return "worker of Dask" if launch == "dask" and "spawn_main" in words else ""


@contextmanager
def running(campaign: Campaign, launch: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run of the job; whatever is left of it when the block ends is killed."""
    run = started(campaign.ledger, "--launch", launch, "--workers", "2")
    try:
        yield run
    finally:
        if run.poll() is None:
            campaign.note_leases()
            campaign.kills["all"] += 1
        kill_session(run)


async def test_one_job_survives_kills_and_changes_of_its_launcher(
    tmp_path: Path, git_annex: str, request: pytest.FixtureRequest
) -> None:
    keys = request.config.getoption("--keys")
    begun = time.monotonic()
    backfill = await make_backfill(tmp_path, many(keys))
    made = time.monotonic() - begun
    spec = new_job(backfill.dataset, "backfill", ["new"], retry=Retry(tries=50, base=0.05), heartbeat=HEARTBEAT)
    _, ledger = await plan(spec, tmp_path / "job")
    assert ledger is not None
    campaign, begun = Campaign(ledger, seed=20261121), time.monotonic()

    whole = BYTES * keys
    marks = sorted(campaign.choose.randrange(whole * 9 // 10) for _ in range(KILLS))
    thirds = [("local", 0), ("dask", whole // 3), ("local", 2 * whole // 3)]
    for number, (launch, least) in enumerate(thirds):
        most = thirds[number + 1][1] if number + 1 < len(thirds) else whole + 1
        campaign.changes += number > 0
        _phase(campaign, launch, [mark for mark in marks if least <= mark < most], most)
        await _same_count(backfill, campaign, git_annex)

    argv = backfill_argv("run", "--json", "--job", str(ledger.folder), "--workers", "2")
    told = json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=campaign.left).stdout)
    seconds = time.monotonic() - begun
    moved = _moved(ledger)
    twice = [key for key, (times, _) in moved.items() if times > 1]
    print(
        f"\n{keys} keys (made in {made:.0f} s) in {len(ledger.shards())} shards, {seconds:.0f} s; killed: "
        f"{dict(campaign.kills)}; {campaign.changes} changes of the launcher; {len(twice)} keys moved twice; "
        f"MiB at most: { {kind: round(peak) for kind, peak in sorted(campaign.memory.items())} }\n{told}"
    )
    assert (told["state"], told["states"], told["missing"]) == ("succeeded", {"registered": keys}, 0)
    assert campaign.kills.total() >= KILLS
    assert campaign.kills["worker"] + campaign.kills["re-reader"] + campaign.kills["worker of Dask"] > 0
    too_often = {key: times for key, (times, shard) in moved.items() if times > 1 + campaign.may_repeat[shard]}
    assert not too_often, "moved again although nobody was killed while it was leased"
    assert await _same_count(backfill, campaign, git_annex) == 0
    assert backfill.holds("new") == set(backfill.keys) == backfill.recorded("new")
    assert set(campaign.memory) == set(MOST_MEMORY), "every kind of process was seen"
    assert {kind: peak for kind, peak in campaign.memory.items() if peak > MOST_MEMORY[kind]} == {}


def _phase(campaign: Campaign, launch: str, marks: list[int], end: int) -> None:
    """Run with one launcher until the ledger has *end* bytes, with a kill at each mark: of one process, or of all."""
    ledger, left = campaign.ledger, [*marks]

    def reached(mark: int) -> bool:
        return written(ledger.folder) >= mark or not open_shards(ledger)

    while written(ledger.folder) < end and open_shards(ledger) and campaign.left:
        with running(campaign, launch) as run:
            while left:
                if not campaign.until(lambda at=left[0]: reached(at), run, launch):  # type: ignore[misc]
                    break  # it lost more than it could bear, such as a worker of Dask that was just starting
                if campaign.choose.random() < 0.5:  # all of it
                    left.pop(0)
                    break
                if not campaign.kill_one(run, launch):
                    break
                left.pop(0)
            else:
                campaign.until(lambda: reached(end), run, launch)


def _moved(ledger: Ledger) -> dict[str, tuple[int, str]]:
    """Key → how often its content was brought to the destination, and its shard."""
    moved: dict[str, tuple[int, str]] = {}
    for shard in ledger.shards():
        times = Counter(event.key for event in ledger.events(shard) if event.state is State.COPIED and event.size)
        moved |= {key: (number, shard) for key, number in times.items()}
    return moved


async def _same_count(backfill: Backfill, campaign: Campaign, git_annex: str) -> int:
    """What ``report --missing`` says is missing is what the real git-annex finds missing; how many keys that is."""
    with annex.Repository.open(backfill.dataset) as repository:
        await repository.branch.commit()  # what a run that was killed had recorded and not committed yet
    argv = backfill_argv(
        "report", "--missing", "--json", "--job", str(campaign.ledger.folder), "-C", str(backfill.dataset)
    )
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=campaign.left)
    assert ended.returncode in (0, 3), ended.stderr
    found = json.loads(ended.stdout)
    find = [git_annex, "findkeys", "--not", "--in", "new"]
    listed = subprocess.run(
        find, cwd=backfill.dataset, capture_output=True, text=True, check=True, timeout=campaign.left
    )
    lines = listed.stdout.split()
    assert found["missing"] == len(lines)
    assert ended.returncode == (3 if lines or found["unproven"] else 0)
    assert lines or not found["unproven"]
    return len(lines)
