"""The journal: ``annex/journal``, ``annex/journal-private``, and the lock that guards them and the branch.

Every change to ``refs/heads/git-annex`` and to journal files happens under an exclusive lock on
``annex/journal.lck``; a compare-and-swap of the ref alone lost 218 of 367 records beside a running
git-annex. Readers need no lock: they lay the journal over the branch.

Source: fact sheet repository-format, sections 0 and 4.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from annexpy.clock import Clock
from annexpy.errors import LockHeld, UnsupportedRepository
from annexpy.logs.line import complete_lines
from annexpy.logs.paths import branch_path, journal_file
from annexpy.repo.files import Files
from annexpy.repo.format import STATE, apply_mode, make_folders, repository_error
from annexpy.repo.settings import Lockdown

if TYPE_CHECKING:
    from annexpy.repo.lockfile import HeldLock
    from annexpy.repo.pidlock import PidLock

__all__ = ["JOURNAL", "LOCK_SECONDS", "PRIVATE", "Journal", "JournalLock"]

LOCK_SECONDS: Final = 30.0
"""How long to wait for the journal: git-annex holds it for seconds while it commits 100,000 records."""

JOURNAL: Final = b"annex/journal"
PRIVATE: Final = b"annex/journal-private"

_ANNEX: Final = b"annex"
_NAME: Final = b"journal.lck"
_LOCK: Final = _ANNEX + b"/" + _NAME
_NOTE: Final = STATE + b"/journal.holder"
_TEMPORARY: Final = STATE + b"/tmp"
_LONGEST_NOTE: Final = 1 << 20
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


class JournalLock:
    """The exclusive lock on the journal. Each instance locks for itself, so threads exclude each other too.

    While it is held, ``annex/annexpy/journal.holder`` names this process: the system does not tell who holds an
    open-file-description lock. A note that is found on acquiring was left by a crash.

    Attributes:
        left: What the one of us who had the lock before noted and did not take back; empty unless it died.
    """

    __slots__ = ("_annex", "_clock", "_files", "_held", "_lockdown", "_pidlock", "left")

    def __init__(self, files: Files, clock: Clock, lockdown: Lockdown, *, pidlock: bool = False) -> None:
        self._files, self._clock, self._lockdown = files, clock, lockdown
        self._pidlock: PidLock | None = None
        if pidlock:
            from annexpy.repo.pidlock import PidLock

            self._pidlock = PidLock.of(files)
        self._annex: Files | None = None
        self._held: HeldLock | None = None
        self.left = b""

    def try_acquire(self) -> bool:
        """Take it if it is free.

        Raises:
            AccessDenied, RepositoryError: It cannot be made.
            UnsupportedRepository: File locks do not work on this file system.
        """
        try:
            return self._try_acquire()
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                where = os.fsdecode(self._files.path)
                raise UnsupportedRepository(
                    f"{where}: file locks do not work here ({error.strerror}); git-annex needs annex.pidlock=true then"
                ) from error
            raise repository_error(self._files.path, "lock the journal", error) from error

    def _try_acquire(self) -> bool:
        from annexpy.repo.lockfile import take_lock  # it brings anyio, which readers do without

        annex = self._folder()
        try:
            held = take_lock(annex, _NAME, exclusive=True, mode=self._lockdown.file, pidlock=self._pidlock)
        except BaseException:
            annex.close()
            raise
        if held is None:
            annex.close()
            return False
        self._annex, self._held = annex, held
        try:
            self._leave_note()
        except BaseException:
            self._let_go()
            raise
        return True

    def _folder(self) -> Files:
        try:
            return self._files.folder(_ANNEX)
        except FileNotFoundError:
            make_folders(self._files, _ANNEX, self._lockdown)
            return self._files.folder(_ANNEX)

    def _leave_note(self) -> None:
        files = self._files
        try:
            fd = files.open_write(_NOTE)
        except FileNotFoundError:
            make_folders(files, STATE, self._lockdown)
            fd = files.open_write(_NOTE)
        try:
            self.left = files.pread(fd, _LONGEST_NOTE, 0)
            if self.left:
                files.truncate(fd, 0)
            files.write(fd, self._who())
        finally:
            files.close_fd(fd)

    @staticmethod
    def _who() -> bytes:
        return b"%d %b\n" % (os.getpid(), os.fsencode(os.uname().nodename))

    def note(self, lines: Sequence[bytes], *, sync: bool) -> None:
        """Have *lines* noted for whoever comes after us should we die."""
        files = self._files
        fd = files.open_write(_NOTE, truncate=True)
        try:
            files.write(fd, self._who() + b"".join([line + b"\n" for line in lines]))
            if sync:
                files.sync(fd)
        finally:
            files.close_fd(fd)

    def release(self) -> None:
        """Give it back."""
        try:
            fd = self._files.open_write(_NOTE, create=False, truncate=True)
            self._files.close_fd(fd)
        except FileNotFoundError:
            pass  # somebody cleaned annex/annexpy while we worked: then there is nothing to take back
        finally:
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        annex, self._annex = self._annex, None
        if held is not None:
            held.release()
        if annex is not None:
            annex.close()

    def holder(self) -> str:
        """Who has it, as far as can be found out."""
        if self._pidlock is not None:
            return self._pidlock.holder()
        try:
            fd = self._files.open_read(_LOCK)
        except OSError as error:
            return f"somebody ({error.strerror})"
        try:
            system = self._files.lock_holder(fd)
        finally:
            self._files.close_fd(fd)
        pid = system.removeprefix("pid ")
        if pid.isdigit():
            return f"{_command(pid)} (pid {pid})"
        note = (self._files.read(_NOTE) or b"").partition(b"\n")[0].split()
        if len(note) == 2:
            pid, host = note[0].decode("ascii", "replace"), os.fsdecode(note[1])
            return f"annexpy (pid {pid} on {host})"
        return system

    def _error(self, waited: float) -> LockHeld:
        return LockHeld(os.fsdecode(self._files.path + b"/" + _LOCK), self.holder(), waited)

    @contextmanager
    def blocking(self, seconds: float = LOCK_SECONDS) -> Iterator[JournalLock]:
        """Hold it; the calling thread waits.

        Raises:
            LockHeld: It was not free for *seconds*.
        """
        started, pause = self._clock.now(), _FIRST_PAUSE
        while not self.try_acquire():
            waited = self._clock.now() - started
            if waited >= seconds:
                raise self._error(waited)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        try:
            yield self
        finally:
            self.release()

    async def acquire(self, seconds: float = LOCK_SECONDS, *, unless: Callable[[], bool] | None = None) -> bool:
        """Take it; other tasks go on meanwhile. Raises as ``blocking``.

        Args:
            seconds: How long to wait.
            unless: Looked at while somebody else has it: nothing is left to do with it.

        Returns:
            False when it was not taken because of *unless*.
        """
        from anyio import sleep

        started, pause = self._clock.now(), _FIRST_PAUSE
        while not self.try_acquire():
            if unless is not None and unless():
                return False
            waited = self._clock.now() - started
            if waited >= seconds:
                raise self._error(waited)
            await sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return True


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:  # not part of the repository, so not through Files
            return file.read().strip() or "a process"
    except OSError:
        return "a process"


class Journal:
    """The files of one journal. Reading needs no lock; writing and removing need the journal lock.

    Args:
        files: The git directory.
        lockdown: Permissions.
        folder: ``JOURNAL`` or ``PRIVATE``.
    """

    __slots__ = ("_files", "_folder", "_lockdown")

    def __init__(self, files: Files, lockdown: Lockdown, folder: bytes = JOURNAL) -> None:
        self._files, self._lockdown, self._folder = files, lockdown, folder

    def paths(self) -> list[bytes]:
        """The branch paths that have a journal file, unsorted."""
        return [branch_path(name) for name in self._files.names(self._folder)]

    def state(self) -> object:
        """Something that changes when files come or go; the same while there is no journal."""
        status = self._files.status(self._folder)
        return None if status is None else (status.st_mtime_ns, status.st_ino)

    def read(self, path: bytes) -> bytes | None:
        """What the journal says instead of the branch; a last line without newline is left out, as git-annex does."""
        content = self._files.read(self._folder + b"/" + journal_file(path))
        return None if content is None else complete_lines(content)

    def write(self, path: bytes, content: bytes, *, sync: bool = True) -> None:
        """Put a journal file in place. Call ``sync`` once behind the last."""
        files = self._files
        name = journal_file(path)
        # in the same file system, and not in othertmp, which git-annex empties when nobody holds its lock
        temporary = _TEMPORARY + b"/" + name
        try:
            fd = files.open_write(temporary, truncate=True)
        except FileNotFoundError:
            make_folders(files, _TEMPORARY, self._lockdown)
            make_folders(files, self._folder, self._lockdown)
            fd = files.open_write(temporary, truncate=True)
        try:
            files.write(fd, content)
            apply_mode(files, fd, self._lockdown)
            if sync:
                files.sync(fd)
        finally:
            files.close_fd(fd)
        try:
            files.rename(temporary, self._folder + b"/" + name)
        except FileNotFoundError:
            make_folders(files, self._folder, self._lockdown)
            files.rename(temporary, self._folder + b"/" + name)

    def sync(self) -> None:
        """The names of all files written are on disk when this returns."""
        self._files.sync_folder(self._folder)
        self._files.sync_folder(os.path.dirname(self._folder))  # git-annex makes the journal, and syncs nothing

    def remove(self, path: bytes) -> None:
        """Remove a journal file whose content is in the branch now."""
        self._files.unlink(self._folder + b"/" + journal_file(path))
