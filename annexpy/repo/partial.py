"""The partial: the file in ``annex/tmp`` in which a content arrives, and the right to be the one who writes it.

It may have been begun by anybody, git-annex too; whoever comes next goes on from its size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from annexpy.clock import Clock
from annexpy.errors import NoSpace
from annexpy.keys.key import Key
from annexpy.keys.layout import key_file
from annexpy.repo.door import Files
from annexpy.repo.durability import GroupCommit
from annexpy.repo.folders import AnnexFolders
from annexpy.repo.pidlock import PidLock
from annexpy.repo.pipeline import Pipeline
from annexpy.repo.transfers import TransferLock
from annexpy.system import new_uuid
from annexpy.uuids import UUID

__all__ = ["Arrivals", "Partial"]


@dataclass(slots=True)
class Arrivals:
    """What the receptions of one store share.

    Attributes:
        folders: Where things are.
        clock: Time.
        group: Syncs together what is to be on disk; None when nothing is ("fast").
        recorded: Told the key when its content is in place (and on disk), before anybody else is.
        pidlock: Where ``annex.pidlock`` is set.
        promised: Bytes that receptions in this process may still write.
        present: Whether an object that is there is the content of its key.
    """

    folders: AnnexFolders
    clock: Clock
    group: GroupCommit | None = None
    recorded: Callable[[Key], None] | None = None
    pidlock: PidLock | None = None
    promised: int = field(default=0)
    present: Callable[[Key], bool] = field(kw_only=True)


class Partial:
    """One partial, open for appending. ``close`` it, then ``let_go``.

    Attributes:
        files: ``annex/tmp``, or what is that in another layout.
        name: In there.
        fd: -1 when it is not open.
        size: Bytes that it had when it was opened.
        mode: Its permissions.
    """

    __slots__ = ("_arrivals", "_key", "_lock", "_mine", "_promised", "_resumes", "fd", "files", "mode", "name", "size")

    files: Files

    def __init__(self, arrivals: Arrivals, key: Key) -> None:
        self._arrivals, self._key = arrivals, key
        self._resumes = arrivals.folders.layout.resumes
        self.name = key_file(key) if self._resumes else new_uuid().encode()
        self.fd = -1
        self.size = self.mode = 0
        self._mine = False
        self._promised = 0
        self._lock: TransferLock | None = None

    def open(self, source: UUID | None, associated_file: str) -> None:
        """Become the one who receives the key, open the partial or make it, and reserve room for the rest.

        Raises:
            TransferInProgress: Somebody else receives the same key.
            NoSpace: There is no room for what is missing; only for keys that tell their size.
            OSError: Something odd stands in the way. ``close`` and ``let_go`` in any case.
        """
        arrivals, key = self._arrivals, self._key
        self.files = arrivals.folders.needed(arrivals.folders.layout.tmp)
        if arrivals.folders.settings.transfer_locks:
            self._lock = TransferLock.take(
                arrivals.folders,
                key,
                arrivals.clock,
                source=source,
                associated_file=associated_file,
                pidlock=arrivals.pidlock,
            )
        self._open()
        self._mine = not self._resumes
        if key.size is not None:
            self.promise(key.size - self.size)

    def _open(self) -> None:
        files, name, mode = self.files, self.name, self._arrivals.folders.settings.lockdown.file
        try:
            self.fd = files.open_write(name, exclusive=True, append=True, mode=0o666)
        except FileExistsError:
            try:
                self.fd = files.open_write(name, create=False, append=True)
            except PermissionError:
                # A put that died between taking the write permission away and publishing.
                files.chmod(name, mode or 0o644)
                self.fd = files.open_write(name, create=False, append=True)
        status = files.fstatus(self.fd)
        if status.st_nlink > 1:
            # Another name of something: not ours to write to.
            files.close_fd(self.fd)
            self.fd = -1
            files.unlink(name)
            self.fd = files.open_write(name, exclusive=True, append=True, mode=0o666)
            status = files.fstatus(self.fd)
        self.mode, self.size = status.st_mode & 0o777, status.st_size
        if mode is not None and self.mode != mode:
            files.fchmod(self.fd, mode)
            self.mode = mode

    def empty(self) -> None:
        """Throw away what it had."""
        self.files.truncate(self.fd, 0)
        self.size = 0

    def promise(self, more: int) -> None:
        """Reserve room for *more* bytes.

        Raises:
            NoSpace: It would leave less free than ``annex.diskreserve``.
        """
        if more <= 0:
            return
        arrivals = self._arrivals
        free, reserve = self.files.free() - arrivals.promised, arrivals.folders.settings.reserve
        if more > free - reserve:
            raise NoSpace(self._key, arrivals.folders.where, more, free, reserve)
        arrivals.promised += more
        self._promised += more

    def took(self, size: int) -> None:
        """*size* of the bytes that were promised are on the disk, or on their way to it."""
        size = min(size, self._promised)
        self._promised -= size
        self._arrivals.promised -= size

    def close(self, *, begun: bool) -> None:
        """Close the file; remove it when it is empty, unless something was *begun* with it."""
        fd, self.fd = self.fd, -1
        if fd < 0:
            return
        try:
            nothing = not begun and not self.files.fstatus(fd).st_size
        finally:
            self.files.close_fd(fd)
        if nothing:
            self.files.unlink(self.name)

    def let_go(self) -> None:
        """Let others receive the key, and throw away what nobody goes on with. Idempotent."""
        self.took(self._promised)
        if self._mine:
            self._mine = False
            self.files.unlink(self.name)  # unless it got its name
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def leave_to(self, pipeline: Pipeline) -> None:
        """A system call of *pipeline* hangs: the file, and the right to receive, stay with the thread that is in it."""
        files, fd, lock = self.files, self.fd, self._lock
        self.fd, self._lock = -1, None

        def ended() -> None:
            files.close_fd(fd)
            if lock is not None:
                lock.release()

        pipeline.when_ended(ended)
