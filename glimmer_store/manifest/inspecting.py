"""What there is of a manifest: here, in the archive, and how well each is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import annexpy as annex
from glimmer_store.attest import Attestation, Attestations, Verdict
from glimmer_store.graph import GlimmerGraph, GlimmerNode
from glimmer_store.manifest.bundle import Bundle, WorkTree
from glimmer_store.manifest.library import Declared, Project
from glimmer_store.manifest.observing import Observations
from glimmer_store.manifest.standing import Observed, Policy, Standing, standing
from glimmer_store.policy import StorageClass

__all__ = ["Inspection", "Row", "age", "keys_in", "place_of"]


@dataclass(frozen=True, slots=True)
class Row:
    """One address.

    Attributes:
        declared: As the manifest and the cache have it here.
        record: What is stored; None when it was never archived.
        standing: Of what is here.
        observed: The newest measurement of what is here.
        required: Copies that it needs.
        copies: Names of the durable remotes that have it by the location log: claims.
        verified: Those of which a signed proof of every content is good and not too old, from reading it there.
        last_verified: When the oldest of those proofs was made.
        apparent, exclusive: Bytes of its contents, and of those that nothing else has.
        node: Its node.
    """

    declared: Declared
    record: Bundle | None
    standing: Standing
    observed: Observed | None
    required: int = 0
    copies: tuple[str, ...] = ()
    verified: tuple[str, ...] = ()
    last_verified: datetime | None = None
    apparent: int = 0
    exclusive: int = 0
    node: str = ""
    expected: str = ""
    conflict: tuple[str, ...] = field(default=())

    @property
    def only_here(self) -> bool:
        """It is here, and no copy elsewhere is proven."""
        return self.declared.present and not self.verified

    def unverified_for(self, age: timedelta, now: datetime) -> bool:
        """No proof, or one that is older than *age*."""
        return self.last_verified is None or now - self.last_verified > age

    def to_json(self) -> dict[str, object]:
        """As plain values: the library's words for what is here, git-annex's for what is stored."""
        record, observed = self.record, self.observed
        return {
            "name": self.declared.name,
            "address": self.declared.address,
            "present": self.declared.present,
            "location": str(self.declared.path),
            "standing": self.standing.value,
            "expected": self.declared.expected or None,
            "stored": None if record is None else record.digest,
            "observed": None if observed is None else observed.digest or None,
            "observed-at": None if observed is None else observed.when.isoformat(timespec="seconds"),
            "annex-key": None if record is None else record.key,
            "storage-class": None if record is None else record.storage_class,
            "required": self.required,
            "copies": len(self.copies),
            "locations": list(self.copies),
            "verified-copies": len(self.verified),
            "verified-at": list(self.verified),
            "last-verified": None if self.last_verified is None else self.last_verified.isoformat(timespec="seconds"),
            "size": self.apparent,
            "exclusive-size": self.exclusive,
            "node": self.node or None,
            "conflict": list(self.conflict),
        }


class Inspection:
    """Looks at a manifest, its records and their proofs once; nothing is asked of any remote.

    Args:
        graph: Of the dataset.
        project: Its manifest.
        policy: How old a proof, or a measurement, may be.
        now: For tests.
    """

    def __init__(
        self, graph: GlimmerGraph, project: Project, policy: Policy | None = None, *, now: datetime | None = None
    ) -> None:
        self.graph, self.project = graph, project
        self.policy, self.now = policy or Policy(), now or datetime.now(UTC)
        self.records = WorkTree(graph.root)
        self._attestations, self._observations = Attestations(graph.root), Observations(project.root)
        self._nodes = {str(node.key): node for node in graph.nodes() if node.key is not None}
        every = list(self.records.all())
        self._keys = {(record.address, record.key): keys_in(self.records, record) for record in every}
        self.uses: Counter[annex.Key] = Counter(key for keys in self._keys.values() for key in keys)

    def keys(self, record: Bundle) -> list[annex.Key]:
        """Every key that a copy of it has to have."""
        return self._keys[record.address, record.key]

    def node(self, record: Bundle) -> GlimmerNode | None:
        """Its node; None when it was only pushed."""
        return self._nodes.get(record.key)

    def rows(self, names: Collection[str] = ()) -> Iterator[Row]:
        """Datasets, artefacts that are here, and what only the archive has; or what *names* mean.

        Raises:
            ManifestError: A name means nothing here and in the records, or more than one thing.
        """
        entries: dict[str, Declared] = {}
        if names:
            recorded = {record.name: record.address for record in self.records.all()}
            for name in names:
                known = self.project.named(recorded[name]) if name in recorded else None
                one = known or self.project.find(name)
                entries[one.address] = one
        else:
            entries = {one.address: one for one in (*self.project.datasets(), *self.project.artefacts())}
            for record in self.records.all():
                if record.address not in entries and (known := self.project.named(record.address)) is not None:
                    entries[record.address] = known
        for declared in entries.values():
            yield self.row(declared)

    def row(self, declared: Declared) -> Row:
        """One of them."""
        record = self.records.current(declared.address, declared.expected)
        observed = self._observations.of(declared.path) if declared.present else Observed("", self.now)
        expected = (declared.expected,) if declared.expected else ()
        stored = () if record is None else (record.digest, *record.aliases)
        class_ = "irreplaceable" if record is None else record.storage_class
        stale = observed is not None and self.policy.stale(observed, class_, self.now)
        said = standing(expected, stored, observed, stale=stale)
        if record is None:
            return Row(declared, None, said, observed)
        keys = self.keys(record)
        verified, oldest = self.verified(record)
        others = tuple(
            one.digest
            for one in self.records.of(declared.address)
            if declared.kind == "artefact" and one.content != record.content
        )
        node = self.node(record)
        return Row(
            declared,
            record,
            said,
            observed,
            self.required(record),
            self._claimed(keys),
            tuple(verified),
            oldest,
            sum(key.size or 0 for key in self._contents(record, keys)),
            sum(key.size or 0 for key in self._contents(record, keys) if self.uses[key] == 1),
            "" if node is None else node.id,
            declared.expected,
            others,
        )

    def required(self, record: Bundle) -> int:
        """Copies that it needs."""
        node = self.node(record)
        least = self.graph.archive.config.numcopies[StorageClass(record.storage_class)]
        return max(least, 0 if node is None else node.numcopies_required)

    def verified(self, record: Bundle) -> tuple[dict[str, annex.UUID], datetime | None]:
        """Durable remotes with a good proof of every key that is not too old, and when the oldest was made."""
        found: dict[str, annex.UUID] = {}
        oldest: datetime | None = None
        newest = [self._attestations.newest(key) for key in self.keys(record)]
        for place, _ in self.graph.archive.remotes:
            times = [self._good(one.get(str(place.uuid)), record.storage_class) for one in newest]
            known = [time for time in times if time is not None]
            if known and len(known) == len(times):
                found[place.name] = place.uuid
                oldest = min([*known, oldest]) if oldest is not None else min(known)
        return found, oldest

    def due(self, row: Row) -> bool:
        """A copy of it is to be read again: not proven at some durable remote that claims it, stale, or drawn."""
        if row.record is None:
            return False
        unproven = set(row.copies) - set(row.verified)
        oldest = None if row.last_verified is None else Observed(row.record.digest, row.last_verified)
        return bool(unproven) or self.policy.due(row.declared.address, oldest, row.record.storage_class, self.now)

    def _good(self, proof: Attestation | None, storage_class: str) -> datetime | None:
        if proof is None or proof.verdict is not Verdict.GOOD or proof.method == "stream":
            return None  # that a receiver compared the hash says nothing about what it wrote
        when = datetime.fromisoformat(proof.time)
        return None if self.policy.stale(Observed(proof.key, when), storage_class, self.now) else when

    def _claimed(self, keys: Sequence[annex.Key]) -> tuple[str, ...]:
        names: Mapping[annex.UUID, str] = {place.uuid: place.name for place, _ in self.graph.archive.remotes}
        having = set(names)
        for key in keys:
            having &= set(self.graph.archive.repository.branch.locations(key).present)
        return tuple(sorted(names[uuid] for uuid in having))

    @staticmethod
    def _contents(record: Bundle, keys: Sequence[annex.Key]) -> Sequence[annex.Key]:
        """Without the list of a folder: that is ours, and nobody's data."""
        return [key for key in keys if not record.tree or str(key) != record.key]


def keys_in(records: WorkTree, record: Bundle) -> list[annex.Key]:
    """Every key that a copy of it has to have: of a folder, those of its files and that of its list."""
    tree = records.tree(record)
    own = annex.Key.parse(record.key)
    return [own] if tree is None else [*tree.keys, own]


def age(text: str) -> timedelta:
    """``90d``, ``12h`` or ``30m``.

    Raises:
        ValueError: It is none of these.
    """
    units = {"d": "days", "h": "hours", "m": "minutes"}
    if text[-1:] not in units or not text[:-1].isdecimal():
        raise ValueError(f"{text!r}: a number with d, h or m")
    return timedelta(**{units[text[-1]]: int(text[:-1])})


def place_of(declared: Declared) -> Path | None:
    """Where its bytes may be removed: its own place, if it is there and the tool's to remove."""
    own = declared.managed and declared.path.resolve() == declared.target.resolve()
    return declared.target if own and declared.present else None
