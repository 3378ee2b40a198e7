"""One lock file, held shared or exclusively, as git-annex holds its own.

A lock is taken on the file and counts only while the file still has its name: whoever is done with a lock
file unlinks it, so after locking one has to look whether it was unlinked meanwhile. With ``annex.pidlock``
there are no locks on files: the pid lock of the process stands for all of them, and what several tasks of
one process hold is told apart in memory.
"""

from __future__ import annotations

from annexpy.repo.files import Files
from annexpy.repo.pidlock import PidLock

__all__ = ["HeldLock", "lock_holder", "take_lock"]


class HeldLock:
    """A lock that is held. Give it back with ``release``, once."""

    __slots__ = ("_fd", "_files", "_name", "_pidlock", "exclusive")

    def __init__(self, files: Files, name: bytes, fd: int, exclusive: bool, pidlock: PidLock | None) -> None:
        self._files, self._name, self._fd = files, name, fd
        self._pidlock, self.exclusive = pidlock, exclusive

    @property
    def stands(self) -> bool:
        """The lock file still has its name, so the lock still keeps others out."""
        if self._fd < 0:
            return False
        if self._pidlock is not None:
            return self._pidlock.held
        return self._files.fstatus(self._fd).st_nlink > 0

    @property
    def shared_with_others(self) -> bool:
        """Somebody else holds it too."""
        if self._pidlock is not None:
            return self._pidlock.inside.get(self._files.path + b"/" + self._name, 0) > 1
        return self._files.locked_by_other(self._fd)

    def become_exclusive(self) -> bool:
        """Have it alone, without letting go of it in between; False, and still shared, when others hold it too."""
        if self._pidlock is not None:
            path = self._files.path + b"/" + self._name
            if self._pidlock.inside[path] != 1:
                return False
            self._pidlock.inside[path] = -1
        elif not self._files.try_lock(self._fd, exclusive=True):
            return False
        self.exclusive = True
        return True

    def read(self, size: int) -> bytes:
        """What stands in the lock file, from its start."""
        return self._files.pread(self._fd, size, 0)

    def write(self, data: bytes) -> None:
        """*data* stands at the start of the lock file. Once, while it is held."""
        self._files.write(self._fd, data)

    def release(self, *, unlink: bool = False, unlinked: bool = False) -> None:
        """Give it back. Whoever has it alone may *unlink* the file with that, or have *unlinked* it right before."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            if unlink:
                self._files.unlink(self._name)
            elif not unlinked and self._pidlock is None:  # nobody waits for a lock on a file without a name
                self._files.unlock(fd)  # closing does not do it while a forked child has the descriptor
        finally:
            self._files.close_fd(fd)
            if self._pidlock is not None:
                _give_back(self._files.path + b"/" + self._name, self._pidlock)


def take_lock(
    files: Files, name: bytes, exclusive: bool, mode: int | None = None, pidlock: PidLock | None = None
) -> HeldLock | None:
    """The lock file *name*, made when it is not there; None when somebody stands in the way. Never waits.

    Args:
        files: The folder that holds it.
        name: One path component.
        exclusive: Alone, or with any number of sharers.
        mode: Permissions of a new lock file; None leaves them to the umask.
        pidlock: Where ``annex.pidlock`` is set.
    """
    if pidlock is None:
        fd = files.lock_file(name, exclusive=exclusive)
        if fd is None:
            return None
    else:
        if not _take_inside(files.path + b"/" + name, exclusive, pidlock):
            return None
        try:
            fd = files.open_write(name, mode=0o666)  # no lock, but git-annex makes the file too
        except BaseException:
            _give_back(files.path + b"/" + name, pidlock)
            raise
    if mode is not None:
        try:
            files.fchmod(fd, mode)
        except PermissionError:
            pass  # another user made it, with the mode that all of us give it
    return HeldLock(files, name, fd, exclusive, pidlock)


def lock_holder(files: Files, name: bytes, pidlock: PidLock | None = None) -> str:
    """Who stands in the way of a lock on *name*, as far as the system tells, for messages."""
    if pidlock is not None:
        return "this process" if pidlock.held else pidlock.holder()
    try:
        fd = files.open_write(name, create=False)
    except OSError:
        return "nobody any more"
    try:
        return files.lock_holder(fd)
    finally:
        files.close_fd(fd)


def _take_inside(path: bytes, exclusive: bool, pidlock: PidLock) -> bool:
    count = pidlock.inside.get(path, 0)
    if count < 0 or (exclusive and count) or not pidlock.try_acquire():
        return False
    pidlock.inside[path] = -1 if exclusive else count + 1
    return True


def _give_back(path: bytes, pidlock: PidLock) -> None:
    if pidlock.inside[path] > 1:
        pidlock.inside[path] -= 1
    else:
        del pidlock.inside[path]
    pidlock.release()
