"""Content locks, retentions and removals among ourselves; test_content_interop.py has the real git-annex in it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from annexpy.errors import (
    ContentLocked,
    LockHeld,
    NotLocked,
    TimedOut,
    UnsupportedRepository,
)
from annexpy.keys.key import Key
from annexpy.repo.content import ContentStore
from annexpy.repo.files import DiskFiles, Files
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.settings import ContentSettings

CONTENT = b"content"
KEY = Key.parse(f"SHA256E-s7--{hashlib.sha256(CONTENT).hexdigest()}")
OTHER = Key.parse("WORM-s7-m1--other")


class Clock:
    """What passes, and how somebody set the time of day."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.boot = 0.0
        self.set_by = 0.0

    def now(self) -> float:
        return self.seconds

    def booted(self) -> float:
        return self.boot

    def wall(self) -> float:
        return 1_800_000_000.0 + self.seconds + self.set_by

    def reboot(self, *, beginning: float, uptime: float) -> None:
        """The time of day goes on; the other clock begins somewhere else."""
        wall = self.wall()
        self.boot, self.seconds = beginning, beginning + uptime
        self.set_by += wall - self.wall()


@pytest.fixture(params=["disk", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return DiskFiles(tmp_path) if request.param == "disk" else MemoryFiles()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(files: Files, clock: Clock) -> ContentStore:
    store = ContentStore(files, clock=clock, settings=ContentSettings())
    plant(store, KEY)
    return store


def plant(store: ContentStore, key: Key, *, place: int = 0) -> bytes:
    files = store.folders.files
    path = b"annex/objects/" + store.folders.paths(key)[place]
    folder = os.path.dirname(path)
    files.make_folders(folder)
    files.replace(path, CONTENT, mode=0o444, sync=False)
    files.chmod(folder, 0o555)
    return path


def beside(store: ContentStore, key: Key = KEY) -> list[str]:
    """What lies beside the object."""
    folder = b"annex/objects/" + os.path.dirname(store.folders.paths(key)[0])
    return sorted(name.removeprefix(key.raw).decode() for name in store.folders.files.names(folder) if name != key.raw)


def retention(store: ContentStore) -> str:
    text = store.folders.files.read(b"annex/objects/" + store.folders.paths(KEY)[0] + b".rtm")
    assert text is not None
    return text.decode()


def set_retention(store: ContentStore, text: bytes) -> None:
    path = b"annex/objects/" + store.folders.paths(KEY)[0]
    files = store.folders.files
    files.chmod(os.path.dirname(path), 0o755)
    files.replace(path + b".rtm", text, sync=False)
    files.chmod(os.path.dirname(path), 0o555)


# -- locks ----------------------------------------------------------------------------------------


def test_a_locked_content_is_not_removed_and_an_unlocked_one_is(store: ContentStore) -> None:
    lock = store.lock(KEY)
    assert lock.held()
    with pytest.raises(ContentLocked):
        store.remove(KEY)
    assert store.present(KEY)

    lock.release()

    assert not lock.held()
    assert beside(store) == []
    assert store.remove(KEY)
    assert not store.present(KEY)


def test_any_number_may_lock_and_the_last_one_frees(store: ContentStore, clock: Clock) -> None:
    locks = []
    for _ in range(3):
        locks.append(store.lock(KEY))
        clock.seconds += 1

    for lock in (locks[1], locks[0]):
        lock.release()
        with pytest.raises(ContentLocked):
            store.remove(KEY)
    locks[2].release()

    assert store.remove(KEY)


@pytest.mark.parametrize("order", ["first in first out", "last in first out"])
def test_two_lockers_leave_nothing_behind_in_either_order(store: ContentStore, clock: Clock, order: str) -> None:
    first = store.lock(KEY)
    clock.seconds += 5
    second = store.lock(KEY)
    for lock in (first, second) if order.startswith("first") else (second, first):
        lock.release()

    assert beside(store) == []
    assert store.remove(KEY)


def test_releasing_twice_is_releasing_once(store: ContentStore) -> None:
    lock = store.lock(KEY)
    lock.release()
    lock.release()
    other = store.lock(KEY)
    lock.release()

    assert other.held()


def test_an_absent_content_cannot_be_locked(store: ContentStore) -> None:
    with pytest.raises(NotLocked, match="not present"):
        store.lock(OTHER)


def test_a_content_that_is_being_removed_cannot_be_locked(store: ContentStore) -> None:
    with store.removal(KEY), pytest.raises(NotLocked, match="being removed"):
        store.lock(KEY)


def test_two_removals_exclude_each_other(store: ContentStore) -> None:
    with store.removal(KEY), pytest.raises(ContentLocked):
        store.remove(KEY)


def test_a_lock_knows_when_its_file_or_its_object_is_gone(store: ContentStore) -> None:
    files, path = store.folders.files, b"annex/objects/" + store.folders.paths(KEY)[0]
    files.chmod(os.path.dirname(path), 0o755)
    for name in (path + b".lck", path):
        lock = store.lock(KEY)
        assert lock.held()
        files.rename(name, b"gone")
        files.unlink(b"gone")
        assert not lock.held()
        lock.release()


def test_what_is_held_without_a_look_counts_only_while_the_content_is_there(store: ContentStore) -> None:
    files, path = store.folders.files, b"annex/objects/" + store.folders.paths(KEY)[0]
    lock = store.hold(KEY)
    assert store.holds(lock)
    with pytest.raises(ContentLocked):
        store.remove(KEY)
    files.chmod(os.path.dirname(path), 0o755)
    files.replace(path, CONTENT[:3], mode=0o444, sync=False)
    assert not store.holds(lock)
    files.unlink(path)
    assert not store.holds(lock)

    lock.release()

    assert beside(store) == []


def test_a_folder_without_an_object_is_left_as_it_was(store: ContentStore) -> None:
    files, path = store.folders.files, b"annex/objects/" + store.folders.paths(KEY)[0]
    files.chmod(os.path.dirname(path), 0o755)
    files.unlink(path)
    files.chmod(os.path.dirname(path), 0o555)

    with pytest.raises(NotLocked, match="not present"):
        store.lock(KEY)

    assert beside(store) == []
    status = files.status(os.path.dirname(path))
    assert status is not None
    assert status.st_mode & 0o777 == 0o555


def test_the_other_place_is_locked_when_the_first_has_no_object(store: ContentStore) -> None:
    files, path = store.folders.files, b"annex/objects/" + store.folders.paths(KEY)[0]
    plant(store, KEY, place=1)
    files.chmod(os.path.dirname(path), 0o755)
    files.unlink(path)

    lock = store.lock(KEY)

    assert lock.held()
    with pytest.raises(ContentLocked):
        store.remove(KEY)
    lock.release()


# -- retention ------------------------------------------------------------------------------------


def test_the_retention_is_now_and_600_seconds_without_a_newline(store: ContentStore) -> None:
    lock = store.lock(KEY)

    assert retention(store) == "1800001600.000000000s"
    assert lock.expires == 1_600.0
    assert beside(store) == [".lck", ".rtl", ".rtm"]


def test_a_locker_that_vanished_keeps_the_content_until_its_retention_is_over(
    store: ContentStore, clock: Clock
) -> None:
    store.lock(KEY).vanish()

    clock.seconds += 600
    with pytest.raises(ContentLocked, match="expires in 0 s"):
        store.remove(KEY)
    clock.seconds += 1

    assert store.remove(KEY)
    assert store.folders.files.names(b"annex/objects") == []


def test_a_process_that_was_killed_keeps_the_content_too(clock: Clock) -> None:
    files = MemoryFiles()
    store = ContentStore(files, clock=clock, settings=ContentSettings())
    plant(store, KEY)
    store.lock(KEY)

    files.kill()

    again = ContentStore(files, clock=clock, settings=ContentSettings())
    with pytest.raises(ContentLocked):
        again.remove(KEY)
    clock.seconds += 601
    assert again.remove(KEY)


def test_a_later_retention_is_never_lowered(store: ContentStore) -> None:
    set_retention(store, b"1800009999s")

    store.lock(KEY).release()

    assert retention(store) == "1800009999s"
    with pytest.raises(ContentLocked):
        store.remove(KEY)


def test_somebody_elses_lock_and_unlock_does_not_free_what_a_vanished_locker_keeps(
    store: ContentStore, clock: Clock
) -> None:
    """The reference does free it: fact sheet p2p-protocol, section 4."""
    store.lock(KEY).vanish()
    for _ in range(3):
        clock.seconds += 100
        store.lock(KEY).release()

    with pytest.raises(ContentLocked, match="expires in 300 s"):
        store.remove(KEY)
    clock.seconds += 301
    assert store.remove(KEY)


def test_a_killed_locker_is_noticed_by_the_next_one(clock: Clock) -> None:
    files = MemoryFiles()
    store = ContentStore(files, clock=clock, settings=ContentSettings())
    plant(store, KEY)
    store.lock(KEY)
    files.kill()

    clock.seconds += 100
    store.lock(KEY).release()

    with pytest.raises(ContentLocked, match="expires in 500 s"):
        store.remove(KEY)


def test_a_vanished_locker_among_living_ones_is_not_forgotten(store: ContentStore, clock: Clock) -> None:
    first = store.lock(KEY)
    clock.seconds += 10
    second = store.lock(KEY)
    first.vanish()
    clock.seconds += 10
    third = store.lock(KEY)
    second.release()
    third.release()

    with pytest.raises(ContentLocked):
        store.remove(KEY)
    clock.seconds += 600
    assert store.remove(KEY)


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        (b"1800009999", True),
        (b"1800009999s", True),
        (b"1800009999.5s", True),
        (b"1800009999s\n", False),
        (b"1800009999 s", False),
        (b"-1800009999s", False),
        (b"soon", False),
        (b"", False),
        (b"1800000001s", False),
    ],
)
def test_a_retention_file_counts_as_git_annex_reads_it(store: ContentStore, text: bytes, keeps: bool) -> None:
    set_retention(store, text)

    if keeps:
        with pytest.raises(ContentLocked):
            store.remove(KEY)
    else:
        assert store.remove(KEY)


