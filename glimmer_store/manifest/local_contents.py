"""Contents that lie on this machine: in the dataset itself, or in a durable repository that is a folder here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

import annexpy as annex
from glimmer_store.archive import Archive, is_here

__all__ = ["Objects", "sources_of"]

_PIECE: Final = 1 << 20


class Objects:
    """Finds the file that is the object of a key. Objects are read-only and never change: links may lead to them."""

    def __init__(self, repositories: Sequence[annex.Repository]) -> None:
        self._repositories = repositories

    @classmethod
    @contextmanager
    def of(cls, archive: Archive) -> Iterator[Self]:
        """Those of a dataset's own repository first, then of its durable repositories on this machine."""
        with ExitStack() as stack:
            found = [archive.repository]
            for place, _ in archive.remotes:
                if is_here(place):
                    try:
                        found.append(stack.enter_context(annex.Repository.open(place.url)))
                    except annex.RepositoryError:
                        continue  # an object-only store, or gone: then others have it
            yield cls(found)

    def find(self, key: annex.Key) -> Path | None:
        """The object, whole by its size; None when none is here."""
        for repository in self._repositories:
            below = repository.content.path(key)
            if below is not None and (key.size is None or repository.content.size(key) == key.size):
                return Path(os.fsdecode(os.path.join(os.path.abspath(repository.git_dir), below)))
        return None

    def check(self, key: annex.Key) -> None:
        """Read the object of *key*.

        Raises:
            KeyNotPresent: None is here.
            VerificationFailed: It is not the content of *key*.
        """
        path = self.find(key)
        if path is None:
            raise annex.KeyNotPresent(key, "this machine")
        with path.open("rb") as file:
            found = annex.name_content(iter(lambda: file.read(_PIECE), b""), key.backend)
        if found.name != key.name.split(b".")[0]:
            raise annex.VerificationFailed(key, str(path))


def sources_of(archive: Archive, here: annex.Remote | None = None) -> list[annex.Remote]:
    """Where contents may be had, the cheapest first."""
    found = [remote for _, remote in archive.remotes]
    if here is not None:
        found.append(here)
    return sorted(found, key=lambda remote: remote.cost)
