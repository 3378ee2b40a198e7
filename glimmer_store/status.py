"""The state of a dataset's storage as values: places, objects, proofs and what is not as it should be.

A durable copy is one in a bare git and annex repository that tracks the full history. Object-only stores are
shown and counted apart; so are repositories that only the location log names, which are not asked.
``report.look`` makes these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from html import escape

import annexpy as annex
from glimmer_store.graph import GlimmerNode
from glimmer_store.policy import StorageClass

__all__ = [
    "STALE",
    "Cell",
    "Event",
    "Matter",
    "ObjectStatus",
    "Place",
    "Proof",
    "Report",
    "State",
    "Tier",
    "as_text",
    "class_of",
]

STALE = timedelta(days=30)
"""A proof that is older no longer counts as fresh."""
_IN_NOTEBOOK = 20
"""Objects that a notebook shows."""


class Tier(Enum):
    """What kind of copy a place can hold, in the order in which they are shown."""

    BARE = "durable"
    ADJUNCT = "adjunct"
    OTHER = "other"


class State(Enum):
    """What is known of an object's copies.

    ``UNREACHABLE``: there may be enough of them, when the places that could not be asked still have theirs.
    """

    SAFE = "safe"
    AT_RISK = "at risk"
    UNREACHABLE = "unreachable"


class Cell(Enum):
    """One object in one place: a symbol, and what it means."""

    PROVEN = ("✓", "there, proven")
    THERE = ("○", "there, not proven lately")
    LOST = ("✗", "recorded, not there")
    BAD = ("!", "there, found bad")
    MISSING = ("+", "not there, needed")
    ABSENT = ("·", "not there, not needed")
    UNREACHABLE = ("?", "recorded, cannot be asked")
    UNKNOWN = ("–", "cannot be asked")
    CLAIMED = ("~", "by the location log, not asked")

    def __init__(self, symbol: str, meaning: str) -> None:
        self.symbol, self.meaning = symbol, meaning


@dataclass(frozen=True, slots=True)
class Place:
    """A repository or store that may hold contents.

    Attributes:
        name, uuid, tier: Who it is; for ``OTHER`` the name is its description.
        url: How it is reached; empty when it is not.
        error: Why it could not be asked; empty when it answered or was not asked.
        used: Bytes that it holds by the location log.
        free: Bytes that still fit; None: nobody says. See ``capacity``.
        free_by: What that is known by: ``disk``, ``maxsize`` or ``quota``.
        maxsize: Bytes it is to hold at most (``git annex maxsize``).
    """

    name: str
    uuid: annex.UUID
    tier: Tier
    url: str = ""
    error: str = ""
    used: int | None = None
    free: int | None = None
    free_by: str = ""
    maxsize: int | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """Why a copy is believed in: its content was read and compared with its key.

    Attributes:
        when: None when it was not noted.
        how, who: Method and signer, in words.
        good: False where the content was found bad or missing.
    """

    when: datetime | None = None
    how: str = "by the node"
    who: str = ""
    good: bool = True

    @property
    def words(self) -> str:
        """What was found, how, and by whom."""
        said = self.how if self.good else f"found bad, {self.how}"
        return f"{said}, by {self.who}" if self.who else said

    def fresh(self, now: datetime) -> bool:
        """It is not older than ``STALE``; one without a time counts as fresh."""
        return self.good and (self.when is None or now - self.when <= STALE)


@dataclass(frozen=True, slots=True)
class Event:
    """Places that got or lost an object, by name, as the history of the git-annex branch has it."""

    when: datetime
    got: tuple[str, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matter:
    """Something that is not as it should be, and the command that mends it.

    Attributes:
        kind: ``copies``, ``drift``, ``unverified``, ``unreachable``, ``policy``, or ``graph`` for what cannot be read.
        subject: The id of a node, the name of a place, or a file.
        text: What is the matter.
        command: A line for a shell; empty when only people can help.
    """

    kind: str
    subject: str
    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class ObjectStatus:
    """One archived output.

    Attributes:
        node: The node, with what it records.
        needed: Copies that it must have: what the node asks for, and no less than its class does.
        live: Names of the durable remotes that were asked and have it now.
        unreachable: Names of those that could not be asked.
        hoped: How many of those have it by the node or the location log.
        unproven: Names of the durable remotes that have it, without a fresh proof.
        drift: Sentences on how recorded and live differ; empty when they agree.
        adjuncts: Names of the object-only stores that have it now; no durable copies.
        logged: UUIDs of the repositories that have it by the location log, without the untrusted, as ``git annex
            whereis`` lists them.
        untrusted: Those of untrusted repositories.
        proofs: Place → the proof of its copy.
        cells: One for each place of the report.
        history: The newest first.
        findings: What to do about it.
    """

    node: GlimmerNode
    needed: int
    live: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    hoped: int = 0
    unproven: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()
    adjuncts: tuple[str, ...] = ()
    logged: tuple[annex.UUID, ...] = ()
    untrusted: tuple[annex.UUID, ...] = ()
    proofs: Mapping[str, Proof] = field(default_factory=dict)
    cells: tuple[Cell, ...] = ()
    history: tuple[Event, ...] = ()
    findings: tuple[Matter, ...] = ()

    @property
    def state(self) -> State:
        """Whether there are enough copies, as far as could be asked."""
        if self.node.record is not None and len(self.live) >= self.needed:
            return State.SAFE
        if self.hoped and self.node.record is not None and len(self.live) + self.hoped >= self.needed:
            return State.UNREACHABLE
        return State.AT_RISK

    @property
    def safe(self) -> bool:
        """As many live copies as it needs."""
        return self.state is State.SAFE

    @property
    def single(self) -> bool:
        """One copy or none, also if those that could not be asked have theirs."""
        return len(self.live) + self.hoped <= 1

    @property
    def unverified(self) -> bool:
        """Some durable copy that is there has no fresh proof, or the node claims none."""
        return bool(self.unproven) or self.node.record is None or not self.node.record.verified

    @property
    def name(self) -> str:
        """What people know it by: the output, or else the id of its node."""
        return self.node.output.as_posix() if self.node.output else self.node.id

    @property
    def storage_class(self) -> StorageClass:
        """The node's; what its type usually has where it says none."""
        return class_of(self.node)

    def to_json(self) -> dict[str, object]:
        """id, key, the five storage fields by their names, live, unreachable, drift, and the rest."""
        fields: dict[str, object] = {
            "id": self.node.id,
            "type": self.node.type,
            "path": None if self.node.output is None else self.node.output.as_posix(),
            "key": None if self.node.key is None else str(self.node.key),
        }
        if self.node.record is not None:
            fields |= self.node.record.to_fields()
        return {
            **fields,
            "state": self.state.value,
            "needed": self.needed,
            "live": list(self.live),
            "unreachable": list(self.unreachable),
            "drift": list(self.drift),
            "adjuncts": list(self.adjuncts),
            "whereis": list(self.logged),
            "untrusted": list(self.untrusted),
            "proofs": {
                name: {
                    "when": None if proof.when is None else proof.when.isoformat(),
                    "how": proof.how,
                    "who": proof.who,
                }
                for name, proof in self.proofs.items()
            },
            "history": [
                {"when": event.when.isoformat(), "got": list(event.got), "lost": list(event.lost)}
                for event in self.history
            ],
            "findings": [{"kind": found.kind, "text": found.text, "command": found.command} for found in self.findings],
        }