# -- clocks that are set, and clocks that begin anew ----------------------------------------------


def left(store: ContentStore) -> float | None:
    """Seconds until it may be removed; None: now."""
    try:
        with store.removal(KEY):
            return None
    except ContentLocked as error:
        return float(str(error).rpartition(" expires in ")[2].removesuffix(" s"))


@pytest.mark.parametrize("steps", [(3600.0,), (700.0, -50.0), (1e9,), (-3600.0, 7200.0)])
def test_a_clock_that_is_set_forward_frees_nothing_too_early(
    store: ContentStore, clock: Clock, steps: tuple[float, ...]
) -> None:
    store.lock(KEY).vanish()

    for step in steps:
        clock.set_by += step

    clock.seconds += 599
    assert left(store) == 1
    clock.seconds += 2
    assert store.remove(KEY)
    assert store.folders.files.names(b"annex/objects") == []


def test_a_clock_that_is_set_back_frees_nothing_too_early_either(store: ContentStore, clock: Clock) -> None:
    """git-annex goes by the time of day alone, and would not let go of it any sooner."""
    store.lock(KEY).vanish()

    clock.set_by -= 100
    clock.seconds += 601

    assert left(store) == 99
    clock.seconds += 100
    assert store.remove(KEY)


@pytest.mark.parametrize("how", ["vanished", "killed"])
def test_others_may_lock_and_unlock_after_the_clock_was_set(how: str, clock: Clock) -> None:
    files = MemoryFiles()
    store = ContentStore(files, clock=clock, settings=ContentSettings())
    plant(store, KEY)
    lock = store.lock(KEY)
    if how == "killed":
        files.kill()
    else:
        lock.vanish()

    clock.set_by += 3600
    for _ in range(3):
        clock.seconds += 100
        store.lock(KEY).release()

    assert left(store) == 300
    clock.seconds += 301
    assert store.remove(KEY)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_lockers_who_all_unlock_leave_nothing_behind_though_the_clock_was_set(
    store: ContentStore, clock: Clock, order: tuple[int, ...]
) -> None:
    locks = []
    for step in (3600, 700, 100):
        locks.append(store.lock(KEY))
        clock.set_by += step
        clock.seconds += 1
    for number in order:
        locks[number].release()

    assert left(store) is None
    assert beside(store) == []


