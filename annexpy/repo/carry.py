"""Carry the history of branches to a repository on this machine: objects first, then refs, never forced.

What is missing over there follows from its branches: commits that are new, and in them the trees and blobs that
differ from the first parent's. All of it goes there as one pack, under its journal lock, as every other commit
of annexpy does. A repository elsewhere is pushed to (``exchange``).
"""

from __future__ import annotations

import threading
from binascii import hexlify, unhexlify
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha1
from itertools import chain
from typing import Final

from annexpy.errors import BranchConflict, RepositoryError
from annexpy.repo.ancestry import is_ancestor
from annexpy.repo.format import STATE, repository_error
from annexpy.repo.history import History
from annexpy.repo.journal import LOCK_SECONDS, JournalLock
from annexpy.repo.objects import Objects
from annexpy.repo.on_disk import OnDisk
from annexpy.repo.pack import BLOB, COMMIT, TREE, ObjectWriter, name_of, remove_leftovers
from annexpy.repo.packfile import entry_of
from annexpy.repo.refs import Refs
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown
from annexpy.repo.trees import EMPTY_TREE, FOLDER, commit_parents, commit_tree, tree_entries

__all__ = ["Gathered", "carry"]

_TRIES: Final = 20
_KEPT_BYTES: Final = 16 << 20
_SUBMODULE: Final = b"160000"


def carry(
    source: Repository,
    there: Repository,
    tips: Mapping[bytes, bytes],
    *,
    seconds: float = LOCK_SECONDS,
    gathered: Gathered | None = None,
) -> bool:
    """Let the branches of *there* have what *tips* name; on disk when it returns.

    Args:
        source: Has the commits.
        there: Another repository on this machine; bare, or none of the branches is checked out in it.
        tips: Ref over there → commit, 40 hex digits.
        seconds: How long to wait for its journal lock.
        gathered: What others lacked who get the same from *source*, one after the other or at once.

    Returns:
        False when it had it all, on disk.

    Raises:
        BranchConflict: It has something that *source* does not have in that branch: fetch and merge first.
            Nothing was changed then.
        LockHeld: Its journal lock was not free in time.
        RepositoryError: Objects are missing, or it cannot be written to.
    """
    refs, lockdown = Refs(there.files, Lockdown()), Lockdown.of(there.config.get("core.sharedrepository"))
    objects = Objects(there.files)
    on_disk = OnDisk(there.files, lockdown, objects)
    try:
        if all(refs.read(ref) == tip for ref, tip in tips.items()):
            on_disk.ensure(tips.values(), *tips)
            return False
    except OSError as error:
        raise repository_error(there.files.path, "take a push", error) from error
    finally:
        objects.close()  # it opens them again when needed
    _check_checked_out(there, tips)
    lock = JournalLock(there.files, there.clock, lockdown, pidlock=there.config.get_bool("annex.pidlock"))
    history = History(source.files, source.config, source.clock, lockdown)
    try:
        with lock.blocking(seconds):
            if lock.left:
                remove_leftovers(there.files)
            for _ in range(_TRIES):
                if _carry_once(history, there, on_disk, lockdown, tips, gathered or Gathered()):
                    return True
    except OSError as error:
        raise repository_error(there.files.path, "take a push", error) from error
    finally:
        history.close()
        objects.close()
    raise BranchConflict(f"branches of {there.path} moved {_TRIES} times while they were pushed to")


def _check_checked_out(there: Repository, tips: Mapping[bytes, bytes]) -> None:
    head = there.files.read(b"HEAD") or b""
    if not there.bare and head.removeprefix(b"ref: ").strip() in tips:
        raise RepositoryError(f"{there.path}: the branch is checked out there; push to a bare repository")


