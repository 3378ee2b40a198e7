"""DiskFiles against MemoryFiles, and what each promises alone."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import pickle
import random
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidPath
from annexpy.repo import beneath
from annexpy.repo.faulty_files import Faults, FaultyFiles, Killed
from annexpy.repo.files import DiskFiles, Files, umask
from annexpy.repo.memory_files import MemoryFiles


@pytest.fixture(params=["disk", "disk, step by step", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    if request.param == "memory":
        return MemoryFiles()
    monkeypatch.setattr(beneath, "_opens", beneath._never if "step" in request.param else None)
    monkeypatch.setattr(beneath, "_calls", beneath._WORTH)
    return DiskFiles(tmp_path)


def put(files: Files, path: bytes, data: bytes) -> None:
    fd = files.open_write(path, truncate=True)
    files.write(fd, data)
    files.close_fd(fd)


def test_a_path_is_opened_at_once_where_the_system_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beneath, "_opens", None)
    monkeypatch.setattr(beneath, "_calls", beneath._WORTH)
    (tmp_path / "a" / "b").mkdir(parents=True)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        fd = beneath.open_beneath(folder, b"a/b", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        assert fd >= 0
        assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "a" / "b"))
        os.close(fd)
        with pytest.raises(FileNotFoundError):
            beneath.open_beneath(folder, b"a/c", os.O_RDONLY | os.O_NOFOLLOW)
        made = beneath.open_beneath(folder, b"a/b/c", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o640)
        assert stat.S_IMODE(os.fstat(made).st_mode) == 0o640 & ~umask()
        os.close(made)
    finally:
        os.close(folder)


def test_where_the_system_refuses_it_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beneath, "_opens", None)
    monkeypatch.setattr(beneath, "_calls", beneath._WORTH)
    monkeypatch.setattr(beneath, "_OPENAT2", 0x7FFF)  # no kernel has it
    (tmp_path / "a" / "b").mkdir(parents=True)
    files = DiskFiles(tmp_path)

    assert files.names(b"a/b") == []
    assert beneath._opens is beneath._never


def test_what_a_signal_broke_off_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beneath, "_opens", None)
    monkeypatch.setattr(beneath, "_calls", beneath._WORTH)
    (tmp_path / "a" / "b").mkdir(parents=True)
    files = DiskFiles(tmp_path)
    [expected] = files.statuses((b"a/b",))
    opens = beneath._opens
    assert opens is not None
    broken_off: list[bytes] = []

    def interrupted(fd: int, path: bytes, how: bytes, size: ctypes.c_size_t) -> int:
        if len(broken_off) % 3 < 2:
            broken_off.append(path)
            ctypes.set_errno(errno.EINTR)
            return -1
        broken_off.clear()
        return opens(fd, path, how, size)

    monkeypatch.setattr(beneath, "_opens", interrupted)
    assert files.statuses((b"a/b", b"a/c")) == [expected, None]
    assert files.status(b"a/b") == expected


def test_a_look_that_fails_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beneath, "_opens", None)
    monkeypatch.setattr(beneath, "_calls", beneath._WORTH)
    (tmp_path / "a").mkdir()
    files = DiskFiles(tmp_path)
    assert len(files.statuses((b"a",))) == 1
    before = os.listdir("/proc/self/fd")

    def fails(fd: int) -> os.stat_result:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fails)
        with pytest.raises(OSError, match="Stale"):
            files.statuses((b"a",))
    assert os.listdir("/proc/self/fd") == before


# -- the same answers on disk and in memory -------------------------------------------------------

NAMES = st.sampled_from([b"a", b"b", b"d", b"d/a", b"d/e", b"d/e/a", b"d/e/f"])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, st.binary(max_size=8)),
        st.tuples(st.just("append"), NAMES, st.binary(max_size=8)),
        st.tuples(st.just("make_folders"), NAMES),
        st.tuples(st.just("rename"), NAMES, NAMES),
        st.tuples(st.just("link"), NAMES, NAMES),
        st.tuples(st.just("unlink"), NAMES),
        st.tuples(st.just("remove_folder"), NAMES),
        st.tuples(st.just("prune"), NAMES),
        st.tuples(st.just("place"), st.sampled_from([b"a", b"b"]), NAMES.filter(lambda name: b"/" in name)),
        st.tuples(st.just("chmod"), NAMES, st.sampled_from([0o600, 0o755, 0o640])),
        st.tuples(st.just("read"), NAMES),
        st.tuples(st.just("status"), NAMES),
        st.tuples(st.just("names"), NAMES),
        st.tuples(st.just("absent"), NAMES),
        st.tuples(st.just("statuses"), NAMES, NAMES),
    ),
    max_size=25,
)


def perform(files: Files, operation: tuple[object, ...]) -> object:
    match operation:
        case ("put", bytes(path), bytes(data)):
            return put(files, path, data)
        case ("append", bytes(path), bytes(data)):
            fd = files.open_write(path, append=True)
            try:
                files.write(fd, data)
                return files.fstatus(fd).st_size
            finally:
                files.close_fd(fd)
        case ("place", bytes(old), bytes(new)):
            # not frozen: the tests may run as root, whom permissions do not stop
            return files.place(files, old, new, freeze=0)
        case ("status", bytes(path)):
            status = files.status(path)
            if status is None:
                return None
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
            return status.st_mode, size, links
        case ("statuses", bytes(), bytes()):
            return [status and stat.S_IFMT(status.st_mode) for status in files.statuses(operation[1:])]
        case ("names", bytes(path)):
            return sorted(files.names(path))
        case (str(name), *arguments):
            return getattr(files, name)(*arguments)
    raise AssertionError(operation)


def outcome(files: Files, operation: tuple[object, ...]) -> object:
    try:
        return perform(files, operation)
    except OSError:
        return "failed"  # which errno it is depends on the order in which a system looks


@given(operations=OPERATIONS)
def test_memory_answers_as_the_disk_does(
    operations: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    disk, memory = DiskFiles(tmp_path_factory.mktemp("disk")), MemoryFiles()

    for operation in operations:
        assert outcome(memory, operation) == outcome(disk, operation), operation


# -- links ----------------------------------------------------------------------------------------


def link(files: Files, target: str, path: bytes) -> None:
    if isinstance(files, MemoryFiles):
        files.symlink(target.encode(), path)
    else:
        os.symlink(target, os.fsdecode(files.path + b"/" + path))


def test_no_component_of_a_path_may_be_a_symbolic_link(files: Files, tmp_path: Path) -> None:
    files.make_folders(b"real")
    put(files, b"real/file", b"secret")
    link(files, "real", b"alias")
    link(files, "file", b"real/other")

    for action in (
        lambda: files.open_read(b"alias/file"),
        lambda: files.open_read(b"real/other"),
        lambda: files.open_write(b"alias/new"),
        lambda: files.open_write(b"real/other"),
        lambda: files.read(b"alias/file"),
        lambda: files.folder(b"alias"),
        lambda: files.names(b"alias"),
        lambda: files.make_folders(b"alias/below"),
        lambda: files.chmod(b"real/other", 0o600),
        lambda: files.rename(b"real/file", b"alias/moved"),
        lambda: files.unlink(b"alias/file"),
        lambda: files.place(files.folder(b"real"), b"file", b"alias/x/file"),
    ):
        with pytest.raises(OSError) as caught:
            action()
        assert caught.value.errno in (errno.ELOOP, errno.ENOTDIR)
    assert files.read(b"real/file") == b"secret"


@pytest.mark.parametrize("path", [b"../x", b"/x", b"a//b", b"a/../b", b"", b"a/", b"a\0b"])
def test_a_path_that_leaves_its_folder_is_refused(files: Files, path: bytes) -> None:
    files.make_folders(b"a")

    with pytest.raises((InvalidPath, OSError, ValueError)):
        files.open_write(path)

    assert sorted(files.names()) == [b"a"]


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(OSError, match="not a regular file"):
        DiskFiles(tmp_path).open_read(b"pipe")
    with pytest.raises(OSError, match="not a regular file"):
        DiskFiles(tmp_path).lock_file(b"pipe", exclusive=True)


# -- place ----------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    path, files = b"some/" + b"x" * 300, DiskFiles(tmp_path)
    with pytest.raises(OSError, match="File name too long") as caught:
        files.make_folders(path)
    files.close()
    assert caught.value.filename == path


def test_place_makes_the_folders_and_freezes_the_last_one(files: Files) -> None:
    files.make_folders(b"tmp")
    put(files, b"tmp/k", b"content")

    assert files.place(files.folder(b"tmp"), b"k", b"ab/cd/k/k")

    assert files.read(b"ab/cd/k/k") == b"content"
    status = files.status(b"ab/cd/k")
    assert status is not None
    assert stat.S_IMODE(status.st_mode) == 0o777 & ~umask() & ~0o222
    assert files.names(b"tmp") == []


def test_place_never_replaces_what_stands_there(files: Files) -> None:
    files.make_folders(b"tmp")
    put(files, b"tmp/k", b"first")
    files.place(files.folder(b"tmp"), b"k", b"ab/k/k")
    put(files, b"tmp/k", b"second")

    assert not files.place(files.folder(b"tmp"), b"k", b"ab/k/k")

    assert files.read(b"ab/k/k") == b"first"
    assert files.names(b"tmp") == []


def test_place_goes_into_a_frozen_folder_and_leaves_it_frozen(files: Files) -> None:
    files.make_folders(b"tmp")
    files.make_folders(b"ab/k")
    put(files, b"ab/k/k.lck", b"")
    files.chmod(b"ab/k", 0o555)
    put(files, b"tmp/k", b"content")

    assert files.place(files.folder(b"tmp"), b"k", b"ab/k/k")

    status = files.status(b"ab/k")
    assert status is not None
    assert stat.S_IMODE(status.st_mode) == 0o555


# -- locks ----------------------------------------------------------------------------------------


def test_locks_belong_to_descriptors_not_to_the_process(files: Files) -> None:
    one, two = files.open_write(b"lock"), files.open_write(b"lock")

    assert files.try_lock(one, exclusive=False)
    assert files.try_lock(two, exclusive=False)
    assert files.locked_by_other(one)
    assert not files.try_lock(one, exclusive=True)

    third = files.open_write(b"lock")
    files.close_fd(third)  # with POSIX locks, this would release them all
    assert not files.try_lock(one, exclusive=True)

    files.unlock(two)
    assert not files.locked_by_other(one)
    assert files.try_lock(one, exclusive=True)
    assert not files.try_lock(two, exclusive=False)
    files.close_fd(one)
    assert files.try_lock(two, exclusive=True)
    files.close_fd(two)


def test_a_lock_file_that_was_unlinked_is_made_anew(files: Files) -> None:
    first = files.lock_file(b"lock", exclusive=True)
    assert first is not None
    assert files.lock_file(b"lock", exclusive=False) is None

    files.unlink(b"lock")
    second = files.lock_file(b"lock", exclusive=True)

    assert second is not None
    assert files.fstatus(second).st_ino != files.fstatus(first).st_ino
    files.close_fd(first)
    files.close_fd(second)


# -- disk only ------------------------------------------------------------------------------------


def test_files_pickle_as_their_path(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path)
    put(files, b"a", b"1")

    assert pickle.loads(pickle.dumps(files)).read(b"a") == b"1"


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    files = DiskFiles(tmp_path)
    gc.collect()  # what other tests have left may hold descriptors, and be found at any time
    before = len(os.listdir("/proc/self/fd"))

    files.make_folders(b"a/b/c")
    for action in (
        lambda: put(files, b"a/b/c/x", b"1"),
        lambda: files.read(b"a/b/c/x"),
        lambda: files.status(b"a/b/nothing/x"),
        lambda: files.open_read(b"a/b/c/nothing"),
        lambda: files.place(files, b"nothing", b"a/b/y/y"),
        lambda: files.place(files.folder(b"a/b/c"), b"x", b"q/r/y/y"),
        lambda: files.folder(b"a/b/c"),
        lambda: files.folder(b"a/x/c"),
        lambda: files.rename(b"q/r/y/y", b"a/nothing/y"),
        lambda: files.link(b"q/r/y/y", b"a/z"),
        lambda: files.prune(b"a/b/c"),
        lambda: files.prune(b"a/b/c"),
        lambda: files.chmod(b"q/nothing", 0o600),
        lambda: files.sync_folder(b"q/r"),
        lambda: files.lock_file(b"../x", exclusive=True),
    ):
        try:
            action()
        except (OSError, InvalidPath):
            pass

    assert len(os.listdir("/proc/self/fd")) == before


# -- power cuts and faults ------------------------------------------------------------------------


def test_after_a_power_cut_only_what_was_synced_is_certain() -> None:
    files = MemoryFiles()
    put(files, b"a", b"one")
    files.make_folders(b"d")
    files.sync_all()
    put(files, b"a", b"two")
    put(files, b"d/b", b"new")

    files.crash()

    assert files.read(b"a") == b"one"
    assert files.names(b"d") == []


def test_a_synced_file_without_a_synced_name_is_gone_and_a_name_without_bytes_is_empty() -> None:
    files = MemoryFiles()
    fd = files.open_write(b"bytes")
    files.write(fd, b"x")
    files.sync(fd)
    files.crash()
    assert files.names() == []

    put(files, b"name", b"x")
    files.sync_folder(b"")
    files.crash()
    assert files.read(b"name") == b""


@given(seed=st.integers(0, 2**32), synced=st.booleans())
def test_a_rename_loses_neither_the_file_nor_both_names(seed: int, synced: bool) -> None:
    files = MemoryFiles()
    files.make_folders(b"old")
    files.make_folders(b"new")
    put(files, b"old/f", b"content")
    files.sync_all()
    files.rename(b"old/f", b"new/f")
    if synced:
        files.sync_folder(b"new")

    files.crash(random.Random(seed).randrange)

    contents = {files.read(b"old/f"), files.read(b"new/f")}
    assert b"content" in contents
    assert not synced or files.read(b"new/f") == b"content"


def test_a_killed_process_does_nothing_more() -> None:
    memory = MemoryFiles()
    faults = Faults(at=2)
    files = FaultyFiles(memory, faults)
    fd = files.open_write(b"a")

    with pytest.raises(Killed):
        files.write(fd, b"1234")
    with pytest.raises(Killed):
        files.unlink(b"a")

    assert memory.read(b"a") == b"12"


def test_a_fault_names_its_errno_and_comes_once() -> None:
    files = FaultyFiles(MemoryFiles(), Faults(at=1, error=errno.EMFILE))

    with pytest.raises(OSError) as caught:
        files.open_write(b"a")
    assert caught.value.errno == errno.EMFILE

    files.close_fd(files.open_write(b"a"))


def test_a_full_disk_takes_what_fits() -> None:
    files = MemoryFiles(capacity=10)
    fd = files.open_write(b"a")

    with pytest.raises(OSError) as caught:
        files.write(fd, b"x" * 20)

    assert caught.value.errno == errno.ENOSPC
    assert files.read(b"a") == b"x" * 10
    assert files.free() == 0
    files.truncate(fd, 0)
    assert files.free() == 10
