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
from typing import Final, Protocol

from annexpy.errors import InvalidPath

__all__ = ["WRITE", "ComposedFiles", "DiskFiles", "Files", "Status", "umask"]

Status = os.stat_result

WRITE: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
"""Everybody's write permission."""
_PLACE_RETRIES: Final = 5
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_BAD_NAMES: Final = frozenset((b"", b".."))
_NOT_REMOVED: Final = frozenset((errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY))
_PATH_RULE: Final = "relative, without empty components or '..'"
# Open file description locks: they conflict with git-annex's POSIX locks, belong to the descriptor
# (so threads conflict too) and survive the closing of other descriptors of the same file.
# Fact sheet repository-format, section 0 rule 6.
_F_OFD_SETLK: Final = getattr(fcntl, "F_OFD_SETLK", 37)
_F_OFD_GETLK: Final = getattr(fcntl, "F_OFD_GETLK", 36)
_FLOCK: Final = struct.Struct("hhqqi4x")
_READ_LOCK: Final = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
_WRITE_LOCK: Final = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_NO_LOCK: Final = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)


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

    def prune(self, path: bytes) -> None:
        """Remove the folder *path* and those above it, innermost first, as far as they are empty."""
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

    def absent(self: Files, path: bytes) -> bool:
        try:
            return self.status(path) is None
        except NotADirectoryError:
            return True

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

    def prune(self: Files, path: bytes) -> None:
        while path and self.remove_folder(path):
            path = os.path.dirname(path)

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


