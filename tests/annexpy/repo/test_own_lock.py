"""Locks of one's own, with file locks and without."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from annexpy.errors import LockHeld
from annexpy.repo.files import DiskFiles
from annexpy.repo.own_lock import OwnLock, adopt_pidlock
from annexpy.repo.repository import Repository


@pytest.fixture
def place(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "repo").close()
    return tmp_path / "repo"


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files in the repository."""
    original, undo = DiskFiles.try_lock, DiskFiles.unlock

    def refuse(files: DiskFiles, fd: int, *, exclusive: bool) -> bool:
        if files.path == b"/dev/shm":
            return original(files, fd, exclusive=exclusive)
        raise OSError(errno.ENOLCK, "no locks available")

    def cannot(files: DiskFiles, fd: int) -> None:
        if files.path != b"/dev/shm":
            raise OSError(errno.ENOLCK, "no locks available")
        undo(files, fd)

    monkeypatch.setattr(DiskFiles, "try_lock", refuse)
    monkeypatch.setattr(DiskFiles, "unlock", cannot)


def check_one_at_a_time(place: Path) -> None:
    with Repository.open(place) as repository:
        one, two = OwnLock(repository, "mine"), OwnLock(repository, "mine")
        assert one.try_acquire()
        assert not two.try_acquire()
        error = two.error(3)
        assert isinstance(error, LockHeld)
        assert "mine.lck" in str(error)
        one.close()
        assert two.try_acquire()
        two.close()


def test_only_one_has_it(place: Path) -> None:
    assert not adopt_pidlock(place)
    check_one_at_a_time(place)


def test_where_no_locks_work_the_pid_lock_is_adopted_as_git_annex_does(place: Path, no_locks: None) -> None:
    assert adopt_pidlock(place)
    assert adopt_pidlock(place)

    check_one_at_a_time(place)
    with Repository.open(place) as repository:
        assert repository.config.get_bool("annex.pidlock")
        repository.branch.change(b"x.log", lambda old: b"1\n")
        assert repository.branch.commit_now()
