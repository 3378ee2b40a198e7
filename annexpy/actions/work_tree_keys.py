"""The keys of files in a work tree: the one that an unlocked file has, and those that others get.

Which key an unlocked file has, git's index alone says: by the pointer that stands there in the place of the content.
How a new key is made, git attributes and the configuration say.
"""

from __future__ import annotations

import os
import stat
from functools import cached_property
from typing import TYPE_CHECKING, Final

from annexpy.actions.key import key_of
from annexpy.errors import RepositoryError
from annexpy.keys.backend import BACKENDS, DEFAULT_BACKEND, digest_of, is_verifiable
from annexpy.keys.key import Key
from annexpy.keys.pointer import key_of_pointer
from annexpy.repo.objects import Objects
from annexpy.repo.repository import Repository

if TYPE_CHECKING:
    from annexpy.repo.attributes import Attributes
    from annexpy.repo.config import GitConfig

__all__ = ["WorkTreeKeys", "configured_backend"]

_BACKEND: Final = (b"annex.backend",)


def configured_backend(config: GitConfig | None) -> bytes:
    """The backend of new keys by the configuration of a repository, where no attribute says another one.

    It may be one that annexpy cannot compute, or that nobody knows.
    Source: git-annex(1), ``annex.backend``; its older name is a list, of which the first counts.
    """
    said = None if config is None else config.get("annex.backend")
    if said is None and config is not None:
        said = (config.get("annex.backends") or "").split(" ")[0]
    return os.fsencode(said or "") or DEFAULT_BACKEND


class WorkTreeKeys:
    """The keys of the files in the work tree of *repository*. The index is read once, when it is first asked."""

    def __init__(self, repository: Repository | None) -> None:
        self._repository = repository

    async def key_of(self, path: str, *, backend: str | bytes | None = None) -> Key:
        """The key of the file at *path*: the one it has, as long as its content is that of the key; else a new one.

        Args:
            path: A regular file, in the work tree or elsewhere.
            backend: Of a new key; None for what the file's attribute ``annex.backend`` or the configuration says.

        Raises:
            InvalidPath, Refused, ContentChanged: As ``annexpy.actions.key.key_of``.
        """
        name = self._in_tree(path)
        known = None if name is None else self._known(name)
        if known is not None and is_verifiable(known):
            made = await key_of(path, backend=known.backend)
            if (made.size, digest_of(made)) == (known.size, digest_of(known)):
                return known
        return await key_of(path, backend=self._backend(name) if backend is None else backend)

    def _backend(self, name: bytes | None) -> bytes:
        if name is not None and self._attributes is not None and self._attributes.mention(_BACKEND, (name,)):
            said = self._attributes.values(name, _BACKEND).get(_BACKEND[0])
            if isinstance(said, bytes) and (said in BACKENDS or said.startswith(b"X")):  # git-annex passes over others
                return said
        return configured_backend(None if self._repository is None else self._repository.config)

    def _known(self, name: bytes) -> Key | None:
        """What the index has for the file *name*, if that is a pointer."""
        sha = self._blobs.get(name)
        if sha is None:
            return None
        assert self._repository is not None
        objects = Objects(self._repository.files)
        try:
            return key_of_pointer(objects.get(sha))
        except RepositoryError:
            return None  # git will say what is wrong with it
        finally:
            objects.close()

    def _in_tree(self, path: str) -> bytes | None:
        """*path* as git names it; None outside of the work tree."""
        repository = self._repository
        if repository is None or repository.work_tree is None:
            return None
        folder, name = os.path.split(os.path.abspath(os.fsencode(path)))
        top = os.path.realpath(os.fsencode(repository.path)) + b"/"
        full = os.path.join(os.path.realpath(folder), name)
        return full.removeprefix(top) if full.startswith(top) else None

    @cached_property
    def _attributes(self) -> Attributes | None:
        from annexpy.repo.attributes import Attributes

        try:
            return None if self._repository is None else Attributes.of(self._repository)
        except OSError:
            return None  # the work tree is not there

    @cached_property
    def _blobs(self) -> dict[bytes, bytes]:
        """Path → blob, of every regular file."""
        from annexpy.repo.annexed_files import read_index

        assert self._repository is not None
        try:
            entries = read_index(self._repository.worktree_git_dir)
        except (RepositoryError, OSError):
            return {}  # damaged, or of a kind that is not read here
        return {entry.path: entry.sha for entry in entries if stat.S_ISREG(entry.mode)}
