"""The directory of one object, and what lies in it beside the object: lock files and the retention.

git-annex takes the write permission of such a directory away, so whoever changes something in it thaws it for
that moment, and several processes may do so at once.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from annexpy.clock import Clock
from annexpy.errors import LockHeld, NotRegularFile
from annexpy.keys.key import Key
from annexpy.repo.door import Files, Status
from annexpy.repo.folders import OBJECTS, AnnexFolders
from annexpy.repo.lockfile import HeldLock, lock_holder, take_lock
from annexpy.repo.pidlock import PidLock
from annexpy.repo.retention import LONGEST_NOTE, Retention

__all__ = ["KeyFolder"]

_T = TypeVar("_T")

_RETRIES: Final = 5
_WRITER_TRIES: Final = 100
_WRITER_WAIT: Final = 0.005
_RETENTION_ASIDE: Final = b".rtm.tmp"  # short: a key may leave no room in a file name for more


class KeyFolder:
    """The directory of one object, opened, and the files in it. Thaw it to change what is in it; close it."""

    __slots__ = ("_freeze", "_mode", "_note", "_thawed", "files", "name", "path", "pidlock")

    def __init__(self, folders: AnnexFolders, objects: Files, path: bytes, pidlock: PidLock | None) -> None:
        """Open it.

        Raises:
            FileNotFoundError: There is no such directory.
        """
        lockdown = folders.settings.lockdown
        self._freeze, self._mode, self.pidlock = lockdown.freeze, lockdown.file, pidlock
        self.path, _, self.name = path.rpartition(b"/")
        self.files: Files = objects.folder(self.path)
        self._thawed: int | None = None
        self._note: HeldLock | None = None

    @classmethod
    def of(cls, folders: AnnexFolders, key: Key, pidlock: PidLock | None) -> Iterator[KeyFolder]:
        """The directories of *key*, with an object in them or without. The caller closes them."""
        objects = folders.existing(OBJECTS)
        if objects is None:
            return
        for path in folders.paths(key):
            try:
                folder = cls(folders, objects, path, pidlock)
            except FileNotFoundError:
                continue
            yield folder

    def regular(self) -> Status | None:
        """The status of the object; None when it is not there, or no regular file."""
        status = self.files.status(self.name)
        return status if status is not None and stat.S_ISREG(status.st_mode) else None

    def content(self, key: Key, where: str) -> Status | None:
        """As ``regular``.

        Raises:
            NotRegularFile: Something else stands where the object of *key* should be.
        """
        status = self.files.status(self.name)
        if status is not None and not stat.S_ISREG(status.st_mode):
            raise NotRegularFile(key, where)
        return status

    def thaw(self) -> None:
        """Allow entries to be made and removed, until ``freeze`` or ``close``."""
        if self._thawed is None:
            status = self.files.status(b"")
            assert status is not None
            mode = stat.S_IMODE(status.st_mode)
            if not mode & stat.S_IWUSR:
                self.files.chmod(b"", mode | stat.S_IWUSR)
                self._thawed = mode & ~self._freeze

    def freeze(self) -> None:
        mode, self._thawed = self._thawed, None
        if mode is not None:
            self.files.chmod(b"", mode)

    def close(self, *, gone: bool = False) -> None:
        """Freeze it, unless it is *gone*, and let go of it."""
        try:
            if not gone:
                self.freeze()
        finally:
            self.files.close()

    def change(self, action: Callable[..., _T], *args: object) -> _T:
        """Run *action*, which makes or removes entries; again when another process froze the directory under it."""
        for _ in range(_RETRIES - 1):
            self.thaw()
            try:
                return action(*args)
            except PermissionError:
                self._thawed = None
        self.thaw()
        return action(*args)

    def take(self, suffix: bytes, *, exclusive: bool) -> HeldLock | None:
        """The lock file of the object with that *suffix*; None when somebody stands in the way."""
        return self.change(take_lock, self.files, self.name + suffix, exclusive, self._mode, self.pidlock)

    def give_back(self, suffix: bytes, lock: HeldLock) -> None:
        """Remove the lock file of which we have the exclusive *lock*, and with it the lock."""
        gone = False
        try:
            self.remove(self.name + suffix)
            gone = True
        finally:
            lock.release(unlinked=gone)

    def holder(self, suffix: bytes) -> str:
        """Who has that lock file, for messages."""
        return lock_holder(self.files, self.name + suffix, self.pidlock)

    def retention(self, clock: Clock) -> Retention:
        """What holds now, for whoever keeps all others out; ``NONE`` where nothing ever held."""
        return Retention.parse(self.files.read(self.name + b".rtm"), self.files.read(self.name + b".rtl"), clock)

    @contextmanager
    def changing_retention(self, clock: Clock) -> Iterator[Retention]:
        """What holds now. Nobody else changes it inside. Held for moments only, so it waits for moments only."""
        for _ in range(_WRITER_TRIES):
            lock = self.take(b".rtl", exclusive=True)
            if lock is not None:
                break
            time.sleep(_WRITER_WAIT)
        else:
            path = os.fsdecode(self.files.path + b"/" + self.name + b".rtl")
            raise LockHeld(path, self.holder(b".rtl"), _WRITER_TRIES * _WRITER_WAIT)
        self._note = lock
        try:
            yield Retention.parse(self.files.read(self.name + b".rtm"), lock.read(LONGEST_NOTE), clock)
        finally:
            self._note = None
            lock.release()

    # Inside changing_retention:

    def retain(self, retention: Retention, *, before: Retention) -> None:
        """*retention* holds, where *before* did."""
        assert self._note is not None
        if retention.until.wall != before.until.wall:
            name, mode, value = self.name + b".rtm", self._mode or 0o644, retention.time_of_day()
            self.change(lambda: self.files.replace(name, value, mode=mode, sync=False, temporary=_RETENTION_ASIDE))
        self._note.write(retention.note())

    def forget_retention(self) -> None:
        self.remove(self.name + b".rtm")
        self.remove(self.name + b".rtl")
        if not self.files.absent(_RETENTION_ASIDE):
            self.remove(_RETENTION_ASIDE)

    def remove(self, name: bytes) -> None:
        self.change(self.files.unlink, name)
