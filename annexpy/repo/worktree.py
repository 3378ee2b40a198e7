"""Unlocked files: a pointer in the work tree gets its content when that arrives, and becomes one when it goes.

git-annex fills a pointer only when its own commands get the content, so whoever stores an object in a
repository with a work tree has to do it (fact sheet repository-format, section 2, "Unlocked files"). Which files
belong to which key is read off the git index, once for any number of keys: the blob of a pointer follows from
its key. git-annex's own database of such files is left alone; it notices by itself.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.keys.pointer import MAX_POINTER, key_of_pointer, pointer
from annexpy.repo.content import ContentStore, StoredObject
from annexpy.repo.files import Files, Status
from annexpy.repo.folders import OBJECTS
from annexpy.repo.gitindex import GitIndex, IndexEntry
from annexpy.repo.lockfile import take_lock
from annexpy.repo.pipeline import PIECE

__all__ = ["WorkTree", "WorkTreeChanges"]

_SCRATCH: Final = b"annex/annexpy/worktree"

log = logging.getLogger(__name__)


def _blob(content: bytes) -> bytes:
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).digest()


def _pieces(stored: StoredObject) -> Iterator[bytes]:
    offset = 0
    while piece := stored.pread(PIECE, offset):
        yield piece
        offset += len(piece)


def _points_to(content: bytes, key: Key) -> bool:
    """*content* is a pointer file of *key*, and nothing else that stands before it."""
    return content.startswith(pointer(key).rstrip(b"\n")) and key_of_pointer(content) == key


@dataclass(slots=True)
class WorkTreeChanges:
    """What was done.

    Attributes:
        filled: Files that have their content now.
        emptied: Files that are pointers now.
        kept: Files that were left alone, and why.
        restage: git could not be told: somebody should run ``git annex restage``.
    """

    filled: list[bytes] = field(default_factory=list)
    emptied: list[bytes] = field(default_factory=list)
    kept: dict[bytes, str] = field(default_factory=dict)
    restage: bool = False


class WorkTree:
    """The unlocked files of one work tree. Everything here blocks.

    Args:
        files: The git directory that holds ``annex/``.
        index_files: The git directory that holds ``index`` (another one for a linked worktree).
        tree: The top of the work tree.
        store: The contents.
    """

    def __init__(self, files: Files, index_files: Files, tree: Files, store: ContentStore) -> None:
        self._files, self._index_files, self._tree, self._store = files, index_files, tree, store

    def update(self, keys: Iterable[Key]) -> WorkTreeChanges:
        """Bring the unlocked files of *keys* in line with what is stored: content where it is present, else a pointer.

        A file that is neither the pointer nor the unmodified content of its key is left alone.

        Raises:
            UnsupportedRepository: The git index is of a kind that annexpy does not update.
            OSError: The index could not be read.
        """
        changes = WorkTreeChanges()
        wanted = {_blob(pointer(key)): key for key in keys}
        data = self._index_files.read(b"index") if wanted else None
        if data is None:
            return changes
        index = GitIndex(data)
        found = [
            (entry, wanted[entry.sha]) for entry in index.entries() if entry.sha in wanted and stat.S_ISREG(entry.mode)
        ]
        done: dict[bytes, Status] = {}
        for entry, key in found:
            try:
                status = self._update_one(entry, key, changes)
            except OSError as error:
                changes.kept[entry.path] = error.strerror or str(error)
                continue
            if status is not None:
                done[entry.path] = status
        if done:
            self._tell_git(done, changes)
        return changes

    def _update_one(self, entry: IndexEntry, key: Key, changes: WorkTreeChanges) -> Status | None:
        """The status of the file when it was replaced."""
        status = self._tree.status(entry.path)
        if status is None:
            return None  # the user removed it
        if not stat.S_ISREG(status.st_mode):
            changes.kept[entry.path] = "it is not a regular file any more"
            return None
        is_pointer = status.st_size <= MAX_POINTER and _points_to(self._tree.read(entry.path) or b"", key)
        if self._store.present(key):
            if is_pointer:
                with self._store.open(key) as stored:
                    self._replace(entry, status, partial(self._fill, entry, stored))
                changes.filled.append(entry.path)
                return self._tree.status(entry.path)
        elif not is_pointer:
            if self._store.folders.existing(OBJECTS) is None or self._store.folders.find(key) is not None:
                # Not dropped, but away, or damaged: then this file may be the only good copy.
                changes.kept[entry.path] = "it is not certain that its content was dropped"
                return None
            if not self._unmodified(entry, key, status):
                changes.kept[entry.path] = "it was modified"
                return None
            self._replace(entry, status, partial(self._write, pieces=(pointer(key),)))
            changes.emptied.append(entry.path)
            return self._tree.status(entry.path)
        return None

    def _fill(self, entry: IndexEntry, stored: StoredObject, aside: bytes) -> None:
        if self._store.settings.thin and not entry.mode & stat.S_IXUSR:
            # One copy for both. It has to be writable then, and ``ContentStore.present`` looks at what is in it.
            self._files.chmod(stored.path, 0o644)
            try:
                self._files.link(stored.path, aside)
                return
            except OSError:
                self._files.chmod(stored.path, 0o444)
        self._write(aside, _pieces(stored))

    def _write(self, aside: bytes, pieces: Iterable[bytes]) -> None:
        fd = self._files.open_write(aside, exclusive=True, mode=0o666)
        try:
            for piece in pieces:
                self._files.write(fd, piece)
            if self._store.settings.durability == "full":
                self._files.sync(fd)  # or a power cut after the rename leaves the user an empty file
        finally:
            self._files.close_fd(fd)

    def _status(self, path: bytes) -> Status:
        status = self._files.status(path)
        assert status is not None
        return status

    def _replace(self, entry: IndexEntry, before: Status, write: Callable[[bytes], None]) -> None:
        """Put what *write* writes in place of the file, unless that changed since *before*."""
        self._files.make_folders(_SCRATCH)
        aside = _SCRATCH + b"/%d-%d" % (os.getpid(), threading.get_ident())
        self._files.unlink(aside)
        try:
            write(aside)
            if self._status(aside).st_nlink == 1:
                self._files.chmod(aside, self._status(aside).st_mode & 0o777 | before.st_mode & 0o111)
            now = self._tree.status(entry.path)
            if now is None or (now.st_ino, now.st_size, now.st_mtime_ns) != (
                before.st_ino,
                before.st_size,
                before.st_mtime_ns,
            ):
                raise OSError(0, "somebody changed it meanwhile")
            self._tree.rename_from(self._files, aside, entry.path)
        finally:
            self._files.unlink(aside)

    def _unmodified(self, entry: IndexEntry, key: Key, status: Status) -> bool:
        """The file still has the content of *key*."""
        if key.size is not None and status.st_size != key.size:
            return False
        check = verifier(key)
        if check is None:
            return entry.describes(status)
        fd = self._tree.open_read(entry.path)
        try:
            while piece := self._tree.pread(fd, PIECE, check.received):
                check.update(piece)
        finally:
            self._tree.close_fd(fd)
        return check.matches()

    # -- telling git --

    def _tell_git(self, done: dict[bytes, Status], changes: WorkTreeChanges) -> None:
        files = self._index_files
        try:
            fd = files.open_write(b"index.lock", exclusive=True)
        except FileExistsError:
            self._leave_to_restage(done)
            changes.restage = True
            return
        try:
            try:
                # Read again: git may have written a new one since.
                index = GitIndex(files.read(b"index") or b"")
                for entry in list(index.entries()):
                    status = done.get(entry.path)
                    if status is not None:
                        index.set_status(entry, status)
                before = files.status(b"index")
                files.write(fd, index.data())
                if before is not None:
                    files.fchmod(fd, stat.S_IMODE(before.st_mode))
            finally:
                files.close_fd(fd)
            files.rename(b"index.lock", b"index")
        except BaseException:
            files.unlink(b"index.lock")
            raise

    def _leave_to_restage(self, done: dict[bytes, Status]) -> None:
        """Note the files for ``git annex restage``, in the form that git-annex uses when the index is locked."""
        annex = self._files.folder(b"annex")
        lock = take_lock(annex, b"restage.lck", exclusive=True, mode=self._store.settings.lockdown.file)
        if lock is None:
            log.warning("%s: git status will show files as modified; run git annex restage", self._store.where)
            return
        try:
            fd = annex.open_write(b"restage.log", append=True)
            try:
                for path, status in done.items():
                    seconds, nanoseconds = divmod(status.st_mtime_ns, 1_000_000_000)
                    annex.write(fd, b"%d %d %d %09d:%s\n" % (status.st_ino, status.st_size, seconds, nanoseconds, path))
            finally:
                annex.close_fd(fd)
        finally:
            lock.release()
            annex.close()
