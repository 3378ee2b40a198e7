"""``Files`` in memory, for the simulator and for crash tests: it knows what is on disk and what is not.

``crash`` is a power cut; memory_disk.py says what survives one. Permissions are those of an owner who is not
root: nothing changes in a folder without write permission.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from annexpy.errors import InvalidPath
from annexpy.repo.door import ComposedFiles, Files, Status
from annexpy.repo.memory_disk import Disk, File, Folder, Link, Node, Open, holds, status_of

__all__ = ["MemoryFiles"]

_UMASK: Final = 0o022
_ROOMY: Final = 1 << 40


class MemoryFiles(ComposedFiles):
    """A file system in memory, or a folder of one.

    Attributes:
        path: What it is called in messages.
    """

    __slots__ = ("_disk", "_folder", "path")

    def __init__(self, path: bytes = b"/memory", *, capacity: int = _ROOMY) -> None:
        """Make an empty file system.

        Args:
            path: For messages.
            capacity: Bytes of file content that fit.
        """
        self.path = path
        self._folder = Folder(1, 0o755)
        self._folder.links = 1
        self._disk = Disk(self._folder, capacity)

    def _view(self, path: bytes, folder: Folder) -> MemoryFiles:
        files = MemoryFiles.__new__(MemoryFiles)
        files.path, files._folder, files._disk = path, folder, self._disk
        return files

    # -- faults of the machine --

    def crash(self, choose: Callable[[int], int] | None = None) -> None:
        """Cut the power. Every descriptor and every folder that is open is of no more use.

        Args:
            choose: Gives a number below its argument (``Random(seed).randrange``), to decide for everything
                that was not synced whether it got to the disk. None: nothing did.
        """
        with self._disk.mutex:
            self._disk.crash(choose)

    def kill(self) -> None:
        """End every process: descriptors are closed and locks are gone, all else stays."""
        with self._disk.mutex:
            self._disk.kill()

    def symlink(self, target: bytes, path: bytes) -> None:
        """Make a symbolic link, as an attacker might."""
        with self._disk.mutex:
            folder, name = self._parent(path)
            self._disk.change(folder, name, Link(self._disk.number(), target))

    # -- paths --

    def folder(self, path: bytes, *, create: bool = False) -> MemoryFiles:
        with self._disk.mutex:
            if create:
                self.make_folders(path)
            return self._view(os.path.join(self.path, path), self._walk(path))

    def close(self) -> None:
        pass

    def _walk(self, path: bytes) -> Folder:
        node = self._folder
        for part in _parts(path):
            below = node.entries.get(part)
            if not isinstance(below, Folder):
                if below is None:
                    raise _error(errno.ENOENT, path)
                raise _error(errno.ELOOP if isinstance(below, Link) else errno.ENOTDIR, path)
            node = below
        return node

    def _parent(self, path: bytes) -> tuple[Folder, bytes]:
        above, name = _place(path)
        if len(name) > 255:
            raise _error(errno.ENAMETOOLONG, path)
        return self._walk(above) if above else self._folder, name

    def _writable_parent(self, path: bytes) -> tuple[Folder, bytes]:
        folder, name = self._parent(path)
        if folder.links == 0:
            raise _error(errno.ENOENT, path)
        if not folder.mode & stat.S_IWUSR:
            raise _error(errno.EACCES, path)
        return folder, name

    # -- looking --

    def status(self, path: bytes) -> Status | None:
        with self._disk.mutex:
            if not path:
                return status_of(self._folder)
            try:
                folder, name = self._parent(path)
            except FileNotFoundError:
                return None
            node = folder.entries.get(name)
            return None if node is None else status_of(node)

    def names(self, path: bytes = b"") -> list[bytes]:
        with self._disk.mutex:
            try:
                return list(self._walk(path).entries)
            except FileNotFoundError:
                return []

    def free(self) -> int:
        return self._disk.capacity - self._disk.used

    # -- whole small files --

    def read(self, path: bytes) -> bytes | None:
        with self._disk.mutex:
            try:
                fd = self.open_read(path)
            except FileNotFoundError:
                return None
            try:
                return bytes(self._disk.open[fd].node.data)
            finally:
                self.close_fd(fd)

    # -- descriptors --

    def _open(self, node: Node, path: bytes, *, writable: bool, append: bool) -> int:
        if isinstance(node, Link):
            raise _error(errno.ELOOP, path)
        if not isinstance(node, File):
            raise _error(errno.EISDIR if writable else errno.EINVAL, path)
        if not node.mode & (stat.S_IWUSR if writable else stat.S_IRUSR):
            raise _error(errno.EACCES, path)
        return self._descriptor(node, writable=writable, append=append)

    def _descriptor(self, node: File, *, writable: bool, append: bool) -> int:
        self._disk.descriptors += 1
        self._disk.open[self._disk.descriptors] = Open(node, writable, append)
        return self._disk.descriptors

    def open_read(self, path: bytes) -> int:
        with self._disk.mutex:
            folder, name = self._parent(path)
            node = folder.entries.get(name)
            if node is None:
                raise _error(errno.ENOENT, path)
            return self._open(node, path, writable=False, append=False)

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
        with self._disk.mutex:
            folder, name = self._parent(path)
            node = folder.entries.get(name)
            if node is None:
                if not create:
                    raise _error(errno.ENOENT, path)
                self._writable_parent(path)
                made = File(self._disk.number(), mode & ~_UMASK)
                self._disk.change(folder, name, made)
                self._disk.touch(made)
                return self._descriptor(made, writable=True, append=append)
            if exclusive:
                raise _error(errno.EEXIST, path)
            fd = self._open(node, path, writable=True, append=append)
            if truncate:
                self.truncate(fd, 0)
            return fd

    def _handle(self, fd: int) -> Open:
        handle = self._disk.open.get(fd)
        if handle is None:
            raise _error(errno.EBADF, b"")
        return handle

    def write(self, fd: int, data: bytes | memoryview) -> None:
        with self._disk.mutex:
            handle, disk = self._handle(fd), self._disk
            if not handle.writable:
                raise _error(errno.EBADF, b"")
            content = handle.node.data
            start = len(content) if handle.append else handle.position
            room = disk.capacity - disk.used
            more = max(0, start + len(data) - len(content))
            fits = len(data) if more <= room else max(0, len(data) - (more - room))
            disk.used += min(more, max(0, room))
            content[start : start + fits] = bytes(data)[:fits]
            handle.position = start + fits
            disk.touch(handle.node)
            if fits < len(data):
                raise _error(errno.ENOSPC, b"")

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        with self._disk.mutex:
            return bytes(self._handle(fd).node.data[offset : offset + size])

    def fstatus(self, fd: int) -> Status:
        with self._disk.mutex:
            return status_of(self._handle(fd).node)

    def fchmod(self, fd: int, mode: int) -> None:
        with self._disk.mutex:
            node = self._handle(fd).node
            node.mode = stat.S_IFMT(node.mode) | mode

    def truncate(self, fd: int, size: int) -> None:
        with self._disk.mutex:
            node = self._handle(fd).node
            self._disk.used += size - len(node.data)
            node.data[:] = node.data[:size].ljust(size, b"\0")
            self._disk.touch(node)

    def sync(self, fd: int) -> None:
        with self._disk.mutex:
            node = self._handle(fd).node
            node.durable = bytes(node.data)

    def close_fd(self, fd: int) -> None:
        with self._disk.mutex:
            handle = self._handle(fd)
            handle.node.locks.pop(fd, None)
            del self._disk.open[fd]

    # -- names --

    def make_folders(self, path: bytes, mode: int = 0o777) -> list[bytes]:
        with self._disk.mutex:
            made = []
            parts = path.split(b"/") if path else []
            for depth in range(1, len(parts) + 1):
                here = b"/".join(parts[:depth])
                folder, name = self._parent(here)
                if name not in folder.entries:
                    self._writable_parent(here)
                    self._disk.change(folder, name, Folder(self._disk.number(), mode & ~_UMASK))
                    made.append(here)
            return made

    def rename(self, old: bytes, new: bytes) -> None:
        self.rename_from(self, old, new)

    def rename_from(self, source: Files, old: bytes, new: bytes) -> None:
        assert isinstance(source, MemoryFiles)
        assert source._disk is self._disk
        with self._disk.mutex:
            old_folder, old_name = source._writable_parent(old)
            new_folder, new_name = self._writable_parent(new)
            node = old_folder.entries.get(old_name)
            if node is None:
                raise _error(errno.ENOENT, old)
            there = new_folder.entries.get(new_name)
            if there is node:
                return
            if isinstance(node, Folder):
                if holds(node, new_folder):
                    raise _error(errno.EINVAL, new)
                if there is not None and not isinstance(there, Folder):
                    raise _error(errno.ENOTDIR, new)
            if isinstance(there, Folder) and (not isinstance(node, Folder) or there.entries):
                raise _error(errno.ENOTEMPTY if isinstance(node, Folder) else errno.EISDIR, new)
            added = self._disk.change(new_folder, new_name, node)
            self._disk.change(old_folder, old_name, None, added)

    def link(self, old: bytes, new: bytes) -> None:
        with self._disk.mutex:
            old_folder, old_name = self._parent(old)
            new_folder, new_name = self._writable_parent(new)
            node = old_folder.entries.get(old_name)
            if node is None:
                raise _error(errno.ENOENT, old)
            if isinstance(node, Folder):
                raise _error(errno.EPERM, old)
            if new_name in new_folder.entries:
                raise _error(errno.EEXIST, new)
            self._disk.change(new_folder, new_name, node)

    def unlink(self, path: bytes) -> bool:
        with self._disk.mutex:
            try:
                folder, name = self._parent(path)
            except FileNotFoundError:
                return False
            node = folder.entries.get(name)
            if node is None:
                return False
            if isinstance(node, Folder):
                raise _error(errno.EISDIR, path)
            self._writable_parent(path)
            self._disk.change(folder, name, None)
            return True

    def remove_folder(self, path: bytes) -> bool:
        with self._disk.mutex:
            try:
                folder, name = self._parent(path)
            except FileNotFoundError:
                return False
            node = folder.entries.get(name)
            if node is None:
                return False
            if not isinstance(node, Folder):
                raise _error(errno.ENOTDIR, path)
            if node.entries:
                return False
            self._writable_parent(path)
            self._disk.change(folder, name, None)
            return True

    def chmod(self, path: bytes, mode: int) -> None:
        with self._disk.mutex:
            node: Node | None = self._folder
            if path:
                folder, name = self._parent(path)
                node = folder.entries.get(name)
            if node is None:
                raise _error(errno.ENOENT, path)
            if isinstance(node, Link):
                raise _error(errno.ELOOP, path)
            node.mode = stat.S_IFMT(node.mode) | mode

    def utime(self, path: bytes, seconds: float) -> None:
        with self._disk.mutex:
            folder, name = self._parent(path)
            node = folder.entries.get(name)
            if node is None:
                raise _error(errno.ENOENT, path)
            node.mtime = int(seconds * 1_000_000_000)

    def sync_folder(self, path: bytes) -> None:
        with self._disk.mutex:
            self._disk.sync_folder(self._walk(path))

    def sync_all(self) -> None:
        with self._disk.mutex:
            self._disk.sync_all()

    # -- locks --

    def try_lock(self, fd: int, *, exclusive: bool) -> bool:
        with self._disk.mutex:
            locks = self._handle(fd).node.locks
            if any(exclusive or theirs for other, theirs in locks.items() if other != fd):
                return False
            locks[fd] = exclusive
            return True

    def unlock(self, fd: int) -> None:
        with self._disk.mutex:
            self._handle(fd).node.locks.pop(fd, None)

    def locked_by_other(self, fd: int) -> bool:
        with self._disk.mutex:
            return any(other != fd for other in self._handle(fd).node.locks)

    def lock_holder(self, fd: int) -> str:
        return "somebody in memory" if self.locked_by_other(fd) else "nobody any more"


@lru_cache(4096)
def _parts(path: bytes) -> tuple[bytes, ...]:
    """The components of a path; raises InvalidPath unless it is relative, without empty ones or '..'."""
    parts = tuple(path.split(b"/")) if path else ()
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        raise InvalidPath("path", path, "relative, without empty components or '..'")
    return parts


@lru_cache(4096)
def _place(path: bytes) -> tuple[bytes, bytes]:
    """The folder of a path, and the name in there."""
    above, slash, name = path.rpartition(b"/")
    if name in (b"", b".", b"..") or b"\0" in name or (slash and not above):
        raise InvalidPath("path", path, "relative, without empty components or '..'")
    return above, name


def _error(number: int, path: bytes) -> OSError:
    return OSError(number, os.strerror(number), path)
