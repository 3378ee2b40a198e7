"""Which nodes of a cluster a key goes to, and which are likely to have it: the location log and preferred content."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.policy.placement import Candidate, Unwanted, Wants, choose
from annexpy.remote.base import Remote
from annexpy.remote.cluster import Verb
from annexpy.remote.relay import Relayed
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

__all__ = ["Placing", "Wanting"]

Wanting: TypeAlias = Callable[[Key, str], Wants]
"""For a key and its associated file: which repository wants it?"""


def everybody(key: Key, associated_file: str) -> Wants:
    """No preferred content is configured: all want everything."""
    return lambda uuid, having: True


class Placing:
    """Places keys on nodes, as the branch of *repository* has it.

    Args:
        repository: The gateway.
        wanting: Preferred content.
    """

    def __init__(self, repository: Repository, wanting: Wanting = everybody) -> None:
        self._repository, self._wanting = repository, wanting

    @property
    def unwanted(self) -> Unwanted:
        """``annexpy.unwanted``: what to do with a key that nobody wants. A word that is none counts as "all"."""
        word = self._repository.config.get("annexpy.unwanted") or ""
        return Unwanted(word) if word in {one.value for one in Unwanted} else Unwanted.ALL

    def likely(self, verb: Verb, key: Key, associated_file: str, nodes: Sequence[Remote]) -> Sequence[Remote]:
        """Those that have *key* according to the location log; the others are asked after them."""
        try:
            holders = self._repository.branch.locations(key).present
        except AnnexError:
            return nodes
        have = frozenset(holders)
        return [node for node in nodes if not have.isdisjoint(members(node))]

    def place(
        self,
        key: Key,
        associated_file: str,
        nodes: Sequence[Remote],
        *,
        taking: frozenset[UUID],
        refused: frozenset[UUID],
    ) -> Sequence[Remote]:
        """As ``Place``: who is to get *key*, and who has it according to the location log, and so is asked.

        The nodes behind another gateway count one by one; that gateway then chooses among them for itself.
        """
        at = {uuid: node for node in nodes for uuid in members(node)}
        out = refused | {uuid for uuid, node in at.items() if place_of(node) in refused}
        holders = frozenset(self._repository.branch.locations(key).present) - out
        wants = self._wanting(key, associated_file)
        chosen = choose(
            [Candidate(uuid) for uuid in sorted(at, key=lambda uuid: at[uuid].cost)],
            wants,
            holders=holders | taking,
            unwanted=self.unwanted,
            size=key.size,
            refused=out,
        )
        having = [uuid for uuid in at if uuid in holders]
        asked = {*chosen.nodes, *(uuid for uuid in having if wants(uuid, holders - {uuid}))} or {*having}
        return [node for node in nodes if not asked.isdisjoint(members(node)) or not members(node)]


def members(node: Remote) -> frozenset[UUID]:
    """The repositories that are reached through *node*."""
    return node.members if isinstance(node, Relayed) else frozenset((node.uuid,))


def place_of(node: Remote) -> UUID:
    """What errors of *node* are told of."""
    return node.place if isinstance(node, Relayed) else node.uuid
