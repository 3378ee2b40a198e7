"""The one door to the file system: what it offers.

Everything annexpy does to files of a repository goes through a ``Files``, so that the simulator and
the crash sweeps replace one thing. Paths are bytes, relative to the directory the ``Files`` was
opened on, and no component of them may be a symbolic link: each directory on the way is opened
relative to its parent without following links.

Calls block; small ones are meant to run inline on the event loop (a stat costs 2 µs, a thread hop
50), bulk work belongs in a worker thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final, Protocol

from annexpy.repo.beneath import OUT_OF_REACH

__all__ = ["WRITE", "ComposedFiles", "Files", "Status"]

Status = os.stat_result

WRITE: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
"""Everybody's write permission."""


class Files(Protocol):
    """A directory, opened once. All paths are relative to it; ``b""`` is the directory itself.

    Raises OSError as the system gives it; the modules above map it to AnnexError. A symbolic link
    on the way raises ``OSError(ELOOP)`` or ``OSError(ENOTDIR)``.
    """

    @property
    def path(self) -> bytes:
        """Where the directory is, for messages and for other programs."""
        ...

    def folder(self, path: bytes, *, create: bool = False) -> Files:
        """A ``Files`` for a directory below, which keeps its own descriptor open."""
        ...

    def close(self) -> None: ...

    # -- looking --
    def status(self, path: bytes) -> Status | None:
        """lstat; None when there is nothing."""
        ...

    def statuses(self, paths: Sequence[bytes]) -> list[Status | None]:
        """``status`` of each; None also for what cannot be reached, as behind a symbolic link.

        Args:
            paths: Of parts that are neither empty nor ``.`` or ``..``.
        """
        ...

    def absent(self, path: bytes) -> bool:
        """True when no file can be reached there; False promises nothing.

        One system call and no exception, to pass over the many keys that are not there. Not enough to
        act upon: it also says so of a file in a folder that may not be read.
        """
        ...

    def names(self, path: bytes = b"") -> list[bytes]:
        """Directory entries, unsorted; empty when there is no such directory."""
        ...

    def free(self) -> int:
        """Bytes that we may still write to this file system."""
        ...

    # -- whole small files --
    def read(self, path: bytes) -> bytes | None:
        """Content of a regular file; None when there is nothing."""
        ...

    def replace(
        self, path: bytes, data: bytes, *, mode: int = 0o644, sync: bool = True, temporary: bytes | None = None
    ) -> None:
        """Write to a temporary name (default: beside *path*), sync it when asked, rename over *path*."""
        ...

    # -- descriptors --
    def open_read(self, path: bytes) -> int:
        """A regular file for reading."""
        ...

    def open_write(
        self,
        path: bytes,
        *,
        create: bool = True,
        exclusive: bool = False,
        truncate: bool = False,
        append: bool = False,
        mode: int = 0o644,
    ) -> int:
        """A regular file for reading and writing."""
        ...

    def write(self, fd: int, data: bytes | memoryview) -> None:
        """All of *data* at the descriptor's position."""
        ...

    def pread(self, fd: int, size: int, offset: int) -> bytes: ...

    def fstatus(self, fd: int) -> Status: ...

    def fchmod(self, fd: int, mode: int) -> None: ...

    def truncate(self, fd: int, size: int) -> None: ...

    def sync(self, fd: int) -> None:
        """Content and size of the file are on disk when this returns."""
        ...

    def close_fd(self, fd: int) -> None: ...

    # -- names --
    def make_folders(self, path: bytes, mode: int = 0o777) -> list[bytes]:
        """As ``mkdir -p``; the directories that were really made, outermost first.

        The parent of each of them needs ``sync_folder`` before it is on disk.
        """
        ...

    def rename(self, old: bytes, new: bytes) -> None: ...

    def rename_from(self, source: Files, old: bytes, new: bytes) -> None:
        """*old* of *source* becomes *new* here. Both are of one kind and on one file system."""
        ...

    def place(
        self, source: Files, old: bytes, new: bytes, *, folder_mode: int | None = None, freeze: int = WRITE
    ) -> bool:
        """Make *old* of *source* the file *new* here, unless something stands there: then *old* is removed.

        *old* is one component of a path.
        The folders on the way are made, with *folder_mode* when given. The last one, thawed for the
        moment when it was frozen, loses the permissions *freeze* again.

        Returns:
            False when something stood there.
        """
        ...

    def link(self, old: bytes, new: bytes) -> None: ...

    def unlink(self, path: bytes) -> bool:
        """False when there was nothing."""
        ...

    def remove_folder(self, path: bytes) -> bool:
        """rmdir; False when it is not empty or not there."""
        ...

    def prune(self, path: bytes) -> bool:
        """Remove the folder *path* and those above it, innermost first, as far as they are empty.

        Returns:
            *path* itself was removed.
        """
        ...

    def chmod(self, path: bytes, mode: int) -> None: ...

    def utime(self, path: bytes, seconds: float) -> None: ...

    def sync_folder(self, path: bytes) -> None:
        """The entries of a directory are on disk when this returns."""
        ...

    def sync_all(self) -> None:
        """Everything written so far to this file system is on disk (one ``syncfs``)."""
        ...

    # -- locks --
    def try_lock(self, fd: int, *, exclusive: bool) -> bool:
        """An open-file-description lock on the whole file, until *fd* is closed; False when somebody else has it."""
        ...

    def lock_file(self, name: bytes, *, exclusive: bool) -> int | None:
        """The lock file *name*, made when missing, open and locked; None when somebody stands in the way.

        The lock counts: the file still had its name after it was locked (whoever is done with a lock file
        unlinks it). *name* is one component of a path.
        """
        ...

    def unlock(self, fd: int) -> None:
        """Give the lock back at once, also where a child process still has the descriptor."""
        ...

    def locked_by_other(self, fd: int) -> bool:
        """Somebody else has a lock on the file, shared or exclusive."""
        ...

    def lock_holder(self, fd: int) -> str:
        """Who stands in the way of an exclusive lock, as far as the system tells."""
        ...


