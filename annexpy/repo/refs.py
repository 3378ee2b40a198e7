"""Refs of a repository: read one, list those of one name, compare and swap.

Refs as files and ``packed-refs``; the other storage (reftable) is refused when the repository is opened.
dulwich could do this too, but it costs 20 ms of import in every process that only wants to read one log.

Source: gitrepository-layout(5); fact sheet repository-format, sections 3 and 4.
"""

from __future__ import annotations

import errno
import os
import re
import time
from typing import Final, TypeAlias

from annexpy.errors import LockHeld, RepositoryError
from annexpy.patterns import regex
from annexpy.repo.door import Files, Status
from annexpy.repo.format import apply_mode, make_folders
from annexpy.repo.settings import Lockdown
from annexpy.system import CLOCK

__all__ = ["GIT_ANNEX", "NO_LINKS", "SYNCED", "Refs"]

GIT_ANNEX: Final = b"refs/heads/git-annex"
SYNCED: Final = b"refs/heads/synced/"
"""Below it is what others sent, which waits to be merged."""

_LOCK_SECONDS: Final = 5.0
_SETTLED: Final = 2.0
"""Seconds after which a file that is written again has another time, on every file system."""
NO_LINKS: Final = frozenset((errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK))
"""Errors of a file system that makes no hard links."""
_SHA: Final = regex(rb"[0-9a-f]{40}\Z")
_PACKED: Final = regex(rb"^([0-9a-f]{40}) (\S+)$", re.MULTILINE)


_Stamp: TypeAlias = tuple[int, int, int]
"""Inode, size and time of change: what is different when a file was written again."""


def _stamp(status: Status | None) -> _Stamp | None:
    return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)


