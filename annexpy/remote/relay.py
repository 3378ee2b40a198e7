"""Another gateway of the same cluster, as a node of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from annexpy.clock import Deadline
from annexpy.keys.key import Key
from annexpy.remote.base import BatchRemove, Remote, Removed
from annexpy.remote.wrappers import Wrapper
from annexpy.uuids import UUID, is_cluster

__all__ = ["Relayed", "patience"]

_SLOWER: Final = 1.2
_ON_TOP: Final = 2.0


def patience(deadline: float, depth: int) -> float:
    """Seconds after which a gateway is dead that waits *deadline* seconds for a node, *depth* gateways away.

    Each gateway gets what the next one may need to find out that a node is dead, and what it costs to connect.
    """
    seconds = deadline
    for _ in range(depth):
        seconds = seconds * _SLOWER + _ON_TOP
    return seconds


class Relayed(Wrapper):
    """The nodes behind another gateway.

    Attributes:
        place: The gateway itself, which errors are told of: what it shows has the UUID of the cluster.
        members: Who is reached through it, as far as is known.
    """

    def __init__(self, remote: Remote, place: UUID, members: frozenset[UUID], patience: float) -> None:
        super().__init__(remote)
        self.place, self.members, self._patience = place, members, patience

    @property
    def patience(self) -> float:
        return self._patience

    def __reduce__(self) -> tuple[object, ...]:
        return Relayed, (self.remote, self.place, self.members, self._patience)

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        return self._told(await self.remote.remove_content(key, deadline=deadline))

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        if isinstance(self.remote, BatchRemove):
            removed = await self.remote.remove_content_many(keys, deadline=deadline)
            return [self._told(one) for one in removed]
        return [await self.remove_content(key, deadline=deadline) for key in keys]

    def _told(self, removed: Removed) -> Removed:
        """Failures of "the cluster" are those of the gateway: ours has the same UUID."""
        if not any(map(is_cluster, removed.failed)):
            return removed
        failed = {self.place if is_cluster(uuid) else uuid: error for uuid, error in removed.failed.items()}
        return Removed(removed.ok, removed.uuids, failed)
