"""``annex/pidlock``: one lock file instead of all others, for file systems that have no locks.

Where ``annex.pidlock`` is set, git-annex takes no lock on any file: a process that wants one takes the pid
lock, and has it for as long as it holds at least one. What was learned by running it (10.20261026):

* the file holds ``PidLock {lockingPid = 4711, lockingHost = "name"}``, mode 0444, and gets its name by ``link``;
* beside it goes a real lock on a file in ``/dev/shm``, to tell a stale pid lock of this machine from a
  living one: whoever gets that lock replaces a pid lock of its own host, whatever pid is in it;
* a pid lock of another host is waited for (``annex.pidlocktimeout``, 300 s) and never broken;
* the name in ``/dev/shm`` is made from the path as in ``side_lock_path``; for short paths a slash is missing
  there, so that only root can make it. A git-annex that cannot make it never gets the pid lock.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from typing import Final

import anyio

from annexpy.clock import Clock
from annexpy.errors import LockHeld, UnsupportedRepository
from annexpy.patterns import regex
from annexpy.repo.files import DiskFiles, Files

__all__ = ["PIDLOCK", "PidLock", "side_lock_path"]

PIDLOCK: Final = b"annex/pidlock"
_SHARED_MEMORY: Final = b"/dev/shm"
_LONGEST: Final = 32
_POLL: Final = 0.05
_HOLDER: Final = regex(rb'PidLock \{lockingPid = (\d+), lockingHost = "(.*)"\}\Z', re.DOTALL)


def side_lock_path(git_dir: bytes) -> bytes:
    """The lock in shared memory that goes with the pid lock of *git_dir* (absolute, links resolved)."""
    flat = (git_dir + b"/" + PIDLOCK).lstrip(b"/").replace(b"/", b"_")
    if len(flat) <= _LONGEST:
        return _SHARED_MEMORY + flat + b".lck"  # without a slash: what git-annex does
    digest = hashlib.md5(flat, usedforsecurity=False).hexdigest().encode()
    return _SHARED_MEMORY + b"/" + digest + flat[-_LONGEST:] + b".lck"


class PidLock:
    """The pid lock of one repository. Counted: the process has it while anything in it does.

    Get it with ``of``, so that everything in the process shares one.

    Attributes:
        inside: Locks that are held in this process under the protection of the pid lock, which cannot
            tell them apart: lock file → number of sharers, or -1.
    """

    __slots__ = ("_count", "_files", "_side", "inside", "path")

    _known: Final[dict[tuple[int, bytes], PidLock]] = {}

    def __init__(self, files: Files, path: bytes) -> None:
        self._files, self.path = files, path
        self._count = 0
        self._side: tuple[Files, bytes, int] | None = None
        self.inside: dict[bytes, int] = {}

    @classmethod
    def of(cls, files: Files) -> PidLock:
        """The one of the git directory *files*, for this process."""
        on_disk = isinstance(files, DiskFiles)
        path = os.path.realpath(files.path) if on_disk else files.path
        known = cls._known.get((os.getpid(), path))
        if known is None:
            # its own descriptor: it outlives the repository object that asked first
            known = cls._known[os.getpid(), path] = cls(DiskFiles(path) if on_disk else files, path)
        return known

    @property
    def held(self) -> bool:
        return self._count > 0

    def try_acquire(self) -> bool:
        """Have it once more; False when another process does.

        Raises:
            UnsupportedRepository: The lock in shared memory cannot be made, so git-annex cannot work here either.
        """
        if self._count == 0:
            side = self._take_side()
            if side is not None and side[2] < 0:
                return False
            if not self._take_file():
                _release_side(side)
                return False
            self._side = side
        self._count += 1
        return True

    def release(self) -> None:
        """Have it once less."""
        self._count -= 1
        if self._count == 0:
            side, self._side = self._side, None
            self._files.unlink(PIDLOCK)
            _release_side(side)

    async def take(self, seconds: float, clock: Clock) -> None:
        """Have it once more, waiting for at most *seconds*.

        Raises:
            LockHeld: Another process kept it.
        """
        until = clock.now() + seconds
        while not self.try_acquire():
            if clock.now() >= until:
                raise LockHeld(os.fsdecode(self.path + b"/" + PIDLOCK), self.holder(), seconds)
            await anyio.sleep(_POLL)

    def holder(self) -> str:
        """Who has it, as the file says."""
        match = _HOLDER.match(self._files.read(PIDLOCK) or b"")
        return f"pid {int(match[1])} on {match[2].decode('utf-8', 'replace')}" if match else "an unknown process"

    def _take_side(self) -> tuple[Files, bytes, int] | None:
        """Folder, name and descriptor (-1: somebody else has it); None where there is no shared memory."""
        if not isinstance(self._files, DiskFiles):
            return None
        folder, name = os.path.split(side_lock_path(self.path))
        try:
            files = DiskFiles(folder)
            while True:
                fd = files.open_write(name, mode=0o666)
                try:
                    files.fchmod(fd, 0o666)
                except PermissionError:
                    pass  # another user made it, and made it 0666
                if not files.try_lock(fd, exclusive=True):
                    files.close_fd(fd)
                    return files, name, -1
                if files.fstatus(fd).st_nlink:
                    return files, name, fd
                files.close_fd(fd)  # its holder unlinked it between our open and our lock
        except OSError as error:
            side = os.fsdecode(folder + b"/" + name)
            reason = f"annex.pidlock: {side}: {error.strerror}; git-annex cannot lock here either"
            raise UnsupportedRepository(reason) from error

    def _take_file(self) -> bool:
        files, host = self._files, os.uname().nodename.encode()
        aside = b"annex/locktmp%d" % os.getpid()
        files.make_folders(b"annex")
        files.replace(
            aside, b'PidLock {lockingPid = %d, lockingHost = "%s"}' % (os.getpid(), host), mode=0o444, sync=False
        )
        try:
            files.link(aside, PIDLOCK)
        except FileExistsError:
            match = _HOLDER.match(files.read(PIDLOCK) or b"")
            if match is None or match[2] != host:
                return False
            files.rename(aside, PIDLOCK)  # stale: its process would hold the lock in shared memory
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            return self._take_without_links()
        finally:
            files.unlink(aside)
        return True

    def _take_without_links(self) -> bool:
        try:
            fd = self._files.open_write(PIDLOCK, exclusive=True, mode=0o444)
        except FileExistsError:
            return False
        try:
            self._files.write(
                fd, b'PidLock {lockingPid = %d, lockingHost = "%s"}' % (os.getpid(), os.uname().nodename.encode())
            )
        finally:
            self._files.close_fd(fd)
        return True


def _release_side(side: tuple[Files, bytes, int] | None) -> None:
    if side is not None:
        files, name, fd = side
        files.unlink(name)
        files.close_fd(fd)
        files.close()
