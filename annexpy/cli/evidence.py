"""Where the copies are that a drop relies on, and the rules for it, as far as a command line knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from annexpy.cli.copies import Wanted
from annexpy.cli.work import Work
from annexpy.errors import InvalidInput
from annexpy.keys.key import Key
from annexpy.logs.paths import Log
from annexpy.policy.numcopies import Copies, find_copies
from annexpy.policy.routes import nearest_routes
from annexpy.policy.trust import TrustLevel
from annexpy.remote.base import Remote
from annexpy.repo.topology import topology
from annexpy.uuids import UUID

__all__ = ["Evidence", "evidence"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a drop needs to know, beyond the key.

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


def evidence(at: Work, places: Sequence[Remote], wanted: Wanted) -> Evidence:
    """Look around.

    Args:
        at: Where we work. In a repository, that, its git remotes and what they are proxies for are asked besides
            what --other names.
        places: What the command itself names, first of all where a content may be dropped.
        wanted: What the command line says.
    """
    known = {place.uuid for place in places}
    names = list(dict.fromkeys(wanted.others))
    others: list[Remote] = []
    repository = at.repository
    if repository is None:
        fixed = find_copies(command_line=(wanted.numcopies, wanted.mincopies))
        return Evidence([at.other(name) for name in names], lambda key: fixed)
    if repository.uuid not in known:
        others.append(at.local())
    for remote in repository.config.remotes().values():
        if remote.has_contents and not remote.ignore and remote.uuid not in known and remote.name not in names:
            names.append(remote.name)
    names += [
        route.name
        for route in nearest_routes(topology(repository))
        if route.uuid not in known and route.name not in names
    ]
    for name in names:
        try:
            others.append(at.other(name))
        except InvalidInput:
            known_as = repository.config.remotes().get(name)
            if name in wanted.others or known_as is None or known_as.url is not None:
                raise
            continue  # with settings that annexpy does not offer; a refusal says that no remote leads there
    facts = at.facts(wanted.numcopies, wanted.mincopies)
    copies: Callable[[Key], Copies] = facts.copies
    if repository.branch.read(Log.REQUIRED_CONTENT.value):
        from annexpy.actions.wanted import Wanted as Preferences

        dropped_from = facts.clusters.get(places[0].uuid, {places[0].uuid})
        copies = Preferences(facts).keeping(copies, dropped_from)
    return Evidence(others, copies, facts.trust, facts.recorded, facts.clusters)
