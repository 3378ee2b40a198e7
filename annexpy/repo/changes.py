"""What happened in the git-annex branch: which logs each commit changed, the newest first."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from annexpy.patterns import regex
from annexpy.repo.history import History
from annexpy.repo.objects import Objects
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown
from annexpy.repo.trees import EMPTY_TREE, FOLDER, Entries, commit_parents, commit_tree, parse_tree

__all__ = ["Change", "changes"]

_COMMITTER: Final = regex(rb"^committer [^\n]*> (\d+) [+-]\d{4}$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Change:
    """One log in one commit.

    Attributes:
        seconds: When it was committed, since 1970.
        path: Branch path of the log.
        before, after: Its content; empty where it was not there.
    """

    seconds: int
    path: bytes
    before: bytes
    after: bytes


def changes(
    repository: Repository, paths: Collection[bytes] | None = None, *, wanted: Callable[[bytes], bool] | None = None
) -> Iterator[Change]:
    """Every change of the logs at *paths*, or of all that are *wanted*, the newest commit first.

    What is not committed yet is not here. A merge is shown by the commits that it brought together.

    Args:
        repository: Whose branch.
        paths: Look at these only: much faster than looking at everything.
        wanted: Which paths, where *paths* is None; all when None too.

    Raises:
        RepositoryError: Objects are missing or corrupt.
    """
    history = History(
        repository.files,
        repository.config,
        repository.clock,
        Lockdown.of(repository.config.get("core.sharedrepository")),
    )
    try:
        tip = history.tip()
        if tip is not None:
            yield from _Walk(history.objects, paths, wanted).from_(bytes.fromhex(tip.decode()))
    finally:
        history.close()


class _Walk:
    def __init__(
        self, objects: Objects, paths: Collection[bytes] | None, wanted: Callable[[bytes], bool] | None
    ) -> None:
        self._objects, self._wanted = objects, wanted
        self._paths = None if paths is None else frozenset(paths)
        # Only these directories can matter.
        self._folders = None if paths is None else {p for path in paths for p in _above(path)}

    def from_(self, tip: bytes) -> Iterator[Change]:
        """All commits that lead to *tip*. Each commit waits with its raw text: most branches are one line of them."""
        raw = self._objects.get(tip)
        waiting = [(-_time(raw), tip, raw)]
        seen = {tip}
        while waiting:
            seconds, _, raw = heapq.heappop(waiting)
            parents = commit_parents(raw)
            raws = [self._objects.get(parent) for parent in parents]
            if len(parents) < 2:
                before = commit_tree(raws[0]) if raws else EMPTY_TREE
                for path, old, new in self._differing(before, commit_tree(raw), b""):
                    yield Change(-seconds, path, self._read(old), self._read(new))
            for parent, parent_raw in zip(parents, raws, strict=True):
                if parent not in seen:
                    seen.add(parent)
                    heapq.heappush(waiting, (-_time(parent_raw), parent, parent_raw))

    def _differing(self, before: bytes, after: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
        """(path, id before, id after) of the files that differ between two trees."""
        if before == after:
            return
        old, new = self._entries(before), self._entries(after)
        for name in sorted(old.keys() | new.keys()):
            was, is_ = old.get(name), new.get(name)
            if was == is_:
                continue
            path = prefix + name
            was_folder, is_folder = was is not None and was[0] == FOLDER, is_ is not None and is_[0] == FOLDER
            if (was_folder or is_folder) and (self._folders is None or path in self._folders):
                yield from self._differing(
                    was[1] if was is not None and was_folder else EMPTY_TREE,
                    is_[1] if is_ is not None and is_folder else EMPTY_TREE,
                    path + b"/",
                )
            if not (was_folder and is_folder) and self._matters(path):
                one = was[1] if was is not None and not was_folder else b""
                other = is_[1] if is_ is not None and not is_folder else b""
                if one or other:
                    yield path, one, other

    def _matters(self, path: bytes) -> bool:
        if self._paths is not None:
            return path in self._paths
        return self._wanted is None or self._wanted(path)

    def _entries(self, tree: bytes) -> Entries:
        return {} if tree == EMPTY_TREE else parse_tree(self._objects.get(tree))

    def _read(self, sha: bytes) -> bytes:
        return self._objects.get(sha) if sha else b""


def _above(path: bytes) -> Iterator[bytes]:
    while path := path.rpartition(b"/")[0]:
        yield path


def _time(raw: bytes) -> int:
    match = _COMMITTER.search(raw)
    return 0 if match is None else int(match[1])
