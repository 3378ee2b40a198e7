"""One file of a spool, as the process knows it that adds to it."""

from __future__ import annotations

from typing import Final

from annexpy.repo.files import Files
from annexpy.repo.format import STATE

__all__ = ["OPEN", "READY", "SPOOL", "SpoolFile"]

SPOOL: Final = STATE + b"/spool"
OPEN: Final = b".open"
READY: Final = b".ready"


class SpoolFile:
    """A file of this process, and what it is known by.

    Attributes:
        path: Without the ending, which changes when somebody seals it.
        fd: -1 once it was closed.
        written: Bytes in it.
        named: Its directory entry is on the disk.
        busy: Somebody syncs it.
        left: Nothing is added any more.
        doubtful: What was added may never reach the disk.
    """

    __slots__ = (
        "_files", "busy", "doubtful", "fd", "folder", "identity", "left", "name", "named", "path", "written"
    )  # fmt: skip

    def __init__(self, files: Files, folder: Files, path: bytes, fd: int = -1) -> None:
        self._files, self.folder, self.path, self.fd = files, folder, path, fd
        self.name = path.removeprefix(SPOOL + b"/") + OPEN
        self.named = self.busy = self.doubtful = False
        self.left, self.written, self.identity = fd < 0, 0, (0, 0)
        if fd >= 0:
            status = files.fstatus(fd)
            self.identity = (status.st_ino, status.st_dev)

    def close(self) -> None:
        """Give back its descriptor. It can still be read and synced, by its name."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._files.close_fd(fd)
            self.folder.close()

    def exists(self, files: Files) -> bool:
        """It was not absorbed yet."""
        return any(files.status(self.path + kind) is not None for kind in (OPEN, READY))

    def read(self, files: Files) -> bytes | None:
        """What stands in it; None when it was absorbed."""
        content = files.read(self.path + OPEN)
        return files.read(self.path + READY) if content is None else content

    def sync_closed(self, files: Files) -> None:
        """Sync it by its name. What was absorbed is in the branch."""
        for kind in (OPEN, READY):
            try:
                fd = files.open_read(self.path + kind)
            except FileNotFoundError:
                continue
            try:
                files.sync(fd)
            finally:
                files.close_fd(fd)
            return

    def end(self, files: Files) -> None:
        """Complete it where nobody can seal it, because locks have stopped working."""
        try:
            if self.written:
                files.rename(self.path + OPEN, self.path + READY)
            else:
                files.unlink(self.path + OPEN)
        except FileNotFoundError:
            pass  # sealed
