"""A lock of one's own in a repository, which works wherever its journal lock does; and what to do where none works."""

from __future__ import annotations

import errno
import os
from typing import Final

from annexpy.errors import LockHeld
from annexpy.repo.files import Files
from annexpy.repo.format import STATE, make_folders
from annexpy.repo.lockfile import HeldLock, lock_holder, take_lock
from annexpy.repo.pidlock import PidLock
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown

__all__ = ["OwnLock", "adopt_pidlock"]

_PROBE: Final = b"locks-work.lck"
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class OwnLock:
    """One exclusive lock with a name, below ``annex/annexpy``. Every instance locks for itself.

    The system lets go of it when its process ends. With ``annex.pidlock`` it is the pid lock: then a process
    that has it keeps others from locking anything in this repository.

    Args:
        repository: Where.
        name: Of the lock: one path component.
    """

    __slots__ = ("_files", "_folder", "_held", "_lockdown", "_name", "_pidlock")

    def __init__(self, repository: Repository, name: str) -> None:
        self._files, self._name = repository.files, os.fsencode(name) + b".lck"
        self._lockdown = Lockdown.of(repository.config.get("core.sharedrepository"))
        self._pidlock = PidLock.of(repository.files) if repository.config.get_bool("annex.pidlock") else None
        self._folder: Files | None = None
        self._held: HeldLock | None = None

    def try_acquire(self) -> bool:
        """Take it if it is free. Raises OSError where it cannot be made."""
        if self._folder is None:
            make_folders(self._files, STATE, self._lockdown)
            self._folder = self._files.folder(STATE)
        self._held = take_lock(self._folder, self._name, True, self._lockdown.file, self._pidlock)
        if self._held is not None and self._pidlock is None:  # the system does not tell who has such a lock
            self._held.write(b"%d %b\n" % (os.getpid(), os.fsencode(os.uname().nodename)))
        return self._held is not None

    def release(self) -> None:
        """Give it back."""
        held, self._held = self._held, None
        if held is not None:
            held.release()

    def close(self) -> None:
        """Give back file handles, and the lock."""
        self.release()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.close()

    def error(self, waited: float) -> LockHeld:
        """What to raise when it was not free for *waited* seconds; names who has it."""
        path = os.fsdecode(self._files.path + b"/" + STATE + b"/" + self._name)
        folder = self._folder if self._folder is not None else self._files.folder(STATE)
        holder = lock_holder(folder, self._name, self._pidlock)
        if self._pidlock is None and holder != "nobody any more":
            pid, _, host = (folder.read(self._name) or b"").partition(b"\n")[0].partition(b" ")
            holder = f"pid {pid.decode('ascii', 'replace')} on {os.fsdecode(host)}" if pid else holder
        return LockHeld(path, holder, waited)


def adopt_pidlock(path: str | os.PathLike[str]) -> bool:
    """Set ``annex.pidlock`` in the repository at *path* if file locks do not work there, as ``git annex init`` does.

    Call it before the repository is used.

    Returns:
        Whether that is set now.

    Raises:
        NotARepository: None there.
    """
    with Repository.open(path) as repository:
        if repository.config.get_bool("annex.pidlock"):
            return True
        if not repository.writable:
            return False  # nobody locks there, so nobody has to know
        files = repository.files
        make_folders(files, STATE, Lockdown.of(repository.config.get("core.sharedrepository")))
        folder = files.folder(STATE)
        try:
            fd = folder.lock_file(_PROBE, exclusive=False)  # shared: all may look at once
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            repository.config.set("annex.pidlock", "true")
            return True
        finally:
            folder.close()
        if fd is not None:
            files.close_fd(fd)
        return False
