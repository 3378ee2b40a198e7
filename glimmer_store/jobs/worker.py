"""A worker: claims shards of a job until none is left, copies what is in them and has it read back.

It keeps nothing but what is in the ledger, so it may be killed at any moment, and any number of them work on one job,
on any machines. What a killed one had copied and not yet written down is found at the destination by the next.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

import annexpy as annex
from glimmer_store.attest import Signer, Verdict
from glimmer_store.jobs.copying import LARGE, Copied, Copying, Failure, batches, look_at_source, remove_bad
from glimmer_store.jobs.draining import Drained, Draining
from glimmer_store.jobs.event import Event, Folded, Task
from glimmer_store.jobs.lease import Lease
from glimmer_store.jobs.leaving import leaving
from glimmer_store.jobs.ledger import Ledger, Writer
from glimmer_store.jobs.limits import Share
from glimmer_store.jobs.places import Places, connected
from glimmer_store.jobs.states import SETTLED, FailureKind, State
from glimmer_store.jobs.throttle import JobHeld, Throttle
from glimmer_store.jobs.verifying import Found, Rereader, rereader

__all__ = ["WorkerSummary", "new_worker", "run_worker"]

_AHEAD = 2
"""Batches that may be copied while one is read back."""
_AT_ONCE = 2
"""Shards: one whose copies are read back, and one that is copied meanwhile."""
_POLL = 0.2, 5.0
"""Shortest and longest pause between two looks for work while others have it."""
_SPOILED = 2
"""How often what was read back may be wrong before a person is needed."""


@dataclass(slots=True)
class WorkerSummary:
    """What one worker did.

    Attributes:
        worker: Its name.
        shards: Those it had.
        copied, size: Keys that it brought to a destination, and the bytes that moved for it.
        verified: Keys that were read back and are right.
        dropped: Keys that are gone from the repository that is emptied.
        retried, failed: Failures that are tried again, and those that are not.
        left: Shards with work that it could not do: another has it, or nothing may be moved now.
    """

    worker: str
    shards: int = 0
    copied: int = 0
    size: int = 0
    verified: int = 0
    dropped: int = 0
    retried: int = 0
    failed: int = 0
    left: int = 0

    def to_json(self) -> dict[str, object]:
        fields = asdict(self)
        return {"bytes" if name == "size" else name: value for name, value in fields.items()}


def new_worker() -> str:
    """A name that no other process has."""
    host = "".join(c if c.isalnum() else "_" for c in os.uname().nodename)[:40]
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


async def run_worker(
    job_dir: str | os.PathLike[str],
    *,
    worker: str | None = None,
    shards: Sequence[str] | None = None,
    wait: bool = True,
    clock: annex.Clock | None = None,
) -> WorkerSummary:
    """Work on a job until nothing is left that a worker can do.

    Args:
        job_dir: The folder of the job.
        worker: A name that no other process uses; by default a new one.
        shards: Only these.
        wait: Stay for tasks that are to be tried again later, and until the shards of others are done.
        clock: For events and limits.

    Raises:
        JobError: There is no such job.
        ConfigError: There is no key to sign with.
    """
    ledger = Ledger.open(job_dir)
    name = worker or new_worker()
    summary = WorkerSummary(name)
    time_ = clock or annex.SystemClock()
    throttle = Throttle(ledger.folder, ledger.spec.planned_limits, clock=time_, share=_share(ledger, name))
    async with connected(ledger.spec) as places, rereader(ledger.folder, name) as rereading:
        with ledger.writer(name) as writer:
            signer = Signer.of_user()
            writer.public_key(signer.name, signer.public)
            working = _Working(ledger, writer, places, throttle, rereading, signer, time_, summary)
            try:
                await working.run(shards, wait=wait)
            except* JobHeld:
                summary.left += 1  # it was cancelled
    return summary


def _share(ledger: Ledger, worker: str) -> Callable[[], Share]:
    def share() -> Share:
        names = sorted({holding.worker for holding in ledger.holdings() if not holding.expired} | {worker})
        return Share(names.index(worker), len(names))

    return share


class _Working:
    """One worker at work."""

    def __init__(
        self,
        ledger: Ledger,
        writer: Writer,
        places: Places,
        throttle: Throttle,
        rereading: Rereader,
        signer: Signer,
        clock: annex.Clock,
        summary: WorkerSummary,
    ) -> None:
        self.ledger, self.writer, self.places, self.throttle = ledger, writer, places, throttle
        self.rereading, self.signer, self.clock, self.summary = rereading, signer, clock, summary
        self.copying = Copying(places, throttle)
        self.draining = Draining(places, throttle, rereading)
        self._waiting: dict[str, float] = {}  # shard → when to look again, by the steady clock
        self._under_way: set[str] = set()
        self._ended = anyio.Event()  # one of them

    async def run(self, shards: Sequence[str] | None, *, wait: bool) -> None:
        """Work on one shard after the other: the next is copied while the one before is still being read back."""
        pause = _POLL[0]
        async with anyio.create_task_group() as group:
            while True:
                lease = await self._claim(shards)
                if lease is not None:
                    pause = _POLL[0]
                    if not self.ledger.spec.drains and self.ledger.spec.verify != "stream":
                        group.start_soon(self.rereading.start)
                    copied = anyio.Event()
                    self._under_way.add(lease.shard)
                    group.start_soon(self._one, lease, copied)
                    await copied.wait()
                    continue
                if self._under_way:
                    await self._ended.wait()
                    continue
                left = self._left(shards)
                if not left or not wait:
                    self.summary.left += len(left)
                    return
                now = time.monotonic()
                due = min((until - now for until in self._waiting.values()), default=math.inf)
                await anyio.sleep(max(_POLL[0], min(due, pause, self.ledger.spec.heartbeat)))
                pause = min(2 * pause, _POLL[1])

    async def _claim(self, shards: Sequence[str] | None) -> Lease | None:
        """One more shard; None when there is none, or enough is under way."""
        if self._under_way and (len(self._under_way) == _AT_ONCE or self.throttle.held() is not None):
            return None
        await self.throttle.ready()
        now = time.monotonic()
        self._waiting = {shard: until for shard, until in self._waiting.items() if until > now}
        return self.ledger.claim(self.writer.worker, shards, skip=(*self._waiting, *self._under_way))

    async def _one(self, lease: Lease, copied: anyio.Event) -> None:
        self.summary.shards += 1
        try:
            until = await _Shard(self, lease).work(copied)
            if until is not None:
                self._waiting[lease.shard] = time.monotonic() + until
        finally:
            copied.set()
            self._under_way.discard(lease.shard)
            self._ended.set()
            self._ended = anyio.Event()

    def _left(self, shards: Sequence[str] | None) -> list[str]:
        """Shards that something can still be done about."""
        settled, held = self.ledger.settled(), self.ledger.held()
        every = self.ledger.shards() if shards is None else shards
        return [shard for shard in every if shard not in settled and self.ledger.dest(shard) not in held]


class _Shard:
    """One shard while this worker has it."""

    def __init__(self, working: _Working, lease: Lease) -> None:
        self._w, self._lease, self._shard = working, lease, lease.shard
        self._tasks = {task.key: task for task in working.ledger.tasks(self._shard)}
        self._folded = working.ledger.fold(self._shard)
        self._spec = working.ledger.spec
        self._stopped = False

    async def work(self, copied: anyio.Event) -> float | None:
        """Do what can be done now; *copied* is set when nothing more is to be copied, as far as is known.

        Returns:
            None when nothing is left, else the seconds until there is something to do.
        """
        try:
            if self._lease.inherited:
                self._take_over()
            while not self._stopped:
                to_copy, to_verify = self._sort()
                if not to_copy and not to_verify:
                    break
                if self._spec.drains:
                    await self._drain(to_verify)
                    continue
                send, receive = anyio.create_memory_object_stream[list[tuple[Task, Copied | None]]](_AHEAD)
                async with anyio.create_task_group() as group:
                    group.start_soon(self._verify_all, receive)
                    await self._copy_all(to_copy, to_verify, send)
                    copied.set()
            return self._rest()
        finally:
            self._w.writer.close(self._shard)
            await anyio.to_thread.run_sync(self._lease.release)

    def _sort(self) -> tuple[list[Task], list[Task]]:
        """What is to be copied now, and what only to be read back."""
        to_copy: list[Task] = []
        to_verify: list[Task] = []
        for key, task in self._tasks.items():
            one = self._folded[key]
            if one.state in SETTLED or self._due(one) > 0:
                continue
            copied = one.step in (State.COPIED, State.VERIFYING)
            only_looks = not self._spec.copies or (self._spec.type == "repair" and one.spoiled == 0)
            (to_verify if copied or only_looks else to_copy).append(task)
        to_copy.sort(key=lambda task: _expiry(self._folded[task.key]))
        return to_copy, to_verify

    def _due(self, one: Folded) -> float:
        """Seconds to wait before its next try.

        A worker whose clock was wrong makes nobody wait for longer than it meant to.
        """
        last = one.last
        if last is None or last.state not in (State.RETRY_WAIT, State.WARMING):
            return 0.0
        return min(last.wait, max(0.0, last.time + last.wait - self._w.clock.wall()))

    def _rest(self) -> float | None:
        if self._stopped:
            return self._spec.heartbeat
        open_ = [one for one in self._folded.values() if one.state not in SETTLED]
        if not open_:
            self._w.ledger.settle(self._shard)
            return None
        due = min(map(self._due, open_))
        if any(one.found_cold for one in open_):  # whoever brings up may say at any moment that something is warm
            due = min(due, 5 * self._spec.heartbeat)
        # Those that are due soon after each other are tried together.
        return max(_POLL[0], due, self._spec.retry.base / 4)

    def _take_over(self) -> None:
        """Somebody died while it had this shard: what it was at counts as a try."""
        lost = (State.COPYING, State.VERIFYING)
        self._record(
            [
                self._failure(task, Failure(FailureKind.LOST_WORKER, "its worker is gone"), one.state)
                for key, task in self._tasks.items()
                if (one := self._folded[key]).state in lost
            ]
        )

    # -- copying --

    async def _copy_all(
        self,
        to_copy: list[Task],
        to_verify: list[Task],
        send: MemoryObjectSendStream[list[tuple[Task, Copied | None]]],
    ) -> None:
        async with send:
            for some in batches(to_verify):
                await send.send([(task, None) for task in some])
            for some in batches(to_copy):
                if self._stopped or not self._lease.held():
                    self._stopped = True
                    return
                if (some[0].size or 0) >= LARGE:
                    self._record([self._event(some[0], State.COPYING)])
                copied = await self._copy(some)
                if copied:
                    await send.send([(one.task, one) for one in copied])

    async def _copy(self, tasks: list[Task]) -> list[Copied]:
        """Copy them; those that are there now."""
        there, events = [], []
        for one in await self._w.copying.copy(tasks, self._folded):
            if one.held:
                self._stopped = True
            elif one.failure is None:
                there.append(one)
                self._w.summary.copied += one.received
                self._w.summary.size += one.size
                events.append(
                    self._event(one.task, State.COPIED, source=one.source, size=one.size, seconds=one.seconds)
                )
            else:
                events.append(await self._copy_failed(one, one.failure))
        self._record(events)
        return there

    async def _copy_failed(self, one: Copied, failure: Failure) -> Event:
        task = one.task
        if failure.kind is FailureKind.SOURCE_BAD:
            seen = await look_at_source(self._w.places, one.source, annex.Key.parse(task.key), self._w.signer)
            if seen is None:  # it is right, so something on the way was wrong
                failure = Failure(FailureKind.TRANSIENT, failure.text)
            else:
                self._w.writer.attest(self._shard, self._w.signer.sign([seen[0]]))
                failure = Failure(FailureKind.SOURCE_BAD, seen[1])
        elif failure.kind is FailureKind.DEST_FULL:
            self._w.ledger.hold(task.dest, failure.text)
            self._stopped = True
        return self._failure(task, failure, State.COPYING, source=one.source)

    # -- verifying --

    async def _verify_all(self, receive: MemoryObjectReceiveStream[list[tuple[Task, Copied | None]]]) -> None:
        async with receive:
            async for some in receive:
                if not self._lease.held():
                    self._stopped = True
                    continue
                await self._verify(some)

    async def _verify(self, some: list[tuple[Task, Copied | None]]) -> None:
        if self._spec.verify == "stream":
            some = self._proven_by_receiver(some)
        tasks = [task for task, _ in some]
        if not tasks:
            return
        dest, size = tasks[0].dest, sum(task.size or 0 for task in tasks)
        try:
            await self._w.throttle.spend(dest=dest, size=size, requests=len(tasks))
        except JobHeld:
            self._stopped = True
            return
        if size >= LARGE and len(tasks) == 1:
            self._record([self._event(tasks[0], State.VERIFYING)])
        found = await self._w.rereading.read(self._shard, dest, [task.key for task in tasks])
        events = []
        for (task, copied), one in zip(some, found, strict=True):
            if one.verdict is Verdict.GOOD:
                self._w.summary.verified += 1
                events.append(self._event(task, State.VERIFIED, size=one.size, seconds=one.seconds, method=one.method))
            else:
                events.append(await self._not_good(task, copied, one))
        self._record(events)

    def _proven_by_receiver(self, some: list[tuple[Task, Copied | None]]) -> list[tuple[Task, Copied | None]]:
        """Attest what the destination took and verified just now; the rest."""
        taken = [task for task, copied in some if copied is not None and copied.received]
        name = self._w.places.name
        proofs = [
            self._w.signer.attest(annex.Key.parse(task.key), task.dest, name(task.dest), Verdict.GOOD, "stream")
            for task in taken
        ]
        self._w.writer.attest(self._shard, self._w.signer.sign(proofs))
        self._record([self._event(task, State.VERIFIED, method="stream") for task in taken])
        self._w.summary.verified += len(taken)
        return [(task, copied) for task, copied in some if copied is None or not copied.received]

    async def _not_good(self, task: Task, copied: Copied | None, found: Found) -> Event:
        if found.verdict is None:
            return self._failure(task, Failure(FailureKind.TRANSIENT, found.why), State.VERIFYING)
        failure = Failure(FailureKind.DEST_BAD, f"{found.verdict.value}: {found.why}")
        if self._spec.copies:
            source = copied.source if copied is not None else self._w.copying.source_of(task, self._folded[task.key])
            try:
                await remove_bad(self._w.places, task, source or "")
            except annex.AnnexError as error:
                failure = Failure(FailureKind.DEST_BAD, f"{failure.text}; it could not be removed: {error}")
        return self._failure(task, failure, State.VERIFYING)

    # -- dropping --

    async def _drain(self, tasks: list[Task]) -> None:
        """Drop what may go; that it is absent is signed before it is told."""
        async with leaving(self._spec) as rules:
            name = rules.name(rules.dest)
            for some in batches(tasks):
                if self._stopped or not self._lease.held():
                    self._stopped = True
                    return
                if (some[0].size or 0) >= LARGE:
                    self._record([self._event(some[0], State.VERIFYING)])
                drained = await self._w.draining.drain(self._shard, some, self._folded, rules)
                gone = [one for one in drained if one.failure is None and not one.held]
                absences = [one.absence(self._w.signer, name) for one in gone]
                self._w.writer.attest(self._shard, self._w.signer.sign(absences))
                self._w.summary.dropped += len(gone)
                self._stopped |= any(one.held for one in drained)
                self._record([self._drained(one) for one in drained if not one.held])

    def _drained(self, one: Drained) -> Event:
        if one.failure is not None:
            return self._failure(one.task, one.failure, State.VERIFYING, source=one.source)
        event = self._event(one.task, State.DROPPED, size=one.task.size or 0, seconds=one.seconds, method="drop")
        return replace(event, text=one.text)

    # -- writing down --

    def _event(
        self,
        task: Task,
        state: State,
        *,
        source: str = "",
        size: int = 0,
        seconds: float = 0.0,
        method: str = "",
    ) -> Event:
        one = self._folded[task.key]
        return Event(
            self._w.clock.wall(), self._spec.id, task.key, task.dest, one.state, state, one.attempt,
            self._w.writer.worker, source, size, seconds, method=method,
        )  # fmt: skip

    def _failure(self, task: Task, failure: Failure, step: State, *, source: str = "") -> Event:
        """The event that a failure is: it opens the next try, or ends the task."""
        one, retry = self._folded[task.key], self._spec.retry
        again = self._again(task, one, failure, source)
        at_once = failure.kind in (FailureKind.SOURCE_BAD, FailureKind.DEST_BAD, FailureKind.LOST_WORKER)
        before = one.found_cold + 1 if failure.kind is FailureKind.COLD else one.tries
        wait = 0.0 if at_once or not again else retry.wait(before, secrets.randbelow(1 << 20) / (1 << 20))
        if again:
            self._w.summary.retried += 1
        else:
            self._w.summary.failed += 1
        return Event(
            self._w.clock.wall(), self._spec.id, task.key, task.dest, step,
            State.RETRY_WAIT if again else State.FAILED, one.attempt + 1, self._w.writer.worker,
            source, wait=wait, kind=failure.kind, text=failure.text,
        )  # fmt: skip

    def _again(self, task: Task, one: Folded, failure: Failure, source: str) -> bool:
        match failure.kind:
            case FailureKind.TERMINAL | FailureKind.TOO_FEW | FailureKind.REQUIRED:
                return False
            case FailureKind.SOURCE_BAD:
                return self._spec.drains or bool(set(task.sources) - one.bad_sources - {source})
            case FailureKind.DEST_BAD:
                return self._spec.copies and one.spoiled + 1 < _SPOILED
            case FailureKind.DEST_FULL | FailureKind.COLD:
                return True
            case FailureKind.TRANSIENT | FailureKind.LOST_WORKER:
                return one.tries < self._spec.retry.tries

    def _record(self, events: list[Event]) -> None:
        if not events:
            return
        self._w.writer.write(self._shard, events)
        for event in events:
            self._folded[event.key].add(event)


def _expiry(one: Folded) -> float:
    """When what was brought up goes away again, in seconds since 1970; what is not cold comes last."""
    last = one.last
    return math.inf if last is None or last.state is not State.WARM or not last.wait else last.time + last.wait
