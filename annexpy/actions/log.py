"""When which repository got or lost a key, from the history of the git-annex branch."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from annexpy.keys.key import Key
from annexpy.keys.layout import location_log
from annexpy.logs.location import LocationLog
from annexpy.logs.paths import Log, log_key
from annexpy.repo.changes import changes
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

__all__ = ["Logged", "log"]


@dataclass(frozen=True, slots=True)
class Logged:
    """One commit's news about one key.

    Attributes:
        key: Which.
        seconds: When it was committed, since 1970.
        got: Repositories that have it since then, sorted.
        lost: Those that no longer have it.
    """

    key: Key
    seconds: int
    got: tuple[UUID, ...]
    lost: tuple[UUID, ...]


def log(repository: Repository, keys: Collection[Key] | None = None) -> Iterator[Logged]:
    """The news about *keys*, or about every key, the newest first. What is not committed yet is not in it."""
    levels = repository.tuning.branch_levels
    paths = None if keys is None else [location_log(key, levels=levels) for key in keys]
    for change in changes(repository, paths, wanted=lambda path: path.endswith(Log.LOCATION.value)):
        key = log_key(change.path, levels=levels)
        if key is None:
            continue
        before, after = set(LocationLog.parse(change.before).present), set(LocationLog.parse(change.after).present)
        got, lost = tuple(sorted(after - before)), tuple(sorted(before - after))
        if got or lost:
            yield Logged(key, change.seconds, got, lost)
