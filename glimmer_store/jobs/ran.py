"""How a job stands after it was run."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import annexpy as annex
from glimmer_store.jobs.launch.base import Launched
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.states import DONE, FailureKind, JobState, State

__all__ = ["Ran", "Registered", "count", "unplanned"]


@dataclass(slots=True)
class Registered:
    """What was written into the dataset.

    Attributes:
        present, absent: Keys whose copy at a destination, or at a source that turned out to be bad, was recorded so;
            of a drain, what was dropped is absent.
        nodes: Nodes whose storage fields changed.
        behind: Durable remote → why it does not have the history.
    """

    present: int = 0
    absent: int = 0
    nodes: int = 0
    behind: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Ran:
    """How a job stands after it was run.

    Attributes:
        job, folder: Which.
        drains: It empties a repository.
        states: State → tasks.
        failures: Kind → tasks that failed.
        registered: What this run wrote into the dataset.
        missing: Keys that a destination wants and lacks now by the location log, planned or not; after a drain those
            that are still there.
        held: Destinations that nothing goes to at the moment, and why.
        workers: What each worker said.
    """

    job: str
    folder: Path
    drains: bool = False
    states: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    registered: Registered = field(default_factory=Registered)
    missing: int = 0
    held: dict[str, str] = field(default_factory=dict)
    workers: list[Launched] = field(default_factory=list)

    @property
    def state(self) -> JobState:
        if all(State(state) in DONE for state in self.states):
            return JobState.SUCCEEDED
        if any(State(state) not in (*DONE, State.FAILED) for state in self.states):
            return JobState.PROCESSING
        return JobState.FAILED

    def to_json(self) -> dict[str, object]:
        return {
            "job": self.job,
            "folder": str(self.folder),
            "state": self.state,
            "states": dict(self.states),
            "failures": dict(self.failures),
            "registered": {
                "present": self.registered.present,
                "absent": self.registered.absent,
                "nodes": self.registered.nodes,
                "behind": self.registered.behind,
            },
            "left" if self.drains else "missing": self.missing,
            "held": self.held,
            "workers": len(self.workers),
            "lost-workers": sum("lost" in one for one in self.workers),
        }


def count(ledger: Ledger) -> tuple[Counter[str], Counter[str]]:
    """State → tasks, and kind → failed tasks; one shard in memory at a time."""
    states: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for shard in ledger.shards():
        for one in ledger.fold(shard).values():
            states[one.state.value] += 1
            if one.state is State.FAILED and one.last is not None:
                failures[(one.last.kind or FailureKind.TERMINAL).value] += 1
    return states, failures


def unplanned(ledger: Ledger) -> int:
    """Keys that a destination lacks, or after a drain has, by the location log as it is now: this should be 0."""
    spec = ledger.spec
    if spec.type not in ("backfill", "archive", "drain"):
        return 0
    with annex.Repository.open(spec.dataset) as repository:
        missing = 0
        for where in annex.whereis_all(repository):
            having = {location.uuid for location in (*where.locations, *where.untrusted)}
            missing += sum((place.uuid in having) is spec.drains for place in spec.dests)
    return missing
