"""Which nodes of a cluster a key goes to, and which are likely to have it: the location log and preferred content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.logs.paths import Log
from annexpy.policy.placement import Candidate, Choice, Unwanted, Wants, choose
from annexpy.remote.base import Remote
from annexpy.remote.cluster import Verb
from annexpy.remote.relay import Relayed
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from annexpy.actions.wanted import Wanted

__all__ = ["Placing", "members"]

_LOOK: Final = 1.0
"""Seconds between two looks at what is preferred."""
_PREFERENCES: Final = (Log.PREFERRED_CONTENT, Log.REQUIRED_CONTENT, Log.MAXSIZE)


class Placing:
    """Places keys on nodes, as the branch of *repository* has it."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._wanted: Wanted | None = None
        self._looked = float("-inf")

    @property
    def unwanted(self) -> Unwanted:
        """``annexpy.unwanted``: what to do with a key that nobody wants. A word that is none counts as "all"."""
        word = self._repository.config.get("annexpy.unwanted") or ""
        return Unwanted(word) if word in {one.value for one in Unwanted} else Unwanted.ALL

    def likely(self, verb: Verb, key: Key, associated_file: str, nodes: Sequence[Remote]) -> Sequence[Remote]:
        """Those that have *key* according to the location log; the others are asked after them."""
        try:
            have = frozenset(self._repository.branch.locations(key).present)
        except AnnexError:
            return nodes
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
        wanted = self._preferences()
        if wanted is None and not refused:
            return nodes  # nobody has said what they want, so everybody who has it not already gets it
        at = {uuid: node for node in nodes for uuid in members(node)}
        out = refused | {uuid for uuid, node in at.items() if isinstance(node, Relayed) and node.place in refused}
        holders = frozenset(self._repository.branch.locations(key).present) - out
        candidates = sorted(at, key=lambda uuid: at[uuid].cost)
        chosen, wants = self._choose(wanted, candidates, key, associated_file, holders | taking, out)
        having = [uuid for uuid in at if uuid in holders]
        asked = {*chosen.nodes, *(uuid for uuid in having if wants(uuid, holders - {uuid}))} or {*having}
        return [node for node in nodes if not asked.isdisjoint(members(node)) or not members(node)]

    def _choose(
        self,
        wanted: Wanted | None,
        nodes: list[UUID],
        key: Key,
        associated_file: str,
        holders: frozenset[UUID],
        refused: frozenset[UUID],
    ) -> tuple[Choice, Wants]:
        if wanted is None:
            chosen = choose([Candidate(uuid) for uuid in nodes], _everything, holders=holders, refused=refused)
            return chosen, _everything
        chosen = wanted.choose(nodes, key, associated_file, holders=holders, unwanted=self.unwanted, refused=refused)
        return chosen, wanted.wanting(key, associated_file)

    def _preferences(self) -> Wanted | None:
        """What nodes want; None where nobody has said anything."""
        now, branch = self._repository.clock.now(), self._repository.branch
        if now - self._looked >= _LOOK:
            self._looked = now
            if not any(branch.read(log.value) for log in _PREFERENCES):
                self._wanted = None
            elif self._wanted is None or self._wanted.changed:
                from annexpy.actions.wanted import Wanted

                self._wanted = Wanted(self._repository)
        return self._wanted


def _everything(uuid: UUID, having: frozenset[UUID]) -> bool:
    return True


def members(node: Remote) -> frozenset[UUID]:
    """The repositories that are reached through *node*."""
    return node.members if isinstance(node, Relayed) else frozenset((node.uuid,))
