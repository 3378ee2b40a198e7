"""The branch of a repository: what is recorded is read, survives, and is committed once."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from annexpy.errors import BranchConflict, InvalidInput, LockHeld, RepositoryError
from annexpy.keys.key import Key
from annexpy.keys.layout import location_log
from annexpy.logs.location import Presence
from annexpy.logs.paths import journal_file
from annexpy.repo import branch as branch_module
from annexpy.repo import objects as objects_module
from annexpy.repo import view as view_module
from annexpy.repo.branch import Branch
from annexpy.repo.files import DiskFiles
from annexpy.repo.journal import PRIVATE, Journal, JournalLock
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown
from annexpy.uuids import UUID

KEYS = [Key.parse(f"SHA256E-s{n}--{n:064x}") for n in range(60)]
KEY = KEYS[0]
LOG = location_log(KEY)
U1, U2 = UUID("u1"), UUID("u2")


class Clock:
    """A clock that is set."""

    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return self.at


def git(where: str | Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(tmp_path: Path, clock: Clock) -> Iterator[Repository]:
    with Repository.init(
        tmp_path / "r.git", bare=True, uuid=UUID("11111111-1111-4111-8111-111111111111"), clock=clock
    ) as r:
        yield r


def another(repository: Repository) -> Branch:
    """As another process has it."""
    return Repository.open(repository.path, clock=repository.clock).branch


def committed(repository: Repository, path: bytes = LOG) -> str:
    return git(repository.path, "show", f"git-annex:{os.fsdecode(path)}")


def commits(repository: Repository) -> int:
    return int(git(repository.path, "rev-list", "--count", "git-annex"))


# -- one process ----------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_record_is_read_at_once_durable_after_sync_and_public_after_commit(repository: Repository) -> None:
    branch, before = repository.branch, commits(repository)

    branch.set_present(KEY, U1, True)
    assert branch.locations(KEY).present == [U1]
    assert not another(repository).locations(KEY).present
    assert branch.queued == 1
    await branch.sync()
    assert branch.queued == 0
    assert branch.locations(KEY).present == [U1]
    assert another(repository).locations(KEY).present == [U1]
    assert commits(repository) == before
    assert await branch.commit("a message")

    assert committed(repository) == "1000s 1 u1\n"
    assert branch.locations(KEY).present == [U1]
    assert commits(repository) == before + 1
    assert (
        git(repository.path, "log", "-1", "--format=%s|%an <%ae>|%ct", "git-annex")
        == "a message|Test <test@example.org>|1000\n"
    )


@pytest.mark.anyio
async def test_many_that_are_recorded_at_once_are_recorded_each(repository: Repository, clock: Clock) -> None:
    branch = repository.branch
    branch.set_present_many(KEYS, U1, True)
    assert branch.queued == len(KEYS)
    clock.at += 5
    branch.set_present_many(KEYS[:3], U1, False)
    branch.set_present_many((), U1, False)
    await branch.commit()

    assert [branch.locations(key).present for key in KEYS] == [[]] * 3 + [[U1]] * 57


@pytest.mark.anyio
async def test_nothing_new_makes_no_commit(repository: Repository) -> None:
    branch = repository.branch
    branch.set_present(KEY, U1, True)
    await branch.commit()
    tip = branch.tip

    branch.set_present(KEY, U1, True)
    branch.change(b"uuid.log", lambda content: content)
    assert not await branch.commit()
    assert not await branch.commit()
    await branch.sync()

    assert branch.tip == tip
    assert branch.queued == 0


def test_the_second_of_two_opposite_records_counts(repository: Repository, clock: Clock) -> None:
    branch = repository.branch
    branch.set_present(KEY, U1, True)
    branch.set_present(KEY, U1, False)
    branch.sync_now()
    branch.set_present(KEY, U1, True)

    assert branch.locations(KEY).status(U1) is Presence.PRESENT
    branch.commit_now()
    assert committed(repository) == "1002s 1 u1\n"
    clock.at = 1001
    branch.set_present(KEY, U1, False)
    branch.commit_now()
    assert committed(repository) == "1003s 0 u1\n"


def test_a_cluster_is_never_recorded(repository: Repository) -> None:
    repository.branch.set_present(KEY, UUID("ac702100-873f-876c-a12c-4026b11e785c"), True)

    assert repository.branch.queued == 0
    assert repository.branch.read(LOG) == b""


@pytest.mark.parametrize("uuid", ["", "a\nb", "a\rb"])
def test_a_uuid_that_would_break_the_log_is_refused(repository: Repository, uuid: str) -> None:
    with pytest.raises(InvalidInput, match="uuid"):
        repository.branch.set_present(KEY, UUID(uuid), True)
    assert repository.branch.queued == 0


def test_any_presence_log_can_be_written(repository: Repository) -> None:
    path = LOG + b".web"
    repository.branch.set_presence(path, b"http://x/a b\\t\tc", b"1")
    repository.branch.commit_now()

    assert committed(repository, path) == "1000s 1 http://x/a b\\t\tc\n"
    with pytest.raises(InvalidInput, match="presence status"):
        repository.branch.set_presence(path, b"x", b"2")
    with pytest.raises(InvalidInput, match="presence info"):
        repository.branch.set_presence(path, b"x\n1s 1 y", b"1")


@pytest.mark.parametrize("path", [b"", b"/a", b"a//b", b"../x", b"a/.GIT/b", b"a/\0", b"."])
def test_paths_git_would_refuse_are_refused(repository: Repository, path: bytes) -> None:
    with pytest.raises(InvalidInput, match="branch path"):
        repository.branch.change(path, lambda content: content)
    with pytest.raises(InvalidInput, match="branch path"):
        repository.branch.set_presence(path, b"x", b"1")


def test_a_journal_file_that_fits_into_no_tree_is_left_alone(repository: Repository) -> None:
    Path(repository.path, "annex/journal").mkdir()
    for name in ("_x", "a__b", "__"):
        Path(repository.path, "annex/journal", name).write_text("1s 1 u\n")
    repository.branch.commit_now()

    assert os.listdir(Path(repository.path, "annex/journal")) == ["_x"]
    git(repository.path, "fsck", "--strict")


def test_changes_are_applied_to_what_is_there_at_the_commit(repository: Repository) -> None:
    one, two = repository.branch, another(repository)
    one.change(b"x.log", lambda content: content + b"1s one\n")
    two.change(b"x.log", lambda content: content + b"1s two\n")
    assert one.read(b"x.log") == b"1s one\n"
    two.commit_now()
    assert one.read(b"x.log") == b"1s two\n1s one\n"
    one.commit_now()

    assert committed(repository, b"x.log") == "1s two\n1s one\n"


def test_synced_changes_are_merged_in_as_lines(repository: Repository) -> None:
    one, two = repository.branch, another(repository)
    one.change(b"x.log", lambda content: content + b"1s one\n")
    one.change(b"x.log", lambda content: content + b"2s one\n")
    one.sync_now()
    assert two.read(b"x.log") == b"1s one\n2s one\n"
    two.change(b"x.log", lambda content: b"0s two\n")
    two.commit_now()

    assert set(committed(repository, b"x.log").splitlines()) >= {"0s two"}
    assert one.read(b"x.log") == two.read(b"x.log")


def test_many_records_go_to_the_spool_by_themselves(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch_module, "_SPILL", 10)
    for key in KEYS[:25]:
        repository.branch.set_present(key, U1, True)

    assert repository.branch.queued == 5
    assert all(repository.branch.locations(key).present == [U1] for key in KEYS[:25])
    repository.branch.commit_now()
    assert commits(repository) == 3
    assert all(repository.branch.locations(key).present == [U1] for key in KEYS[:25])


def test_records_that_cannot_be_spooled_now_are_no_affair_of_whoever_makes_one(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """He did what he records; that the disk is full is said, and said again by the sync."""
    monkeypatch.setattr(branch_module, "_SPILL", 10)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(repository.branch._spool, "append", full)
        for key in KEYS[:25]:
            repository.branch.set_present(key, U1, True)
        with pytest.raises(RepositoryError, match="No space left"):
            repository.branch.sync_now()

    assert [record.getMessage().count("No space left") for record in caplog.records] == [1, 1]
    assert repository.branch.queued == 25
    repository.branch.commit_now()
    with Repository.open(repository.path) as again:
        assert all(again.branch.locations(key).present == [U1] for key in KEYS[:25])


def test_more_records_than_memory_holds_are_one_commit(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annexpy.repo.runs._LARGEST", 1000)
    monkeypatch.setattr("annexpy.repo.runs._BLOCK", 300)
    monkeypatch.setattr("annexpy.repo.spool._LARGEST", 700)
    before = commits(repository)
    for number, key in enumerate(KEYS):
        repository.branch.set_present(key, U1, True)
        if number % 5 == 4:
            repository.branch.set_present(KEYS[number - 1], U1, False)
            repository.branch.sync_now()
    repository.branch.set_present(KEYS[1], U1, False)

    repository.branch.commit_now()

    assert commits(repository) == before + 1
    for number, key in enumerate(KEYS):
        gone = number % 5 == 3 or number == 1
        assert repository.branch.locations(key).present == ([] if gone else [U1])
    assert not os.listdir(Path(repository.path, "annex/annexpy/spool"))
    assert not os.listdir(Path(repository.path, "annex/annexpy/tmp"))


# -- several processes ----------------------------------------------------------------------------


def test_whoever_commits_commits_for_all(repository: Repository) -> None:
    one, two = repository.branch, another(repository)
    one.set_present(KEYS[1], U1, True)
    one.sync_now()
    two.set_present(KEYS[2], U2, True)
    two.commit_now()

    assert committed(repository, location_log(KEYS[1])) == "1000s 1 u1\n"
    assert one.locations(KEYS[2]).present == [U2]
    one.set_present(KEYS[3], U1, True)
    one.sync_now()
    one.commit_now()
    assert commits(repository) == 4


def test_a_late_record_does_not_undo_what_was_decided_after_it(repository: Repository, clock: Clock) -> None:
    one, two = repository.branch, another(repository)
    one.set_present(KEY, U1, True)
    one.sync_now()
    spool = next(Path(repository.path, "annex/annexpy/spool").iterdir())
    kept = spool.read_bytes()
    clock.at = 1005
    two.commit_now()
    two.set_present(KEY, U1, False)
    two.commit_now()

    spool.write_bytes(kept)  # as a crash between commit and unlink would leave it
    two.commit_now()

    assert committed(repository) == "1005s 0 u1\n"
    assert two.locations(KEY).present == []
    assert not spool.exists()


def test_a_line_dated_in_the_future_is_overridden_when_it_was_known(repository: Repository) -> None:
    branch = repository.branch
    branch.change(LOG, lambda _: b"5000s 0 u1\n")
    branch.commit_now()

    branch.set_present(KEY, U1, True)
    assert branch.locations(KEY).present == [U1]
    branch.sync_now()
    assert branch.locations(KEY).present == [U1]
    branch.commit_now()

    assert committed(repository) == "5001s 1 u1\n"


def test_the_vector_clock_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_ANNEX_VECTOR_CLOCK", "77")
    with Repository.init(tmp_path / "r.git", bare=True) as repository:
        for status in (True, False, True):
            repository.branch.set_present(KEY, U1, status)
            repository.branch.commit_now()

        assert committed(repository) == "79s 1 u1\n"


# -- the journal ----------------------------------------------------------------------------------


def test_the_journal_is_read_and_absorbed_and_loses_nothing_the_branch_gained(repository: Repository) -> None:
    branch = repository.branch
    branch.set_present(KEY, U1, True)
    branch.commit_now()
    # written by a git-annex that knew nothing of u1
    Journal(repository.files, Lockdown()).write(LOG, b"900s 1 theirs\n")

    assert branch.locations(KEY).present == ["theirs", U1]
    branch.set_present(KEY, U2, True)
    branch.commit_now()

    assert committed(repository) == "900s 1 theirs\n1000s 1 u1\n1000s 1 u2\n"
    assert os.listdir(Path(repository.path, "annex/journal")) == []


def test_a_record_is_later_than_what_stood_in_the_journal_when_it_was_queued(repository: Repository) -> None:
    journal = Path(repository.path, "annex/journal")
    journal.mkdir()
    Path(journal, journal_file(LOG).decode()).write_text("1001s 0 u1\n1001s 1 u2\n")
    branch = repository.branch

    branch.set_present(KEY, U1, True)
    branch.set_present(KEY, U2, True)
    assert set(branch.locations(KEY).present) == {U1, U2}
    branch.commit_now()

    assert committed(repository) == "1002s 1 u1\n1001s 1 u2\n"


class SetBack(Clock):
    """A clock whose owner sets it back; the other one goes on."""

    back = 0.0

    def wall(self) -> float:
        return self.at - self.back


@pytest.mark.parametrize("seconds", [3600.0, 2.0])
@pytest.mark.parametrize("begun", [False, True], ids=["begun after that", "begun before that"])
def test_a_record_counts_over_what_another_process_said_before_the_clock_was_set_back(
    tmp_path: Path, seconds: float, begun: bool
) -> None:
    clock = SetBack(10_000.0)
    with Repository.init(tmp_path / "r.git", bare=True, clock=clock) as repository:
        two = repository.branch
        if begun:
            two.set_present(KEYS[1], U1, True)
        one = another(repository)
        one.set_present(KEY, U1, True)
        one.set_present(KEY, U2, True)
        one.sync_now()
        one.close()
        clock.back = seconds

        two.set_present(KEY, U1, False)
        assert two.locations(KEY).present == [U2]
        two.sync_now()

        assert another(repository).locations(KEY).present == [U2]
        two.commit_now()
        assert committed(repository) == "10001s 0 u1\n10000s 1 u2\n"


def test_a_record_is_not_later_than_what_came_into_the_journal_after_it(repository: Repository, clock: Clock) -> None:
    branch = repository.branch
    branch.set_present(KEY, U1, True)
    journal = Path(repository.path, "annex/journal")
    journal.mkdir()
    Path(journal, journal_file(LOG).decode()).write_text("1001s 0 u1\n")

    branch.commit_now()

    assert committed(repository) == "1001s 0 u1\n"


def test_a_journal_line_dated_beyond_all_times_is_left_alone(repository: Repository) -> None:
    journal = Path(repository.path, "annex/journal")
    journal.mkdir()
    line = b"1" + b"0" * 400 + b"s 0 u1\n"
    Path(journal, journal_file(LOG).decode()).write_bytes(line)

    repository.branch.set_present(KEY, U1, True)
    repository.branch.commit_now()

    assert committed(repository).encode() == line


def test_a_journal_alone_is_committed_too(repository: Repository) -> None:
    Journal(repository.files, Lockdown()).write(LOG, b"900s 1 theirs\n")

    assert repository.branch.commit_now()

    assert committed(repository) == "900s 1 theirs\n"


def test_without_alwayscommit_the_journal_keeps_it_until_a_merge(repository: Repository) -> None:
    repository.config.set("annex.alwayscommit", "false")
    branch = repository.branch
    branch.set_present(KEY, U1, True)
    branch.commit_now()
    branch.set_present(KEY, U2, True)
    branch.sync_now()
    before = commits(repository)

    assert not branch.commit_now()

    assert commits(repository) == before
    assert Journal(repository.files, Lockdown()).read(LOG) == b"1000s 1 u1\n1000s 1 u2\n"
    assert branch.locations(KEY).present == [U1, U2]
    assert branch.queued == 0
    branch.merge_now()
    assert committed(repository) == "1000s 1 u1\n1000s 1 u2\n"
    assert os.listdir(Path(repository.path, "annex/journal")) == []


@pytest.mark.parametrize("synced", [False, True])
def test_lines_of_private_repositories_stay_here(repository: Repository, synced: bool) -> None:
    repository.config.change({"remote.p.annex-uuid": "u2", "remote.p.annex-private": "true"})
    branch = repository.branch
    branch.set_present(KEY, U1, True)
    branch.set_present(KEY, U2, True)
    branch.change(b"uuid.log", lambda content: content + b"u2 secret timestamp=1s\n", private=True)
    assert branch.locations(KEY).present == [U1, U2]
    if synced:
        branch.sync_now()
        assert branch.locations(KEY).present == [U1, U2]

    branch.commit_now()

    assert committed(repository) == "1000s 1 u1\n"
    assert "secret" not in committed(repository, b"uuid.log")
    assert branch.locations(KEY).present == [U1, U2]
    assert branch.read(b"uuid.log").endswith(b"u2 secret timestamp=1s\n")
    assert Journal(repository.files, Lockdown(), PRIVATE).read(LOG) == b"1000s 1 u2\n"
    assert dict(branch.read_many([LOG]))[LOG] == branch.read(LOG)
    branch.set_present(KEY, U2, False)
    branch.commit_now()
    assert Journal(repository.files, Lockdown(), PRIVATE).read(LOG) == b"1001s 0 u2\n"


# -- trouble --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_held_journal_loses_nothing_and_names_its_holder(repository: Repository) -> None:
    repository.clock.at = 0  # type: ignore[attr-defined]
    lock = JournalLock(repository.files, repository.clock, Lockdown())
    repository.branch.set_present(KEY, U1, True)
    with lock.blocking():
        with pytest.raises(LockHeld, match=f"annexpy \\(pid {os.getpid()}"):
            await repository.branch.commit(seconds=0)
        with pytest.raises(LockHeld):
            repository.branch.merge_now(seconds=0)
        await repository.branch.sync()  # waits for nobody

    assert repository.branch.locations(KEY).present == [U1]
    assert await repository.branch.commit(seconds=0)
    assert repository.branch.locations(KEY).present == [U1]


@pytest.mark.anyio
async def test_who_waits_for_the_journal_leaves_when_somebody_has_committed_for_all(repository: Repository) -> None:
    """Hundreds that close a repository at the same time would keep everybody else from its journal otherwise."""
    with Repository.open(repository.path) as other:
        repository.branch.set_present(KEY, U1, True)
        await repository.branch.sync()
        with other.branch._lock().blocking() as lock, anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(repository.branch.commit)
                await anyio.wait_all_tasks_blocked()
                other.branch._writer().commit("for all", lock)
            # the lock was never free
    assert repository.branch.locations(KEY).present == [U1]
    assert not repository.branch.overlaid()


def test_a_branch_that_moves_meanwhile_is_built_upon(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    branch, moves = repository.branch, []
    write = type(branch._history).move

    def moved(history: object, *arguments: object, **more: object) -> bool:
        if len(moves) < 3:
            moves.append(git(repository.path, "commit-tree", "-p", "git-annex", "-m", "x", "git-annex^{tree}").strip())
            git(repository.path, "update-ref", "refs/heads/git-annex", moves[-1])
        return write(history, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(type(branch._history), "move", moved)
    branch.set_present(KEY, U1, True)
    branch.commit_now()

    assert committed(repository) == "1000s 1 u1\n"
    assert git(repository.path, "rev-parse", "git-annex~1").strip() == moves[-1]
    git(repository.path, "fsck", "--strict")


def test_a_branch_that_never_holds_still_is_given_up(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    branch = repository.branch
    monkeypatch.setattr("annexpy.repo.history._TRIES", 3)
    monkeypatch.setattr(type(branch._history), "move", lambda *_, **__: False)
    branch.set_present(KEY, U1, True)

    with pytest.raises(BranchConflict, match="refs/heads/git-annex moved 3 times"):
        branch.commit_now()

    monkeypatch.undo()
    assert branch.locations(KEY).present == [U1]
    branch.commit_now()
    assert committed(repository) == "1000s 1 u1\n"


@pytest.mark.anyio
async def test_cancelling_leaves_no_lock_and_no_record_behind(repository: Repository) -> None:
    for number, key in enumerate(KEYS[:20]):
        repository.branch.set_present(key, U1, True)
        with anyio.move_on_after(0 if number % 2 else 0.0005):
            await repository.branch.commit()
    await repository.branch.commit()

    assert all(repository.branch.locations(key).present == [U1] for key in KEYS[:20])
    with JournalLock(repository.files, repository.clock, Lockdown()).blocking(0):
        pass


@pytest.mark.anyio
async def test_tasks_may_record_sync_and_commit_at_once(repository: Repository) -> None:
    async def work(first: int) -> None:
        for key in KEYS[first : first + 15]:
            repository.branch.set_present(key, U1, True)
            await repository.branch.sync()
            assert repository.branch.locations(key).present == [U1]
        await repository.branch.commit()

    async with anyio.create_task_group() as tasks:
        for first in range(0, 60, 15):
            tasks.start_soon(work, first)

    assert all(repository.branch.locations(key).present == [U1] for key in KEYS)
    assert repository.branch.queued == 0


def test_threads_may_do_so_too_and_always_see_what_they_wrote(repository: Repository) -> None:
    missing: list[Key] = []

    def work(uuid: UUID, share: int) -> None:
        branch = repository.branch if share % 2 else another(repository)
        for number, key in enumerate(KEYS):
            branch.set_present(key, uuid, True)
            if number % 3 == share % 3:
                branch.sync_now()
            if number % 11 == share:
                branch.commit_now()
            if uuid not in branch.locations(key).present:
                missing.append(key)
        branch.commit_now()

    threads = [threading.Thread(target=work, args=(UUID(f"u{n}"), n)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not missing
    for key in KEYS:
        assert repository.branch.locations(key).present == [f"u{n}" for n in range(6)]
    git(repository.path, "fsck", "--strict")


def test_a_record_that_need_not_be_durable_does_not_wait_for_the_disk(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, end = threading.Event(), threading.Event()
    sync = DiskFiles.sync

    def slow(files: DiskFiles, fd: int) -> None:
        begun.set()
        assert end.wait(10)
        sync(files, fd)

    monkeypatch.setattr(DiskFiles, "sync", slow)
    branch = repository.branch
    branch.set_present(KEYS[0], U1, True)
    durable = threading.Thread(target=branch.sync_now)
    durable.start()
    assert begun.wait(10)
    branch.set_present(KEYS[1], U1, True)
    branch.sync_now(durable=False)

    assert durable.is_alive()
    assert another(repository).locations(KEYS[1]).present == [U1]
    end.set()
    durable.join(10)
    branch.sync_now()
    assert not branch._spool.unsynced


def test_gc_and_packing_of_refs_do_no_harm(repository: Repository) -> None:
    for round_ in range(4):
        for key in KEYS:
            repository.branch.set_present(key, UUID(f"u{round_}"), True)
        repository.branch.commit_now()
        git(repository.path, "gc", "-q", "--prune=now")
        repository.branch.set_present(KEY, U1, round_ % 2 == 0)
        repository.branch.commit_now()
        git(repository.path, "pack-refs", "--all", "--prune")
        assert len(repository.branch.locations(KEYS[5]).present) == round_ + 1
    git(repository.path, "fsck", "--strict")


def test_descriptors_are_given_back(repository: Repository) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    for key in KEYS[:3]:
        repository.branch.set_present(key, U1, True)
        repository.branch.commit_now()
    repository.branch.close()
    before = count()
    for key in KEYS[3:]:
        repository.branch.set_present(key, U1, True)
        repository.branch.sync_now()
        repository.branch.locations(key)
        repository.branch.commit_now()
    list(repository.branch.scan())
    repository.branch.close()
    assert count() == before


# -- pidlock --------------------------------------------------------------------------------------


def test_with_pidlock_everything_works_under_it(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "a-path-that-is-long-enough.git", bare=True) as repository:
        repository.config.set("annex.pidlock", "true")
    with Repository.open(tmp_path / "a-path-that-is-long-enough.git") as repository:
        branch = repository.branch
        branch.set_present(KEY, U1, True)
        branch.sync_now()
        assert [p.suffix for p in Path(repository.path, "annex/annexpy/spool").iterdir()] == [".ready"]
        branch.set_present(KEYS[1], U1, True)
        branch.commit_now()

        assert branch.locations(KEY).present == [U1]
        assert branch.locations(KEYS[1]).present == [U1]
        assert not Path(repository.path, "annex/pidlock").exists()


# -- many at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize("git_may_run", [True, False])
@pytest.mark.parametrize("bulk", [1, 10_000])
def test_many_logs_say_what_each_one_says(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, git_may_run: bool, bulk: int
) -> None:
    monkeypatch.setattr(objects_module, "BULK", bulk)
    monkeypatch.setattr("annexpy.repo.scan.BULK", bulk)
    monkeypatch.setattr("annexpy.repo.absorb.BULK", bulk)
    monkeypatch.setattr(view_module, "_WINDOW", 16)
    dice = random.Random(5)
    repository.config.change({"remote.p.annex-uuid": "u2", "remote.p.annex-private": "true"})
    branch = Branch(repository.files, repository.config, clock=repository.clock, uuid=repository.uuid, git=git_may_run)
    for _ in range(3):
        for key in dice.sample(KEYS, 30):
            branch.set_present(key, UUID(f"u{dice.randrange(3)}"), dice.random() < 0.7)
        branch.commit_now()
    for key in dice.sample(KEYS, 5):
        branch.set_present(key, U1, True)
    branch.sync_now()
    branch.set_present(KEYS[3], U1, False)
    branch.change(b"x.log", lambda content: content + b"x\n")
    Journal(repository.files, Lockdown()).write(location_log(KEYS[4]), b"900s 1 theirs\n")

    asked = [KEYS[7], *KEYS, KEYS[7], Key.parse("WORM--none")]
    found = list(branch.locations_many(asked))
    assert [key for key, _ in found] == asked
    assert all(log == branch.locations(key) for key, log in found)
    everything = dict(branch.scan())
    assert everything == {path: branch.read(path) for path in everything}
    logged = {location_log(key) for key in KEYS if branch.locations(key).entries}
    assert {path for path in everything if path.count(b"/") == 2} == logged
    assert everything.keys() - logged == {b"uuid.log", b"x.log"}
    assert dict(branch.scan(lambda path: path == b"x.log")) == {b"x.log": b"x\n"}
    branch.close()


def test_a_scan_that_is_left_ends_its_processes(repository: Repository) -> None:
    for key in KEYS:
        repository.branch.set_present(key, U1, True)
    repository.branch.commit_now()
    before = set(os.listdir("/proc/self/fd"))

    scan = repository.branch.scan()
    next(scan)
    scan.close()  # type: ignore[attr-defined]

    assert set(os.listdir("/proc/self/fd")) == before


def test_nothing_is_in_a_repository_without_branch(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "r.git")
    git(tmp_path / "r.git", "config", "annex.uuid", "u1")
    git(tmp_path / "r.git", "config", "annex.version", "10")
    with Repository.open(tmp_path / "r.git") as repository:
        assert repository.branch.tip is None
        assert list(repository.branch.scan()) == []
        assert list(repository.branch.read_many([b"a", b"b"])) == [(b"a", b""), (b"b", b"")]
        repository.branch.set_present(KEY, U1, True)
        repository.branch.commit_now()
        assert git(repository.path, "log", "--format=%s", "git-annex").split("\n")[:2] == ["update", "branch created"]