class Refs:
    """The refs below one git directory (of the main repository, for a linked worktree)."""

    __slots__ = ("_files", "_lockdown", "_loose", "_packed", "_packed_stamp")

    def __init__(self, files: Files, lockdown: Lockdown) -> None:
        self._files = files
        self._lockdown = lockdown
        self._loose: dict[bytes, tuple[_Stamp, bytes]] = {}
        self._packed: dict[bytes, bytes] = {}
        self._packed_stamp: _Stamp | None = None

    def read(self, name: bytes) -> bytes | None:
        """The commit *name* points to, as 40 hex digits; None when there is no such ref.

        Raises:
            RepositoryError: The ref is broken, or symbolic.
        """
        # loose before packed: pack-refs writes packed-refs first and deletes the loose one second
        for _ in range(3):
            value = self._read_loose(name)
            if value is not None:
                return value
            stamp = self._packed_stamp
            found = self._read_packed().get(name)
            if found is not None or stamp == self._packed_stamp:
                return found
        return found

    def _read_loose(self, name: bytes) -> bytes | None:
        stamp = _stamp(self._files.status(name))
        known = self._loose.get(name)
        if known is not None and known[0] == stamp:
            return known[1]
        raw = None if stamp is None else self._files.read(name)
        if raw is None or stamp is None:
            return None
        value = raw.strip()
        if not _SHA.match(value):
            raise RepositoryError(f"{os.fsdecode(name)} is no plain ref: {value[:80]!r}")
        if CLOCK.wall() - stamp[2] / 1e9 > _SETTLED:  # whoever writes it from now on changes its time
            self._loose[name] = stamp, value
        return value

    def named(self, last: bytes) -> dict[bytes, bytes]:
        """Ref → commit, for every ref whose last component is *last*, sorted by name."""
        suffix = b"/" + last
        found = {name: sha for name, sha in self._read_packed().items() if name.endswith(suffix)}
        folders = [b"refs"]
        while folders:
            folder = folders.pop()
            for name in self._files.names(folder):
                path = folder + b"/" + name
                try:
                    raw = self._files.read(path) if name == last else None
                except OSError:  # a directory of that name
                    raw = None
                if raw is not None:
                    if _SHA.match(raw.strip()):  # symbolic and broken refs show nothing of their own
                        found[path] = raw.strip()
                elif not name.endswith(b".lock"):
                    status = self._files.status(path)
                    if status is not None and status.st_mode & 0o170000 == 0o040000:
                        folders.append(path)
        return dict(sorted(found.items()))

    def heads(self) -> dict[bytes, bytes]:
        """Ref → commit, for every branch, sorted by name. What is symbolic or broken is left out."""
        found: dict[bytes, bytes] = {}
        folders = [b"refs/heads"]
        while folders:
            folder = folders.pop()
            for name in self._files.names(folder):
                path = folder + b"/" + name
                try:
                    raw = self._files.read(path)
                except OSError:  # a directory
                    folders.append(path)
                    continue
                if raw is not None and _SHA.match(raw.strip()):
                    found[path] = raw.strip()
        # packed after loose, as in ``read``
        packed = {name: sha for name, sha in self._read_packed().items() if name.startswith(b"refs/heads/")}
        return dict(sorted({**packed, **found}.items()))

    def swap(
        self, name: bytes, old: bytes | None, new: bytes, *, aside: bytes | None = None, sync: bool = True
    ) -> bool:
        """Let *name* point to *new* if it still points to *old* (None: does not exist); False when it does not.

        Args:
            name: The ref.
            old: What it has to be.
            new: What it becomes.
            aside: Where to write first, so that a lock that a kill left can be told by its content: the lock of the ref
                is made by a link to that, so it never lacks its content. Of this ref, and of nobody else meanwhile.
            sync: On disk when it returns.

        Raises:
            LockHeld: Another git process kept the lock of the ref for 5 seconds.
        """
        files, lock = self._files, name + b".lock"
        if aside is not None:
            left = files.read(aside)
            if left is not None:  # by one who was killed here, and may have had the lock
                if left.strip():  # else it had not come to that; a lock that is empty is git's
                    self.unlock_stale(name, left.strip())
                files.unlink(aside)
            self._write(files.open_write(aside, exclusive=True, mode=0o666), new, sync)
        fd = self._lock(lock, aside)
        try:
            same = self.read(name) == old
            if same:
                if fd is not None:
                    taken, fd = fd, None
                    self._write(taken, new, sync)
                files.rename(lock, name)
            else:
                files.unlink(lock)
        except BaseException:
            files.unlink(lock)
            raise
        finally:
            if fd is not None:
                files.close_fd(fd)
        if sync:
            self._sync_name(name)
        if aside is not None:
            files.unlink(aside)
        return same

    def _sync_name(self, name: bytes) -> None:
        folder = os.path.dirname(name)
        try:
            self._files.sync_folder(folder)
            while folder.count(b"/") > 1:  # below refs/heads and the like, which are as old as the repository
                folder = os.path.dirname(folder)
                self._files.sync_folder(folder)
        except FileNotFoundError:  # git gc has packed the ref meanwhile, and taken its empty folder away
            self._files.sync_all()

    def _write(self, fd: int, new: bytes, sync: bool) -> None:
        try:
            self._files.write(fd, new + b"\n")
            apply_mode(self._files, fd, self._lockdown)
            if sync:
                self._files.sync(fd)
        finally:
            self._files.close_fd(fd)

    def _lock(self, lock: bytes, content: bytes | None) -> int | None:
        """Take the lock of a ref: a link to *content*, or an empty file and its descriptor."""
        waited, pause = 0.0, 0.002
        while True:
            try:
                return self._try_lock(lock, content)
            except FileExistsError:
                if waited >= _LOCK_SECONDS:
                    path = os.fsdecode(self._files.path + b"/" + lock)
                    raise LockHeld(path, "another git process, or one that died", waited) from None
            except FileNotFoundError:
                if not make_folders(self._files, os.path.dirname(lock), self._lockdown):
                    raise
                continue
            time.sleep(pause)
            waited += pause
            pause = min(pause * 2, 0.1)

    def _try_lock(self, lock: bytes, content: bytes | None) -> int | None:
        files = self._files
        if content is None:
            return files.open_write(lock, exclusive=True, mode=0o666)
        try:
            files.link(content, lock)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # a file system without links: have the name first, then give it its content
            files.close_fd(files.open_write(lock, exclusive=True, mode=0o666))
            files.rename(content, lock)
        return None

    def unlock_stale(self, name: bytes, new: bytes) -> None:
        """Remove the lock that a ``swap`` to *new* left when its process died. Only when nobody can be in one."""
        lock = name + b".lock"
        if (self._files.read(lock) or b"").strip() == new:
            self._files.unlink(lock)

    def _read_packed(self) -> dict[bytes, bytes]:
        stamp = _stamp(self._files.status(b"packed-refs"))
        if stamp is None:
            self._packed, self._packed_stamp = {}, None
        elif stamp != self._packed_stamp:
            raw = self._files.read(b"packed-refs") or b""
            self._packed = {name: sha for sha, name in _PACKED.findall(raw)}
            self._packed_stamp = stamp
        return self._packed
