"""Transfer locks: one incoming transfer of a key at a time, seen by git-annex as its own.

A receiver locks ``annex/transfer/download/lck/lck.<key>`` first, then the same name in the folder of the
sender's UUID, where it also writes what it is doing, and unlinks all three at the end (fact sheet
repository-format, section 2, "Transfers").
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from annexpy.clock import Clock
from annexpy.errors import InvalidKey, TransferInProgress
from annexpy.keys.key import Key
from annexpy.keys.layout import file_key, key_file
from annexpy.repo.files import Files
from annexpy.repo.folders import DOWNLOAD_LOCKS, AnnexFolders
from annexpy.repo.lockfile import HeldLock, lock_holder, take_lock
from annexpy.repo.pidlock import PIDLOCK, PidLock
from annexpy.uuids import UUID

__all__ = ["InProgress", "TransferLock", "transfers_in_progress"]

_FOLDER: Final = b"annex/transfer"
_DIRECTIONS: Final = ("download", "upload")
_LONGEST: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class InProgress:
    """One transfer that some process has under way.

    Attributes:
        direction: "download" or "upload", as seen from this repository.
        uuid: The other one.
        key: What is transferred.
        file: Path in the work tree, or None.
    """

    direction: str
    uuid: UUID
    key: Key
    file: bytes | None


def transfers_in_progress(files: Files) -> list[InProgress]:
    """What processes of git-annex and annexpy are transferring, as far as they tell (small contents are over too soon).

    Args:
        files: The git directory that holds ``annex/``.
    """
    found = []
    for direction in _DIRECTIONS:
        for uuid in _names(files, _FOLDER + b"/" + direction.encode()):
            folder = _FOLDER + b"/" + direction.encode() + b"/" + uuid
            for name in _names(files, folder):
                if uuid == b"lck" or name.startswith(b"lck.") or not _is_held(files, folder + b"/lck." + name):
                    continue
                try:
                    told = (files.read(folder + b"/" + name) or b"")[:_LONGEST].split(b"\n")
                    found.append(InProgress(direction, UUID(os.fsdecode(uuid)), file_key(name), _file(told)))
                except (InvalidKey, OSError):
                    continue  # none of ours, or over by now
    return found


def _names(files: Files, folder: bytes) -> list[bytes]:
    try:
        return sorted(files.names(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _file(told: list[bytes]) -> bytes | None:
    return told[1] if len(told) > 1 and told[1] else None


def _is_held(files: Files, lock: bytes) -> bool:
    try:
        fd = files.open_read(lock)
    except OSError:
        return False
    try:
        # Where the pid lock stands for all locks, a lock file has none of its own.
        return files.locked_by_other(fd) or files.status(PIDLOCK) is not None
    finally:
        files.close_fd(fd)


class TransferLock:
    """The locks of one incoming transfer."""

    __slots__ = ("_info", "_locks")

    def __init__(self, locks: list[HeldLock], info: tuple[Files, bytes] | None) -> None:
        self._locks, self._info = locks, info

    @classmethod
    def take(
        cls,
        folders: AnnexFolders,
        key: Key,
        clock: Clock,
        *,
        source: UUID | None = None,
        associated_file: str = "",
        pidlock: PidLock | None = None,
    ) -> TransferLock:
        """Become the one who receives *key*.

        Args:
            folders: Of the receiving repository.
            key: What is received.
            clock: For the start time in the info file.
            source: Who sends; None when that is not known, then only the first lock is taken.
            associated_file: Path in the work tree, for ``git annex info``.
            pidlock: Where ``annex.pidlock`` is set.

        Raises:
            TransferInProgress: Somebody else receives it.
            OSError: The locks could not be made.
        """
        name = key_file(key)
        mode = folders.settings.lockdown.file
        transfer = cls([], None)
        try:
            transfer._lock(folders.needed(DOWNLOAD_LOCKS), name, key, folders.where, mode, pidlock)
            if source is not None:
                folder = folders.downloads(source)
                transfer._lock(folder, name, key, folders.where, mode, pidlock)
                transfer._info = (folder, name)
                line = b"%.9fs\n%s\n" % (clock.wall(), associated_file.encode("utf-8", "surrogateescape"))
                fd = folder.open_write(name, truncate=True, mode=mode or 0o666)
                try:
                    folder.write(fd, line)
                finally:
                    folder.close_fd(fd)
        except BaseException:
            transfer.release()
            raise
        return transfer

    def _lock(
        self, folder: Files, name: bytes, key: Key, where: str, mode: int | None, pidlock: PidLock | None
    ) -> None:
        lock = take_lock(folder, b"lck." + name, exclusive=True, mode=mode, pidlock=pidlock)
        if lock is None:
            raise TransferInProgress(key, where, f"{lock_holder(folder, b'lck.' + name, pidlock)} receives it")
        self._locks.append(lock)

    def release(self) -> None:
        """Let others receive it. Idempotent; what goes wrong is raised after all has been tried."""
        info, self._info = self._info, None
        try:
            if info is not None:
                info[0].unlink(info[1])
        finally:
            self._release_locks()

    def _release_locks(self) -> None:
        if self._locks:
            try:
                self._locks.pop(0).release(unlink=True)
            finally:
                self._release_locks()
