"""What one repository knows about all of them, and how many copies of a key must stay.

Everything a decision needs besides the remotes themselves, read from the repository's branch, configuration
and work tree, each part when it is first asked for. A moment's view: make a new one for a new command.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from typing import Final

from annexpy.actions.repository_facts import RepositoryFacts
from annexpy.keys.key import Key
from annexpy.logs.paths import Log
from annexpy.logs.settings import MINCOPIES, NUMCOPIES
from annexpy.policy.numcopies import Copies, FileCopies, find_copies, read_number
from annexpy.repo.annexed_files import FilesOfKeys, IndexEntry, read_index
from annexpy.repo.attributes import Attributes
from annexpy.repo.objects import Objects
from annexpy.repo.repository import Repository

__all__ = ["Facts"]

_NUMCOPIES: Final = b"annex.numcopies"
_MINCOPIES: Final = b"annex.mincopies"
_ATTRIBUTES: Final = (_NUMCOPIES, _MINCOPIES)


class Facts(RepositoryFacts):
    """What *repository* knows."""

    def __init__(self, repository: Repository, *, numcopies: int | None = None, mincopies: int | None = None) -> None:
        """Read nothing yet.

        Args:
            repository: As for ``RepositoryFacts``.
            numcopies, mincopies: From the command line, where they were given.
        """
        super().__init__(repository)
        self._command_line = (numcopies, mincopies)

    def copies(self, key: Key) -> Copies:
        """How many copies of *key* must stay, from every source in git-annex's order."""
        if self._files is None:
            return self.general_copies
        return find_copies(
            [self._file_copies(path) for path in self.files(key)],
            command_line=self._command_line,
            log=self.logged_copies,
            config=self._config,
        )

    @cached_property
    def general_copies(self) -> Copies:
        """How many copies of a key without a file must stay."""
        return find_copies(command_line=self._command_line, log=self.logged_copies, config=self._config)

    def files(self, key: Key) -> list[bytes]:
        """The files with *key* whose attributes could matter; none where no attribute mentions copies at all."""
        return [] if self._files is None else self._files.of(key)

    def all_files(self, key: Key) -> list[bytes]:
        """Every file of the index that has *key*; none in a bare repository."""
        return [] if self.repository.work_tree is None else self._all_files.of(key)

    def attribute_copies(self, path: bytes) -> int | None:
        """What the git attribute ``annex.numcopies`` says of the file at *path*; None where it says no number."""
        return None if self._attributes is None else self._file_copies(path).num

    @cached_property
    def logged_copies(self) -> tuple[int | None, int | None]:
        """numcopies.log and mincopies.log."""
        read = self.repository.branch.read
        return NUMCOPIES.parse(read(Log.NUMCOPIES.value)), MINCOPIES.parse(read(Log.MINCOPIES.value))

    @cached_property
    def _config(self) -> int | None:
        return read_number(self.repository.config.get("annex.numcopies"))

    @cached_property
    def _attributes(self) -> Attributes | None:
        return Attributes.of(self.repository)

    @cached_property
    def _files(self) -> FilesOfKeys | None:
        attributes = self._attributes
        if attributes is None:
            return None
        # Reading every link costs; most repositories set no number of copies by attributes.
        if not attributes.mention(_ATTRIBUTES, _one_per_folder(entry.path for entry in self._index)):
            return None
        return self._all_files

    @cached_property
    def _index(self) -> list[IndexEntry]:
        return read_index(self.repository.worktree_git_dir)

    @cached_property
    def _all_files(self) -> FilesOfKeys:
        objects = Objects(self.repository.files)
        try:
            return FilesOfKeys(self._index, objects)
        finally:
            objects.close()

    def _file_copies(self, path: bytes) -> FileCopies:
        assert self._attributes is not None
        values = self._attributes.values(path, _ATTRIBUTES)
        return FileCopies(path, _number(values.get(_NUMCOPIES)), _number(values.get(_MINCOPIES)))


def _number(value: bytes | bool | None) -> int | None:
    # "set" and "unset" are words that are no number
    return read_number(value) if isinstance(value, bytes) else None


def _one_per_folder(paths: Iterable[bytes]) -> Iterable[bytes]:
    """One path below each directory of *paths*: enough to look at all of their attributes."""
    return {os.path.dirname(path): path for path in paths}.values()
