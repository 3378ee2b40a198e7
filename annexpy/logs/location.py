"""Location logs: which repositories have the content of a key.

A location log is a presence log whose infos are UUIDs. A cluster is never written into one; it is shown
among the locations while one of its nodes has the content, and it is never a copy.

Source: fact sheet repository-format, sections 3 and 5; vectors location_log.json.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from annexpy.logs.line import VectorClock
from annexpy.logs.presence import DEAD, MISSING, PRESENT, parse_presence, set_presence
from annexpy.uuids import UUID, is_cluster

__all__ = ["LocationLog", "Presence", "clusters_of", "set_location"]


class Presence(Enum):
    """What a location log says about one repository."""

    PRESENT = PRESENT
    MISSING = MISSING
    DEAD = DEAD


@dataclass(frozen=True, slots=True)
class LocationLog:
    """What one location log says.

    Attributes:
        entries: UUID → what counts and since when, for every repository with a line.
    """

    entries: Mapping[UUID, tuple[VectorClock, Presence]]

    @classmethod
    def parse(cls, content: bytes) -> LocationLog:
        """Read a log. Never raises; UUIDs are opaque, so whatever stands in their place is kept."""
        return cls(
            {
                UUID(info.decode("utf-8", "surrogateescape")): (clock, Presence(status))
                for info, (clock, status) in parse_presence(content).items()
            }
        )

    @property
    def present(self) -> list[UUID]:
        """Repositories that have the content, sorted. Never a cluster, even if a line says so."""
        return self._with(Presence.PRESENT)

    @property
    def dead(self) -> list[UUID]:
        """Repositories that had it and will not have it again, sorted."""
        return self._with(Presence.DEAD)

    @property
    def is_dead(self) -> bool:
        """True when nothing but dead lines is left: git-annex then leaves the key out of ``--all``."""
        return all(presence is Presence.DEAD for _, presence in self.entries.values())

    def status(self, uuid: UUID) -> Presence:
        """What the log says about *uuid*; missing when there is no line."""
        entry = self.entries.get(uuid)
        return Presence.MISSING if entry is None else entry[1]

    def clock(self, uuid: UUID) -> VectorClock | None:
        """When that was logged, or None when there is no line."""
        entry = self.entries.get(uuid)
        return None if entry is None else entry[0]

    def locations(self, clusters: Mapping[UUID, Collection[UUID]], dead: Collection[UUID] = ()) -> list[UUID]:
        """What ``git annex whereis`` lists: living repositories that have it, then the clusters they make up.

        For showing and for asking only; copies are counted from ``present``.

        Args:
            clusters: Cluster → its nodes (``logs.repos.clusters``).
            dead: Repositories of trust level dead.
        """
        living = [uuid for uuid in self.present if uuid not in dead]
        return living + clusters_of(living, clusters)

    def _with(self, wanted: Presence) -> list[UUID]:
        return sorted([u for u, (_, presence) in self.entries.items() if presence is wanted and not is_cluster(u)])


def clusters_of(present: Iterable[UUID], clusters: Mapping[UUID, Collection[UUID]]) -> list[UUID]:
    """The clusters with at least one node among *present*, sorted. Leave dead repositories out of *present*."""
    having = set(present)
    return sorted([cluster for cluster, nodes in clusters.items() if not having.isdisjoint(nodes)])


def set_location(content: bytes, uuid: UUID, present: bool, now: VectorClock) -> bytes:
    """The log after *uuid* got or lost the content at *now*.

    A cluster UUID is ignored, as git-annex does: the line would be counted as a copy by nobody and mislead
    every reader.

    Returns:
        *content* itself, the same object, when there is nothing to change.

    Raises:
        InvalidInput: *uuid* holds CR or LF.
    """
    if is_cluster(uuid):
        return content
    return set_presence(content, uuid.encode("utf-8", "surrogateescape"), PRESENT if present else MISSING, now)
