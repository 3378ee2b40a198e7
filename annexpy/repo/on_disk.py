"""Which commits are on disk with everything that they lead to, so that a commit upon one of them can promise as much.

What a commit of ours adds stands in a pack of its own, which is synced. What it is made upon may have been left to
the system: git syncs neither loose objects nor refs unless ``core.fsync`` says so, dulwich not what it fetches, and one
of us may have been killed between moving a ref and syncing its folder. All of that is found, and looks like
anything that is on disk. So ``annex/annexpy/on-disk`` names the commits of which it is known. What another one adds to
those is synced before a ref leads to it, and before what was to be recorded is forgotten because the branch says it
already: file by file, or when it is much, with one ``syncfs``, which waits for what everybody else writes as well.

The note is written after the fact and not synced: what it says is true, and what it does not say is synced once more.
Where it is, the folders that all the rest goes to are on disk too.
"""

from __future__ import annotations

import logging
import os
from binascii import hexlify, unhexlify
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from annexpy.errors import RepositoryError
from annexpy.patterns import regex
from annexpy.repo.files import Files
from annexpy.repo.format import STATE, make_folders
from annexpy.repo.settings import Lockdown
from annexpy.repo.spool_file import SPOOL

if TYPE_CHECKING:
    from annexpy.repo.objects import Objects

__all__ = ["ON_DISK", "OnDisk", "sync_above"]

log = logging.getLogger(__name__)

ON_DISK: Final = STATE + b"/on-disk"

_TEMPORARY: Final = STATE + b"/tmp/on-disk"
_LINE: Final = regex(rb"[0-9a-f]{40}")
_MOST: Final = 16
"""Commits that are named: the tips of a handful of branches."""
_FEW: Final = 64
"""Objects that are synced by themselves."""
_SUBMODULE: Final = b"160000"


class OnDisk:
    """The commits of one repository that are known to be on disk. Needs the journal lock.

    Args:
        files: The git directory.
        lockdown: Permissions.
        objects: What is in it.
    """

    __slots__ = ("_files", "_known", "_lockdown", "_objects")

    def __init__(self, files: Files, lockdown: Lockdown, objects: Objects) -> None:
        self._files, self._lockdown, self._objects = files, lockdown, objects
        self._known: dict[bytes, None] = {}

    def ensure(self, commits: Collection[bytes], *refs: bytes) -> None:
        """Have *commits*, everything they lead to, and the *refs* that say so, on disk when this returns.

        What a repository borrows from others (``objects/info/alternates``) is theirs to sync. Raises OSError.
        """
        if all(commit in self._known for commit in commits):
            return
        known = self._read()
        if any(commit not in known for commit in commits):
            if not self._sync_each(commits, known.keys(), refs):
                self._files.sync_all()
            self.add(commits)

    def _sync_each(self, commits: Iterable[bytes], known: Collection[bytes], refs: Iterable[bytes]) -> bool:
        """Sync what there is, unless it is much, or changes while we look."""
        files = self._files
        try:
            shas = list(islice(self._beyond(commits, known), _FEW + 1))
            if len(shas) > _FEW:
                return False
            paths = {path for sha in shas for path in self._objects.where(sha)}
            for ref in refs:
                paths.add(ref if files.status(ref) is not None else b"packed-refs")
            for path in sorted(paths):
                _sync_file(files, path)
            folders = set[bytes]()
            for path in paths:
                while path:
                    path = os.path.dirname(path)
                    folders.add(path)
            for folder in sorted(folders):
                files.sync_folder(folder)
        except (FileNotFoundError, RepositoryError):
            return False  # git gc packs objects, and takes their empty folders away
        return True

    def _beyond(self, commits: Iterable[bytes], known: Collection[bytes]) -> Iterator[bytes]:
        """Every object that *commits* lead to and the *known* ones do not."""
        from annexpy.repo.trees import EMPTY_TREE, commit_parents, commit_tree

        waiting, seen = [*commits], set[bytes]()
        while waiting:
            commit = waiting.pop()
            if commit in known or commit in seen:
                continue
            seen.add(commit)
            yield unhexlify(commit)
            raw = self._objects.get(unhexlify(commit))
            parents = commit_parents(raw)
            before = commit_tree(self._objects.get(parents[0])) if parents else EMPTY_TREE
            yield from self._added(commit_tree(raw), before)
            waiting += [hexlify(parent) for parent in parents]

    def _added(self, new: bytes, old: bytes | None) -> Iterator[bytes]:
        from annexpy.repo.trees import FOLDER, tree_entries

        if new == old:
            return
        yield new
        before = {} if old is None else tree_entries(self._objects, old)
        for name, (mode, sha) in tree_entries(self._objects, new).items() - before.items():
            if mode == FOLDER:
                was = before.get(name)
                yield from self._added(sha, was[1] if was is not None and was[0] == FOLDER else None)
            elif mode != _SUBMODULE:
                yield sha

    def add(self, commits: Iterable[bytes]) -> None:
        """*commits* have just been synced, upon such as were on disk."""
        added = dict.fromkeys(commits)
        there = self._read()
        self._known = _last(self._known | added)
        if added.keys() - there.keys():
            try:
                self._write({commit: None for commit in there if commit not in added} | added)
            except OSError as error:  # they are on disk all the same; the next one syncs once more
                log.warning("%s cannot be written: %s", ON_DISK.decode(), error.strerror)

    def _read(self) -> dict[bytes, None]:
        lines = (self._files.read(ON_DISK) or b"").split(b"\n")[:-1]
        return {line: None for line in lines if _LINE.fullmatch(line)}

    def _write(self, commits: dict[bytes, None]) -> None:
        files = self._files
        if files.status(ON_DISK) is None:
            for folder in (os.path.dirname(_TEMPORARY), SPOOL):
                make_folders(files, folder, self._lockdown)
            sync_above(files, SPOOL)
            for folder in (b"objects", b"refs"):
                files.sync_folder(folder)
        said = b"".join([commit + b"\n" for commit in _last(commits)])
        try:
            files.replace(ON_DISK, said, sync=False, temporary=_TEMPORARY)
        except FileNotFoundError:
            make_folders(files, os.path.dirname(_TEMPORARY), self._lockdown)
            files.replace(ON_DISK, said, sync=False, temporary=_TEMPORARY)


def _sync_file(files: Files, path: bytes) -> None:
    fd = files.open_read(path)
    try:
        files.sync(fd)
    finally:
        files.close_fd(fd)


def sync_above(files: Files, path: bytes) -> None:
    """Have the names of *path* and of every folder on the way to it on disk, whoever made them."""
    while path:
        path = os.path.dirname(path)
        files.sync_folder(path)


def _last(commits: dict[bytes, None]) -> dict[bytes, None]:
    return dict.fromkeys(list(commits)[-_MOST:])