def _carry_once(
    history: History,
    there: Repository,
    on_disk: OnDisk,
    lockdown: Lockdown,
    tips: Mapping[bytes, bytes],
    gathered: Gathered,
) -> bool:
    refs = Refs(there.files, lockdown)
    known = set(refs.heads().values())
    missing = _Missing(history.objects, known)
    old = {ref: refs.read(ref) for ref in tips}
    for ref, tip in tips.items():
        missing.add(tip)
        before = old[ref]
        if before is not None and not (history.has(before) and is_ancestor(history, before, tip)):
            raise BranchConflict(f"{there.path}: {ref.decode('utf-8', 'replace')} has commits that are not here")
    writer = ObjectWriter(there.files, lockdown)
    try:
        for name, entry in gathered.entries(tips.values(), missing):
            writer.add_entry(name, entry)
        writer.finish()
        on_disk.ensure(missing.met)
    except BaseException:
        writer.abandon()
        raise
    try:
        moved = all(old[ref] == tip or refs.swap(ref, old[ref], tip, aside=_aside(ref)) for ref, tip in tips.items())
        if moved:
            on_disk.add(tips.values())
        return moved
    finally:
        writer.done()


def _aside(ref: bytes) -> bytes:
    return STATE + b"/ref-" + sha1(ref).hexdigest()[:12].encode()


class Gathered:
    """What was found to be missing in one place, for others that lack the same: bares beside each other do.

    Only what is small is kept; a whole history is gone through for each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: list[tuple[frozenset[bytes], _Missing, list[tuple[bytes, bytes]]]] = []

    def entries(self, tips: Iterable[bytes], missing: _Missing) -> Iterable[tuple[bytes, bytes]]:
        """(id, entry of a pack) of everything that *missing* is about to find."""
        wanted = frozenset(tips)
        with self._lock:
            for known, other, entries in self._found:
                if known == wanted and missing.same_as(other):
                    return entries
            found, rest, size = list[tuple[bytes, bytes]](), missing.entries(), 0
            for one in rest:
                found.append(one)
                size += len(one[1])
                if size > _KEPT_BYTES:
                    return chain(found, rest)
            self._found.append((wanted, missing, found))
            return found


class _Missing:
    """What somebody lacks who has everything that *known* leads to."""

    def __init__(self, objects: Objects, known: set[bytes]) -> None:
        self._objects, self._known = objects, known
        self._commits: dict[bytes, bytes] = {}
        self._met: set[bytes] = set()
        self._seen: set[bytes] = set()

    def add(self, tip: bytes) -> None:
        """Let there be the history of *tip*."""
        waiting = [tip]
        while waiting:
            commit = waiting.pop()
            if commit in self._known:
                self._met.add(commit)
                continue
            if commit in self._commits:
                continue
            raw = self._commits[commit] = self._objects.get(unhexlify(commit))
            waiting += [hexlify(parent) for parent in commit_parents(raw)]

    @property
    def met(self) -> set[bytes]:
        """Those of *known* that what is missing stands upon."""
        return self._met

    def same_as(self, other: _Missing) -> bool:
        """Both lack the same commits, so the same objects."""
        return self._met == other._met and self._commits.keys() == other._commits.keys()

    def entries(self) -> Iterator[tuple[bytes, bytes]]:
        """(id, entry of a pack) of everything."""
        for kind, content in self._content():
            yield name_of(kind, content), entry_of(kind, content)

    def _content(self) -> Iterator[tuple[int, bytes]]:
        for raw in self._commits.values():
            parents = commit_parents(raw)
            before = commit_tree(self._objects.get(parents[0])) if parents else EMPTY_TREE
            yield from self._tree(commit_tree(raw), before)
            yield COMMIT, raw

    def _tree(self, new: bytes, old: bytes | None) -> Iterator[tuple[int, bytes]]:
        if new == old or new in self._seen:
            return
        self._seen.add(new)
        before = {} if old is None else tree_entries(self._objects, old)
        for name, (mode, sha) in sorted(tree_entries(self._objects, new).items() - before.items()):
            if mode == _SUBMODULE:
                continue
            if mode == FOLDER:
                was = before.get(name)
                yield from self._tree(sha, was[1] if was is not None and was[0] == FOLDER else None)
            elif sha not in self._seen:
                self._seen.add(sha)
                yield BLOB, self._objects.get(sha)
        yield TREE, b"" if new == EMPTY_TREE else self._objects.get(new)