def class_of(node: GlimmerNode) -> StorageClass:
    """The storage class of *node*; acquired data is irreplaceable and a derivative generated where it says none."""
    if node.record is not None:
        return node.record.storage_class
    return StorageClass.GENERATED if node.type == "derivative" else StorageClass.IRREPLACEABLE


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a dataset's storage. In a notebook it shows itself."""

    dataset: str
    places: tuple[Place, ...]
    objects: tuple[ObjectStatus, ...]
    made: datetime = field(default_factory=lambda: datetime.now(UTC))
    general: tuple[Matter, ...] = ()

    @property
    def remotes(self) -> tuple[str, ...]:
        """Names of the durable remotes, in the order of the configuration."""
        return tuple(place.name for place in self.places if place.tier is Tier.BARE)

    @property
    def under_replicated(self) -> tuple[ObjectStatus, ...]:
        """Objects with fewer live copies than they need."""
        return tuple(entry for entry in self.objects if not entry.safe)

    @property
    def unreachable(self) -> tuple[str, ...]:
        """Durable remotes that could not be asked."""
        return tuple(place.name for place in self.places if place.error and place.tier is Tier.BARE)

    @property
    def findings(self) -> tuple[Matter, ...]:
        """Everything that is not as it should be: what is at risk first, then the rest, in order."""
        ordered = sorted(self.objects, key=lambda entry: (entry.state is not State.AT_RISK, entry.safe))
        return (*self.general, *(found for entry in ordered for found in entry.findings))

    @property
    def tiles(self) -> dict[str, int]:
        """The figures on top of every form of the report."""
        states = [entry.state for entry in self.objects]
        return {
            "safe": states.count(State.SAFE),
            "at risk": states.count(State.AT_RISK),
            "one copy": sum(entry.single for entry in self.objects),
            "unverified": sum(entry.unverified for entry in self.objects),
            "unreachable": states.count(State.UNREACHABLE),
            "drift": sum(bool(entry.drift) for entry in self.objects),
        }

    @property
    def exit_code(self) -> int:
        """0 all safe, 3 too few copies, 1 a node cannot be read, 4 a place that may have a copy could not be asked."""
        states = {entry.state for entry in self.objects}
        if State.AT_RISK in states:
            return 3
        if any(found.kind == "graph" for found in self.general):
            return 1
        return 4 if State.UNREACHABLE in states else 0

    def to_json(self) -> dict[str, object]:
        """Everything, as plain values."""
        return {
            "dataset": self.dataset,
            "made": self.made.isoformat(timespec="seconds"),
            "remotes": list(self.remotes),
            "places": [
                {
                    "name": place.name,
                    "uuid": place.uuid,
                    "tier": place.tier.value,
                    "url": place.url,
                    "error": place.error,
                    "used": place.used,
                    "free": place.free,
                    "free-by": place.free_by,
                    "maxsize": place.maxsize,
                }
                for place in self.places
            ],
            "tiles": self.tiles,
            "objects": [entry.to_json() for entry in self.objects],
            "under-replicated": [entry.node.id for entry in self.under_replicated],
            "findings": [
                {"kind": found.kind, "subject": found.subject, "text": found.text, "command": found.command}
                for found in self.findings
            ],
        }

    def _repr_html_(self) -> str:
        """Figures and the matrix of the first objects, with nothing that a notebook would take out."""
        figures = "".join(
            f'<span style="margin-right:1.2em"><b>{count}</b> {escape(name)}</span>'
            for name, count in self.tiles.items()
        )
        first = sorted(self.objects, key=lambda entry: entry.safe)[:_IN_NOTEBOOK]
        head = "".join(f"<th>{escape(place.name)}</th>" for place in self.places)
        rows = "".join(
            f'<tr><td style="text-align:left">{escape(entry.name)}</td><td>{len(entry.live)}/{entry.needed}</td>'
            + "".join(f'<td title="{cell.meaning}">{cell.symbol}</td>' for cell in entry.cells)
            + "</tr>"
            for entry in first
        )
        more = len(self.objects) - len(first)
        return as_text(
            f"<div><p><b>{escape(self.dataset)}</b></p><p>{figures}</p>"
            f"<table><thead><tr><th>object</th><th>copies</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"{f'<p>and {more} more</p>' if more else ''}</div>"
        )


def as_text(html: str) -> str:
    """*html* with a question mark for every byte of a path that is no text."""
    return html.encode("utf-8", "replace").decode()
