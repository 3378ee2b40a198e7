"""The branch that is checked out: read its files, and commit files to it beside whoever works in the work tree.

A commit here is HEAD's tree with some files of ours in it: what the user has staged stays staged and what the
user has edited stays edited. All commits of this module happen under the journal lock, so two of them never
meet; git itself is met with its own locks (``index.lock``, the lock of the ref) and a compare-and-swap. git's
hooks are not run, and content is stored as it is, through no filter.

What a kill leaves is put right by the next one: locks of ours are known by their content.

Source: gitrepository-layout(5), gitformat-index(5).
"""

from __future__ import annotations

import os
import stat
import threading
import time
from binascii import hexlify, unhexlify
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from annexpy.errors import BranchConflict, LockHeld, RepositoryError, UnsupportedRepository
from annexpy.repo.files import DiskFiles, Files, Status
from annexpy.repo.format import STATE, is_branch_path, make_folders, repository_error
from annexpy.repo.gitindex import Staged, stage
from annexpy.repo.identity import Identity
from annexpy.repo.journal import LOCK_SECONDS, JournalLock
from annexpy.repo.objects import Objects, git_command, git_environment
from annexpy.repo.pack import COMMIT, ObjectWriter, remove_leftovers
from annexpy.repo.refs import NO_LINKS, Refs
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown
from annexpy.repo.treeedit import TreeEdit
from annexpy.repo.trees import (
    EMPTY_TREE,
    FOLDER,
    TreeCache,
    commit_parents,
    commit_tree,
    load_folders,
    parse_tree,
)

__all__ = ["FileChange", "Head"]

_TRIES: Final = 20
_INDEX_TRIES: Final = 500  # git holds its index for moments
_NOTE: Final = b"annexpy-head"  # ref, commit and paths of a commit that the index may not know of yet
_REF_ASIDE: Final = STATE + b"/head-ref"
_INDEX_ASIDE: Final = b"annexpy-index"  # beside the index: in a linked worktree ``annex`` is a link elsewhere
_INDEX_PAUSE: Final = 0.01
_INDEX_MARK: Final = b"annexpy\n"
_INDEX_MARK_FILE: Final = b"annexpy-index-mark"
_SCRATCH: Final = STATE + b"/head-file"


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


_AS_COMMITTED: Final = FileChange(lambda old: old or b"")


