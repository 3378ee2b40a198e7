"""What the branch knows of each repository: description, trust, groups, size, proxies, clusters, and the rest.

Every log here is an object with ``parse``, ``entries``, ``set``, ``compact`` and ``format``
(``logs/uuidbased.py``).

Source: fact sheet repository-format, sections 3 and 5; vectors map_logs.json.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from annexpy.logs.number import leading_integer
from annexpy.logs.uuidbased import MapLog, UUIDBasedLog, raw, text, to_uuid
from annexpy.patterns import regex
from annexpy.uuids import UUID, is_cluster

__all__ = [
    "ACTIVITIES",
    "CLUSTERS",
    "DESCRIPTIONS",
    "DIFFERENCES",
    "GROUPS",
    "MAXSIZES",
    "MULTICAST",
    "PROXIES",
    "SCHEDULES",
    "TRUST",
    "Proxied",
    "TrustLevel",
    "clusters",
]


# -- uuid.log, trust.log, group.log ---------------------------------------------------------------


DESCRIPTIONS: Final = UUIDBasedLog[str](text, raw)
"""uuid.log: what people call each repository."""


class TrustLevel(StrEnum):
    """git-annex's four levels, by the names of its commands and of ``remote.NAME.annex-trustlevel``."""

    TRUSTED = "trusted"
    SEMITRUSTED = "semitrusted"
    UNTRUSTED = "untrusted"
    DEAD = "dead"


_TRUST: Final = {
    b"1": TrustLevel.TRUSTED,
    b"0": TrustLevel.UNTRUSTED,
    b"X": TrustLevel.DEAD,
    b"?": TrustLevel.SEMITRUSTED,
    b"": TrustLevel.TRUSTED,  # a line with only a UUID
}
_TRUST_CODES: Final = {level: code for code, level in _TRUST.items() if code}


def _read_trust(value: bytes) -> TrustLevel | None:
    # one character that we do not know counts as semitrusted, more than one is no value
    return _TRUST.get(value, TrustLevel.SEMITRUSTED) if len(value) < 2 else None


TRUST: Final = UUIDBasedLog[TrustLevel](_read_trust, _TRUST_CODES.__getitem__)
"""trust.log: whoever is not in it is semitrusted."""


def _read_groups(value: bytes) -> frozenset[str]:
    return frozenset(map(text, filter(None, value.split(b" "))))


def _write_groups(value: frozenset[str]) -> bytes:
    return b" ".join(sorted(map(raw, value)))


GROUPS: Final = UUIDBasedLog[frozenset[str]](_read_groups, _write_groups)
"""group.log: the groups of each repository; the empty set where it left them all."""


# -- maxsize.log, proxy.log, cluster.log ----------------------------------------------------------


MAXSIZES: Final = MapLog[UUID, int](to_uuid, raw, leading_integer, lambda size: b"%d" % size)
"""maxsize.log: bytes that a repository is to hold at most, counted in sizes of keys."""


@dataclass(frozen=True, slots=True, order=True)
class Proxied:
    """A repository that another one proxies for, and the name of the remote there."""

    uuid: UUID
    name: str


# the UUID ends at the first colon, the name at the first blank
_PROXIED: Final = regex(rb"([^:]+):([^ ]+)(?: |\Z)")


def _read_proxied(value: bytes) -> frozenset[Proxied] | None:
    found, at = set(), 0
    while at < len(value):
        match = _PROXIED.match(value, at)
        if match is None:
            return None
        found.add(Proxied(to_uuid(match[1]), text(match[2])))
        at = match.end()
    return frozenset(found)


def _write_proxied(value: frozenset[Proxied]) -> bytes:
    return b" ".join(sorted([raw(proxied.uuid) + b":" + raw(proxied.name) for proxied in value]))


PROXIES: Final = MapLog[UUID, frozenset[Proxied]](to_uuid, raw, _read_proxied, _write_proxied)
"""proxy.log: what each repository proxies for."""


def _read_nodes(value: bytes) -> frozenset[UUID] | None:
    nodes = value.split(b" ") if value else []
    return frozenset(map(to_uuid, nodes)) if all(nodes) else None


def _write_nodes(value: frozenset[UUID]) -> bytes:
    return b" ".join(sorted(map(raw, value)))


CLUSTERS: Final = MapLog[UUID, frozenset[UUID]](to_uuid, raw, _read_nodes, _write_nodes)
"""cluster.log as it stands; to use it, ``clusters``."""


def clusters(content: bytes) -> dict[UUID, frozenset[UUID]]:
    """Cluster → its nodes, of cluster.log. An entry under anything but a cluster's UUID is ignored."""
    return {uuid: nodes for uuid, nodes in CLUSTERS.parse(content).items() if is_cluster(uuid)}


# -- what only git-annex itself acts upon ---------------------------------------------------------


SCHEDULES: Final = UUIDBasedLog[str](text, raw)
"""schedule.log: what the assistant does when, as text; several events are joined by ``; ``."""

ACTIVITIES: Final = UUIDBasedLog[str](lambda value: text(value.partition(b" ")[0]), raw)
"""activity.log: what was last done in a repository (``Fsck``); the time of it is the clock of its entry."""

MULTICAST: Final = UUIDBasedLog[str](text, raw)
"""multicast.log: the fingerprint that a repository uses for multicast."""

_DIFFERENCE: Final = regex(r"fromList \[([A-Za-z,]*)\]")
_TUNINGS: Final = ("ObjectHashLower", "OneLevelObjectHash", "OneLevelBranchHash")


def _read_differences(value: bytes) -> frozenset[str]:
    match = _DIFFERENCE.fullmatch(text(value))
    # what we do not understand is a difference too: it must not look like none
    return frozenset((text(value),)) if match is None else frozenset(filter(None, match[1].split(",")))


def _write_differences(value: frozenset[str]) -> bytes:
    if len(value) == 1 and not (only := next(iter(value))).isalpha():
        return raw(only)
    known = [name for name in _TUNINGS if name in value]
    return raw(f"fromList [{','.join(known + sorted(value.difference(known)))}]")


DIFFERENCES: Final = UUIDBasedLog[frozenset[str]](_read_differences, _write_differences)
"""difference.log: how each repository was tuned at init. Repositories that differ may not be merged."""
