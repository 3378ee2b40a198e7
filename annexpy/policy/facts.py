"""What has to be known to say whether a repository wants a key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from annexpy.keys.key import Key
from annexpy.policy.trust import TrustLevel
from annexpy.uuids import UUID, is_cluster

__all__ = ["KeyFacts", "Repositories"]

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})  # of every type


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is known of one key, and of the file it is looked at for.

    Attributes:
        key: Which.
        file: Path from the top of the work tree; None for a key without a file, as in a bare repository.
        holders: Who has it by the location log. For the repository that asks, whether the object is there
            counts instead.
        numcopies: For this file, from its attributes or from the log; None: what the log says, or 1.
        metadata: Field, in lower case → its values.
        urls: As they were recorded.
        unused: It is on the list that ``git annex unused`` made; only asked for a key without a file.
        equivalent: Keys that a VURL stands for.
    """

    key: Key
    file: bytes | None = None
    holders: frozenset[UUID] = frozenset()
    numcopies: int | None = None
    metadata: Mapping[str, frozenset[str]] = field(default_factory=lambda: _NOTHING)
    urls: tuple[str, ...] = ()
    unused: bool = False
    equivalent: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class Repositories:
    """What is known of all repositories.

    Attributes:
        groups: The groups of each.
        trust: Trust levels; semitrusted where silent.
        preferred, required: Expressions as they were recorded; an empty one is none.
        groupwanted: Expressions by group.
        numcopies: numcopies.log; None: not set.
        sizes: Bytes that each holds, counted in sizes of keys; live transfers may be in it. It may change while this
            is in use: it is looked at for every answer.
        maxsizes: Bytes that each is to hold at most.
        preferred_dirs: ``preferreddir`` of special remotes; ``public`` where silent.
        rebalance: As ``--rebalance``: contents may move to keep a balance.
    """

    groups: Mapping[UUID, frozenset[str]] = field(default_factory=lambda: _NOTHING)
    trust: Mapping[UUID, TrustLevel] = field(default_factory=lambda: _NOTHING)
    preferred: Mapping[UUID, str] = field(default_factory=lambda: _NOTHING)
    required: Mapping[UUID, str] = field(default_factory=lambda: _NOTHING)
    groupwanted: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    numcopies: int | None = None
    sizes: Mapping[UUID, int] = field(default_factory=lambda: _NOTHING)
    maxsizes: Mapping[UUID, int] = field(default_factory=lambda: _NOTHING)
    preferred_dirs: Mapping[UUID, str] = field(default_factory=lambda: _NOTHING)
    rebalance: bool = False

    def members(self, group: str) -> frozenset[UUID]:
        """Everybody in *group*, the dead as well."""
        return frozenset([uuid for uuid, groups in self.groups.items() if group in groups])

    def level(self, uuid: UUID) -> TrustLevel:
        """How far *uuid* is trusted."""
        return self.trust.get(uuid, TrustLevel.SEMITRUSTED)

    def copies(self, holders: Iterable[UUID]) -> frozenset[UUID]:
        """Which of *holders* are copies: not the dead, and no cluster."""
        return frozenset([u for u in holders if self.level(u) is not TrustLevel.DEAD and not is_cluster(u)])

    def trustworthy(self, copies: Iterable[UUID]) -> frozenset[UUID]:
        """Which of *copies* count towards numcopies: not those in untrusted repositories."""
        return frozenset([uuid for uuid in copies if self.level(uuid) is not TrustLevel.UNTRUSTED])
