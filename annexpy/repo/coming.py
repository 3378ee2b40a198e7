"""What is on its way to each repository, told to the other processes that place keys for the same gateway.

Each process has a file in ``annex/annexpy/coming`` that it keeps locked, with the bytes that are under way. A file that
nobody has locked any more is of a process that has ended, and goes. Where there is no such file to be had, a process
knows its own only.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from annexpy.repo.door import Files
from annexpy.repo.format import STATE, apply_mode, make_folders
from annexpy.repo.settings import Lockdown
from annexpy.uuids import UUID

__all__ = ["Coming"]

_FOLDER: Final = STATE + b"/coming"


class Coming:
    """One process's view. Not for several threads at once; ``close`` it."""

    def __init__(self, files: Files, lockdown: Lockdown) -> None:
        self._files, self._lockdown = files, lockdown
        self._folder: Files | None = None
        self._fd = -1
        self._process = 0

    def tell(self, sizes: Mapping[UUID, int]) -> None:
        """These are under way here; the file is made when there is first something to tell."""
        said = {uuid: size for uuid, size in sizes.items() if size}
        if not said and self._fd < 0:
            return
        with suppress(OSError):
            folder = self._opened()
            text = json.dumps(said).encode()
            folder.truncate(self._fd, 0)
            folder.write(self._fd, text)

    def others(self) -> Counter[UUID]:
        """What other processes tell at this moment."""
        found: Counter[UUID] = Counter()
        with suppress(OSError):
            names = self._files.names(_FOLDER)
            if not names:
                return found
            folder = self._files.folder(_FOLDER)
            try:
                for name in names:
                    if name != self._name() or self._fd < 0:
                        found.update(_told(folder, name))
            finally:
                folder.close()
        return found

    def _name(self) -> bytes:
        return b"%d-%x" % (os.getpid(), id(self))

    def _opened(self) -> Files:
        if self._process != os.getpid():
            self._folder, self._fd, self._process = None, -1, os.getpid()  # a fork has a file of its own
        if self._folder is None:
            make_folders(self._files, _FOLDER, self._lockdown)
            folder = self._files.folder(_FOLDER)
            fd = folder.lock_file(self._name(), exclusive=True)
            if fd is None:
                folder.close()
                raise OSError("locked by somebody else")
            self._folder, self._fd = folder, fd
            apply_mode(folder, fd, self._lockdown)
        return self._folder

    def close(self) -> None:
        """Nothing is under way here any more. It can be used again."""
        folder, fd, self._folder, self._fd = self._folder, self._fd, None, -1
        if folder is not None and self._process == os.getpid():
            with suppress(OSError):
                folder.unlink(self._name())
            folder.close_fd(fd)
            folder.close()


def _told(folder: Files, name: bytes) -> dict[UUID, int]:
    fd = folder.lock_file(name, exclusive=True)
    if fd is not None:  # whoever made it has ended
        folder.unlink(name)
        folder.close_fd(fd)
        return {}
    for _ in range(3):  # it may just be written
        with suppress(ValueError, AttributeError, TypeError):
            return {UUID(uuid): int(size) for uuid, size in json.loads(folder.read(name) or b"").items()}
    return {}
