"""The git side of the git-annex branch: its tip, what a path says at a commit, a new commit.

Commits are named by 40 hex digits here, trees and blobs by their 20 bytes.
"""

from __future__ import annotations

from binascii import hexlify, unhexlify
from collections.abc import Callable, Sequence
from typing import Final

from annexpy.clock import Clock
from annexpy.errors import BranchConflict, RepositoryError
from annexpy.repo.config import GitConfig
from annexpy.repo.files import Files
from annexpy.repo.format import STATE
from annexpy.repo.objects import Objects
from annexpy.repo.on_disk import OnDisk
from annexpy.repo.pack import COMMIT, TREE, ObjectWriter
from annexpy.repo.refs import GIT_ANNEX, Refs
from annexpy.repo.settings import Lockdown
from annexpy.repo.trees import EMPTY_TREE, TreeCache, commit_tree

__all__ = ["Build", "History"]

Build = Callable[[bytes | None, bytes, ObjectWriter], "tuple[bytes, Sequence[bytes]] | None"]
"""(tip, its tree, where objects go) → (new tree, further parents), or None when nothing is to be committed."""

_TRIES: Final = 50
_KNOWN: Final = 64


class History:
    """The commits of the branch in one repository.

    Args:
        files: The git directory.
        config: For the identity of commits.
        clock: For their times.
        lockdown: Permissions of new files.
        git: A git process may be run to read many objects.
    """

    def __init__(self, files: Files, config: GitConfig, clock: Clock, lockdown: Lockdown, *, git: bool = True) -> None:
        self._files, self._config, self._clock, self._lockdown = files, config, clock, lockdown
        self.refs = Refs(files, lockdown)
        self.objects = Objects(files, git=git)
        self.cache = TreeCache(self.objects)
        self.on_disk = OnDisk(files, lockdown, self.objects)
        self._trees: dict[bytes, bytes] = {}

    # -- reading ---------------------------------------------------------------------------------

    def tip(self) -> bytes | None:
        """The commit the branch points to; None when there is no branch yet."""
        return self.refs.read(GIT_ANNEX)

    def siblings(self) -> dict[bytes, bytes]:
        """Ref → commit of every other ref named ``git-annex``: what git-annex merges into the branch."""
        found = self.refs.named(b"git-annex")
        found.pop(GIT_ANNEX, None)
        return found

    def tree(self, commit: bytes | None) -> bytes:
        """The tree of a commit; the empty one for None."""
        if commit is None:
            return EMPTY_TREE
        tree = self._trees.get(commit)
        if tree is None:
            if len(self._trees) >= _KNOWN:
                self._trees.clear()
            tree = self._trees[commit] = commit_tree(self.objects.get(unhexlify(commit)))
        return tree

    def read(self, commit: bytes | None, path: bytes) -> bytes:
        """What *path* says at *commit*; empty when it is not there.

        Raises:
            RepositoryError: Objects are missing or corrupt.
        """
        return self.cache.read(self.tree(commit), path)

    def read_or_none(self, commit: bytes, path: bytes) -> bytes | None:
        """What *path* said at *commit*; None for no commit, or one that is gone.

        History may have been rewritten (``git annex forget``) and gc have cleaned up after that.
        """
        try:
            return self.read(commit, path) if commit else None
        except RepositoryError:
            return None

    # -- writing: only under the journal lock ----------------------------------------------------

    def has(self, commit: bytes) -> bool:
        """The commit is here."""
        try:
            self.tree(commit)
        except (RepositoryError, ValueError):
            return False
        return True

    def publish(
        self,
        build: Build,
        message: str,
        before_publishing: Callable[[bytes], None],
        *,
        sync: bool = True,
    ) -> bytes | None:
        """Commit what *build* makes of the tip, again as long as the tip moves meanwhile.

        Args:
            build: Makes the new tree.
            message: Of the commit.
            before_publishing: Told the commit when it is written, before the branch points to it.
            sync: On disk when it returns.

        Returns:
            The new commit; None when *build* found nothing to commit: the tip, which says it all, is on disk.

        Raises:
            BranchConflict: The tip moved every time.
            LockHeld: Another git process kept the ref locked.
        """
        for _ in range(_TRIES):
            tip = self.tip()
            writer = ObjectWriter(self._files, self._lockdown, sync=sync)
            try:
                built = build(tip, self.tree(tip), writer)
                if built is None:
                    writer.abandon()
                    if sync and tip is not None:
                        self.on_disk.ensure((tip,), GIT_ANNEX)
                    return None
                tree, others = built
                parents = upon = [*([] if tip is None else [tip]), *others]
                if not parents:
                    # as git-annex begins a branch
                    empty = writer.add(TREE, b"")
                    parents = [self._commit(writer, empty, [], "branch created")]
                new = self._commit(writer, tree, parents, message)
                moved = self.tip() != tip  # then there is no use in writing it all out
                if not moved:
                    writer.finish()
                    if sync:
                        self.on_disk.ensure(upon)
            except BaseException:
                writer.abandon()
                raise
            if not moved:
                try:
                    moved = not self.move(tip, new, before_publishing, sync=sync)
                except BaseException:
                    writer.done()  # perhaps the branch has it already: nothing may be taken away any more
                    raise
            if not moved:
                writer.done()
                self._trees[new] = tree
                return new
            writer.abandon()
        raise BranchConflict(f"{GIT_ANNEX.decode()} moved {_TRIES} times while we tried to commit to it")

    def move(self, old: bytes | None, new: bytes, before: Callable[[bytes], None], *, sync: bool = True) -> bool:
        """Let the branch point to *new*, which is on disk, if it still points to *old*; *before* is called with it."""
        before(new)
        moved = self.refs.swap(GIT_ANNEX, old, new, aside=STATE + b"/ref", sync=sync)
        if moved and sync:
            self.on_disk.add((new,))
        return moved

    def _commit(self, writer: ObjectWriter, tree: bytes, parents: Sequence[bytes], message: str) -> bytes:
        from annexpy.repo.identity import Identity  # not for those who only read

        who, when = Identity.of(self._config), int(self._clock.wall())
        lines = [b"tree " + hexlify(tree)]
        lines += [b"parent " + parent for parent in dict.fromkeys(parents)]
        lines += [
            b"author %b %d +0000" % (who.author, when),
            b"committer %b %d +0000" % (who.committer, when),
            b"",
            message.encode("utf-8", "surrogateescape"),
            b"",
        ]
        return hexlify(writer.add(COMMIT, b"\n".join(lines)))

    def close(self) -> None:
        """Give back file handles; they are opened again when needed."""
        self.objects.close()
