"""The one door to the file system, on a real disk. ``door.py`` says what it offers."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final

from annexpy.errors import InvalidPath
from annexpy.repo.beneath import open_beneath, statuses_beneath
from annexpy.repo.descriptor_locks import DescriptorLocks
from annexpy.repo.door import WRITE, ComposedFiles, Files, Status

__all__ = ["WRITE", "ComposedFiles", "DiskFiles", "Files", "Status", "umask"]

_PLACE_RETRIES: Final = 5
_SMALL: Final = 16 * 1024
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_LOOK: Final = getattr(os, "O_PATH", 0) | os.O_NOFOLLOW | os.O_CLOEXEC
_BAD_NAMES: Final = frozenset((b"", b".."))
_NOT_REMOVED: Final = frozenset((errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.EBUSY))
_PATH_RULE: Final = "relative, without empty components or '..'"


class DiskFiles(DescriptorLocks, ComposedFiles):
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
        return self._adopt(self.path + b"/" + path if path else self.path, os.dup(fd) if fd == self._fd else fd)

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
        if b"/" in path:
            below = open_beneath(fd, path, _DIRECTORY)
            if below >= 0:
                return below
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
            if b"/" in path:
                fd = open_beneath(self._fd, path, _LOOK)
                if fd >= 0:
                    try:
                        return os.fstat(fd)
                    finally:
                        os.close(fd)
            fd, name = self._open_parent(path)
            try:
                return os.stat(name, dir_fd=fd, follow_symlinks=False)
            finally:
                if fd != self._fd:
                    os.close(fd)
        except FileNotFoundError:
            return None

    def statuses(self, paths: Sequence[bytes]) -> list[Status | None]:
        found = statuses_beneath(self._fd, paths)
        return super().statuses(paths) if found is None else [*found]

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
            parts = [os.read(fd, _SMALL)]
            while parts[-1]:
                parts.append(os.read(fd, _SMALL if len(parts[-1]) < _SMALL else 1 << 20))
            return b"".join(parts)
        finally:
            os.close(fd)

    # -- descriptors --

    def _open(self, path: bytes, flags: int, mode: int = 0) -> int:
        fd = -1
        if b"/" in path:
            fd = open_beneath(self._fd, path, flags | _FILE, mode)
        if fd < 0:
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

    def drop_cached(self, fd: int) -> None:
        """Let the system forget what it has in memory of a file; what is not on disk yet stays."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

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
            except OSError as error:
                error.filename = path  # mkdir knows only the last name of it
                raise
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

    def prune(self, path: bytes) -> bool:
        parts = path.split(b"/")
        depth = len(parts)
        fds = [self._fd]
        try:
            for part in parts[:-1]:
                fds.append(os.open(part, _DIRECTORY, dir_fd=fds[-1]))
            while parts:
                os.rmdir(parts[-1], dir_fd=fds[-1])
                parts.pop()
                if len(fds) > 1:
                    os.close(fds.pop())
        except OSError as error:
            if error.errno not in _NOT_REMOVED:
                raise
        finally:
            for fd in fds[1:]:
                os.close(fd)
        return len(parts) < depth

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
    if not hasattr(libc, "syncfs"):
        os.sync()  # not on Linux: of every file system
    elif libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
