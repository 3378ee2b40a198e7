"""The loop of a worker: which shard is next, and when there is nothing left."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import anyio

from glimmer_store.jobs.books import Books
from glimmer_store.jobs.copying import Copying
from glimmer_store.jobs.hands import Hands
from glimmer_store.jobs.lease import Lease
from glimmer_store.jobs.shard_copy import ShardCopy

__all__ = ["WorkerLoop"]

_AT_ONCE = 2
"""Shards: one whose copies are read back, and one that is copied meanwhile."""
_POLL = 0.2, 5.0
"""Shortest and longest pause between two looks for work while others have it."""


class WorkerLoop:
    """One worker at work."""

    def __init__(self, hands: Hands) -> None:
        self._hands, self._ledger, self._summary = hands, hands.ledger, hands.summary
        self._copying = Copying(hands.places, hands.throttle)
        self._waiting: dict[str, float] = {}  # shard → when to look again, by the steady clock
        self._under_way: set[str] = set()
        self._ended = anyio.Event()  # one of them

    async def run(self, shards: Sequence[str] | None, *, wait: bool) -> None:
        """Work on one shard after the other: the next is copied while the one before is still being read back.

        Args:
            shards: Only these.
            wait: Stay for what is to be tried again later, and until the shards of others are done.

        Raises:
            JobHeld: The job was cancelled; in a group.
        """
        pause = _POLL[0]
        async with anyio.create_task_group() as group:
            while True:
                lease = await self._claim(shards)
                if lease is not None:
                    pause = _POLL[0]
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
                    self._summary.left += len(left)
                    return
                now = time.monotonic()
                due = min((until - now for until in self._waiting.values()), default=math.inf)
                await anyio.sleep(max(_POLL[0], min(due, pause, self._ledger.spec.heartbeat)))
                pause = min(2 * pause, _POLL[1])

    async def _claim(self, shards: Sequence[str] | None) -> Lease | None:
        """One more shard; None when there is none, or enough is under way."""
        if self._under_way and (len(self._under_way) == _AT_ONCE or self._hands.throttle.held() is not None):
            return None
        await self._hands.throttle.ready()
        now = time.monotonic()
        self._waiting = {shard: until for shard, until in self._waiting.items() if until > now}
        return self._ledger.claim(self._hands.writer.worker, shards, skip=(*self._waiting, *self._under_way))

    async def _one(self, lease: Lease, copied: anyio.Event) -> None:
        self._summary.shards += 1
        try:
            until = await self._work(lease, copied)
            if until is not None:
                self._waiting[lease.shard] = time.monotonic() + until
        finally:
            copied.set()
            self._under_way.discard(lease.shard)
            self._ended.set()
            self._ended = anyio.Event()

    async def _work(self, lease: Lease, copied: anyio.Event) -> float | None:
        """Do what can be done in a shard now; *copied* is set when all that is left of it is to read back.

        Returns:
            None when nothing is left, else the seconds until there is something to do.
        """
        hands, spec = self._hands, self._ledger.spec
        books = Books(hands, lease.shard)
        work: ShardCopy | ShardDrain = ShardCopy(hands, books, lease, self._copying)
        if spec.drains:
            from glimmer_store.jobs.shard_drain import ShardDrain  # with the graph, which others need not wait for

            work = ShardDrain(hands, books, lease)
        try:
            if lease.inherited:
                books.take_over()
            while not work.stopped:
                to_copy, to_verify = books.to_do()
                if not to_copy and not to_verify:
                    break
                await work.round(to_copy, to_verify, copied)
            return spec.heartbeat if work.stopped else books.rest()
        finally:
            books.close()
            await anyio.to_thread.run_sync(lease.release)

    def _left(self, shards: Sequence[str] | None) -> list[str]:
        """Shards that something can still be done about."""
        settled, held = self._ledger.settled(), self._ledger.held()
        every = self._ledger.shards() if shards is None else shards
        return [shard for shard in every if shard not in settled and self._ledger.dest(shard) not in held]