class DiskFiles(ComposedFiles):
    """``Files`` on the real file system. Pickles as its path; a forked child may go on using it."""

    __slots__ = ("_fd", "path")

    path: bytes

    def __init__(self, path: bytes | str | os.PathLike[str]) -> None:
        self.path = os.fsencode(path)
        # The root itself may be reached through links: it is the operator's choice.
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @classmethod
    def _adopt(cls, path: bytes, fd: int) -> DiskFiles:
        files = cls.__new__(cls)
        files.path, files._fd = path, fd
        return files

    def __reduce__(self) -> tuple[object, ...]:
        return (DiskFiles, (self.path,))

    def folder(self, path: bytes, *, create: bool = False) -> DiskFiles:
        if create:
            self.make_folders(path)
        fd = self._open_folder(path)
        return self._adopt(os.path.join(self.path, path), os.dup(fd) if fd == self._fd else fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    # Both give our own descriptor when nothing had to be opened: close the result unless it is ours.

    def _open_parent(self, path: bytes) -> tuple[int, bytes]:
        """(descriptor of the directory that holds *path*, last component)."""
        if b"/" in path:
            above, _, name = path.rpartition(b"/")
            if not above:
                raise InvalidPath("path", path, _PATH_RULE)
            fd = self._open_folder(above)
        else:
            fd, name = self._fd, path
        if name in _BAD_NAMES or b"\0" in name:
            if fd != self._fd:
                os.close(fd)
            if not path:
                return fd, b"."
            raise InvalidPath("path", path, _PATH_RULE)
        return fd, name

    def _open_folder(self, path: bytes) -> int:
        """Descriptor of the directory *path*, no component of which is a symbolic link."""
        fd = own = self._fd
        if not path:
            return fd
        try:
            for part in path.split(b"/"):
                if part in _BAD_NAMES or b"\0" in part:
                    raise InvalidPath("path", path, _PATH_RULE)
                below = os.open(part, _DIRECTORY, dir_fd=fd)
                if fd != own:
                    os.close(fd)
                fd = below
        except BaseException:
            if fd != own:
                os.close(fd)
            raise
        return fd

    # -- looking --

    def status(self, path: bytes) -> Status | None:
        if not path:
            return os.fstat(self._fd)
        try:
            fd, name = self._open_parent(path)
        except FileNotFoundError:
            return None
        try:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        finally:
            if fd != self._fd:
                os.close(fd)

    def absent(self, path: bytes) -> bool:
        # access() follows links on the way, which cannot make it call something absent that is there
        return not os.access(path, os.F_OK, dir_fd=self._fd)

    def names(self, path: bytes = b"") -> list[bytes]:
        try:
            fd = self._open_folder(path)
        except FileNotFoundError:
            return []
        try:
            return [os.fsencode(name) for name in os.listdir(fd)]
        finally:
            if fd != self._fd:
                os.close(fd)

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

    # -- descriptors --

    def _open(self, path: bytes, flags: int, mode: int = 0) -> int:
        parent, name = self._open_parent(path)
        try:
            fd = os.open(name, flags | _FILE, mode, dir_fd=parent)
        finally:
            if parent != self._fd:
                os.close(parent)
        # O_EXCL made it, so it is a regular file
        if not flags & os.O_EXCL and not stat.S_ISREG(os.fstat(fd).st_mode):
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
                fd, name = self._open_parent(path)
                try:
                    os.mkdir(name, mode, dir_fd=fd)
                finally:
                    if fd != self._fd:
                        os.close(fd)
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
        self.rename_from(self, old, new)

    def rename_from(self, source: Files, old: bytes, new: bytes) -> None:
        assert isinstance(source, DiskFiles)
        old_fd, old_name = source._open_parent(old)
        try:
            new_fd, new_name = self._open_parent(new)
            try:
                os.rename(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)
            finally:
                if new_fd != self._fd:
                    os.close(new_fd)
        finally:
            if old_fd != source._fd:
                os.close(old_fd)

    def place(
        self, source: Files, old: bytes, new: bytes, *, folder_mode: int | None = None, freeze: int = WRITE
    ) -> bool:
        for _ in range(_PLACE_RETRIES):
            try:
                return self._place(source, old, new, folder_mode, freeze)
            except FileNotFoundError:
                # Somebody who dropped another key removed a folder that was empty for the moment, or
                # *old* is gone: the last attempt tells.
                pass
        return self._place(source, old, new, folder_mode, freeze)

    def _place(self, source: Files, old: bytes, new: bytes, folder_mode: int | None, freeze: int) -> bool:
        assert isinstance(source, DiskFiles)
        if b"/" in old:
            raise InvalidPath("name of a file to place", old, "one component of a path")
        *folders, name = new.split(b"/")
        fd = own = self._fd
        made = False
        try:
            for part in folders:
                if part in _BAD_NAMES:
                    raise InvalidPath("path", new, _PATH_RULE)
                if not made:
                    try:
                        below = os.open(part, _DIRECTORY, dir_fd=fd)
                    except FileNotFoundError:
                        below = -1
                if made or below < 0:
                    try:
                        os.mkdir(part, dir_fd=fd)
                        made = True
                    except FileExistsError:
                        made = False
                    below = os.open(part, _DIRECTORY, dir_fd=fd)
                    if made and folder_mode is not None:
                        os.fchmod(below, folder_mode)
                if fd != own:
                    os.close(fd)
                fd = below
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            if not made:
                try:
                    os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    pass
                else:
                    source.unlink(old)
                    return False
                if not mode & stat.S_IWUSR:
                    os.fchmod(fd, mode | stat.S_IWUSR)
            try:
                os.rename(old, name, src_dir_fd=source._fd, dst_dir_fd=fd)
            finally:
                if freeze:
                    os.fchmod(fd, mode & ~freeze)
            return True
        finally:
            if fd != own:
                os.close(fd)

    def link(self, old: bytes, new: bytes) -> None:
        old_fd, old_name = self._open_parent(old)
        try:
            new_fd, new_name = self._open_parent(new)
            try:
                os.link(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)
            finally:
                if new_fd != self._fd:
                    os.close(new_fd)
        finally:
            if old_fd != self._fd:
                os.close(old_fd)

    def unlink(self, path: bytes) -> bool:
        try:
            fd, name = self._open_parent(path)
            try:
                os.unlink(name, dir_fd=fd)
            finally:
                if fd != self._fd:
                    os.close(fd)
        except FileNotFoundError:
            return False
        return True

    def remove_folder(self, path: bytes) -> bool:
        try:
            fd, name = self._open_parent(path)
            try:
                os.rmdir(name, dir_fd=fd)
            finally:
                if fd != self._fd:
                    os.close(fd)
        except OSError as error:
            if error.errno in _NOT_REMOVED:
                return False
            raise
        return True

    def prune(self, path: bytes) -> None:
        parts = path.split(b"/")
        fds = [self._fd]
        try:
            for part in parts[:-1]:
                fds.append(os.open(part, _DIRECTORY, dir_fd=fds[-1]))
            while parts:
                os.rmdir(parts.pop(), dir_fd=fds[-1])
                if len(fds) > 1:
                    os.close(fds.pop())
        except OSError as error:
            if error.errno not in _NOT_REMOVED:
                raise
        finally:
            for fd in fds[1:]:
                os.close(fd)

    def chmod(self, path: bytes, mode: int) -> None:
        if not path:
            os.fchmod(self._fd, mode)
            return
        parent, name = self._open_parent(path)
        try:
            # Linux has no fchmodat without following: open first, which refuses links.
            fd = os.open(name, os.O_RDONLY | _FILE, dir_fd=parent)
            try:
                os.fchmod(fd, mode)
            finally:
                os.close(fd)
        finally:
            if parent != self._fd:
                os.close(parent)

    def utime(self, path: bytes, seconds: float) -> None:
        fd, name = self._open_parent(path)
        try:
            os.utime(name, (seconds, seconds), dir_fd=fd, follow_symlinks=False)
        finally:
            if fd != self._fd:
                os.close(fd)

    def sync_folder(self, path: bytes) -> None:
        fd = self._open_folder(path)
        try:
            os.fsync(fd)
        finally:
            if fd != self._fd:
                os.close(fd)

    def sync_all(self) -> None:
        _syncfs(self._fd)

    # -- locks --

    def try_lock(self, fd: int, *, exclusive: bool) -> bool:
        try:
            fcntl.fcntl(fd, _F_OFD_SETLK, _WRITE_LOCK if exclusive else _READ_LOCK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def lock_file(self, name: bytes, *, exclusive: bool) -> int | None:
        if b"/" in name or name in _BAD_NAMES:
            raise InvalidPath("name of a lock file", name, "one component of a path")
        while True:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | _FILE, 0o666, dir_fd=self._fd)
            try:
                if not self.try_lock(fd, exclusive=exclusive):
                    os.close(fd)
                    return None
                status = os.fstat(fd)
                if status.st_nlink and stat.S_ISREG(status.st_mode):
                    return fd
                if status.st_nlink:
                    raise OSError(errno.EINVAL, "not a regular file", name)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def unlock(self, fd: int) -> None:
        fcntl.fcntl(fd, _F_OFD_SETLK, _NO_LOCK)

    def locked_by_other(self, fd: int) -> bool:
        return bool(_FLOCK.unpack(fcntl.fcntl(fd, _F_OFD_GETLK, _WRITE_LOCK))[0] != fcntl.F_UNLCK)

    def lock_holder(self, fd: int) -> str:
        answer = fcntl.fcntl(fd, _F_OFD_GETLK, _WRITE_LOCK)
        kind, _, _, _, pid = _FLOCK.unpack(answer)
        if kind == fcntl.F_UNLCK:
            return "nobody any more"
        return f"pid {pid}" if pid > 0 else "a process that does not show its pid"


def umask() -> int:
    """The file mode creation mask of this process."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except FileNotFoundError:
        pass
    # The other way to learn it changes it for a moment, for every thread.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _syncfs(fd: int) -> None:
    import ctypes  # 10 ms, and only for full durability

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
