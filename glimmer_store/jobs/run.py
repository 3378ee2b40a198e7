"""Run a job from here: workers on this machine, the registrar beside them, and the count in the end.

Any number of machines may run one job at once: shards are leased, and one of them is the registrar at a time.
"""

from __future__ import annotations

import os
from pathlib import Path

import anyio

import annexpy as annex
from glimmer_store.jobs.closing import close_job
from glimmer_store.jobs.control import BY_OPERATOR
from glimmer_store.jobs.launch.base import Launcher, launch
from glimmer_store.jobs.launch.local import LocalLauncher
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.ran import Ran, Registered, count, unplanned
from glimmer_store.jobs.waterfall import JobLog

__all__ = ["run_job"]

_LOOK = 0.5
"""Seconds between two looks of the registrar."""
_START = 0.01
"""Seconds that a launcher gets to start processes, before this one is busy with getting ready to register."""


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
    ended = anyio.Event()

    async def work() -> None:
        try:
            ran.workers += await launch(ledger.folder, launcher or LocalLauncher(number))
        except annex.AnnexError as error:  # what is proven is registered before it is told
            failed.append(error)
        ended.set()

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await anyio.sleep(_START)
        try:
            ran.registered = await _registered(ledger, ended)
        except annex.AnnexError as error:
            failed.insert(0, error)
            group.cancel_scope.cancel()
    if failed:
        raise failed[0]
    ran.states, ran.failures = count(ledger)
    ran.missing, ran.held = unplanned(ledger), dict(ledger.held())
    await close_job(ledger, ran.state, ran.to_json())
    return ran


async def _registered(ledger: Ledger, ended: anyio.Event) -> Registered:
    """Register what is proven until the workers have *ended*, and then the rest; what that amounted to."""
    from glimmer_store.jobs.registrar import register, registering
    from glimmer_store.jobs.warming import warming

    async with registering(ledger, wait=False) as registrar, warming(ledger, at_work=registrar is not None):
        while not ended.is_set():
            if registrar is not None:
                await registrar.look()
            with anyio.move_on_after(_LOOK):
                await ended.wait()
        if registrar is not None:
            await registrar.look(to_the_end=True)
            return registrar.done
    return await register(ledger.folder)  # another coordinator's, which may have died meanwhile


def _usual(ledger: Ledger) -> int:
    """Two where contents are written by the worker itself; over a wire one keeps all its connections busy."""
    return 2 if any(os.path.isdir(place.url) for place in ledger.spec.dests) else 1
