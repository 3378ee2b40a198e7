"""What the nodes say, what the location log says, and what is really there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import anyio

import annexpy as annex
from glimmer_store.attest import Attestation, Attestations, Verdict
from glimmer_store.capacity import with_capacity
from glimmer_store.graph import GlimmerGraph, GlimmerNode
from glimmer_store.nodes import Unreadable
from glimmer_store.policy import StorageClass
from glimmer_store.remedies import matters, of_unreadable
from glimmer_store.status import Cell, Event, ObjectStatus, Place, Proof, Report, Tier, class_of
from glimmer_store.verify import keys_of

__all__ = ["Known", "assemble", "look"]

_METHODS = {
    "stream": "hash compared while it was stored",
    "peer": "hash told by the holder on a challenge",
    "reread": "read again and hash compared",
}


@dataclass(frozen=True, slots=True)
class Known:
    """What was found out of the keys of a graph.

    Attributes:
        present: Place → key → it is there; None for a place that could not be asked. Places that are not in it
            were not asked.
        where: Key → what the location log says.
        history: Key → when copies came and went, the newest first.
        proofs: Key → place → why its copy is believed in.
    """

    present: Mapping[str, Mapping[annex.Key, bool] | None] = field(default_factory=dict)
    where: Mapping[annex.Key, annex.Whereis] = field(default_factory=dict)
    history: Mapping[annex.Key, tuple[Event, ...]] = field(default_factory=dict)
    proofs: Mapping[annex.Key, Mapping[str, Proof]] = field(default_factory=dict)


async def look(
    graph: GlimmerGraph,
    *,
    full: bool = True,
    only: Iterable[GlimmerNode] | None = None,
    without: Collection[str] = (),
) -> Report:
    """Ask every durable remote about every node of the graph, all at once.

    Presence only: contents are not read again. A remote that cannot be asked is named, and its
    copies are neither counted as live nor reported as lost. A copy that was found bad is not counted.

    Args:
        graph: Open. A node that cannot be read is a finding of its own, and nothing is known of its copies.
        full: Read the whole location log, its history and all proofs as well: capacities, when each copy came and
            went, and who looked at it.
        only: These nodes instead of all.
        without: Names of durable remotes that are not asked and do not count.
    """
    scanned = list(graph.scan() if only is None else only)
    nodes = [one for one in scanned if isinstance(one, GlimmerNode)]
    unreadable = tuple(of_unreadable(one, graph.root) for one in scanned if isinstance(one, Unreadable))
    parts = {node.key: _parts(graph, node) for node in nodes if node.key is not None}
    keys = list(dict.fromkeys(key for keys in parts.values() for key in keys))
    archive = graph.archive
    stores = [(durable, remote, Tier.BARE) for durable, remote in archive.remotes]
    stores += [(adjunct, remote, Tier.ADJUNCT) for adjunct, remote in archive.adjuncts.items()]
    asked = [(Place(d.name, d.uuid, tier, d.url), remote) for d, remote, tier in stores if d.name not in without]
    present: dict[str, Mapping[annex.Key, bool] | None] = {}
    errors: dict[str, str] = {}

    async def ask(place: Place, remote: annex.Remote) -> None:
        try:
            there = dict(zip(keys, await annex.has_many(remote, keys), strict=True))
            present[place.name] = {whole: all(there[key] for key in some) for whole, some in parts.items()}
        except annex.AnnexError as error:
            present[place.name], errors[place.name] = None, str(error)

    async with anyio.create_task_group() as group:
        for place, remote in asked:
            group.start_soon(ask, place, remote)
    repository = archive.repository
    where, used = _logged(repository, list(parts), full=full)
    places = [replace(place, error=errors.get(place.name, "")) for place, _ in asked]
    known = {place.uuid for place in places}
    for adjunct in archive.config.adjuncts:  # one that cannot even be opened: a setting, or credentials
        if adjunct.uuid not in known and adjunct.name not in without:
            tier = Tier.BARE if adjunct.counts else Tier.ADJUNCT
            error = archive.unusable.get(adjunct.name, "cannot be opened")
            places.append(Place(adjunct.name, adjunct.uuid, tier, adjunct.place.url, error))
            present[adjunct.name] = None
    places.sort(key=lambda place: place.tier is not Tier.BARE)
    proofs = _proofs(graph.root, parts if full else _doubtful(nodes, places, present, where, parts), places)
    places += _others(repository, {place.uuid for place in places}, where.values())
    if full:
        places = await with_capacity(repository, places, used)
    history = _history(repository, list(parts), places) if full else {}
    known_now = Known(present, where, history, proofs)
    report = assemble(graph.root, archive.config.numcopies, nodes, places, known_now)
    return replace(report, general=(*report.general, *unreadable))


def _parts(graph: GlimmerGraph, node: GlimmerNode) -> list[annex.Key]:
    """The keys that a copy of *node* has to have: of a folder, those of its files as well."""
    assert node.key is not None
    return keys_of(graph.root, node) if node.key.name.endswith(b".tree") else [node.key]


def _doubtful(
    nodes: Iterable[GlimmerNode],
    places: Iterable[Place],
    present: Mapping[str, Mapping[annex.Key, bool] | None],
    where: Mapping[annex.Key, annex.Whereis],
    parts: Mapping[annex.Key, list[annex.Key]],
) -> dict[annex.Key, list[annex.Key]]:
    """Those that are in a place which the node or the location log does not name: were they found bad there?"""
    doubtful = {}
    for node in nodes:
        if node.key is None:
            continue
        found = where.get(node.key)
        logged = set() if found is None else {place.uuid for place in (*found.locations, *found.untrusted)}
        said = logged & {place.uuid for place in node.stored_at}
        if any(place.uuid not in said and (present[place.name] or {}).get(node.key) for place in places):
            doubtful[node.key] = parts[node.key]
    return doubtful


def _proofs(
    root: Path, parts: Mapping[annex.Key, list[annex.Key]], places: Sequence[Place]
) -> dict[annex.Key, dict[str, Proof]]:
    """Of each copy the proof that counts; of a folder the oldest, or one that found something bad."""
    known = Attestations(root).newest_many({key for keys in parts.values() for key in keys})
    proofs: dict[annex.Key, dict[str, Proof]] = {}
    for whole, keys in parts.items():
        newest = [known[key] for key in keys]
        for place in places:
            ours = [one[place.uuid] for one in newest if place.uuid in one]
            bad = [one for one in ours if one.verdict is not Verdict.GOOD]
            if bad or len(ours) == len(keys):
                proofs.setdefault(whole, {})[place.name] = _proof(min(bad or ours, key=lambda one: one.time))
    return proofs


def _proof(one: Attestation) -> Proof:
    when = datetime.fromisoformat(one.time)
    return Proof(
        when, _METHODS.get(one.method, one.method), f"{one.signer[:8]} on {one.host}", one.verdict is Verdict.GOOD
    )


def assemble(
    root: Path,
    numcopies: Mapping[StorageClass, int],
    nodes: Iterable[GlimmerNode],
    places: Sequence[Place],
    known: Known,
) -> Report:
    """The report that follows from what is known; nobody is asked."""
    objects = []
    for node in nodes:
        required = node.record.numcopies_required if node.record is not None else 0
        needed = max(required, numcopies[class_of(node)])
        entry = _compare(node, needed, places, known)
        objects.append(replace(entry, findings=matters(entry, places, root)))
    return Report(str(root), tuple(places), tuple(objects))


@dataclass(frozen=True, slots=True)
class _At:
    """What is known of one key at one place.

    Attributes:
        asked: Somebody asked the place.
        there: It is there now; None where the place gave no answer.
        recorded, logged: It is there by the node, and by the location log.
        proof: Why it is believed to be there.
    """

    place: Place
    asked: bool
    there: bool | None
    recorded: bool
    logged: bool
    proof: Proof | None

    @property
    def bad(self) -> bool:
        return self.proof is not None and not self.proof.good and bool(self.there)

    @property
    def durable(self) -> bool:
        return self.place.tier is Tier.BARE

    def cell(self, now: datetime, *, short: bool) -> Cell:
        """How it is shown; *short*: there are fewer copies than there must be."""
        somewhere_said = self.recorded or self.logged
        if not self.asked:
            return Cell.CLAIMED if self.logged else Cell.ABSENT
        if self.there is None:
            return Cell.UNREACHABLE if somewhere_said else Cell.UNKNOWN
        if self.bad:
            return Cell.BAD
        if self.there:
            return Cell.PROVEN if self.proof is not None and self.proof.fresh(now) else Cell.THERE
        if somewhere_said:
            return Cell.LOST
        return Cell.MISSING if self.durable and short else Cell.ABSENT

    def drift(self) -> str:
        """How it differs from what is recorded; "" where that cannot be said, or it does not."""
        if not self.asked or self.there is None:
            return ""
        if self.bad:
            return f"at {self.place.name}, found bad"
        if not self.there:
            return f"recorded at {self.place.name}, not there" if self.recorded or self.logged else ""
        if not (self.recorded if self.durable else self.logged):
            return f"at {self.place.name}, not recorded"
        return "" if self.logged else f"at {self.place.name}, not in the location log"


def _compare(node: GlimmerNode, needed: int, places: Sequence[Place], known: Known) -> ObjectStatus:
    """One node against everything that is known of its key."""
    if node.key is None:
        return ObjectStatus(node, needed, drift=("never archived",), cells=(Cell.MISSING,) * len(places))
    found = known.where.get(node.key)
    logged = () if found is None else tuple(place.uuid for place in found.locations if not place.cluster)
    untrusted = () if found is None else tuple(place.uuid for place in found.untrusted if not place.cluster)
    recorded = {place.uuid for place in node.stored_at}
    proofs = known.proofs.get(node.key, {})
    if not proofs and node.record is not None and node.record.verified:
        proofs = {place.remote: Proof() for place in node.stored_at}
    seen = []
    for place in places:
        answers = known.present.get(place.name, {})
        there = None if answers is None else answers.get(node.key, False)
        in_log = place.uuid in logged or place.uuid in untrusted
        asked, proof = place.name in known.present, proofs.get(place.name)
        seen.append(_At(place, asked, there, place.uuid in recorded, in_log, proof))
    live = tuple(at.place.name for at in seen if at.durable and at.there and not at.bad)
    now, short = datetime.now(UTC), len(live) < needed
    cells = tuple(at.cell(now, short=short) for at in seen)
    durable = [(at, cell) for at, cell in zip(seen, cells, strict=True) if at.durable]
    names = {place.name for place in places}
    gone = [f"recorded at {place.remote}, which is not set up" for place in node.stored_at if place.remote not in names]
    return ObjectStatus(
        node,
        needed,
        live,
        unreachable=tuple(at.place.name for at, _ in durable if at.there is None),
        hoped=sum(cell is Cell.UNREACHABLE for _, cell in durable),
        unproven=tuple(at.place.name for at, cell in durable if cell is Cell.THERE),
        drift=tuple(sorted([*filter(None, (at.drift() for at in seen)), *gone])),
        adjuncts=tuple(at.place.name for at in seen if at.place.tier is Tier.ADJUNCT and at.there),
        logged=logged,
        untrusted=untrusted,
        proofs=proofs,
        cells=cells,
        history=known.history.get(node.key, ()),
    )


# -- the location log --


def _logged(
    repository: annex.Repository, keys: Sequence[annex.Key], *, full: bool
) -> tuple[dict[annex.Key, annex.Whereis], dict[annex.UUID, int]]:
    """Where each of *keys* is, and with *full* the bytes that each repository holds."""
    if not full:
        return {found.key: found for found in annex.whereis_many(repository, keys)}, {}
    wanted, where, used = set(keys), dict[annex.Key, annex.Whereis](), dict[annex.UUID, int]()
    for found in annex.whereis_all(repository):
        if found.key in wanted:
            where[found.key] = found
        for place in (*found.locations, *found.untrusted):
            used[place.uuid] = used.get(place.uuid, 0) + (found.key.size or 0)
    return where, used


def _others(repository: annex.Repository, known: set[annex.UUID], where: Iterable[annex.Whereis]) -> list[Place]:
    """Repositories that only the location log names."""
    seen = {
        place.uuid: place.description
        for found in where
        for place in (*found.locations, *found.untrusted)
        if place.uuid not in known and not place.cluster
    }
    return [
        Place("here" if uuid == repository.uuid else description or uuid, uuid, Tier.OTHER)
        for uuid, description in sorted(seen.items())
    ]


def _history(
    repository: annex.Repository, keys: Sequence[annex.Key], places: Iterable[Place]
) -> dict[annex.Key, tuple[Event, ...]]:
    names = {place.uuid: place.name for place in places}
    events: dict[annex.Key, list[Event]] = {key: [] for key in keys}
    for news in annex.log(repository, keys):
        when = datetime.fromtimestamp(news.seconds, UTC)
        got, lost = (tuple(names.get(uuid, uuid) for uuid in uuids) for uuids in (news.got, news.lost))
        events[news.key].append(Event(when, got, lost))
    return {key: tuple(told) for key, told in events.items()}
