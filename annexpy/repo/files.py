"""The one door to the file system.

Everything annexpy does to files of a repository goes through a ``Files``, so that the simulator and
the crash sweeps replace one thing. Paths are bytes, relative to the directory the ``Files`` was
opened on, and no component of them may be a symbolic link: each directory on the way is opened
relative to its parent without following links.

Calls block; small ones are meant to run inline on the event loop (a stat costs 2 µs, a thread hop
50), bulk work belongs in a worker thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from annexpy.errors import InvalidPath

__all__ = ["DiskFiles", "Files", "Status"]

Status = os.stat_result

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Open file description locks: they conflict with git-annex's POSIX locks, belong to the descriptor
# (so threads conflict too) and survive the closing of other descriptors of the same file.
# Fact sheet repository-format, section 0 rule 6.
_F_OFD_SETLK: Final = getattr(fcntl, "F_OFD_SETLK", 37)
_F_OFD_GETLK: Final = getattr(fcntl, "F_OFD_GETLK", 36)
_FLOCK: Final = struct.Struct("hhqqi4x")


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

    def replace(self, path: bytes, data: bytes, *, mode: int = 0o644, sync: bool = True, temporary: bytes | None = None) -> None:
        """Write to a temporary name (default: beside *path*), sync it when asked, rename over *path*."""
        ...

    # -- descriptors --
    def open_read(self, path: bytes) -> int:
        """A regular file for reading."""
        ...

    def open_write(self, path: bytes, *, create: bool = True, exclusive: bool = False, truncate: bool = False, append: bool = False, mode: int = 0o644) -> int:
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
        """mkdir -p; the directories that were really made, outermost first (their parents need ``sync_folder``)."""
        ...

    def rename(self, old: bytes, new: bytes) -> None: ...

    def link(self, old: bytes, new: bytes) -> None: ...

    def unlink(self, path: bytes) -> bool:
        """False when there was nothing."""
        ...

    def remove_folder(self, path: bytes) -> bool:
        """rmdir; False when it is not empty or not there."""
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
        """An open-file-description lock on the whole file, released by closing *fd*; False when somebody else has it."""
        ...

    def lock_holder(self, fd: int) -> str:
        """Who stands in the way of an exclusive lock, as far as the system tells."""
        ...


class DiskFiles:
    """``Files`` on the real file system."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: bytes | str | os.PathLike[str]) -> None:
        self.path = os.fsencode(path)
        # The root itself may be reached through links: it is the operator's choice.
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @classmethod
    def _adopt(cls, path: bytes, fd: int) -> DiskFiles:
        files = cls.__new__(cls)
        files.path, files._fd = path, fd
        return files

    def folder(self, path: bytes, *, create: bool = False) -> DiskFiles:
        if create:
            self.make_folders(path)
        with self._parent(path + b"/.") as (parent, _):
            return self._adopt(os.path.join(self.path, path), os.dup(parent))

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    @contextmanager
    def _parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        fd, name = self._open_parent(path)
        try:
            yield fd, name
        finally:
            if fd != self._fd:
                os.close(fd)

    def _open_parent(self, path: bytes) -> tuple[int, bytes]:
        """(descriptor of the directory that holds *path*, last component); close it unless it is ours."""
        *folders, name = path.split(b"/")
        if not path:
            return self._fd, b"."
        fd = self._fd
        try:
            for part in folders:
                if part in (b"", b"..") or b"\0" in part:
                    raise InvalidPath("path", path, "relative, without empty components or '..'")
                below = os.open(part, _DIRECTORY, dir_fd=fd)
                if fd != self._fd:
                    os.close(fd)
                fd = below
            if name in (b"", b"..") or b"\0" in name:
                raise InvalidPath("path", path, "relative, without empty components or '..'")
        except BaseException:
            if fd != self._fd:
                os.close(fd)
            raise
        return fd, name

    # -- looking --

    def status(self, path: bytes) -> Status | None:
        try:
            with self._parent(path) as (fd, name):
                return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self, path: bytes = b"") -> list[bytes]:
        try:
            with self._parent(path + b"/." if path else b"") as (fd, _):
                return [os.fsencode(name) for name in os.listdir(fd)]
        except FileNotFoundError:
            return []

    def free(self) -> int:
        info = os.fstatvfs(self._fd)
        return info.f_bavail * info.f_frsize

    # -- whole small files --

    def read(self, path: bytes) -> bytes | None:
        try:
            fd = self.open_read(path)
        except FileNotFoundError:
            return None
        try:
            size = os.fstat(fd).st_size
            parts = [os.read(fd, size + 1)]
            while parts[-1]:
                parts.append(os.read(fd, 1 << 20))
            return b"".join(parts)
        finally:
            os.close(fd)

    def replace(
        self, path: bytes, data: bytes, *, mode: int = 0o644, sync: bool = True, temporary: bytes | None = None
    ) -> None:
        aside = temporary if temporary is not None else path + b".%d.tmp" % os.getpid()
        fd = self.open_write(aside, truncate=True, mode=mode)
        try:
            self.write(fd, data)
            if sync:
                os.fsync(fd)
        except BaseException:
            self.unlink(aside)
            raise
        finally:
            os.close(fd)
        self.rename(aside, path)
        if sync:
            self.sync_folder(os.path.dirname(path))

    # -- descriptors --

    def _open(self, path: bytes, flags: int, mode: int = 0) -> int:
        with self._parent(path) as (parent, name):
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode, dir_fd=parent)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", path)
        return fd

    def open_read(self, path: bytes) -> int:
        return self._open(path, os.O_RDONLY)

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
        flags = os.O_RDWR | os.O_CREAT * create | os.O_EXCL * exclusive
        return self._open(path, flags | os.O_TRUNC * truncate | os.O_APPEND * append, mode)

    def write(self, fd: int, data: bytes | memoryview) -> None:
        done = os.write(fd, data)
        if done < len(data):
            rest = memoryview(data)
            while done < len(rest):
                done += os.write(fd, rest[done:])

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def fstatus(self, fd: int) -> Status:
        return os.fstat(fd)

    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        os.fsync(fd)

    def close_fd(self, fd: int) -> None:
        os.close(fd)

    # -- names --

    def make_folders(self, path: bytes, mode: int = 0o777) -> list[bytes]:
        made: list[bytes] = []
        missing: list[bytes] = []
        while path:
            try:
                with self._parent(path) as (fd, name):
                    os.mkdir(name, mode, dir_fd=fd)
                made.append(path)
            except FileExistsError:
                pass
            except FileNotFoundError:
                missing.append(path)
                path = os.path.dirname(path)
                continue
            if not missing:
                break
            path = missing.pop()
        return made

    def rename(self, old: bytes, new: bytes) -> None:
        with self._parent(old) as (old_fd, old_name), self._parent(new) as (new_fd, new_name):
            os.rename(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)

    def link(self, old: bytes, new: bytes) -> None:
        with self._parent(old) as (old_fd, old_name), self._parent(new) as (new_fd, new_name):
            os.link(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)

    def unlink(self, path: bytes) -> bool:
        try:
            with self._parent(path) as (fd, name):
                os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            return False
        return True

    def remove_folder(self, path: bytes) -> bool:
        try:
            with self._parent(path) as (fd, name):
                os.rmdir(name, dir_fd=fd)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY):
                return False
            raise
        return True

    def chmod(self, path: bytes, mode: int) -> None:
        with self._parent(path) as (parent, name):
            # Linux has no fchmodat without following: open first, which refuses links.
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
            try:
                os.fchmod(fd, mode)
            finally:
                os.close(fd)

    def utime(self, path: bytes, seconds: float) -> None:
        with self._parent(path) as (fd, name):
            os.utime(name, (seconds, seconds), dir_fd=fd, follow_symlinks=False)

    def sync_folder(self, path: bytes) -> None:
        with self._parent(path + b"/." if path else b"") as (fd, _):
            os.fsync(fd)

    def sync_all(self) -> None:
        _syncfs(self._fd)

    # -- locks --

    def try_lock(self, fd: int, *, exclusive: bool) -> bool:
        wanted = _FLOCK.pack(fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        try:
            fcntl.fcntl(fd, _F_OFD_SETLK, wanted)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def lock_holder(self, fd: int) -> str:
        answer = fcntl.fcntl(fd, _F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        kind, _, _, _, pid = _FLOCK.unpack(answer)
        if kind == fcntl.F_UNLCK:
            return "nobody any more"
        return f"pid {pid}" if pid > 0 else "a process that does not show its pid"


def _syncfs(fd: int) -> None:
    import ctypes  # 10 ms, and only for full durability

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
