"""The journal lock keeps git-annex and ourselves out, and says who has it."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from annexpy.errors import LockHeld, UnsupportedRepository
from annexpy.repo.files import DiskFiles
from annexpy.repo.journal import JOURNAL, PRIVATE, Journal, JournalLock
from annexpy.repo.settings import Lockdown
from annexpy.system import CLOCK

POSIX_LOCK = """
import fcntl, os, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def files(tmp_path: Path) -> Iterator[DiskFiles]:
    opened = DiskFiles(tmp_path)
    yield opened
    opened.close()


def lock(files: DiskFiles, *, pidlock: bool = False) -> JournalLock:
    return JournalLock(files, CLOCK, Lockdown(), pidlock=pidlock)


@pytest.mark.parametrize("pidlock", [False, True])
def test_it_excludes_other_threads_and_is_given_back(files: DiskFiles, pidlock: bool) -> None:
    one, two = lock(files, pidlock=pidlock), lock(files, pidlock=pidlock)
    with one.blocking():
        assert not two.try_acquire()
    assert two.try_acquire()
    two.release()
    assert one.try_acquire()
    one.release()


def test_it_excludes_what_git_annex_locks_and_names_its_process(files: DiskFiles, tmp_path: Path) -> None:
    (tmp_path / "annex").mkdir()
    (tmp_path / "annex/journal.lck").touch()
    with subprocess.Popen(
        [sys.executable, "-c", POSIX_LOCK, tmp_path / "annex/journal.lck"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        pid = other.stdout.readline().strip()
        ours = lock(files)
        with pytest.raises(LockHeld, match=rf"annex/journal\.lck is held by python\S* \(pid {pid}\); gave up after"):
            with ours.blocking(0.01):
                pass
        other.stdin.close()
        other.wait()
    with ours.blocking(0):
        pass


def test_git_annex_is_kept_out(files: DiskFiles, tmp_path: Path) -> None:
    script = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)"
    command = [sys.executable, "-c", script, str(tmp_path / "annex/journal.lck")]
    with lock(files).blocking():
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_one_of_ours_is_named_by_its_note(files: DiskFiles) -> None:
    with (
        lock(files).blocking(),
        pytest.raises(LockHeld, match=rf"annexpy \(pid {os.getpid()} on {os.uname().nodename}\)"),
    ):
        with lock(files).blocking(0):
            pass


@pytest.mark.anyio
async def test_waiting_lets_other_tasks_go_on_and_ends(files: DiskFiles) -> None:
    import anyio

    holder, waiter = lock(files), lock(files)
    assert holder.try_acquire()
    went_on: list[int] = []
    async with anyio.create_task_group() as tasks:

        async def release() -> None:
            await anyio.sleep(0.01)
            went_on.append(1)
            holder.release()

        tasks.start_soon(release)
        await waiter.acquire(5)
    assert went_on
    with pytest.raises(LockHeld):
        await lock(files).acquire(0.01)
    waiter.release()


def test_what_a_crash_left_is_handed_to_the_next(files: DiskFiles, tmp_path: Path) -> None:
    with lock(files).blocking() as first:
        assert first.left == b""
        first.note([b"commit", b"spool"], sync=True)
        note = (tmp_path / "annex/annexpy/journal.holder").read_bytes()
    with lock(files).blocking() as second:
        assert second.left == b""
    (tmp_path / "annex/annexpy/journal.holder").write_bytes(note)

    with lock(files).blocking() as third:
        assert third.left.split(b"\n")[1:] == [b"commit", b"spool", b""]
    with lock(files).blocking() as fourth:
        assert fourth.left == b""


def test_a_file_system_without_locks_is_told_what_it_needs(tmp_path: Path) -> None:
    import errno

    class WithoutLocks(DiskFiles):
        def lock_file(self, name: bytes, *, exclusive: bool) -> int | None:
            raise OSError(errno.ENOLCK, "no locks available")

        def folder(self, path: bytes, *, create: bool = False) -> DiskFiles:
            return WithoutLocks(os.path.join(self.path, path))

    (tmp_path / "annex").mkdir()
    with pytest.raises(UnsupportedRepository, match=r"needs annex\.pidlock=true"):
        lock(WithoutLocks(tmp_path)).try_acquire()


def test_no_descriptor_is_left_open(files: DiskFiles) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    with lock(files).blocking():
        pass
    before = count()
    for _ in range(20):
        with lock(files).blocking(), pytest.raises(LockHeld):
            with lock(files).blocking(0):
                pass
    assert count() == before


def test_only_one_thread_at_a_time_has_it(files: DiskFiles) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(20):
            with lock(files).blocking(30):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 80


@pytest.mark.parametrize("folder", [JOURNAL, PRIVATE])
def test_files_are_named_as_git_annex_names_them(files: DiskFiles, tmp_path: Path, folder: bytes) -> None:
    journal = Journal(files, Lockdown(), folder)
    path = b"955/5eb/SHA256-s1--a_b&sc&cd.log"

    assert journal.read(path) is None
    assert journal.paths() == []
    journal.write(path, b"one\ntwo\n")
    journal.sync()

    assert (tmp_path / os.fsdecode(folder) / "955_5eb_SHA256-s1--a__b&sc&cd.log").read_bytes() == b"one\ntwo\n"
    assert journal.paths() == [path]
    assert journal.read(path) == b"one\ntwo\n"
    journal.remove(path)
    journal.remove(path)
    assert journal.paths() == []


def test_a_last_line_without_newline_does_not_count(files: DiskFiles, tmp_path: Path) -> None:
    (tmp_path / "annex/journal").mkdir(parents=True)
    (tmp_path / "annex/journal/x.log").write_bytes(b"one\ntw")

    assert Journal(files, Lockdown()).read(b"x.log") == b"one\n"


def test_the_lock_survives_the_closing_of_other_descriptors(files: DiskFiles, tmp_path: Path) -> None:
    with lock(files).blocking():
        (tmp_path / "annex/journal.lck").open().close()  # drops POSIX locks of the process
        probe = os.open(tmp_path / "annex/journal.lck", os.O_RDWR)
        answer = fcntl.fcntl(probe, 36, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
        os.close(probe)
        assert struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK
