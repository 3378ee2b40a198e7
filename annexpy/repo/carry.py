"""Carry the history of branches to a repository on this machine: objects first, then refs, never forced.

What is missing over there follows from its branches: commits that are new, and in them the trees and blobs that
differ from the first parent's. All of it goes there as one pack, under its journal lock, as every other commit
of annexpy does. A repository elsewhere is pushed to (``exchange``).
"""

from __future__ import annotations

from binascii import hexlify, unhexlify
from collections.abc import Iterator, Mapping
from typing import Final

from annexpy.errors import BranchConflict, RepositoryError
from annexpy.repo.format import repository_error
from annexpy.repo.history import History
from annexpy.repo.journal import LOCK_SECONDS, JournalLock
from annexpy.repo.merge import is_ancestor
from annexpy.repo.objects import Objects
from annexpy.repo.pack import BLOB, COMMIT, TREE, ObjectWriter, remove_leftovers
from annexpy.repo.refs import Refs
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown
from annexpy.repo.trees import EMPTY_TREE, FOLDER, commit_parents, commit_tree, parse_tree

__all__ = ["carry"]

_TRIES: Final = 20
_SUBMODULE: Final = b"160000"


def carry(source: Repository, there: Repository, tips: Mapping[bytes, bytes], *, seconds: float = LOCK_SECONDS) -> bool:
    """Let the branches of *there* have what *tips* name; on disk when it returns.

    Args:
        source: Has the commits.
        there: Another repository on this machine; bare, or none of the branches is checked out in it.
        tips: Ref over there → commit, 40 hex digits.
        seconds: How long to wait for its journal lock.

    Returns:
        False when it had it all.

    Raises:
        BranchConflict: It has something that *source* does not have in that branch: fetch and merge first.
            Nothing was changed then.
        LockHeld: Its journal lock was not free in time.
        RepositoryError: Objects are missing, or it cannot be written to.
    """
    refs = Refs(there.files, Lockdown())
    if all(refs.read(ref) == tip for ref, tip in tips.items()):
        return False
    _check_checked_out(there, tips)
    lockdown = Lockdown.of(there.config.get("core.sharedrepository"))
    lock = JournalLock(there.files, there.clock, lockdown, pidlock=there.config.get_bool("annex.pidlock"))
    history = History(source.files, source.config, source.clock, lockdown)
    try:
        with lock.blocking(seconds):
            if lock.left:
                remove_leftovers(there.files)
            for _ in range(_TRIES):
                if _carry_once(history, there, lockdown, tips):
                    return True
    except OSError as error:
        raise repository_error(there.files.path, "take a push", error) from error
    finally:
        history.close()
    raise BranchConflict(f"branches of {there.path} moved {_TRIES} times while they were pushed to")


def _check_checked_out(there: Repository, tips: Mapping[bytes, bytes]) -> None:
    head = there.files.read(b"HEAD") or b""
    if not there.bare and head.removeprefix(b"ref: ").strip() in tips:
        raise RepositoryError(f"{there.path}: the branch is checked out there; push to a bare repository")


def _carry_once(history: History, there: Repository, lockdown: Lockdown, tips: Mapping[bytes, bytes]) -> bool:
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
        for kind, content in missing.objects():
            writer.add(kind, content)
        writer.finish()
    except BaseException:
        writer.abandon()
        raise
    try:
        return all(old[ref] == tip or refs.swap(ref, old[ref], tip) for ref, tip in tips.items())
    finally:
        writer.done()


class _Missing:
    """What somebody lacks who has everything that *known* leads to."""

    def __init__(self, objects: Objects, known: set[bytes]) -> None:
        self._objects, self._known = objects, known
        self._commits: dict[bytes, bytes] = {}
        self._seen: set[bytes] = set()

    def add(self, tip: bytes) -> None:
        """Let there be the history of *tip*."""
        waiting = [tip]
        while waiting:
            commit = waiting.pop()
            if commit in self._known or commit in self._commits:
                continue
            raw = self._commits[commit] = self._objects.get(unhexlify(commit))
            waiting += [hexlify(parent) for parent in commit_parents(raw)]

    def objects(self) -> Iterator[tuple[int, bytes]]:
        """(kind, content) of everything."""
        for raw in self._commits.values():
            parents = commit_parents(raw)
            before = commit_tree(self._objects.get(parents[0])) if parents else EMPTY_TREE
            yield from self._tree(commit_tree(raw), before)
            yield COMMIT, raw

    def _tree(self, new: bytes, old: bytes | None) -> Iterator[tuple[int, bytes]]:
        if new == old or new in self._seen:
            return
        self._seen.add(new)
        content = b"" if new == EMPTY_TREE else self._objects.get(new)
        before = {} if old is None or old == EMPTY_TREE else parse_tree(self._objects.get(old))
        for name, (mode, sha) in parse_tree(content).items():
            was = before.get(name)
            if was == (mode, sha) or mode == _SUBMODULE:
                continue
            if mode == FOLDER:
                yield from self._tree(sha, was[1] if was is not None and was[0] == FOLDER else None)
            elif sha not in self._seen:
                self._seen.add(sha)
                yield BLOB, self._objects.get(sha)
        yield TREE, content
