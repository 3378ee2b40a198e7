"""The folders below ``annex/`` that hold content: found once, kept open, opened again when replaced.

A descriptor that is kept saves two thirds of the system calls of a small put, and it pins what was there
when it was opened. A server lives for months and an operator may restore or mount something over
``annex/objects`` meanwhile, so the folders are compared with their names once a second.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from annexpy.clock import Clock
from annexpy.errors import AccessDenied, AnnexError, ContentError, InvalidKey, NoSpace, NotRegularFile
from annexpy.keys.key import Key
from annexpy.keys.layout import hash_dir_lower, hash_dir_mixed, key_file, object_paths
from annexpy.repo.files import Files, Status
from annexpy.repo.settings import ContentSettings
from annexpy.uuids import UUID

__all__ = ["ANNEX", "DOWNLOAD_LOCKS", "OBJECTS", "TMP", "AnnexFolders", "Layout", "content_error"]

OBJECTS: Final = b"annex/objects"
TMP: Final = b"annex/tmp"
DOWNLOAD_LOCKS: Final = b"annex/transfer/download/lck"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which folders hold content.

    Attributes:
        objects: Where the hash directories are.
        tmp: Where contents arrive.
        resumes: What arrived of a content that was not finished is kept, under a name that others know.
    """

    objects: bytes = OBJECTS
    tmp: bytes = TMP
    resumes: bool = True


ANNEX: Final = Layout()
"""That of a repository."""

_LOOK_AGAIN: Final = 1.0
_MOST_OPEN: Final = 64

_UNSAFE: Final = frozenset((errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ENXIO))
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_DENIED: Final = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))


