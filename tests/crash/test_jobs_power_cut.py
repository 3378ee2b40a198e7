"""What a power cut leaves of the files of a job on a real file system: names and contents that were synced, no more.

A job's promises: once it is planned it is whole, what a worker or an operator was told is written down stays, and a
shard is never settled without the events that say so, whoever wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from synced_disk import Disk

from annexpy import UUID
from glimmer_store.jobs.control import ControlFile
from glimmer_store.jobs.event import Event, Task
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.spec import JobError, JobSpec, Place
from glimmer_store.jobs.states import State

KEY, SHARD = "SHA256E-s3--aa.bin", "0-0-0"
TASK = Task(KEY, 3, "generated", ("node",), ("a",), "dest")
SPEC = JobSpec("job", "backfill", "/nowhere", (Place("new", UUID("dest"), "/new"),), (Place("a", UUID("a"), "/a"),))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "now").mkdir()
    return tmp_path / "now"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, root: Path) -> Iterator[Disk]:
    with monkeypatch.context() as patched:
        yield Disk(patched)


def event(state: State, was: State) -> Event:
    return Event(1.0, "job", KEY, "dest", was, state, 1, "w")


def plan(root: Path) -> Ledger:
    return Ledger.create(root / "jobs" / "job", SPEC, [(SHARD, [TASK])])


def test_a_job_that_was_planned_is_whole(root: Path, disk: Disk, tmp_path: Path) -> None:
    plan(root)

    left = Ledger.open(disk.left(root, tmp_path / "left") / "jobs" / "job")
    assert [list(left.tasks(shard)) for shard in left.shards()] == [[TASK]]


def test_a_job_whose_plan_was_not_written_to_its_end_is_none(root: Path, disk: Disk, tmp_path: Path) -> None:
    def interrupted() -> Iterator[tuple[str, list[Task]]]:
        yield SHARD, [TASK]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Ledger.create(root / "jobs" / "job", SPEC, interrupted())
    with pytest.raises(JobError):
        Ledger.open(disk.left(root, tmp_path / "left") / "jobs" / "job")


def test_what_a_worker_wrote_down_and_what_an_operator_asked_for_stays(root: Path, disk: Disk, tmp_path: Path) -> None:
    ledger = plan(root)
    with ledger.writer("w") as writer:
        writer.write(SHARD, [event(State.COPYING, State.PLANNED)])
        writer.write(SHARD, [event(State.COPIED, State.COPYING)])
    ledger.hold("dest", "full")

    left = Ledger.open(disk.left(root, tmp_path / "left") / "jobs" / "job")
    assert [one.state for one in left.events(SHARD)] == [State.COPYING, State.COPIED]
    assert dict(left.held()) == {"dest": "full"}
    assert ControlFile(left.folder).read().held


def test_a_shard_is_settled_only_with_the_events_that_say_so(root: Path, disk: Disk, tmp_path: Path) -> None:
    """Another worker wrote them, and was killed before it had synced them."""
    ledger = plan(root)
    folder = ledger.folder / "events" / SHARD
    folder.mkdir(parents=True)
    (folder / "killed.jsonl").write_bytes(event(State.VERIFIED, State.VERIFYING).to_line())
    ledger.settle(SHARD)

    left = Ledger.open(disk.left(root, tmp_path / "left") / "jobs" / "job")
    assert [one.state for one in left.events(SHARD)] == [State.VERIFIED]
