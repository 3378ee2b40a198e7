"""What the nodes say against what is really there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import annexpy as annex
from glimmer_store.graph import GlimmerGraph, GlimmerNode

__all__ = ["ObjectStatus", "Status", "look"]


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """One archived output.

    Attributes:
        node: The node, with what it records.
        live: Names of the durable remotes that were asked and have it now.
        unreachable: Names of those that could not be asked.
        drift: Sentences on how recorded and live differ; empty when they agree.
    """

    node: GlimmerNode
    live: tuple[str, ...]
    unreachable: tuple[str, ...]
    drift: tuple[str, ...]

    @property
    def safe(self) -> bool:
        """As many live copies as its class needs."""
        return self.node.record is not None and len(self.live) >= self.node.numcopies_required

    def to_json(self) -> dict[str, object]:
        """id, key, the five storage fields by their names, live, unreachable, drift."""
        fields: dict[str, object] = {
            "id": self.node.id,
            "type": self.node.type,
            "path": None if self.node.output is None else self.node.output.as_posix(),
            "key": None if self.node.key is None else str(self.node.key),
        }
        if self.node.record is not None:
            fields |= self.node.record.to_fields()
        return {**fields, "live": list(self.live), "unreachable": list(self.unreachable), "drift": list(self.drift)}


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a dataset's storage."""

    dataset: str
    remotes: tuple[str, ...]
    objects: tuple[ObjectStatus, ...]

    @property
    def under_replicated(self) -> tuple[ObjectStatus, ...]:
        """Objects with fewer live copies than their class needs."""
        return tuple(entry for entry in self.objects if not entry.safe)

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Remotes that could not be asked for at least one object."""
        return tuple(dict.fromkeys(name for entry in self.objects for name in entry.unreachable))

    def to_json(self) -> dict[str, object]:
        return {
            "dataset": self.dataset,
            "remotes": list(self.remotes),
            "objects": [entry.to_json() for entry in self.objects],
            "under-replicated": [entry.node.id for entry in self.under_replicated],
        }


async def look(graph: GlimmerGraph) -> Status:
    """Ask every durable remote about every node of the graph.

    Presence only: contents are not read again. A remote that cannot be asked is named, and its
    copies are neither counted as live nor reported as lost.
    """
    nodes = list(graph.nodes())
    keys = list(dict.fromkeys(node.key for node in nodes if node.key is not None))
    present: dict[str, dict[annex.Key, bool] | None] = {}
    for place, remote in graph.archive.remotes:
        try:
            answers = await annex.has_many(remote, keys)
            present[place.name] = dict(zip(keys, answers, strict=True))
        except annex.AnnexError:
            present[place.name] = None
    names = tuple(present)
    return Status(str(graph.root), names, tuple(_compare(node, names, present) for node in nodes))


def _compare(node: GlimmerNode, names: Sequence[str], present: dict[str, dict[annex.Key, bool] | None]) -> ObjectStatus:
    if node.key is None:
        return ObjectStatus(node, (), (), ("never archived",))
    unreachable = tuple(name for name in names if present[name] is None)
    live = tuple(name for name in names if (present[name] or {}).get(node.key, False))
    recorded = {place.remote for place in node.stored_at}
    drift = [f"recorded at {name}, not there" for name in sorted(recorded - set(live) - set(unreachable))]
    drift += [f"at {name}, not recorded" for name in live if name not in recorded]
    return ObjectStatus(node, live, unreachable, tuple(drift))
