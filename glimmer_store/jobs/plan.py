"""Plan a job: find its tasks, tell what they amount to, and freeze them.

Wanted at a destination, less proven there: what the location log says is no proof, so a copy that is only claimed is
planned too, and costs a re-read instead of a transfer.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import annexpy as annex
from glimmer_store.attest import FOLDER, Attestations, Verdict
from glimmer_store.config import CONFIG_NAME
from glimmer_store.jobs.event import Task
from glimmer_store.jobs.leaving import Leaving, leaving
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.places import HERE, known_places, named
from glimmer_store.jobs.shards import into_shards
from glimmer_store.jobs.spec import JobError, JobSpec, JobType
from glimmer_store.policy import StorageClass

__all__ = ["Chosen", "Needs", "Plan", "job_folder", "jobs_folder", "needs_of", "new_job", "plan"]

_PREFIX: Mapping[JobType, str] = {
    "archive": "ar", "backfill": "bf", "verify": "ve", "repair": "re", "drain": "dr",
}  # fmt: skip
_FAST = 0.0005, 400e6
_SLOW = 0.005, 40e6
"""Seconds per key and bytes per second, at best and at worst, when nothing is known yet."""


@dataclass(slots=True)
class Plan:
    """What a job amounts to.

    Attributes:
        keys, size: How many, and how many bytes are known of.
        claimed: Of those, how many the destination is said to have, without a proof.
        proven: Keys that need nothing; of a drain: whose copies elsewhere are proven already.
        sourceless: Keys that no source is known to have; of a drain: that too few others are said to have.
        required: Of a drain: keys that must stay where they are.
        sources, classes: Name → (keys, bytes).
        shards: How many, once frozen.
    """

    keys: int = 0
    size: int = 0
    claimed: int = 0
    proven: int = 0
    sourceless: int = 0
    required: int = 0
    shards: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    source_bytes: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, object]:
        low, high = (self.keys * each + 2 * self.size / rate for each, rate in (_FAST, _SLOW))
        return {
            "keys": self.keys,
            "bytes": self.size,
            "claimed-unverified": self.claimed,
            "already-verified": self.proven,
            "without-source": self.sourceless,
            "required": self.required,
            "shards": self.shards,
            "sources": {n: {"keys": self.sources[n], "bytes": self.source_bytes[n]} for n in sorted(self.sources)},
            "classes": dict(sorted(self.classes.items())),
            "estimated-seconds": [round(low, 1), round(high, 1)],
        }


@dataclass(frozen=True, slots=True)
class Needs:
    """Which nodes need a key, and how much they care."""

    storage_class: str
    nodes: tuple[str, ...]


def jobs_folder(dataset: Path) -> Path:
    """Where the jobs of a dataset are unless somebody says otherwise."""
    with annex.Repository.open(dataset) as repository:
        return Path(repository.git_dir.decode("utf-8", "surrogateescape")) / "glimmer-store" / "jobs"


def job_folder(spec: JobSpec) -> Path:
    """Where this one is."""
    return jobs_folder(Path(spec.dataset)) / spec.id


def new_job(
    dataset: Path, type_: JobType, dests: Sequence[str], *, sources: Sequence[str] = (), **settings: object
) -> JobSpec:
    """A job for repositories by their names.

    Args:
        dataset: Whose objects.
        type_: What kind.
        dests: Where to; what is looked at; for a drain the one that is emptied.
        sources: Where from; none: any other repository that is known, and for an archive this one. For a drain: where
            copies may stay.
        settings: Further fields of ``JobSpec``.

    Raises:
        JobError: A name is not known, or is that of a cluster.
    """
    with annex.Repository.open(dataset) as repository:
        known = known_places(repository)
    if not dests:
        raise JobError("a job needs a destination", remedy="name it with --to")
    to = tuple(named(known, name) for name in dests)
    if type_ == "drain" and len(to) > 1:
        raise JobError("a drain empties one repository", remedy="drain them one after the other")
    if sources or type_ == "archive":
        given = tuple(named(known, name) for name in sources or (HERE,))
    else:
        given = tuple(place for place in known if place not in to)
    now = datetime.now(UTC)
    id_ = f"{_PREFIX[type_]}-{now:%Y%m%d}-{secrets.token_hex(3)}"
    return JobSpec(id_, type_, str(dataset.resolve()), to, given, **settings)  # type: ignore[arg-type]  # named by the caller


async def needs_of(dataset: Path) -> dict[str, Needs]:
    """Key → who needs it, for every node of the dataset that has been stored; empty where there is no graph."""
    if not (dataset / CONFIG_NAME).exists():
        return {}
    from glimmer_store.graph import GlimmerGraph
    from glimmer_store.verify import keys_of

    found: dict[str, Needs] = {}
    async with GlimmerGraph.open(dataset) as graph:
        for node in graph.nodes():
            if node.key is None or node.record is None:
                continue
            own = node.record.storage_class.value
            for key in map(str, keys_of(graph.root, node)):
                before = found.get(key)
                nodes = (node.id,) if before is None else (*before.nodes, node.id)
                strict = own if before is None else min(own, before.storage_class, key=_strictness)
                found[key] = Needs(strict, nodes)
    return found


def _strictness(storage_class: str) -> int:
    return 0 if storage_class == StorageClass.IRREPLACEABLE.value else 1


async def plan(spec: JobSpec, folder: Path | None = None) -> tuple[Plan, Ledger | None]:
    """Find the tasks of a job.

    Args:
        spec: The job.
        folder: Where to freeze it; None: only tell, nothing is written.

    Raises:
        JobError: There is a job in that folder.
        AnnexError: The dataset cannot be read.
    """
    needs = await needs_of(Path(spec.dataset))
    amount = Plan()
    async with AsyncExitStack() as stack:
        rules = await stack.enter_async_context(leaving(spec)) if spec.drains else None
        repository = annex.Repository.open(spec.dataset)
        stack.callback(repository.close)
        shards = into_shards(_tasks(spec, repository, needs, amount, rules))
        if folder is None:
            amount.shards = sum(1 for _ in shards)
            return amount, None
        ledger = Ledger.create(folder, spec, shards)
        amount.shards = len(ledger.shards())
        return amount, ledger


def _tasks(
    spec: JobSpec, repository: annex.Repository, needs: Mapping[str, Needs], amount: Plan, rules: Leaving | None
) -> Iterator[tuple[int, Task, int]]:
    places = {place.uuid: place.name for place in spec.sources}
    order = {place.uuid: number for number, place in enumerate(spec.sources)}
    chosen = Chosen(spec, repository, amount)
    nothing = Needs("", ())
    for where in annex.whereis_all(repository):
        key, text = where.key, str(where.key)
        having = {location.uuid for location in (*where.locations, *where.untrusted) if not location.cluster}
        needed = needs.get(text, nothing)
        if spec.select.storage_class not in ("", needed.storage_class):
            continue
        if spec.select.nodes and not set(spec.select.nodes) & set(needed.nodes):
            continue
        for number, place in enumerate(spec.dests):
            if not chosen.wanted(place.uuid, key, having):
                continue
            sources = sorted((uuid for uuid in having if uuid in places and uuid != place.uuid), key=order.__getitem__)
            amount.keys += 1
            amount.size += key.size or 0
            amount.claimed += place.uuid in having and rules is None
            amount.classes[needed.storage_class or "none"] += 1
            if sources:
                amount.sources[places[sources[0]]] += 1
                amount.source_bytes[places[sources[0]]] += key.size or 0
            elif spec.copies:
                amount.sourceless += 1
            task = Task(text, key.size, needed.storage_class, needed.nodes, tuple(sources), place.uuid)
            if rules is not None:
                _foretell(rules, task, key, amount)
            yield number, task, len(having - {place.uuid})


def _foretell(rules: Leaving, task: Task, key: annex.Key, amount: Plan) -> None:
    """Whether a drop would be refused by what is known now."""
    try:
        needed = rules.copies(task).needed
    except annex.RequiredContent:
        amount.required += 1
    else:
        amount.sourceless += len(rules.recorded(key)) < needed
        amount.proven += len(rules.proven(task)) >= needed


class Chosen:
    """Says which keys a destination is to get, or of other jobs: which of its keys are looked at."""

    def __init__(self, spec: JobSpec, repository: annex.Repository, amount: Plan) -> None:
        self._spec, self._amount = spec, amount
        root = Path(repository.path)
        self._attested = Attestations(root) if (root / FOLDER).exists() else None
        self._since = 0.0 if not spec.select.max_age else time.time() - spec.select.max_age
        asks = spec.select.wanted and spec.copies and _any_expression(repository)
        self._wanted = annex.Wanted(repository) if asks else None

    def wanted(self, dest: annex.UUID, key: annex.Key, having: set[annex.UUID]) -> bool:
        there = dest in having
        match self._spec.type:
            case "drain":
                return there
            case "verify" | "repair":
                if there and self._since and self._proven(dest, key, self._since):
                    self._amount.proven += 1
                    return False
                return there
            case _:
                if there and self._proven(dest, key, 0.0):
                    self._amount.proven += 1
                    return False
                return self._wanted is None or self._wanted.wants(dest, key, holders=having)

    def _proven(self, dest: annex.UUID, key: annex.Key, since: float) -> bool:
        if self._attested is None:
            return False
        newest = self._attested.newest(key).get(dest)
        if newest is None or newest.verdict is not Verdict.GOOD:
            return False
        return not since or datetime.fromisoformat(newest.time).timestamp() >= since


def _any_expression(repository: annex.Repository) -> bool:
    """Some repository has preferred or required content; reading each key's facts costs, and mostly none has."""
    return any(repository.branch.read(path) for path in (b"preferred-content.log", b"required-content.log"))
