"""Run a job from here: workers on this machine, the registrar beside them, and the count in the end.

Any number of machines may run one job at once: shards are leased, and one of them is the registrar at a time.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio

import annexpy as annex
from glimmer_store.jobs.closing import close_job
from glimmer_store.jobs.control import BY_OPERATOR
from glimmer_store.jobs.launch.base import Launched, Launcher, launch
from glimmer_store.jobs.launch.local import LocalLauncher
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.registrar import Registered, register, registering
from glimmer_store.jobs.states import DONE, FailureKind, JobState, State
from glimmer_store.jobs.warming import warming
from glimmer_store.jobs.waterfall import JobLog

__all__ = ["Ran", "count", "run_job", "unplanned"]

_LOOK = 0.5
"""Seconds between two looks of the registrar."""


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


async def run_job(folder: Path, *, workers: int | None = None, launcher: Launcher | None = None) -> Ran:
    """Work on a job until nothing is left that can be done, and register what was proven.

    Args:
        folder: Of the job.
        workers: Processes on this machine; by default what the job says, else as many as help.
        launcher: What brings workers to machines, instead of *workers* processes on this one.

    Raises:
        JobError: There is no such job, or the launcher cannot be used.
        AnnexError: The dataset could not be written to.
    """
    ledger = Ledger.open(folder)
    JobLog(ledger.folder).say(f"{ledger.spec.type} started")
    full = [uuid for uuid, why in ledger.held().items() if not why.startswith(BY_OPERATOR)]
    ledger.free(*full)  # there may be space again: the first put tells
    number = workers or ledger.spec.planned_limits.workers or _usual(ledger)
    ran = Ran(ledger.spec.id, ledger.folder, ledger.spec.drains)
    failed: list[annex.AnnexError] = []
    async with registering(ledger, wait=False) as registrar, warming(ledger, at_work=registrar is not None):
        alive = anyio.Event()
        async with anyio.create_task_group() as group:

            async def work() -> None:
                try:
                    ran.workers += await launch(ledger.folder, launcher or LocalLauncher(number))
                except annex.AnnexError as error:  # what is proven is registered before it is told
                    failed.append(error)
                alive.set()

            group.start_soon(work)
            while not alive.is_set():
                if registrar is not None:
                    await registrar.look()
                with anyio.move_on_after(_LOOK):
                    await alive.wait()
        if registrar is not None:
            await registrar.look(to_the_end=True)
            ran.registered = registrar.done
    if registrar is None:  # another coordinator's, which may have died meanwhile
        ran.registered = await register(folder)
    if failed:
        raise failed[0]
    ran.states, ran.failures = count(ledger)
    ran.missing, ran.held = unplanned(ledger), dict(ledger.held())
    await close_job(ledger, ran.state, ran.to_json())
    return ran


def _usual(ledger: Ledger) -> int:
    """Two where contents are written by the worker itself; over a wire one keeps all its connections busy."""
    return 2 if any(os.path.isdir(place.url) for place in ledger.spec.dests) else 1


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