class ComposedFiles:
    """The combined operations of ``Files`` made of its simple ones, for implementations that need no speed."""

    __slots__ = ()

    def statuses(self: Files, paths: Sequence[bytes]) -> list[Status | None]:
        found: list[Status | None] = []
        for path in paths:
            try:
                found.append(self.status(path))
            except OSError as error:
                if error.errno not in OUT_OF_REACH:
                    raise
                found.append(None)
        return found

    def absent(self: Files, path: bytes) -> bool:
        return self.statuses((path,)) == [None]

    def replace(
        self: Files,
        path: bytes,
        data: bytes,
        *,
        mode: int = 0o644,
        sync: bool = True,
        temporary: bytes | None = None,
    ) -> None:
        aside = temporary if temporary is not None else path + b".%d.tmp" % os.getpid()
        fd = self.open_write(aside, truncate=True, mode=mode)
        try:
            self.write(fd, data)
            if sync:
                self.sync(fd)
        except BaseException:
            self.unlink(aside)
            raise
        finally:
            self.close_fd(fd)
        self.rename(aside, path)
        if sync:
            self.sync_folder(os.path.dirname(path))

    def prune(self: Files, path: bytes) -> bool:
        above = path
        while above and self.remove_folder(above):
            above = os.path.dirname(above)
        return above != path

    def lock_file(self: Files, name: bytes, *, exclusive: bool) -> int | None:
        while True:
            fd = self.open_write(name, mode=0o666)
            try:
                locked = self.try_lock(fd, exclusive=exclusive)
                if locked and self.fstatus(fd).st_nlink:
                    return fd
            except BaseException:
                self.close_fd(fd)
                raise
            self.close_fd(fd)
            if not locked:
                return None

    def place(
        self: Files, source: Files, old: bytes, new: bytes, *, folder_mode: int | None = None, freeze: int = WRITE
    ) -> bool:
        folder = os.path.dirname(new)
        made = self.make_folders(folder)
        for path in made:
            if folder_mode is not None:
                self.chmod(path, folder_mode)
        status = self.status(folder)
        if status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        mode = stat.S_IMODE(status.st_mode)
        if not made and self.status(new) is not None:
            source.unlink(old)
            return False
        if not mode & stat.S_IWUSR:
            self.chmod(folder, mode | stat.S_IWUSR)
        try:
            self.rename_from(source, old, new)
        finally:
            if freeze:
                self.chmod(folder, mode & ~freeze)
        return True
