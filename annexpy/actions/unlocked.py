"""The keys of unlocked files, whose contents stand in the work tree like those of any other file.

Which key such a file has, git's index alone says: by the pointer that stands there in the place of the content.
"""

from __future__ import annotations

import os
import stat
from functools import cached_property

from annexpy.actions.key import key_of, pointed_to
from annexpy.errors import RepositoryError
from annexpy.keys.backend import DEFAULT_BACKEND, digest_of, is_verifiable
from annexpy.keys.key import Key
from annexpy.repo.objects import Objects
from annexpy.repo.repository import Repository

__all__ = ["UnlockedFiles"]


class UnlockedFiles:
    """The unlocked files of the work tree of *repository*. The index is read once, when it is first asked."""

    def __init__(self, repository: Repository | None) -> None:
        self._repository = repository

    async def key_of(self, path: str, *, backend: str | bytes = DEFAULT_BACKEND) -> Key:
        """The key of the file at *path*: the one it has, as long as its content is that of the key; else a new one.

        Raises:
            InvalidPath, Refused, ContentChanged: As ``annexpy.actions.key.key_of``.
        """
        known = self._known(path)
        if known is not None and is_verifiable(known):
            made = await key_of(path, backend=known.backend)
            if (made.size, digest_of(made)) == (known.size, digest_of(known)):
                return known
        return await key_of(path, backend=backend)

    def _known(self, path: str) -> Key | None:
        """What the index has for *path*, if that is a pointer."""
        repository = self._repository
        if repository is None or repository.work_tree is None:
            return None
        folder, name = os.path.split(os.path.abspath(os.fsencode(path)))
        top = os.path.realpath(os.fsencode(repository.path)) + b"/"
        full = os.path.join(os.path.realpath(folder), name)
        sha = self._blobs.get(full.removeprefix(top)) if full.startswith(top) else None
        if sha is None:
            return None
        objects = Objects(repository.files)
        try:
            return pointed_to(objects.get(sha))
        except RepositoryError:
            return None  # git will say what is wrong with it
        finally:
            objects.close()

    @cached_property
    def _blobs(self) -> dict[bytes, bytes]:
        """Path → blob, of every regular file."""
        from annexpy.repo.attributes import read_index

        assert self._repository is not None
        try:
            entries = read_index(self._repository.worktree_git_dir)
        except RepositoryError:
            return {}  # damaged, or of a kind that is not read here
        return {entry.path: entry.sha for entry in entries if stat.S_ISREG(entry.mode)}
