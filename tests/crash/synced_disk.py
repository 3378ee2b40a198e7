"""What a power cut leaves of folders on a real file system, as far as they were synced one by one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

__all__ = ["Disk"]


class Disk:
    """What ``os.fsync`` has brought to the disk: the entries of folders and the contents of files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._names: dict[int, dict[str, int]] = {}
        self._contents: dict[int, bytes] = {}
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, fd: int) -> None:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            self._names[status.st_ino] = {
                name: os.stat(name, dir_fd=fd, follow_symlinks=False).st_ino for name in os.listdir(fd)
            }
        else:
            self._contents[status.st_ino] = Path(f"/proc/self/fd/{fd}").read_bytes()

    def sync(self, folder: Path) -> None:
        """As if somebody had synced the names in it."""
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def left(self, of: Path, to: Path) -> Path:
        """What is there of a folder, which is on disk itself, after the power was cut."""
        self._write(of.stat().st_ino, to)
        return to

    def _write(self, number: int, to: Path) -> None:
        to.mkdir()
        for name, below in self._names.get(number, {}).items():
            if below in self._contents:
                (to / name).write_bytes(self._contents[below])
            elif below in self._names:
                self._write(below, to / name)