@pytest.mark.parametrize("beginning", [5.0e8, 1.0, 1e3 - 30, 0.0])
def test_after_a_reboot_with_a_wrong_clock_the_content_stays_as_long_as_any_lock_lasts(
    store: ContentStore, clock: Clock, beginning: float
) -> None:
    """What the note of another boot says is not known; that it was before this boot is."""
    clock.boot, clock.seconds = 2e8, 2e8 + 1000
    store.lock(KEY).vanish()

    clock.reboot(beginning=beginning, uptime=20)
    clock.set_by += 86400

    assert left(store) == 580
    clock.seconds += 581
    assert store.remove(KEY)


def test_a_note_of_another_boot_is_as_old_as_this_boot_at_least(store: ContentStore, clock: Clock) -> None:
    store.lock(KEY).vanish()
    clock.seconds += 86400
    clock.reboot(beginning=7e8, uptime=601)

    assert store.remove(KEY)


def test_a_lock_of_this_boot_does_not_forget_that_of_the_last_one(store: ContentStore, clock: Clock) -> None:
    store.lock(KEY).vanish()
    clock.reboot(beginning=7e8, uptime=20)
    clock.set_by += 3600
    store.lock(KEY).release()

    assert left(store) == 580
    clock.seconds += 581
    assert store.remove(KEY)


