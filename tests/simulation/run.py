"""Run schedules: every one in a trio of its own, whose clock jumps and whose scheduler is seeded."""

from __future__ import annotations

import gc
import logging
import time
import traceback
from collections.abc import Callable
from itertools import count
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import trio
from trio._core import _run

import annexpy.repo.durability as durability
import annexpy.server.gateway as gateway
import annexpy.server.kept_locks as keeping
import annexpy.server.wire as server_wire
from annexpy.remote.p2p import P2PRemote
from tests.simulation import jumps
from tests.simulation.world import Report, World, prepare

__all__ = ["install", "run_schedule"]

_BETWEEN = 8
"""Schedules between two collections of garbage."""
_schedules = count(1)


async def _on_this_thread(function: Callable[..., Any], *args: object, **options: object) -> object:
    await anyio.lowlevel.checkpoint()
    return function(*args)


def _one_by_one(jobs: Any) -> None:
    for job in jobs:
        durability._attempt(job)


def _simulated_route(route: Any, repository: Any, *, clock: Any, connections: Any, bypass: Any, **_: object) -> Any:
    process = repository.machine.process
    target = repository.machine.truth.machines[route.uuid]
    return P2PRemote(
        repository.machine.network.dial(process, target),
        uuid=route.uuid,
        name=route.name,
        cost=route.cost,
        clock=clock,
        connections=connections or 4,
        bypass=bypass,
    )


def install() -> None:
    """What a simulated world cannot have: threads, addresses, and a look at every wire each second."""
    anyio.to_thread.run_sync = _on_this_thread  # type: ignore[assignment]
    durability._parallel = _one_by_one
    gateway.connect_route = _simulated_route  # type: ignore[assignment]
    server_wire._LOOK, server_wire._GLANCE, keeping._LOOK = 10.0, 100.0, 50.0  # type: ignore[misc]
    jumps.install()
    _run._r = jumps.SHUFFLER
    _run._hypothesis_plugin_setup()  # sorts the tasks that are ready before it shuffles them
    logging.getLogger("annexpy").setLevel(logging.CRITICAL)
    # When a cycle is collected depends on whatever this process did before: between schedules only.
    gc.collect()
    gc.freeze()
    gc.disable()


def run_schedule(seed: int, *, trace: bool = False, scene: str | None = None) -> Report:
    """One schedule. The same seed gives the same events, in any process with the same PYTHONHASHSEED."""

    async def main() -> Report:
        await prepare()
        return await World(seed, trace=trace, scene=scene).run()

    _run._r.seed(seed)
    began = time.process_time()
    try:
        report: Report = trio.run(main, clock=jumps.JumpingClock())
    except (Exception, BaseExceptionGroup) as error:
        report = Report(seed, [f"the schedule broke: {error!r}"], trace=traceback.format_exception(error))
    if next(_schedules) % _BETWEEN == 0:
        gc.collect()
    report.seconds = time.process_time() - began
    return report
