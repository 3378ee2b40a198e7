"""Commit some files to a branch beside whoever else writes to it: a tree with those files in it, a compare-and-swap.

``Head`` does that for what is checked out; ``SyncedBranch`` for a repository without a work tree.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from binascii import hexlify, unhexlify
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from annexpy.errors import BranchConflict, RepositoryError
from annexpy.repo.ancestry import is_ancestor
from annexpy.repo.files import Files
from annexpy.repo.format import STATE, is_branch_path, repository_error
from annexpy.repo.history import History
from annexpy.repo.identity import Identity
from annexpy.repo.journal import LOCK_SECONDS, JournalLock
from annexpy.repo.objects import Objects
from annexpy.repo.on_disk import OnDisk
from annexpy.repo.pack import COMMIT, ObjectWriter, remove_leftovers
from annexpy.repo.refs import GIT_ANNEX, SYNCED, Refs
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown
from annexpy.repo.treeedit import TreeEdit
from annexpy.repo.trees import EMPTY_TREE, FOLDER, TreeCache, commit_tree, load_folders, parse_tree

__all__ = ["Commits", "FileChange", "SyncedBranch", "Where"]

_TRIES: Final = 20
_REF_ASIDE: Final = STATE + b"/head-ref"
_HEADS: Final = b"refs/heads/"


@dataclass(frozen=True, slots=True)
class FileChange:
    """What becomes of one file.

    Attributes:
        change: Gets the content (None: there is no such file) and returns the new one; called more than once.
        replaces: A content, other than that of the commit, which the file in the work tree may have and lose.
        merges: A file in the work tree that somebody has edited gets *change* applied; else it is left alone.
    """

    change: Callable[[bytes | None], bytes]
    replaces: bytes | None = None
    merges: bool = False


@dataclass(frozen=True, slots=True)
class Where:
    """Where a commit goes.

    Attributes:
        ref: The ref that is moved.
        old: What it says; None: it does not exist.
        parent: The commit that the new one follows.
        refs: Where the ref is.
    """

    ref: bytes
    old: bytes | None
    parent: bytes | None
    refs: Refs


class Commits(ABC):
    """A branch that files are committed to. Every method blocks; for one thread at a time."""

    def __init__(self, repository: Repository) -> None:
        """Open nothing yet."""
        self._repository, self._files = repository, repository.files
        self._lockdown = Lockdown.of(repository.config.get("core.sharedrepository"))
        self._objects = Objects(self._files)
        self._cache = TreeCache(self._objects)
        self._refs = Refs(self._files, self._lockdown)
        self._on_disk = OnDisk(self._files, self._lockdown, self._objects)

    def close(self) -> None:
        """Give back file handles."""
        self._objects.close()

    @abstractmethod
    def _where(self) -> Where:
        """Where a commit goes now."""

    @abstractmethod
    def _noted(self, ref: bytes, commit: bytes, paths: Sequence[bytes]) -> None:
        """The commit is written, and the ref is about to be moved to it."""

    def _reflogs(self, ref: bytes) -> Collection[tuple[Files, bytes]]:
        """Where moves of *ref* are noted, if anywhere."""
        return {(self._files, b"logs/" + ref)}

    # -- reading --

    def read(self, path: bytes) -> bytes | None:
        """What the file at *path* says in the commit that the next one follows; None when it has none."""
        return self._read(self._tree_of(self._where().parent), path)

    def _tree_of(self, commit: bytes | None) -> bytes:
        return EMPTY_TREE if commit is None else commit_tree(self._objects.get(unhexlify(commit)))

    def _read(self, tree: bytes, path: bytes) -> bytes | None:
        sha = self._cache.find(tree, path)
        return None if sha is None else self._objects.get(sha)

    def _find(self, tree: bytes, paths: Sequence[bytes]) -> dict[bytes, bytes]:
        """Path → blob of those of *paths* that are files; every folder is parsed once, however many are in it."""
        root = {} if tree == EMPTY_TREE else parse_tree(self._objects.get(tree))
        folders = load_folders(self._objects, root, {os.path.dirname(path) for path in paths})
        found = {path: folders[os.path.dirname(path)].get(os.path.basename(path)) for path in paths}
        return {path: entry[1] for path, entry in found.items() if entry is not None and entry[0] != FOLDER}

    # -- committing --

    @contextmanager
    def _committing(self, changes: Mapping[bytes, FileChange], seconds: float) -> Iterator[None]:
        """Under the journal lock; raises what ``commit`` of a branch does."""
        for path in changes:
            if not is_branch_path(path):
                raise RepositoryError(f"{path!r} cannot stand in a git tree")
        pidlock = self._repository.config.get_bool("annex.pidlock")
        lock = JournalLock(self._files, self._repository.clock, self._lockdown, pidlock=pidlock)
        try:
            with lock.blocking(seconds):
                if lock.left:
                    remove_leftovers(self._files)
                yield
        except OSError as error:
            raise repository_error(self._files.path, "commit to a branch", error) from error

    def _commit(self, changes: Mapping[bytes, FileChange], message: str) -> tuple[str | None, bytes, bytes]:
        """The commit, and the trees before and after."""
        paths = sorted(changes)
        for _ in range(_TRIES):
            where = self._where()
            ref, tip, refs = where.ref, where.old, where.refs
            tree = self._tree_of(where.parent)
            writer = ObjectWriter(self._files, self._lockdown)
            try:
                new_tree = self._edited(writer, tree, paths, changes)
                found = () if where.parent is None else (where.parent,)
                if new_tree == tree:
                    writer.abandon()
                    self._on_disk.ensure(found)
                    return None, tree, tree
                commit = self._write_commit(writer, new_tree, where.parent, message)
                writer.finish()
                self._on_disk.ensure(found)
                self._noted(ref, commit, paths)
            except BaseException:
                writer.abandon()
                raise
            try:
                moved = not refs.swap(ref, tip, commit, aside=_REF_ASIDE if refs is self._refs else None)
            except BaseException:
                writer.done()  # perhaps the branch has it already
                raise
            if not moved:
                self._on_disk.add((commit,))
                writer.done()
                self._log(ref, tip, commit, message)
                return commit.decode(), tree, new_tree
            writer.abandon()
        raise BranchConflict(f"{self._repository.path}: a branch moved {_TRIES} times while we tried to commit to it")

    def _edited(
        self, writer: ObjectWriter, tree: bytes, paths: Sequence[bytes], changes: Mapping[bytes, FileChange]
    ) -> bytes:
        there = self._find(tree, paths)
        edit = TreeEdit(self._objects, writer, tree)

        def change(at: int, old: bytes) -> bytes:
            path = paths[at]
            return changes[path].change(old if path in there else None)

        edit.apply(paths, change)
        return edit.finish()

    def _write_commit(self, writer: ObjectWriter, tree: bytes, parent: bytes | None, message: str) -> bytes:
        who, when = Identity.of(self._repository.config), int(self._repository.clock.wall())
        lines = [b"tree " + hexlify(tree), *([b"parent " + parent] if parent else [])]
        lines += [b"author %b %d +0000" % (who.author, when), b"committer %b %d +0000" % (who.committer, when)]
        lines += [b"", message.encode("utf-8", "surrogateescape"), b""]
        return hexlify(writer.add(COMMIT, b"\n".join(lines)))

    def _log(self, ref: bytes, old: bytes | None, new: bytes, message: str) -> None:
        """Add to the reflogs, where git keeps them."""
        who, when = Identity.of(self._repository.config).committer, int(self._repository.clock.wall())
        subject = message.partition("\n")[0].encode("utf-8", "surrogateescape")
        line = b"%b %b %b %d +0000\tcommit: %b\n" % (old or b"0" * 40, new, who, when, subject)
        for files, path in self._reflogs(ref):
            if files.status(path) is not None:
                fd = files.open_write(path, append=True)
                try:
                    files.write(fd, line)
                finally:
                    files.close_fd(fd)


class SyncedBranch(Commits):
    """``synced/BRANCH`` of a repository without a work tree, where git-annex expects what others add to BRANCH.

    Nobody's own branch is moved, so nobody's push is refused; ``git annex sync`` of a clone merges it. BRANCH is what
    HEAD names, or the only other one.
    """

    def __init__(self, repository: Repository) -> None:
        """Open nothing yet."""
        super().__init__(repository)
        self._history = History(self._files, repository.config, repository.clock, self._lockdown)

    def close(self) -> None:
        """Give back file handles."""
        super().close()
        self._history.close()

    @property
    def branch(self) -> str | None:
        """The ref of BRANCH, ``refs/heads/…``; None when there is no commit that could be followed."""
        heads = {name: tip for name, tip in self._refs.heads().items() if name != GIT_ANNEX}
        raw = self._files.read(b"HEAD") or b""
        named = raw[5:].strip() if raw.startswith(b"ref: ") else b""
        others = [name for name in heads if not name.startswith(SYNCED)]
        if named not in heads and len(others) == 1:
            named = others[0]
        synced = SYNCED + named.removeprefix(_HEADS)
        return os.fsdecode(named) if named in heads or synced in heads else None

    def _noted(self, ref: bytes, commit: bytes, paths: Sequence[bytes]) -> None:
        pass  # there is no index that would have to be told

    def _where(self) -> Where:
        branch = self.branch
        if branch is None:
            raise RepositoryError(f"{self._repository.path}: there is no branch to follow")
        name = os.fsencode(branch)
        ref = SYNCED + name.removeprefix(_HEADS)
        tip, old = self._refs.read(name), self._refs.read(ref)
        follows = old is None or (tip is not None and is_ancestor(self._history, old, tip))
        return Where(ref, old, tip if follows else old, self._refs)

    def commit(self, changes: Mapping[bytes, FileChange], message: str, *, seconds: float = LOCK_SECONDS) -> str | None:
        """Commit *changes*; on disk when it returns.

        Args:
            changes: Path → what becomes of it.
            message: Of the commit.
            seconds: How long to wait for the journal lock.

        Returns:
            The new commit; None when the branch says all that already.

        Raises:
            LockHeld: The journal lock, or that of the ref, was not free in time. Nothing was committed.
            BranchConflict: The branch kept moving.
            RepositoryError: There is no branch to follow, or a path is none for a git tree.
        """
        with self._committing(changes, seconds):
            return self._commit(changes, message)[0] if changes else None