class AnnexFolders:
    """The content folders of one repository, and where in them a key is.

    Args:
        files: The git directory that holds ``annex/`` (that of the main repository for a linked worktree).
        settings: How the repository is tuned.
        clock: For the second between two looks.
        layout: Where they are.
    """

    __slots__ = ("_checked", "_clock", "_open", "files", "layout", "settings", "where")

    def __init__(self, files: Files, settings: ContentSettings, clock: Clock, layout: Layout = ANNEX) -> None:
        self.files, self.settings, self._clock, self.layout = files, settings, clock, layout
        self.where = os.fsdecode(files.path)
        self._open: dict[bytes, Files] = {}
        self._checked = clock.now()

    # -- folders --

    def existing(self, path: bytes) -> Files | None:
        """The folder *path*, or None when there is none."""
        folder = self._kept(path)
        if folder is None:
            try:
                folder = self._open[path] = self.files.folder(path)
            except FileNotFoundError:
                return None
        return folder

    def needed(self, path: bytes) -> Files:
        """The folder *path*, made when it is not there."""
        folder = self._kept(path)
        if folder is None:
            for new in self.files.make_folders(path):
                if self.settings.lockdown.folder is not None:
                    self.files.chmod(new, self.settings.lockdown.folder)
                if path == self.layout.objects and self.settings.durability == "full":
                    self.files.sync_folder(os.path.dirname(new))  # once in the life of a repository
            if len(self._open) >= _MOST_OPEN:
                self._open.clear()
            folder = self._open[path] = self.files.folder(path)
        return folder

    def _kept(self, path: bytes) -> Files | None:
        now = self._clock.now()
        if not 0 <= now - self._checked < _LOOK_AGAIN:
            self._checked = now
            for kept, folder in list(self._open.items()):
                there, ours = self.files.status(kept), folder.status(b"")
                if there is None or ours is None or (there.st_ino, there.st_dev) != (ours.st_ino, ours.st_dev):
                    del self._open[kept]
        return self._open.get(path)

    def forget(self) -> None:
        """Open everything anew on the next use. Whoever is using a folder now keeps it open."""
        self._open.clear()

    def close(self) -> None:
        """Close everything. Nobody may be using a folder."""
        for folder in self._open.values():
            folder.close()
        self._open.clear()

    def downloads(self, source: UUID) -> Files:
        """``annex/transfer/download/<source>``."""
        return self.needed(b"annex/transfer/download/" + os.fsencode(source))

    # -- keys --

    def paths(self, key: Key) -> tuple[bytes, ...]:
        """Where below ``annex/objects`` the content of *key* may be, the place for new content first."""
        settings = self.settings
        if settings.lower_only:
            name = key_file(key)
            return (hash_dir_lower(key, settings.levels) + name + b"/" + name,)
        lower, mixed = object_paths(key, levels=settings.levels)
        return (lower, mixed) if settings.bare else (mixed, lower)

    def below(self, path: bytes) -> bytes:
        """*path*, below the folder with the hash directories, as one below ``files``."""
        return self.layout.objects + b"/" + path if self.layout.objects else path

    def above(self, path: bytes) -> list[bytes]:
        """The folders on the way to *path*, which is one below ``files``, the nearest first."""
        folders: list[bytes] = []
        while path != self.layout.objects:
            path = os.path.dirname(path)
            folders.append(path)
        return folders

    def find(self, key: Key) -> tuple[bytes, Status] | None:
        """Where below ``annex/objects`` the object is, and its status, whatever kind of file it is.

        Raises:
            OSError: A place could not be looked at, so absence is not certain.
        """
        return next(self.find_all(key), None)

    def find_all(self, key: Key) -> Iterator[tuple[bytes, Status]]:
        """As ``find``; an object may be in both places."""
        objects = self.existing(self.layout.objects)
        if objects is not None:
            for path in self.paths(key):
                status = objects.status(path)
                if status is not None:
                    yield path, status

    def find_regular(self, key: Key) -> tuple[bytes, Status] | None:
        """As ``find``; None for anything but a regular file that can be reached."""
        objects = self.existing(self.layout.objects)
        if objects is None:
            return None
        for path in self.paths(key):
            [status] = objects.statuses((path,))
            if status is not None and stat.S_ISREG(status.st_mode):
                return path, status
        return None

    def look_for(self, keys: Sequence[Key], place: int) -> list[Status | None]:
        """What is in the first or second *place* (0, 1) of each of *keys*; None where nothing can be reached.

        Raises:
            OSError: A place could not be looked at, so absence is not certain.
        """
        objects = self.existing(self.layout.objects)
        if objects is None:
            return [None] * len(keys)
        levels = self.settings.levels
        paths: list[bytes] = []  # one of ``paths`` alone: both cost as much as half a look
        hash_dir = hash_dir_lower if self.settings.bare is (place == 0) or self.settings.lower_only else hash_dir_mixed
        for key in keys:
            name = key_file(key)
            paths.append(hash_dir(key, levels) + name + b"/" + name)
        return objects.statuses(paths)

    def error(self, key: Key, error: OSError) -> AnnexError:
        """*error* as annexpy's own, naming key and repository."""
        if error.errno in _FULL:
            said = error.strerror or str(error)  # it may be the quota, or the inodes
            return NoSpace(key, self.where, key.size or 0, self._free(), self.settings.reserve, said)
        return content_error(key, self.where, error)

    def _free(self) -> int:
        try:
            return self.files.free()
        except OSError:
            return 0


def content_error(key: Key, where: str, error: OSError) -> AnnexError:
    """*error*, met while handling the content of *key* in *where*, as annexpy's own."""
    reason = error.strerror or str(error)
    number = error.errno
    if number in _UNSAFE:
        return NotRegularFile(key, where, f"{reason}; symbolic links are not followed")
    if number in _DENIED:
        path = error.filename
        shown = path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else str(path)
        return AccessDenied(f"{where}: {reason}" + (f": {shown}" if path else ""))
    if number == errno.ENAMETOOLONG:
        return InvalidKey("key", key.raw, "its lock file needs a name of at most 255 bytes")
    return ContentError(key, where, reason)