@pytest.mark.parametrize("note", [b"", b"1800000001s", b"nonsense", b"\xff" * 300, b"1.0s 5.0", b"1800000001.5s"])
def test_a_note_that_is_none_says_nothing(store: ContentStore, note: bytes) -> None:
    store.lock(KEY).release()
    set_retention(store, b"1800000001s")
    path = b"annex/objects/" + store.folders.paths(KEY)[0]
    store.folders.files.chmod(os.path.dirname(path), 0o755)
    store.folders.files.replace(path + b".rtl", note, sync=False)

    assert store.remove(KEY)


def test_a_writer_of_retentions_who_hangs_is_waited_for_only_so_long(store: ContentStore) -> None:
    files, path = store.folders.files, b"annex/objects/" + store.folders.paths(KEY)[0]
    files.chmod(os.path.dirname(path), 0o755)
    fd = files.folder(os.path.dirname(path)).lock_file(KEY.raw + b".rtl", exclusive=True)
    assert fd is not None

    with pytest.raises(LockHeld):
        store.lock(KEY)

    files.close_fd(fd)
    store.lock(KEY).release()


# -- removal --------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [b".rtl", b".rtm"])
def test_what_is_left_of_a_retention_goes_with_the_object(store: ContentStore, left: bytes) -> None:
    set_retention(store, b"1800000001s")
    files, path = store.folders.files, b"annex/objects/" + store.folders.paths(KEY)[0]
    if left != b".rtm":
        files.chmod(os.path.dirname(path), 0o755)
        files.rename(path + b".rtm", path + left)

    assert store.remove(KEY)

    assert files.names(b"annex/objects") == []