class Head:
    """What is checked out in a repository with a work tree. Every method blocks; for one thread at a time."""

    def __init__(self, repository: Repository) -> None:
        """Open nothing yet.

        Raises:
            UnsupportedRepository: It is bare.
        """
        if repository.work_tree is None:
            raise UnsupportedRepository(f"{repository.path}: has no work tree to commit from")
        self._repository, self._files = repository, repository.files
        self._lockdown = Lockdown.of(repository.config.get("core.sharedrepository"))
        linked = repository.worktree_git_dir != repository.git_dir
        self._own: Files = DiskFiles(repository.worktree_git_dir) if linked else self._files
        self._tree: Files = DiskFiles(repository.work_tree)
        self._objects = Objects(self._files)
        self._cache = TreeCache(self._objects)
        self._refs = Refs(self._files, self._lockdown)
        self._own_refs = Refs(self._own, self._lockdown) if linked else self._refs

    def close(self) -> None:
        """Give back file handles."""
        self._objects.close()
        self._tree.close()
        if self._own is not self._files:
            self._own.close()

    # -- reading --

    @property
    def branch(self) -> str | None:
        """The ref that is checked out, ``refs/heads/…``, which need not exist yet; None when HEAD is detached."""
        raw = self._own.read(b"HEAD")
        if raw is None:
            raise RepositoryError(f"{self._repository.path}: there is no HEAD")
        return os.fsdecode(raw[5:].strip()) if raw.startswith(b"ref: ") else None

    @property
    def tip(self) -> str | None:
        """The commit that is checked out, 40 hex digits; None before the first."""
        found = self._where()[1]
        return None if found is None else found.decode()

    def _where(self) -> tuple[bytes, bytes | None, Refs]:
        """Ref to be moved by a commit, what it says, where it is."""
        branch = self.branch
        if branch is None:
            return b"HEAD", self._own_refs.read(b"HEAD"), self._own_refs
        name = os.fsencode(branch)
        return name, self._refs.read(name), self._refs

    def read(self, path: bytes) -> bytes | None:
        """What the file at *path* says in the commit that is checked out; None when it has none."""
        return self._read(self._tree_of(self._where()[1]), path)

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

    def commit(self, changes: Mapping[bytes, FileChange], message: str, *, seconds: float = LOCK_SECONDS) -> str | None:
        """Commit *changes*, and bring the work tree and the index in line as far as nobody else changed them.

        When it returns, the commit is on disk. A kill in the middle leaves either nothing, or the commit; what
        is missing in the work tree then comes with the next call that names the same files.

        Args:
            changes: Path, from the top of the work tree → what becomes of it.
            message: Of the commit.
            seconds: How long to wait for the journal lock.

        Returns:
            The new commit; None when HEAD says all that already.

        Raises:
            LockHeld: The journal lock, or that of the ref, was not free in time. Nothing was committed.
            BranchConflict: HEAD kept moving.
            RepositoryError: A path is none for a git tree, or a file stands where a directory should.
        """
        for path in changes:
            if not is_branch_path(path):
                raise RepositoryError(f"{path!r} cannot stand in a git tree")
        if not changes:
            return None
        try:
            with self._locked(seconds):
                made, before, after = self._commit(changes, message)
                self._check_out(changes, before, after)
                self._own.unlink(_NOTE)
        except OSError as error:
            raise repository_error(self._files.path, "commit to HEAD", error) from error
        return made

    @contextmanager
    def _locked(self, seconds: float) -> Iterator[None]:
        pidlock = self._repository.config.get_bool("annex.pidlock")
        lock = JournalLock(self._files, self._repository.clock, self._lockdown, pidlock=pidlock)
        with lock.blocking(seconds):
            if lock.left:
                remove_leftovers(self._files)
            if self._own.read(b"index.lock") == _INDEX_MARK:
                self._own.unlink(b"index.lock")
            self._complete()
            yield

    def _complete(self) -> None:
        """Somebody died, or met a locked index, between the commit and the index: go on from there."""
        note = self._own.read(_NOTE)
        if note is None:
            return
        ref, commit, *paths = note.split(b"\0")[:-1] or [b"", b""]
        here, tip, refs = self._where()
        (refs if ref == here else self._refs).unlock_stale(ref, commit)
        if (here, tip) == (ref, commit):
            parents = commit_parents(self._objects.get(unhexlify(commit)))
            after, before = self._tree_of(commit), self._tree_of(hexlify(parents[0]) if parents else None)
            self._check_out(dict.fromkeys(paths, _AS_COMMITTED), before, after)
        self._own.unlink(_NOTE)

    def _commit(self, changes: Mapping[bytes, FileChange], message: str) -> tuple[str | None, bytes, bytes]:
        """The commit, and the trees before and after."""
        paths = sorted(changes)
        for _ in range(_TRIES):
            ref, tip, refs = self._where()
            tree = self._tree_of(tip)
            writer = ObjectWriter(self._files, self._lockdown)
            try:
                new_tree = self._edited(writer, tree, paths, changes)
                if new_tree == tree:
                    writer.abandon()
                    return None, tree, tree
                commit = self._write_commit(writer, new_tree, tip, message)
                writer.finish()
                self._own.replace(_NOTE, b"".join([part + b"\0" for part in (ref, commit, *paths)]), sync=False)
            except BaseException:
                writer.abandon()
                raise
            try:
                moved = not refs.swap(ref, tip, commit, aside=_REF_ASIDE if refs is self._refs else None)
            except BaseException:
                writer.done()  # perhaps the branch has it already
                raise
            if not moved:
                writer.done()
                self._log(ref, tip, commit, message)
                return commit.decode(), tree, new_tree
            writer.abandon()
        raise BranchConflict(f"HEAD of {self._repository.path} moved {_TRIES} times while we tried to commit to it")

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
        for files, path in {(self._own, b"logs/HEAD"), (self._own if ref == b"HEAD" else self._files, b"logs/" + ref)}:
            if files.status(path) is not None:
                fd = files.open_write(path, append=True)
                try:
                    files.write(fd, line)
                finally:
                    files.close_fd(fd)

    # -- work tree and index --

    def _check_out(self, changes: Mapping[bytes, FileChange], before: bytes, after: bytes) -> None:
        paths = list(changes)
        old, new = self._find(before, paths), self._find(after, paths)
        staged: dict[bytes, Staged] = {}
        for path, change in changes.items():
            content = self._objects.get(new[path])
            was = None if path not in old else self._objects.get(old[path])
            status = self._write_file(path, change, was, content)
            if status is not None or old.get(path) != new[path]:
                staged[path] = Staged(new[path], old.get(path), status)
        if staged:
            self._stage(staged)

    def _write_file(self, path: bytes, change: FileChange, was: bytes | None, content: bytes) -> Status | None:
        """The status of the file when it says *content* now."""
        tree = self._tree
        status = tree.status(path)
        if status is not None and not stat.S_ISREG(status.st_mode):
            return None
        current = tree.read(path) if status is not None else None
        if current != content:
            if current is not None and current not in (was, change.replaces):
                if not change.merges:
                    return None  # somebody edited it: what they wrote is theirs
                content = change.change(current)
                if content == current:
                    return None
                self._replace(path, content, status)
                return None
            self._replace(path, content, status)
            return tree.status(path)
        return status

    def _replace(self, path: bytes, content: bytes, status: Status | None) -> None:
        tree, files = self._tree, self._files
        folder = os.path.dirname(path)
        if folder:
            tree.make_folders(folder)
        make_folders(files, STATE, self._lockdown)
        aside = _SCRATCH + b"-%d-%d" % (os.getpid(), threading.get_ident())
        files.unlink(aside)
        fd = files.open_write(aside, exclusive=True, mode=0o666)
        try:
            files.write(fd, content)
            if status is not None:
                files.fchmod(fd, stat.S_IMODE(status.st_mode))
        finally:
            files.close_fd(fd)
        tree.rename_from(files, aside, path)

    def _stage(self, staged: Mapping[bytes, Staged]) -> None:
        """Tell git's index; a git that holds it is waited for.

        Raises:
            LockHeld: It held it for seconds. The commit stands.
        """
        own = self._own
        self._lock_index()
        try:
            status, data = own.status(b"index"), own.read(b"index")
            new = stage(data, staged)
            mode = 0o666 if status is None else stat.S_IMODE(status.st_mode)
            own.replace(b"index", new, sync=False, mode=mode, temporary=_INDEX_ASIDE)
            return
        except UnsupportedRepository:
            pass  # an index that is split or sparse: git can
        finally:
            own.unlink(b"index.lock")
        self._stage_by_git(staged)

    def _lock_index(self) -> None:
        own = self._own
        own.replace(_INDEX_MARK_FILE, _INDEX_MARK, sync=False)
        for _ in range(_INDEX_TRIES):
            try:
                try:
                    own.link(_INDEX_MARK_FILE, b"index.lock")  # so that it never lacks its content
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise
                    fd = own.open_write(b"index.lock", exclusive=True)
                    own.write(fd, _INDEX_MARK)
                    own.close_fd(fd)
                return
            except FileExistsError:
                time.sleep(_INDEX_PAUSE)
        path = os.fsdecode(own.path + b"/index.lock")
        raise LockHeld(path, "git, or one that died", _INDEX_TRIES * _INDEX_PAUSE)

    def _stage_by_git(self, staged: Mapping[bytes, Staged]) -> None:
        import subprocess

        command = git_command(self._own.path, "update-index", "-z", "--index-info")
        if command is None:
            raise UnsupportedRepository(f"{self._repository.path}: its index needs git, and there is none")
        lines = [b"100644 %b\t%b\0" % (hexlify(entry.sha), path) for path, entry in staged.items()]
        done = subprocess.run(command, input=b"".join(lines), capture_output=True, env=git_environment(), check=False)
        if done.returncode:
            raise RepositoryError(f"git update-index: {done.stderr.decode('utf-8', 'replace').strip()}")
