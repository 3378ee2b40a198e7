"""One shard of a job that copies or verifies: what is copied is read back while the next is copied."""

from __future__ import annotations

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

import annexpy as annex
from glimmer_store.attest import Verdict
from glimmer_store.jobs.books import Books
from glimmer_store.jobs.copying import LARGE, Copied, Copying, Failure, batches, look_at_source, remove_bad
from glimmer_store.jobs.event import Event, Task
from glimmer_store.jobs.hands import Hands
from glimmer_store.jobs.lease import Lease
from glimmer_store.jobs.rereader import Found
from glimmer_store.jobs.states import FailureKind, State
from glimmer_store.jobs.throttle import JobHeld

__all__ = ["ShardCopy"]

_AHEAD = 2
"""Batches that may be copied while one is read back."""


class ShardCopy:
    """Copies and verifies the tasks of one shard.

    Args:
        hands: Of the worker.
        books: Of the shard.
        lease: Of the shard.
        copying: Copies, one batch at a time in this worker.

    Attributes:
        stopped: Nothing more can be done now.
    """

    def __init__(self, hands: Hands, books: Books, lease: Lease, copying: Copying) -> None:
        self._hands, self._books, self._lease, self._copying = hands, books, lease, copying
        self.stopped = False

    async def round(self, to_copy: list[Task], to_verify: list[Task], copied: anyio.Event) -> None:
        """Copy and verify these; *copied* is set when all that is left of it is to read back."""
        send, receive = anyio.create_memory_object_stream[list[tuple[Task, Copied | None]]](_AHEAD)
        async with anyio.create_task_group() as group:
            group.start_soon(self._verify_all, receive)
            await self._copy_all(to_copy, to_verify, send)
            copied.set()

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
                if self.stopped or not self._lease.held():
                    self.stopped = True
                    return
                if (some[0].size or 0) >= LARGE:
                    self._books.record([self._books.event(some[0], State.COPYING)])
                copied = await self._copy(some)
                if copied:
                    await send.send([(one.task, one) for one in copied])

    async def _copy(self, tasks: list[Task]) -> list[Copied]:
        """Copy them; those that are there now."""
        there, events = [], []
        for one in await self._copying.copy(tasks, self._books.folded):
            if one.held:
                self.stopped = True
            elif one.failure is None:
                there.append(one)
                self._hands.summary.copied += one.received
                self._hands.summary.size += one.size
                events.append(
                    self._books.event(one.task, State.COPIED, source=one.source, size=one.size, seconds=one.seconds)
                )
            else:
                events.append(await self._copy_failed(one, one.failure))
        self._books.record(events)
        return there

    async def _copy_failed(self, one: Copied, failure: Failure) -> Event:
        task = one.task
        if failure.kind is FailureKind.SOURCE_BAD:
            seen = await look_at_source(self._hands.places, one.source, annex.Key.parse(task.key), self._hands.signer)
            if seen is None:  # it is right, so something on the way was wrong
                failure = Failure(FailureKind.TRANSIENT, failure.text)
            else:
                self._books.attest([seen[0]])
                failure = Failure(FailureKind.SOURCE_BAD, seen[1])
        elif failure.kind is FailureKind.DEST_FULL:
            self._hands.ledger.hold(task.dest, failure.text)
            self.stopped = True
        return self._books.failure(task, failure, State.COPYING, source=one.source)

    # -- verifying --

    async def _verify_all(self, receive: MemoryObjectReceiveStream[list[tuple[Task, Copied | None]]]) -> None:
        async with receive:
            async for some in receive:
                if not self._lease.held():
                    self.stopped = True
                    continue
                await self._verify(some)

    async def _verify(self, some: list[tuple[Task, Copied | None]]) -> None:
        if self._books.spec.verify == "stream":
            some = self._proven_by_receiver(some)
        tasks = [task for task, _ in some]
        if not tasks:
            return
        dest, size = tasks[0].dest, sum(task.size or 0 for task in tasks)
        try:
            await self._hands.throttle.spend(dest=dest, size=size, requests=len(tasks))
        except JobHeld:
            self.stopped = True
            return
        if size >= LARGE and len(tasks) == 1:
            self._books.record([self._books.event(tasks[0], State.VERIFYING)])
        found = await self._hands.rereading.read(self._books.shard, dest, [task.key for task in tasks])
        events = []
        for (task, copied), one in zip(some, found, strict=True):
            if one.verdict is Verdict.GOOD:
                self._hands.summary.verified += 1
                state, method = State.VERIFIED, one.method
                events.append(self._books.event(task, state, size=one.size, seconds=one.seconds, method=method))
            else:
                events.append(await self._not_good(task, copied, one))
        self._books.record(events)

    def _proven_by_receiver(self, some: list[tuple[Task, Copied | None]]) -> list[tuple[Task, Copied | None]]:
        """Attest what the destination took and verified just now; the rest."""
        taken = [task for task, copied in some if copied is not None and copied.received]
        name = self._hands.places.name
        proofs = [
            self._hands.signer.attest(annex.Key.parse(task.key), task.dest, name(task.dest), Verdict.GOOD, "stream")
            for task in taken
        ]
        self._books.attest(proofs)
        self._books.record([self._books.event(task, State.VERIFIED, method="stream") for task in taken])
        self._hands.summary.verified += len(taken)
        return [(task, copied) for task, copied in some if copied is None or not copied.received]

    async def _not_good(self, task: Task, copied: Copied | None, found: Found) -> Event:
        if found.verdict is None:
            return self._books.failure(task, Failure(FailureKind.TRANSIENT, found.why), State.VERIFYING)
        failure = Failure(FailureKind.DEST_BAD, f"{found.verdict.value}: {found.why}")
        if self._books.spec.copies:
            folded = self._books.folded[task.key]
            source = copied.source if copied is not None else self._copying.source_of(task, folded)
            try:
                await remove_bad(self._hands.places, task, source or "")
            except annex.AnnexError as error:
                failure = Failure(FailureKind.DEST_BAD, f"{failure.text}; it could not be removed: {error}")
        return self._books.failure(task, failure, State.VERIFYING)
