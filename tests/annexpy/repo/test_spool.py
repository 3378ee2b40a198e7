"""Spool files: nothing acknowledged is lost, nothing half written is believed, nobody waits for a writer."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path

import pytest

from annexpy.repo.files import DiskFiles
from annexpy.repo.records import Queued, presence_record, record_path
from annexpy.repo.settings import Lockdown
from annexpy.repo.spool import SPOOL, Spool
from annexpy.system import CLOCK

BASE = b"b" * 40


class WithoutLocks(DiskFiles):
    """A file system that has none."""

    def try_lock(self, fd: int, *, exclusive: bool) -> bool:
        raise OSError(errno.ENOLCK, "no locks available")


@pytest.fixture
def files(tmp_path: Path) -> DiskFiles:
    return DiskFiles(tmp_path)


def spool(files: DiskFiles, *, locks: bool = True) -> Spool:
    return Spool(files, Lockdown(), CLOCK, locks=locks)


def lines(*numbers: int, path: bytes = b"a/b.log") -> list[bytes]:
    return [presence_record(path, number, b"1", b"u%d" % number) for number in numbers]


def names(files: DiskFiles) -> list[str]:
    return sorted(name.decode().rpartition(".")[2] for name in files.names(SPOOL))


def absorbed(reader: Spool) -> list[bytes]:
    ready = reader.seal()
    found = [line for path in ready for batch in reader.load(path) for line in batch.lines]
    reader.discard(ready)
    return found


def overlay(reader: Spool) -> dict[bytes, list[Queued]]:
    found = {path: reader.records(path) for path in reader.paths()}
    may_have = reader.may_have()
    assert all(map(may_have, found)) if may_have is not None else not found
    return found


@pytest.mark.parametrize("locks", [True, False])
def test_what_is_appended_is_read_and_absorbed_in_order(files: DiskFiles, locks: bool) -> None:
    writer = spool(files, locks=locks)
    writer.append(lines(1, 2), BASE, sync=True)
    writer.append(lines(3), b"", sync=False)

    assert names(files) == (["open"] if locks else ["ready", "ready"])
    records = [Queued(line, base) for line, base in zip(lines(1, 2, 3), (BASE, BASE, b""), strict=True)]
    assert overlay(spool(files)) == {b"a/b.log": records}
    assert absorbed(spool(files)) == lines(1, 2, 3)
    assert names(files) == []
    assert overlay(spool(files)) == {}


def test_a_writer_goes_on_in_another_file_once_its_own_was_taken(files: DiskFiles) -> None:
    writer, absorber = spool(files), spool(files)
    for number in range(5):
        writer.append(lines(number), BASE, sync=True)
        assert absorbed(absorber) == lines(number)


def test_a_file_that_is_sealed_between_opening_and_locking_is_not_written_to(files: DiskFiles) -> None:
    absorber = spool(files)
    taken: list[bytes] = []

    class SealedThen(DiskFiles):
        def try_lock(self, fd: int, *, exclusive: bool) -> bool:
            if not taken:
                taken.extend(absorber.seal())
            return super().try_lock(fd, exclusive=exclusive)

    writer = spool(files)
    writer.append(lines(1), BASE, sync=True)
    writer._files = SealedThen(files.path)
    writer.append(lines(2), BASE, sync=True)

    assert [line for batch in absorber.load(taken[0]) for line in batch.lines] == lines(1)
    assert absorbed(absorber) == [*lines(1), *lines(2)]


def test_a_file_system_without_locks_is_noticed(tmp_path: Path) -> None:
    files = WithoutLocks(tmp_path)
    writer = spool(files)

    writer.append(lines(1), BASE, sync=True)
    writer.append(lines(2), BASE, sync=True)

    assert names(files) == ["ready", "ready"]
    assert absorbed(spool(files)) == lines(1, 2)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_batch_is_as_if_it_had_never_been(files: DiskFiles, cut: int) -> None:
    writer = spool(files)
    writer.append(lines(1), BASE, sync=True)
    writer.append(lines(2, 3), BASE, sync=True)
    path = Path(os.fsdecode(files.path + b"/" + SPOOL + b"/" + files.names(SPOOL)[0]))
    os.truncate(path, path.stat().st_size - cut)

    assert overlay(spool(files)) == {b"a/b.log": [Queued(lines(1)[0], BASE)]}
    assert absorbed(spool(files)) == lines(1)


def test_zeros_where_data_should_be_are_no_records(files: DiskFiles) -> None:
    writer = spool(files)
    writer.append(lines(1), BASE, sync=True)
    writer.append(lines(2), BASE, sync=False)
    path = Path(os.fsdecode(files.path + b"/" + SPOOL + b"/" + files.names(SPOOL)[0]))
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) - 20] + bytes(20))

    assert absorbed(spool(files)) == lines(1)


def test_a_failed_write_is_taken_back_and_the_next_one_counts(files: DiskFiles) -> None:
    class FullOnce(DiskFiles):
        full = True

        def write(self, fd: int, data: bytes | memoryview) -> None:
            if self.full:
                FullOnce.full = False
                super().write(fd, data[:30])
                raise OSError(errno.ENOSPC, "no space left")
            super().write(fd, data)

    writer = spool(files)
    writer.append(lines(1), BASE, sync=True)
    writer._files = FullOnce(files.path)
    with pytest.raises(OSError, match="no space left"):
        writer.append(lines(2), BASE, sync=True)
    writer.append(lines(3), BASE, sync=True)

    assert absorbed(spool(files)) == lines(1, 3)


def test_a_large_file_is_left_for_a_new_one(files: DiskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annexpy.repo.spool._LARGEST", 200)
    writer = spool(files)
    for number in range(10):
        writer.append(lines(number), BASE, sync=False)

    assert len(names(files)) > 3
    assert absorbed(spool(files)) == lines(*range(10))


def test_the_overlay_follows_what_is_appended_and_absorbed(files: DiskFiles) -> None:
    one, two, reader = spool(files), spool(files), spool(files)
    one.append(lines(1), BASE, sync=True)
    two.append(lines(2), BASE, sync=True)
    two.append(lines(9, path=b"c"), BASE, sync=True)
    assert [record.line for record in overlay(reader)[b"a/b.log"]] == lines(1, 2)
    one.append(lines(3), BASE, sync=True)
    assert [record.line for record in overlay(reader)[b"a/b.log"]] == lines(1, 2, 3)
    assert reader.paths() == {b"a/b.log", b"c"}

    ready = reader.seal()
    assert [record.line for record in overlay(reader)[b"a/b.log"]] == lines(1, 2, 3)
    reader.discard(ready[:1])
    left = {record.line for record in overlay(reader).get(b"a/b.log", [])}
    assert left in ({*lines(1, 3)}, {*lines(2)})


def test_unfinished_files_are_removed_when_they_are_old(files: DiskFiles) -> None:
    files.make_folders(SPOOL)
    for name, age in ((b"new.tmp", 0.0), (b"old.tmp", 200_000.0)):
        files.close_fd(files.open_write(SPOOL + b"/" + name))
        files.utime(SPOOL + b"/" + name, CLOCK.wall() - age)

    assert spool(files).seal() == []

    assert files.names(SPOOL) == [b"new.tmp"]


def test_writers_and_an_absorber_at_once_lose_nothing_and_double_nothing(files: DiskFiles) -> None:
    found: list[bytes] = []
    done = threading.Event()

    def write(first: int) -> None:
        writer = spool(files)
        for number in range(first, first + 200):
            writer.append(lines(number), BASE, sync=False)

    writers = [threading.Thread(target=write, args=(first,)) for first in range(0, 1000, 200)]

    def take() -> None:
        absorber = spool(files)
        while not done.is_set():
            found.extend(absorbed(absorber))
        found.extend(absorbed(absorber))

    absorber = threading.Thread(target=take)
    for thread in (absorber, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    absorber.join()

    assert sorted(found) == sorted(lines(*range(1000)))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_a_file_of_its_own(files: DiskFiles) -> None:
    writer = spool(files)
    writer.append(lines(1), BASE, sync=True)
    child = os.fork()
    if child == 0:
        writer.append(lines(2), BASE, sync=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    writer.append(lines(3), BASE, sync=True)

    assert names(files) == ["open", "open"]
    assert sorted(absorbed(spool(files))) == lines(1, 2, 3)


def test_what_was_spooled_without_syncing_is_synced_by_the_next_sync(tmp_path: Path) -> None:
    synced: list[str] = []

    class Watched(DiskFiles):
        def sync(self, fd: int) -> None:
            synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
            super().sync(fd)

    spool = Spool(Watched(tmp_path), Lockdown(), CLOCK)
    spool.append([b"a.log\t0000000000000001\tP\t1\tu"], b"", sync=False)
    assert spool.unsynced
    assert synced == []
    spool.sync()
    assert not spool.unsynced
    assert [name.rpartition(".")[2] for name in synced] == ["open"]
    spool.sync()
    assert len(synced) == 1
    spool.append([b"a.log\t0000000000000002\tP\t0\tu"], b"", sync=False)
    spool.seal()
    spool.append([b"a.log\t0000000000000003\tP\t1\tu"], b"", sync=False)
    assert len(synced) == 1  # whoever appends does not wait for the disk
    spool.sync()
    assert [name.rpartition(".")[2] for name in synced] == ["open", "ready", "open"]
    assert not spool.unsynced
    spool.close()


class FailsToSync(DiskFiles):
    """A disk that fails to sync a file once, and to keep what was in it."""

    failing = False

    def sync(self, fd: int) -> None:
        if self.failing:
            self.failing = False
            raise OSError(errno.EIO, "I/O error")
        super().sync(fd)


@pytest.mark.parametrize("locks", [True, False])
def test_what_a_failed_sync_may_have_lost_is_written_again_by_the_next_one(tmp_path: Path, locks: bool) -> None:
    files = FailsToSync(tmp_path)
    spool = Spool(files, Lockdown(), CLOCK, locks=locks)
    spool.append(lines(1), BASE, sync=False)
    spool.append(lines(2), BASE, sync=False)
    files.failing = True
    with pytest.raises(OSError, match="I/O error"):
        spool.sync()
    assert spool.unsynced
    before = set(files.names(SPOOL))

    spool.sync()

    assert not spool.unsynced
    again = [SPOOL + b"/" + name for name in files.names(SPOOL) if name not in before]
    assert {line for path in again for batch in spool.load(path) for line in batch.lines} >= set(
        lines(1, 2) if locks else lines(1)
    )
    spool.append(lines(3), BASE, sync=True)
    assert set(absorbed(spool)) == set(lines(1, 2, 3))


def test_a_failed_write_leaves_what_was_appended_before_to_be_synced(tmp_path: Path) -> None:
    class FullOnce(FailsToSync):
        full = False
        synced = 0

        def write(self, fd: int, data: bytes | memoryview) -> None:
            if self.full:
                self.full = False
                raise OSError(errno.ENOSPC, "no space left")
            super().write(fd, data)

        def sync(self, fd: int) -> None:
            super().sync(fd)
            self.synced += 1

    files = FullOnce(tmp_path)
    spool = Spool(files, Lockdown(), CLOCK)
    spool.append(lines(1), BASE, sync=False)
    files.full = True
    with pytest.raises(OSError, match="no space left"):
        spool.append(lines(2), BASE, sync=False)

    assert spool.unsynced
    spool.sync()
    assert files.synced == 1
    assert not spool.unsynced


def test_whoever_appends_does_not_wait_for_a_sync_that_is_running(tmp_path: Path) -> None:
    begun, end = threading.Event(), threading.Event()

    class Slow(DiskFiles):
        def sync(self, fd: int) -> None:
            begun.set()
            assert end.wait(10)
            super().sync(fd)

    spool = Spool(Slow(tmp_path), Lockdown(), CLOCK)
    spool.append(lines(1), BASE, sync=False)
    syncing = threading.Thread(target=spool.sync)
    syncing.start()
    assert begun.wait(10)

    spool.append(lines(2), BASE, sync=False)
    taken = spool.seal()  # nor does an absorber
    spool.append(lines(3), BASE, sync=False)

    assert {line for batch in spool.load(taken[0]) for line in batch.lines} == set(lines(1, 2))
    assert syncing.is_alive()
    end.set()
    syncing.join(10)
    assert spool.unsynced
    spool.sync()
    assert not spool.unsynced
    assert set(absorbed(spool)) == set(lines(1, 2, 3))


def test_locks_that_stop_working_lose_nothing(tmp_path: Path) -> None:
    spool = Spool(DiskFiles(tmp_path), Lockdown(), CLOCK)
    spool.append(lines(1), BASE, sync=False)
    spool._files = WithoutLocks(tmp_path)
    spool.append(lines(2), BASE, sync=True)

    assert set(absorbed(Spool(DiskFiles(tmp_path), Lockdown(), CLOCK))) == set(lines(1, 2))


def test_files_that_are_never_synced_cost_no_descriptors(tmp_path: Path) -> None:
    spool = Spool(DiskFiles(tmp_path), Lockdown(), CLOCK)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        spool.append(lines(number), BASE, sync=False)
        absorbed(spool)

    assert len(os.listdir("/proc/self/fd")) <= before + 3
    assert len(spool._unsynced) <= 2


def test_records_are_found_in_files_of_any_form(files: DiskFiles) -> None:
    dice = random.Random(3)
    writers, reader = [spool(files) for _ in range(3)], spool(files)
    expected: dict[bytes, list[bytes]] = {}
    for number in range(200):
        some = [
            presence_record(path, 1000 * number + at, b"1", b"u" * dice.choice([1, 5000]))
            for at, path in enumerate(dice.choices([b"a.log", b"a\tb.log", b"c/d.log", b"e"], k=dice.randrange(1, 9)))
        ]
        dice.choice(writers).append(some, dice.choice([BASE, b""]), sync=False)
        for line in some:
            expected.setdefault(record_path(line), []).append(line)
        if number % 20 == 0:
            assert reader.paths() == expected.keys()
            for path, lines in expected.items():
                assert [record.line for record in reader.records(path)] == lines

    assert overlay(reader) == overlay(spool(files))
    assert reader.records(b"f") == []


def test_what_is_absorbed_while_it_waits_to_be_synced_is_no_concern_of_the_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annexpy.repo.spool._LARGEST", 1)
    meanwhile: list[list[bytes]] = []

    class Slow(DiskFiles):
        """Another thread adds a record, once another process has taken everything."""

        def sync(self, fd: int) -> None:
            super().sync(fd)
            if not meanwhile:
                meanwhile.append(absorbed(spool(DiskFiles(tmp_path))))
                writer.append(lines(4), BASE, sync=False)

    writer = spool(Slow(tmp_path))
    for number in (1, 2, 3):
        writer.append(lines(number), BASE, sync=False)
    writer.sync()
    writer.sync()

    assert not writer.unsynced
    assert meanwhile == [lines(1, 2, 3)]
    assert absorbed(spool(DiskFiles(tmp_path))) == lines(4)


def test_nobody_waits_for_a_file_that_stays_locked(files: DiskFiles) -> None:
    """A child that was forked while its parent sealed the file keeps the lock."""

    class Counted(DiskFiles):
        tries = 0

        def try_lock(self, fd: int, *, exclusive: bool) -> bool:
            Counted.tries += 1
            assert Counted.tries < 50
            return super().try_lock(fd, exclusive=exclusive)

    writer = spool(files)
    writer.append(lines(1), BASE, sync=True)
    path = SPOOL + b"/" + files.names(SPOOL)[0]
    kept = files.open_write(path, create=False)
    assert files.try_lock(kept, exclusive=True)
    files.rename(path, path.removesuffix(b".open") + b".ready")
    writer._files = Counted(files.path)
    writer.append(lines(2), BASE, sync=True)
    files.close_fd(kept)

    assert absorbed(spool(files)) == lines(1, 2)


def test_whoever_seals_a_file_takes_the_lock_along_for_no_child(files: DiskFiles) -> None:
    kept: list[int] = []

    class Forking(DiskFiles):
        """A child is forked after the file was locked: it has the same descriptor."""

        def rename(self, old: bytes, new: bytes) -> None:
            super().rename(old, new)
            kept.extend(os.dup(int(fd)) for fd in os.listdir("/proc/self/fd") if is_at(int(fd), new))

    def is_at(fd: int, path: bytes) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(os.path.join(files.path, path)))
        except OSError:
            return False

    writer = spool(files)
    writer.append(lines(1), BASE, sync=True)
    own = writer._own
    assert own is not None
    spool(Forking(files.path)).seal()

    assert kept
    assert files.try_lock(own.fd, exclusive=True)
    for fd in kept:
        os.close(fd)


@pytest.mark.parametrize("gone", [True, False])
def test_where_locks_stopped_working_only_a_file_whose_writer_is_gone_is_taken(
    files: DiskFiles, tmp_path: Path, gone: bool
) -> None:
    writer = spool(files)
    writer.append(lines(1), BASE, sync=True)
    (written,) = (tmp_path / os.fsdecode(SPOOL)).iterdir()
    if gone:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        written.rename(written.with_name(written.name.replace(f"-{os.getpid()}-", f"-{child}-")))

    assert absorbed(spool(WithoutLocks(tmp_path))) == (lines(1) if gone else [])
