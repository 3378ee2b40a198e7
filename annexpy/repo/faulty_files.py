"""``Files`` that fail, or let the process die, at the N-th operation. For crash sweeps.

Combined operations are taken apart (``ComposedFiles``), so that every simple one is a place to fail at.
"""

from __future__ import annotations

import errno
import os

from annexpy.repo.door import ComposedFiles, Files, Status

__all__ = ["Faults", "FaultyFiles", "Killed"]


class Killed(BaseException):
    """The process died here. Nothing it does afterwards has any effect."""


class Faults:
    """When to fail, shared by all folders of one ``FaultyFiles``.

    Attributes:
        count: Operations so far.
        names: What they were.
        dead: The process has died.
    """

    def __init__(self, at: int = 0, error: int | None = None, only: frozenset[str] | None = None) -> None:
        """Plan one fault.

        Args:
            at: Which operation fails, counted from 1; 0: none.
            error: The errno; None: the process dies instead.
            only: Count these operations only.
        """
        self.at, self.error, self.only = at, error, only
        self.count = 0
        self.names: list[str] = []
        self.dead = False

    def step(self, name: str) -> bool:
        """True when this operation is the one to fail; raises when the process is dead."""
        if self.dead:
            raise Killed(name)
        if self.only is not None and name not in self.only:
            return False
        self.count += 1
        self.names.append(name)
        return self.count == self.at

    def fail(self, name: str) -> None:
        if self.error is None:
            self.dead = True
            raise Killed(name)
        raise OSError(self.error, os.strerror(self.error))


class FaultyFiles(ComposedFiles):
    """*inner*, with the faults of *faults*."""

    __slots__ = ("_faults", "_inner")

    def __init__(self, inner: Files, faults: Faults) -> None:
        self._inner, self._faults = inner, faults

    @property
    def path(self) -> bytes:
        return self._inner.path

    def _step(self, name: str) -> None:
        if self._faults.step(name):
            self._faults.fail(name)

    def folder(self, path: bytes, *, create: bool = False) -> FaultyFiles:
        self._step("folder")
        return FaultyFiles(self._inner.folder(path, create=create), self._faults)

    def close(self) -> None:
        self._inner.close()

    def status(self, path: bytes) -> Status | None:
        self._step("status")
        return self._inner.status(path)

    def absent(self, path: bytes) -> bool:
        return self._inner.absent(path)

    def names(self, path: bytes = b"") -> list[bytes]:
        self._step("names")
        return self._inner.names(path)

    def free(self) -> int:
        return self._inner.free()

    def read(self, path: bytes) -> bytes | None:
        self._step("read")
        return self._inner.read(path)

    def open_read(self, path: bytes) -> int:
        self._step("open_read")
        return self._inner.open_read(path)

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
        self._step("open_write")
        return self._inner.open_write(
            path, create=create, exclusive=exclusive, truncate=truncate, append=append, mode=mode
        )

    def write(self, fd: int, data: bytes | memoryview) -> None:
        if self._faults.step("write"):
            if self._faults.error in (None, errno.ENOSPC, errno.EIO):
                self._inner.write(fd, data[: len(data) // 2])  # as far as it got
            self._faults.fail("write")
        self._inner.write(fd, data)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        self._step("pread")
        return self._inner.pread(fd, size, offset)

    def fstatus(self, fd: int) -> Status:
        self._step("fstatus")
        return self._inner.fstatus(fd)

    def fchmod(self, fd: int, mode: int) -> None:
        self._step("fchmod")
        self._inner.fchmod(fd, mode)

    def truncate(self, fd: int, size: int) -> None:
        self._step("truncate")
        self._inner.truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._step("sync")
        self._inner.sync(fd)

    def close_fd(self, fd: int) -> None:
        # Closes in any case, as the system does.
        self._inner.close_fd(fd)
        self._step("close_fd")

    def make_folders(self, path: bytes, mode: int = 0o777) -> list[bytes]:
        self._step("make_folders")
        return self._inner.make_folders(path, mode)

    def rename(self, old: bytes, new: bytes) -> None:
        self._step("rename")
        self._inner.rename(old, new)

    def rename_from(self, source: Files, old: bytes, new: bytes) -> None:
        assert isinstance(source, FaultyFiles)
        self._step("rename")
        self._inner.rename_from(source._inner, old, new)

    def link(self, old: bytes, new: bytes) -> None:
        self._step("link")
        self._inner.link(old, new)

    def unlink(self, path: bytes) -> bool:
        self._step("unlink")
        return self._inner.unlink(path)

    def remove_folder(self, path: bytes) -> bool:
        self._step("remove_folder")
        return self._inner.remove_folder(path)

    def chmod(self, path: bytes, mode: int) -> None:
        self._step("chmod")
        self._inner.chmod(path, mode)

    def utime(self, path: bytes, seconds: float) -> None:
        self._step("utime")
        self._inner.utime(path, seconds)

    def sync_folder(self, path: bytes) -> None:
        self._step("sync_folder")
        self._inner.sync_folder(path)

    def sync_all(self) -> None:
        self._step("sync_all")
        self._inner.sync_all()

    def try_lock(self, fd: int, *, exclusive: bool) -> bool:
        self._step("try_lock")
        return self._inner.try_lock(fd, exclusive=exclusive)

    def unlock(self, fd: int) -> None:
        self._inner.unlock(fd)

    def locked_by_other(self, fd: int) -> bool:
        return self._inner.locked_by_other(fd)

    def lock_holder(self, fd: int) -> str:
        return self._inner.lock_holder(fd)
