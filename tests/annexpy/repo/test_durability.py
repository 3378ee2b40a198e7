"""Group commit: the order of syncs, who is told what, and that nobody is forgotten."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import pytest

from annexpy.repo.durability import Change, GroupCommit
from annexpy.repo.faulty_files import Faults, FaultyFiles
from annexpy.repo.files import DiskFiles
from annexpy.repo.memory_files import MemoryFiles
from annexpy.system import CLOCK

pytestmark = pytest.mark.anyio


class Clock:
    """Each look takes *step* seconds."""

    def __init__(self, step: float = 0.0) -> None:
        self.seconds, self.step = 0.0, step

    def now(self) -> float:
        self.seconds += self.step
        return self.seconds

    wall = now


class Recorder:
    """Files that note what is synced, and changes that note when they are published and recorded."""

    def __init__(self, *, error_at: int = 0, clock: Clock | None = None, syncfs: bool = True) -> None:
        self.faults = Faults(at=error_at, error=errno.EIO, only=frozenset(("sync", "sync_all", "sync_folder")))
        self.memory = MemoryFiles()
        self.files = FaultyFiles(self.memory, self.faults)
        self.memory.make_folders(b"a/b")
        self.group = GroupCommit(self.files, clock or Clock(), self._sync_records, syncfs=syncfs)
        self.records = 0

    @property
    def events(self) -> list[str]:
        return self.faults.names

    async def _sync_records(self) -> None:
        self.events.append("records")

    def change(self, name: str, *, fails: bool = False) -> Change:
        def publish() -> Sequence[bytes]:
            if fails:
                raise OSError(errno.ENOSPC, "no room")
            self.events.append(f"publish {name}")
            return (b"a/b", b"a")

        fd = self.memory.open_write(name.encode())
        return Change(publish, fd=fd, recorded=lambda: self.events.append(f"record {name}"))


async def commit_all(recorder: Recorder, changes: Sequence[Change]) -> list[BaseException | None]:
    outcomes: list[BaseException | None] = [None] * len(changes)

    async def one(number: int) -> None:
        try:
            await recorder.group.commit(changes[number])
        except OSError as error:
            outcomes[number] = error

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for number in range(len(changes)):
                tasks.start_soon(one, number)
    return outcomes


async def test_one_alone_syncs_its_bytes_then_its_name_then_its_record() -> None:
    recorder = Recorder()

    await recorder.group.commit(recorder.change("x"))

    assert recorder.events == ["sync", "publish x", "sync_all", "record x", "records"]


async def test_many_share_every_sync() -> None:
    recorder = Recorder()
    changes = [recorder.change(str(number)) for number in range(16)]

    await commit_all(recorder, changes)

    events = recorder.events
    assert events.count("sync_all") == 2
    assert events.count("records") == 1
    assert events[0] == "sync_all"
    assert {*events[1:17]} == {f"publish {number}" for number in range(16)}
    assert events[17] == "sync_all"
    assert {*events[18:34]} == {f"record {number}" for number in range(16)}
    assert events[34:] == ["records"]


async def test_what_is_committed_together_shares_every_sync_and_fails_alone() -> None:
    recorder = Recorder()
    changes = [recorder.change(str(number), fails=number == 3) for number in range(100)]

    await recorder.group.commit_many(changes)

    events = recorder.events
    assert [number for number, change in enumerate(changes) if change.error is not None] == [3]
    assert events.count("sync_all") == 4
    assert events.count("records") == 2
    for first, last, many in ((0, 63, events[: events.index("records")]), (64, 99, events)):
        published = [events.index(f"publish {number}") for number in range(first, last + 1) if number != 3]
        recorded = [events.index(f"record {number}") for number in range(first, last + 1) if number != 3]
        before, after = [at for at, event in enumerate(many) if event == "sync_all"][-2:]
        assert before < min(published) <= max(published) < after < min(recorded)
        assert max(recorded) < events.index("records", max(recorded))


async def test_without_syncfs_each_folder_is_synced_once() -> None:
    recorder = Recorder(syncfs=False)
    changes = [recorder.change(str(number)) for number in range(5)]

    await commit_all(recorder, changes)

    events = recorder.events
    assert events.count("sync") == 5
    assert events.count("sync_folder") == 2
    assert "sync_all" not in events
    assert max(events.index(f"publish {number}") for number in range(5)) < events.index("sync_folder")
    assert min(events.index(f"publish {number}") for number in range(5)) > 4


async def test_a_slow_syncfs_is_avoided_for_a_while_and_then_tried_again() -> None:
    recorder = Recorder(clock=Clock(step=1.0))
    for number in range(40):
        await recorder.group.commit(recorder.change(str(number)))

    assert recorder.events.count("sync_all") == 3
    assert recorder.events.count("sync_folder") == 2 * 37


async def test_a_change_that_cannot_be_published_fails_alone() -> None:
    recorder = Recorder()
    changes = [recorder.change("good"), recorder.change("bad", fails=True), recorder.change("fine")]

    outcomes = await commit_all(recorder, changes)

    assert [outcome is None for outcome in outcomes] == [True, False, True]
    assert "record bad" not in recorder.events
    assert {"record good", "record fine"} <= set(recorder.events)


@pytest.mark.parametrize("syncfs", [True, False])
@pytest.mark.parametrize("at", range(1, 12))
async def test_whoever_is_told_of_success_was_synced(syncfs: bool, at: int) -> None:
    recorder = Recorder(error_at=at, syncfs=syncfs)
    changes = [recorder.change(str(number)) for number in range(4)]

    outcomes = await commit_all(recorder, changes)

    for number, outcome in enumerate(outcomes):
        assert (f"record {number}" in recorder.events) == (outcome is None)
    failed = sum(outcome is not None for outcome in outcomes)
    if syncfs:
        assert failed == (4 if at <= 2 else 0)
    else:  # four files, then two folders that all of them need
        assert failed == (1 if at <= 4 else 4 if at <= 6 else 0)


async def test_records_that_cannot_be_synced_fail_those_who_recorded() -> None:
    async def broken() -> None:
        raise OSError(errno.EIO, "no records")

    files = MemoryFiles()
    group = GroupCommit(files, Clock(), broken)

    with pytest.raises(OSError, match="no records"):
        await group.commit(Change(lambda: (), recorded=lambda: None))
    await group.commit(Change(lambda: ()))


async def test_every_set_of_cancelled_tasks_leaves_the_others_committed() -> None:
    for cancelled in range(64):
        recorder = Recorder()
        changes = [recorder.change(str(number)) for number in range(6)]
        scopes = [anyio.CancelScope() for _ in changes]
        done: set[int] = set()

        async def one(
            number: int, *, scope: anyio.CancelScope, change: Change, done: set[int], recorder: Recorder
        ) -> None:
            with scope:
                await recorder.group.commit(change)
                done.add(number)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for number, change in enumerate(changes):
                    run: Callable[[int], object] = lambda n, s=scopes[number], c=change, d=done, r=recorder: one(  # noqa: E731
                        n, scope=s, change=c, done=d, recorder=r
                    )
                    tasks.start_soon(run, number)
                for _ in range(cancelled % 4):
                    await anyio.lowlevel.checkpoint()
                for number, scope in enumerate(scopes):
                    if cancelled >> number & 1:
                        scope.cancel()

        assert {number for number in range(6) if not cancelled >> number & 1} <= done
        assert all(recorder.events.count(f"publish {number}") <= 1 for number in range(6))
        with anyio.fail_after(5):
            await recorder.group.commit(recorder.change("afterwards"))


def test_a_group_outlives_the_event_loop_and_the_fork(tmp_path: Path) -> None:
    group = GroupCommit(DiskFiles(tmp_path), Clock())
    for _ in range(2):
        anyio.run(group.commit, Change(lambda: (b"",)))

    async def forked_in_the_middle() -> int:
        child = -1

        def publish() -> Sequence[bytes]:
            nonlocal child
            child = os.fork()
            if child == 0:
                try:
                    anyio.run(group.commit, Change(lambda: (b"",)))
                    os._exit(0)
                finally:
                    os._exit(1)
            return (b"",)

        await group.commit(Change(publish))
        return child

    assert os.waitpid(anyio.run(forked_in_the_middle), 0)[1] == 0


@pytest.mark.anyio
async def test_who_is_cancelled_stays_while_a_thread_has_his_change_in_hand(tmp_path: Path) -> None:
    group, go, log = GroupCommit(DiskFiles(tmp_path), CLOCK, syncfs=False), threading.Event(), list[str]()

    def slow() -> Sequence[bytes]:
        log.append("began")
        go.wait(5)
        return ()

    def second() -> Sequence[bytes]:
        log.append("published")
        return ()

    async def follow() -> None:
        with scope:
            try:
                await group.commit(Change(second))
            finally:
                log.append("left")

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(group.commit, Change(slow))
        tasks.start_soon(follow)
        while not log:
            await anyio.sleep(0)
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert log[-1] == "left"
