"""Whereis: the repositories that have a key, according to the git-annex branch.

As git-annex shows it: sorted by UUID, dead repositories left out, untrusted ones apart, and first of all
every cluster of which a living node has the key. A cluster is never a copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from annexpy.actions.repository_facts import RepositoryFacts
from annexpy.keys.key import Key
from annexpy.logs.location import LocationLog, clusters_of
from annexpy.logs.paths import Log, key_log, log_key
from annexpy.policy.trust import TrustLevel
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID, WEB, is_cluster

__all__ = ["Location", "Whereis", "WhereisReader", "whereis", "whereis_all", "whereis_many"]

_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class Location:
    """One repository that has a key, as far as is known.

    Attributes:
        uuid: Which.
        description: What people call it, with the git remote that leads there in brackets, as git-annex shows it.
            May be empty.
        here: It is the repository that was asked.
        trust: How far it is trusted.
        urls: Where the web has the content; only for the web.
    """

    uuid: UUID
    description: str
    here: bool = False
    trust: TrustLevel = TrustLevel.SEMITRUSTED
    urls: tuple[str, ...] = ()

    @property
    def cluster(self) -> bool:
        """Not a repository but a cluster: some of its nodes have it."""
        return is_cluster(self.uuid)

    def __str__(self) -> str:
        described = self.description
        if self.here:  # as if it were the name of a remote
            described = "[here]" if described in ("", "here") else f"{described} [here]"
        return f"{self.uuid} -- {described}" if described else self.uuid


_Described: TypeAlias = tuple[tuple[Location, ...], tuple[Location, ...]]


@dataclass(frozen=True, slots=True)
class Whereis:
    """Where one key is.

    Attributes:
        key: Which.
        locations: Repositories and clusters, without the untrusted.
        untrusted: Untrusted repositories, which may have it.
    """

    key: Key
    locations: tuple[Location, ...] = field(default=())
    untrusted: tuple[Location, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Somebody who is not untrusted has it (the ``success`` of git-annex)."""
        return bool(self.locations)

    @property
    def copies(self) -> int:
        """How many copies there are: clusters and untrusted repositories are none."""
        return sum(not location.cluster for location in self.locations)

    @property
    def note(self) -> str:
        """All of it as text: the ``note`` of git-annex's JSON, and what it prints after the name."""
        copies = self.copies
        text = f"{copies} {'copy' if copies == 1 else 'copies'}"
        if self.locations:
            text += "\n" + "".join(f"\t{location}\n" for location in self.locations)
        if self.untrusted:
            text += "\nThe following untrusted locations may also have copies:\n"
            text += "".join(f"\t{location}\n" for location in self.untrusted)
        found = [(location, url) for location in self.locations + self.untrusted for url in location.urls]
        if found:
            text += "\n" + "".join(f"{location.description}: {url}\n" for location, url in found)
        return text


def whereis(repository: Repository | RepositoryFacts, key: Key) -> Whereis:
    """Where *key* is, as far as *repository* knows."""
    return next(whereis_many(repository, (key,)))


def whereis_many(repository: Repository | RepositoryFacts, keys: Iterable[Key]) -> Iterator[Whereis]:
    """Where each of *keys* is, in their order. From some hundreds on much faster than one by one.

    The location logs are read once; the descriptions are those of the first read.
    """
    yield from WhereisReader(repository).many(keys)


def whereis_all(repository: Repository | RepositoryFacts) -> Iterator[Whereis]:
    """Where every known key is (``--all``), in no promised order. Keys that are given up are left out."""
    answers = WhereisReader(repository)
    levels = answers.levels
    for path, content in answers.facts.repository.branch.scan(lambda path: path.endswith(Log.LOCATION.value)):
        key = log_key(path, levels=levels)
        if key is not None:
            log = LocationLog.parse(content)
            if not log.is_dead:
                yield answers.of(key, log)


class WhereisReader:
    """Answers many such questions; sets of locations that occur again are described once, at the first."""

    def __init__(self, repository: Repository | RepositoryFacts) -> None:
        self.facts = repository if isinstance(repository, RepositoryFacts) else RepositoryFacts(repository)
        self.levels = self.facts.repository.tuning.branch_levels
        self._known: dict[tuple[UUID, ...], _Described] = {}
        self._logs: dict[int, tuple[LocationLog, _Described, bool]] = {}  # by identity: many keys share a log

    def many(self, keys: Iterable[Key]) -> Iterator[Whereis]:
        """As ``whereis_many``. Call it again and again within ``Branch.reading``."""
        for key, log in self.facts.repository.branch.locations_many(keys):
            yield self.of(key, log)

    def of(self, key: Key, log: LocationLog) -> Whereis:
        """Where *key* is if that is what its log says."""
        known = self._logs.get(id(log))
        if known is None:
            if len(self._logs) >= _REMEMBERED:
                self._logs.clear()
            having = tuple(log.present)
            described = self._known.get(having)
            if described is None:
                described = self._known[having] = self._describe(having)
            known = self._logs[id(log)] = log, described, WEB in having
        _, described, on_the_web = known
        if on_the_web:
            return Whereis(key, *(self._with_urls(key, locations) for locations in described))
        return Whereis(key, *described)

    def _describe(self, having: tuple[UUID, ...]) -> _Described:
        facts = self.facts
        living = [uuid for uuid in having if facts.trust_of(uuid) is not TrustLevel.DEAD]
        shown = [*clusters_of(living, facts.clusters), *sorted(living)]
        every = [
            Location(uuid, facts.description(uuid), uuid == facts.repository.uuid, facts.trust_of(uuid))
            for uuid in shown
        ]
        return (
            tuple(location for location in every if location.trust is not TrustLevel.UNTRUSTED),
            tuple(location for location in every if location.trust is TrustLevel.UNTRUSTED),
        )

    def _with_urls(self, key: Key, locations: tuple[Location, ...]) -> tuple[Location, ...]:
        from annexpy.logs.urls import Downloader, urls  # few keys are on the web

        content = self.facts.repository.branch.read(key_log(key, Log.URL, levels=self.levels))
        found = tuple(url.url for url in urls(content) if url.downloader is not Downloader.REMOTE)
        return tuple(
            Location(one.uuid, one.description, one.here, one.trust, found) if one.uuid == WEB else one
            for one in locations
        )
