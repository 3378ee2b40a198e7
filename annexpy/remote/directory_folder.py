"""The folder of a directory special remote, open for as long as somebody uses it.

A thread that hangs in a file system holds it too, so that its descriptors are not those of something else by the time
it comes back.
"""

from __future__ import annotations

import threading
from typing import Final

from annexpy.clock import Clock
from annexpy.errors import LocalProtocolError
from annexpy.repo.content import ContentStore
from annexpy.repo.files import DiskFiles
from annexpy.repo.folders import Layout
from annexpy.repo.settings import ContentSettings

__all__ = ["ARRIVING", "RESERVE", "TMP", "Opened"]

TMP: Final = b"tmp"
ARRIVING: Final = b"tmp/annexpy"
"""A folder of our own: a file called like a key in ``tmp`` stops git-annex from storing that key."""
RESERVE: Final = ContentSettings().reserve
_LAYOUT: Final = Layout(b"", ARRIVING, resumes=False)


class Opened:
    """The folder, open as long as somebody holds it.

    Attributes:
        empty: There was nothing in it when somebody looked last.
        closed: Nobody holds it any more.
    """

    __slots__ = ("_files", "_lock", "_users", "closed", "empty", "store")

    def __init__(self, files: DiskFiles, clock: Clock, reserve: int) -> None:
        settings = ContentSettings(transfer_locks=False, reserve=reserve)
        self._files, self.closed = files, False
        self.empty = self.is_empty()
        self._lock, self._users = threading.Lock(), 0
        self.store = ContentStore(files, clock=clock, settings=settings, layout=_LAYOUT)

    def is_empty(self) -> bool:
        """There is nothing in it now."""
        self.empty = self._files.absent(TMP) and not self._files.names()
        return self.empty

    def is_same(self, files: DiskFiles) -> bool:
        return _identity(self._files) == _identity(files)

    def try_hold(self) -> bool:
        """Keep it open, until ``release``; False when it is closed already."""
        with self._lock:
            self._users += not self.closed
            return not self.closed

    def hold(self) -> None:
        """As ``try_hold``, of what was opened just now or is held by somebody."""
        if not self.try_hold():  # whoever asked has given up
            raise LocalProtocolError("a folder that is closed")

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            self.closed = not self._users
        if self.closed:
            self.store.folders.close()
            self._files.close()


def _identity(files: DiskFiles) -> tuple[int, int]:
    status = files.status(b"")
    return (0, 0) if status is None else (status.st_dev, status.st_ino)
