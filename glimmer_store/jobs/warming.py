"""What brings contents up while a job runs: looks at the ledger for what was found cold, and writes down what is warm.

One process of a job does that at a time, the one that is also its registrar. Workers never wait for it: they meet a
cold content, write so, and come back when the ledger says that it is warm, or when it should be.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio

import annexpy as annex
from glimmer_store.jobs.cold import ColdTier
from glimmer_store.jobs.cold_place import ConnectedCold
from glimmer_store.jobs.event import Event, Folded, Task
from glimmer_store.jobs.lease import new_worker
from glimmer_store.jobs.ledger import Ledger, Writer
from glimmer_store.jobs.places import Places, connected
from glimmer_store.jobs.states import FailureKind, State
from glimmer_store.jobs.warm import ColdTask, WarmLog, WarmStep, WarmUp

__all__ = ["LOG", "Warmer", "warming"]

LOG = "warm.jsonl"
"""In the folder of a job: what was asked for, and what it cost."""
_SHORTEST, _LONGEST = 1.0, 60.0
"""Seconds between two looks."""
_FEW = 2000
"""Cold contents that are looked at each time: a worker may find more at any moment."""


@asynccontextmanager
async def warming(ledger: Ledger, *, at_work: bool) -> AsyncIterator[None]:
    """As long as this is open, the cold contents that a job needs are brought up.

    Args:
        ledger: The job.
        at_work: This process is the one that may; False: nothing happens.

    Raises:
        ConfigError: The [warm] settings are malformed.
    """
    if not at_work or not any(place.cold for place in ledger.spec.sources):
        yield
        return
    async with connected(ledger.spec) as places:
        with ledger.writer(f"{new_worker()}.warmer") as writer:
            warmer = Warmer.of(ledger, writer, places)
            async with anyio.create_task_group() as group:
                if warmer is not None:
                    group.start_soon(warmer.run)
                try:
                    yield
                finally:
                    group.cancel_scope.cancel()


class Warmer:
    """Made by ``of``."""

    def __init__(self, ledger: Ledger, writer: Writer, tiers: dict[str, ColdTier]) -> None:
        self._ledger, self._writer, self._tiers = ledger, writer, tiers
        self._warm_up = WarmUp(tiers, WarmLog(ledger.folder / LOG), ledger.spec.warm)

    @classmethod
    def of(cls, ledger: Ledger, writer: Writer, places: Places) -> Warmer | None:
        """None for a job without a cold source.

        Raises:
            ConfigError: ``ahead`` of the job is no size.
        """
        cold = (place.uuid for place in ledger.spec.sources if place.cold)
        remotes = {str(uuid): places.remote(uuid) for uuid in cold}
        tiers = {uuid: remote.tier for uuid, remote in remotes.items() if isinstance(remote, ConnectedCold)}
        return cls(ledger, writer, tiers) if tiers else None

    async def run(self) -> None:
        """Look again and again, until this is cancelled."""
        pause = 0.0
        while True:
            await anyio.sleep(pause)
            pause = await self.look()

    async def look(self) -> float:
        """Ask for what is wanted and may be asked for, and write down what changed; seconds until the next look."""
        wanted = {cold: found for shard in self._open() for cold, found in self._cold(shard)}
        step = await self._warm_up.step(wanted)
        self._write(step, wanted)
        if step.requested:
            return 0.0  # how long they take
        if len(wanted) < _FEW or step.wake is None:
            return _SHORTEST
        return max(_SHORTEST, min(_LONGEST, step.wake - time.time()))

    def _open(self) -> Iterable[str]:
        settled = self._ledger.settled()
        return [shard for shard in self._ledger.shards() if shard not in settled]

    def _cold(self, shard: str) -> Iterable[tuple[ColdTask, tuple[str, Task, Folded]]]:
        """What a worker found cold, and what is on its way or warm and not copied yet."""
        tasks = {task.key: task for task in self._ledger.tasks(shard)}
        for key, one in self._ledger.fold(shard).items():
            if one.state is not State.FAILED and one.asked in self._tiers:
                yield ColdTask(one.asked, annex.Key.parse(key)), (shard, tasks[key], one)

    # -- writing down --

    def _write(self, step: WarmStep, wanted: dict[ColdTask, tuple[str, Task, Folded]]) -> None:
        now = time.time()
        events: dict[str, list[Event]] = {}

        def add(cold: ColdTask, state: State, wait: float, **more: object) -> None:
            shard, task, one = wanted[cold]
            attempt = one.attempt + (state is State.FAILED)
            event = Event(
                now, self._ledger.spec.id, task.key, task.dest, one.state, state, attempt, self._writer.worker,
                cold.place, wait=wait, **more,  # type: ignore[arg-type]  # kind and text
            )  # fmt: skip
            events.setdefault(shard, []).append(event)

        for cold, until in step.ready:
            if wanted[cold][2].state in (State.RETRY_WAIT, State.WARMING):
                add(cold, State.WARM, 0.0 if math.isinf(until) else until - now)
        for cold in step.warming:
            if wanted[cold][2].state is State.RETRY_WAIT:
                add(cold, State.WARMING, _LONGEST if step.wake is None else max(_SHORTEST, step.wake - now))
        for cold, why in self._hopeless(step, wanted):
            add(cold, State.FAILED, 0.0, kind=FailureKind.COLD, text=why)
        for shard, some in events.items():
            self._writer.write(shard, some)
            self._writer.close(shard)

    def _hopeless(self, step: WarmStep, wanted: Iterable[ColdTask]) -> Iterable[tuple[ColdTask, str]]:
        """What will not be brought up unless a person changes the job, once nothing else is on its way."""
        for cold, error in step.failed.items():
            refused = isinstance(error, annex.AuthFailed)
            if refused or not (error.retryable or isinstance(error, annex.TransportError | annex.ContentError)):
                yield cold, str(error)
        if step.stopped == "max-cost":
            known = {cold for cold, _ in step.ready} | {*step.warming, *step.requested, *step.failed}
            price = self._ledger.spec.warm.max_cost
            for cold in wanted:
                if cold not in known:
                    yield cold, f"{step.spent:g} of max-cost {price:g} are spent, and it costs more"