def test_what_somebody_else_put_beside_an_object_stays_in_a_frozen_folder(store: ContentStore) -> None:
    files, path = store.folders.files, b"annex/objects/" + store.folders.paths(KEY)[0]
    files.chmod(os.path.dirname(path), 0o755)
    files.replace(os.path.dirname(path) + b"/theirs", b"", sync=False)
    files.chmod(os.path.dirname(path), 0o555)

    assert store.remove(KEY)

    assert files.names(os.path.dirname(path)) == [b"theirs"]
    status = files.status(os.path.dirname(path))
    assert status is not None
    assert status.st_mode & 0o777 == 0o555


def test_a_removal_clears_the_folders_that_are_empty_then_and_no_others(store: ContentStore) -> None:
    store.folders.files.make_folders(b"annex/objects/" + store.folders.paths(KEY)[0][:3] + b"/xyz")

    store.remove(KEY)

    assert store.folders.files.names(b"annex/objects/" + store.folders.paths(KEY)[0][:3]) == [b"xyz"]


def test_a_removal_that_is_left_alone_changes_nothing(store: ContentStore) -> None:
    with store.removal(KEY):
        assert beside(store) == [".lck"]

    assert beside(store) == []
    assert store.present(KEY)


def test_both_places_of_a_content_are_emptied(store: ContentStore) -> None:
    plant(store, KEY, place=1)

    assert store.remove(KEY)

    assert not store.present(KEY)
    assert store.folders.files.names(b"annex/objects") == []


@pytest.mark.parametrize(("deadline", "removed"), [(1_000.0, False), (999.0, False), (1_001.0, True), (None, True)])
def test_a_removal_happens_before_its_deadline_or_not_at_all(
    store: ContentStore, deadline: float | None, removed: bool
) -> None:
    if removed:
        assert store.remove(KEY, not_after=deadline)
    else:
        with pytest.raises(TimedOut):
            store.remove(KEY, not_after=deadline)

    assert store.present(KEY) is not removed
    assert removed or beside(store) == []


def test_a_content_that_is_not_there_counts_as_removed_even_too_late(store: ContentStore) -> None:
    assert store.remove(OTHER, not_after=0.0) is False


@pytest.mark.parametrize("version", [8, 9])
def test_versions_that_lock_in_another_way_are_refused_by_name(files: Files, clock: Clock, version: int) -> None:
    store = ContentStore(files, clock=clock, settings=ContentSettings(version=version))
    plant(store, KEY)

    for action in (lambda: store.lock(KEY), lambda: store.remove(KEY)):
        with pytest.raises(UnsupportedRepository, match=f"annex.version is {version}"):
            action()


# -- what is no copy --


@pytest.mark.parametrize("retention", [True, False])
def test_an_object_that_was_cut_is_not_present_and_cannot_be_locked(store: ContentStore, retention: bool) -> None:
    path = b"annex/objects/" + store.folders.paths(KEY)[0]
    folder = os.path.dirname(path)
    store.folders.files.chmod(folder, 0o755)
    store.folders.files.replace(path, CONTENT[:3], mode=0o444, sync=False)
    store.folders.files.chmod(folder, 0o555)
    assert not store.present(KEY)
    with pytest.raises(NotLocked, match="not the content"):
        store.lock(KEY, retention=retention)
    assert beside(store) == []


@pytest.mark.parametrize("retention", [True, False])
def test_a_thin_object_that_was_modified_cannot_be_locked(files: Files, clock: Clock, retention: bool) -> None:
    store = ContentStore(files, clock=clock, settings=ContentSettings(thin=True))
    path = plant(store, KEY)
    files.chmod(path, 0o644)
    store.lock(KEY, retention=retention).release()
    files.chmod(os.path.dirname(path), 0o755)
    files.replace(path, CONTENT.upper(), mode=0o644, sync=False)
    with pytest.raises(NotLocked, match="not the content"):
        store.lock(KEY, retention=retention)
    assert beside(store) == []
