"""Where the copies are that a drop relies on, as a command of a user says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from annexpy.cli.work import Work
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies, find_copies
from annexpy.policy.trust import TrustLevel
from annexpy.remote.base import Remote
from annexpy.uuids import UUID

__all__ = ["Evidence", "evidence"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the copies are that a drop relies on, and the rules for it.

    Attributes:
        others: Remotes to ask; one that is out of reach is named in a refusal.
        copies: How many must stay.
        trust: Trust levels.
        recorded: Who has a key according to the location log.
        nodes: Cluster → its nodes.
    """

    others: Sequence[Remote]
    copies: Callable[[Key], Copies]
    trust: Mapping[UUID, TrustLevel] = field(default_factory=dict)
    recorded: Callable[[Key], Mapping[UUID, str]] | None = None
    nodes: Mapping[UUID, frozenset[UUID]] = field(default_factory=dict)


def evidence(
    at: Work, places: Sequence[Remote], others: Sequence[str], numcopies: int | None, mincopies: int | None
) -> Evidence:
    """Where else copies may be, and the rules.

    Args:
        at: Where we work.
        places: What the command names anyway.
        others: What --other named. Inside a repository, that and its git remotes are asked too.
        numcopies, mincopies: From the command line.
    """
    known = {place.uuid for place in places}
    names = list(dict.fromkeys(others))
    remotes: list[Remote] = []
    repository = at.repository
    if repository is not None:
        if repository.uuid not in known:
            remotes.append(at.local())
        names += [
            remote.name
            for remote in repository.config.remotes().values()
            if remote.url is not None and not remote.ignore and remote.uuid not in known and remote.name not in names
        ]
    remotes += [at.other(name) for name in names]
    if repository is None:
        fixed = find_copies(command_line=(numcopies, mincopies))
        return Evidence(remotes, lambda key: fixed)
    facts = at.facts(numcopies, mincopies)
    return Evidence(remotes, facts.copies, facts.trust, facts.recorded, facts.clusters)
