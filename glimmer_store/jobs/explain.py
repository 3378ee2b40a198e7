"""Everything a job knows of one key: where it is, how it got there, what happens next, and what a person can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import annexpy as annex
from glimmer_store.attest import Attestation
from glimmer_store.jobs.advice import next_of, remedy_of
from glimmer_store.jobs.control import ControlFile
from glimmer_store.jobs.event import Event, Folded, Task
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.spec import JobError
from glimmer_store.jobs.states import FailureKind, State

__all__ = ["Explained", "explain", "explained_text"]


@dataclass(frozen=True, slots=True)
class Explained:
    """One task.

    Attributes:
        task: As it was planned.
        shard: Where it is kept.
        folded: Where it is.
        history: Its events, in order.
        proofs: Attestations that the job has about it.
        holder: Worker that has the shard now; empty: nobody.
        stopped: Why nothing moves for it now; empty: it may.
        names: UUID → what people call it.
        job: Type of the job.
    """

    task: Task
    shard: str
    folded: Folded
    history: tuple[Event, ...]
    proofs: tuple[Attestation, ...]
    holder: str
    stopped: str
    names: Mapping[str, str]
    job: str

    @property
    def next(self) -> str:
        """What happens next."""
        return next_of(self.folded.state, self.job)

    @property
    def remedy(self) -> str:
        """What a person can do; empty where nothing is the matter."""
        last = self.folded.last
        if last is None or last.state is not State.FAILED:
            return ""
        return remedy_of(last.kind or FailureKind.TERMINAL)

    def to_json(self) -> dict[str, object]:
        task, last = self.task, self.folded.last
        return {
            "key": task.key,
            "size": task.size,
            "class": task.storage_class,
            "nodes": list(task.nodes),
            "dest": {"uuid": task.dest, "name": self._name(task.dest)},
            "sources": [
                {"uuid": uuid, "name": self._name(uuid), "bad": uuid in self.folded.bad_sources}
                for uuid in task.sources
            ],
            "shard": self.shard,
            "state": self.folded.state,
            "try": self.folded.attempt,
            "error": None if last is None or last.kind is None else {"kind": last.kind, "text": last.text},
            "holder": self.holder,
            "stopped": self.stopped,
            "next": self.next,
            "remedy": self.remedy,
            "history": [
                {"at": _iso(event.time), "state": event.state, "try": event.attempt, "worker": event.worker}
                | {name: value for name, value in _more(event).items() if value}
                for event in self.history
            ],
            "proofs": [
                {"at": one.time, "remote": one.remote, "method": one.method, "verdict": one.verdict.value}
                for one in self.proofs
            ],
        }

    def _name(self, uuid: str) -> str:
        return self.names.get(uuid, uuid)


def _more(event: Event) -> dict[str, object]:
    return {
        "source": event.source, "bytes": event.size, "seconds": event.seconds, "method": event.method,
        "kind": event.kind, "text": event.text,
    }  # fmt: skip


def explain(ledger: Ledger, what: str, *, clock: annex.Clock | None = None) -> list[Explained]:
    """Every task of a key, or of a node by its id.

    Raises:
        JobError: The job has no such task, or its ledger is malformed.
    """
    from glimmer_store.jobs.throttle import Throttle

    throttle = Throttle(ledger.folder, ledger.spec.planned_limits, clock=clock or annex.SystemClock())
    ControlFile(ledger.folder).read()  # a file that is not right is told here, not in a log
    holders = {one.shard: one.worker for one in ledger.holdings() if not one.expired}
    names = {str(place.uuid): place.name for place in (*ledger.spec.sources, *ledger.spec.dests)}
    found = []
    for shard, tasks in _shards_with(ledger, what):
        folded, keys = ledger.fold(shard), {task.key for task in tasks}
        history: dict[str, list[Event]] = {key: [] for key in keys}
        for event in ledger.events(shard):
            if event.key in keys:
                history[event.key].append(event)
        proofs = [one for line in ledger.attestations(shard) for one in line.attestations]
        for task in tasks:
            held = throttle.held(task.dest)
            found.append(
                Explained(
                    task,
                    shard,
                    folded[task.key],
                    tuple(sorted(set(history[task.key]), key=lambda event: (event.attempt, event.time, event.state))),
                    tuple(one for one in proofs if one.key == task.key),
                    holders.get(shard, ""),
                    "" if held is None else str(held),
                    names,
                    ledger.spec.type,
                )
            )
    if not found:
        raise JobError(f"{what}: no task of this job", remedy="give a key as git-annex writes it, or the id of a node")
    return found


def _shards_with(ledger: Ledger, what: str) -> Iterator[tuple[str, list[Task]]]:
    for shard in ledger.shards():
        tasks = [task for task in ledger.tasks(shard) if task.key == what or what in task.nodes]
        if tasks:
            yield shard, tasks


def explained_text(one: Explained) -> str:
    """For people."""
    told = one.to_json()
    word, others = ("at", "elsewhere") if one.job == "drain" else ("→", "sources")
    lines = [f"{one.task.key} {word} {one.names.get(one.task.dest, one.task.dest)}: {one.folded.state}"]
    lines.append(
        f"  class {one.task.storage_class or '–'}, nodes {', '.join(one.task.nodes) or '–'}, shard {one.shard}"
    )
    sources = [
        one.names.get(uuid, uuid) + (" (bad)" if uuid in one.folded.bad_sources else "") for uuid in one.task.sources
    ]
    lines.append(f"  {others}: {', '.join(sources) or 'none'}")
    if one.holder:
        lines.append(f"  held by {one.holder}")
    if one.stopped:
        lines.append(f"  stopped: {one.stopped}")
    for event in one.history:
        more = " ".join(f"{name}={value}" for name, value in _more(event).items() if value and name != "text")
        text = f": {event.text}" if event.text else ""
        lines.append(f"  {_iso(event.time)} try {event.attempt} {event.state} {more}{text}".rstrip())
    lines += [f"  {proof.time} {proof.method} at {proof.remote}: {proof.verdict.value}" for proof in one.proofs]
    lines.append(f"  next: {told['next']}")
    if one.remedy:
        lines.append(f"  remedy: {one.remedy}")
    return "\n".join(lines)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
