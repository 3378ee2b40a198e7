"""Explain: the proof of one output in full. Which copies count and why, which do not, what is missing, what to run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from glimmer_store.attest import Attestations
from glimmer_store.errors import GraphError, shell_line
from glimmer_store.graph import GlimmerGraph, GlimmerNode
from glimmer_store.report import look
from glimmer_store.report_text import human_size
from glimmer_store.status import Cell, ObjectStatus, Place, Report, State, Tier
from glimmer_store.verify import keys_of

__all__ = ["Explained", "explain", "find", "receipts"]


@dataclass(frozen=True, slots=True)
class Explained:
    """The report on one output alone, to be told in sentences."""

    report: Report

    @property
    def entry(self) -> ObjectStatus:
        return self.report.objects[0]

    def lines(self) -> list[str]:
        """For people, a sentence a line."""
        return [*self._head(), "", *self._counted(), "", *self._verdict(), *self._history()]

    def _head(self) -> Iterator[str]:
        node = self.entry.node
        yield f"{self.entry.name}: {self.entry.state.value}"
        yield f"  node      {node.id}, a {node.type} in {node.file}"
        yield f"  key       {node.key if node.key is not None else 'none: it was never archived'}"
        if node.key is not None and node.key.size is not None:
            yield f"  size      {human_size(node.key.size)} ({node.key.size} bytes)"
        yield f"  class     {self.entry.storage_class.value}: {self.entry.needed} copies are needed"
        if node.record is not None:
            said = ", ".join(place.remote for place in node.stored_at) or "nobody"
            proven = "proven" if node.record.verified else "not all proven"
            yield f"  the node  says: {node.copies} copies at {said}, {proven}"

    def _counted(self) -> Iterator[str]:
        places = list(zip(self.report.places, self.entry.cells, strict=True))
        for place, cell in places:
            counts = place.name in self.entry.live
            yield f"{'counted' if counts else 'not counted':12} {place.name}: {'; '.join(self._reasons(place, cell))}"

    def _reasons(self, place: Place, cell: Cell) -> Iterator[str]:
        entry = self.entry
        if place.tier is Tier.ADJUNCT:
            yield "an object store, which keeps no history: no durable copy"
        if place.tier is Tier.OTHER:
            yield "not one of the durable remotes, and not asked"
        recorded = place.uuid in {known.uuid for known in entry.node.stored_at}
        logged = place.uuid in (*entry.logged, *entry.untrusted)
        match cell:
            case Cell.PROVEN | Cell.THERE | Cell.BAD:
                yield "it answered that it has it now"
            case Cell.UNREACHABLE | Cell.UNKNOWN:
                yield f"it cannot be asked ({place.error})"
            case Cell.LOST | Cell.MISSING | Cell.ABSENT if place.tier is not Tier.OTHER:
                yield "it answered that it does not have it"
            case _:
                pass
        yield f"the node {'names' if recorded else 'does not name'} it"
        yield f"the location log {'says' if logged else 'does not say'} so"
        proof = entry.proofs.get(place.name)
        if proof is None:
            yield "nobody has signed a proof"
        elif proof.when is None:
            yield "proven, says the node, without a signed proof"
        else:
            fresh = "" if proof.fresh(self.report.made) or not proof.good else ", too long ago"
            yield f"{proof.words}, {_time(proof.when)}{fresh}"

    def _verdict(self) -> Iterator[str]:
        entry = self.entry
        missing = entry.needed - len(entry.live)
        if entry.state is State.SAFE:
            yield f"safe: {len(entry.live)} copies count, {entry.needed} are needed"
        else:
            yield f"{missing} more {'copy is' if missing == 1 else 'copies are'} needed"
        for matter in entry.findings:
            yield f"{matter.kind}: {matter.text}"
            if matter.command and matter.kind != "unreachable":  # which is to come here
                yield f"  remedy: {matter.command}"
        for name in entry.unreachable if entry.state is State.UNREACHABLE else ():
            yield f"  remedy: try again when {name} answers"

    def _history(self) -> Iterator[str]:
        if self.entry.history:
            yield ""
        for event in self.entry.history:
            said = [f"at {', '.join(event.got)}"] if event.got else []
            said += [f"gone from {', '.join(event.lost)}"] if event.lost else []
            yield f"{_time(event.when)}  {'; '.join(said)}"


def _time(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"


async def explain(graph: GlimmerGraph, name: str) -> list[Explained]:
    """Ask every place about what *name* means: the id of a node, its file, its output, or a key.

    Raises:
        GraphError: Nothing of that name.
    """
    return [Explained(await look(graph, only=[node])) for node in find(graph, name)]


def receipts(graph: GlimmerGraph, name: str) -> list[bytes]:
    """The signed lines that count about what *name* means, each of one copy alone.

    Raises:
        GraphError: Nothing of that name.
    """
    known = Attestations(graph.root)
    keys = dict.fromkeys(key for node in find(graph, name) if node.key is not None for key in keys_of(graph.root, node))
    return [line for key in keys for line in known.receipts(key)]


def find(graph: GlimmerGraph, name: str) -> list[GlimmerNode]:
    """The nodes that *name* means; several where outputs have the same content.

    Raises:
        GraphError: None.
    """
    try:
        return [graph.node(name)]
    except GraphError:
        nodes = list(graph.nodes())
    path = _from_top(name, graph.root)
    found = [node for node in nodes if str(node.key) == name or (node.output is not None and node.output == path)]
    if not found:
        raise GraphError(
            f"{name}: no node, output or key of {graph.root}",
            remedy=shell_line("glimmer-store", "report", "-C", graph.root),
        )
    return found


def _from_top(name: str, root: Path) -> Path:
    """A path as the node has it: from the top of the dataset, wherever one stands."""
    absolute = Path(name).absolute()
    return absolute.relative_to(root) if absolute.is_relative_to(root) else Path(name)
