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
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from annexpy.errors import LockHeld, RepositoryError, UnsupportedRepository
from annexpy.repo.commits import Commits, FileChange, Where
from annexpy.repo.files import DiskFiles, Files, Status
from annexpy.repo.format import STATE, make_folders
from annexpy.repo.gitindex import Staged, stage
from annexpy.repo.journal import LOCK_SECONDS
from annexpy.repo.objects import git_command, git_environment
from annexpy.repo.refs import NO_LINKS, Refs
from annexpy.repo.repository import Repository
from annexpy.repo.trees import commit_parents

__all__ = ["FileChange", "Head"]

_INDEX_TRIES: Final = 500  # git holds its index for moments
_NOTE: Final = b"annexpy-head"  # ref, commit and paths of a commit that the index may not know of yet
_INDEX_ASIDE: Final = b"annexpy-index"  # beside the index: in a linked worktree ``annex`` is a link elsewhere
_INDEX_PAUSE: Final = 0.01
_INDEX_MARK: Final = b"annexpy\n"
_INDEX_MARK_FILE: Final = b"annexpy-index-mark"
_SCRATCH: Final = STATE + b"/head-file"


_AS_COMMITTED: Final = FileChange(lambda old: old or b"")


class Head(Commits):
    """What is checked out in a repository with a work tree. Every method blocks; for one thread at a time."""

    def __init__(self, repository: Repository) -> None:
        """Open nothing yet.

        Raises:
            UnsupportedRepository: It is bare.
        """
        if repository.work_tree is None:
            raise UnsupportedRepository(f"{repository.path}: has no work tree to commit from")
        super().__init__(repository)
        linked = repository.worktree_git_dir != repository.git_dir
        self._own: Files = DiskFiles(repository.worktree_git_dir) if linked else self._files
        self._tree: Files = DiskFiles(repository.work_tree)
        self._own_refs = Refs(self._own, self._lockdown) if linked else self._refs

    def close(self) -> None:
        """Give back file handles."""
        super().close()
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
        found = self._where().old
        return None if found is None else found.decode()

    def _where(self) -> Where:
        branch = self.branch
        name, refs = (b"HEAD", self._own_refs) if branch is None else (os.fsencode(branch), self._refs)
        tip = refs.read(name)
        return Where(name, tip, tip, refs)

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
        if not changes:
            return None
        with self._committing(changes, seconds):
            if self._own.read(b"index.lock") == _INDEX_MARK:
                self._own.unlink(b"index.lock")
            self._complete()
            made, before, after = self._commit(changes, message)
            self._check_out(changes, before, after)
            self._own.unlink(_NOTE)
        return made

    def _complete(self) -> None:
        """Somebody died, or met a locked index, between the commit and the index: go on from there."""
        note = self._own.read(_NOTE)
        if note is None:
            return
        ref, commit, *paths = note.split(b"\0")[:-1] or [b"", b""]
        here = self._where()
        (here.refs if ref == here.ref else self._refs).unlock_stale(ref, commit)
        if (here.ref, here.old) == (ref, commit):
            parents = commit_parents(self._objects.get(unhexlify(commit)))
            after, before = self._tree_of(commit), self._tree_of(hexlify(parents[0]) if parents else None)
            self._check_out(dict.fromkeys(paths, _AS_COMMITTED), before, after)
        self._own.unlink(_NOTE)

    def _reflogs(self, ref: bytes) -> Collection[tuple[Files, bytes]]:
        return {(self._own, b"logs/HEAD"), (self._own if ref == b"HEAD" else self._files, b"logs/" + ref)}

    def _noted(self, ref: bytes, commit: bytes, paths: Sequence[bytes]) -> None:
        self._own.replace(_NOTE, b"".join([part + b"\0" for part in (ref, commit, *paths)]), sync=False)

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
