"""One shard of a job that empties a repository."""

from __future__ import annotations

import anyio

from glimmer_store.jobs.books import Books
from glimmer_store.jobs.copying import LARGE, batches
from glimmer_store.jobs.draining import Drained, Draining
from glimmer_store.jobs.event import Event, Task
from glimmer_store.jobs.hands import Hands
from glimmer_store.jobs.lease import Lease
from glimmer_store.jobs.leaving import leaving
from glimmer_store.jobs.states import State

__all__ = ["ShardDrain"]


class ShardDrain:
    """Drops the tasks of one shard; arguments and attributes as those of ``ShardCopy``."""

    def __init__(self, hands: Hands, books: Books, lease: Lease) -> None:
        self._hands, self._books, self._lease = hands, books, lease
        self._draining = Draining(hands.places, hands.throttle, hands.rereading)
        self.stopped = False

    async def round(self, _: list[Task], tasks: list[Task], copied: anyio.Event) -> None:
        """Drop what may go; that it is absent is signed before it is told."""
        books = self._books
        async with leaving(books.spec) as rules:
            name = rules.name(rules.dest)
            for some in batches(tasks):
                if self.stopped or not self._lease.held():
                    self.stopped = True
                    return
                if (some[0].size or 0) >= LARGE:
                    books.record([books.event(some[0], State.VERIFYING)])
                drained = await self._draining.drain(books.shard, some, books.folded, rules)
                gone = [one for one in drained if one.failure is None and not one.held]
                books.attest([one.absence(self._hands.signer, name) for one in gone])
                self._hands.summary.dropped += len(gone)
                self.stopped |= any(one.held for one in drained)
                books.record([self._event(one) for one in drained if not one.held])

    def _event(self, one: Drained) -> Event:
        if one.failure is not None:
            return self._books.failure(one.task, one.failure, State.VERIFYING, source=one.source)
        size = one.task.size or 0
        return self._books.event(one.task, State.DROPPED, size=size, seconds=one.seconds, method="drop", text=one.text)
