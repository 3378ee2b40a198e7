"""Records of this process that are neither in its spool nor in the branch.

Adding costs a microsecond or two and never waits. What is taken out to be written stays visible to readers
until it is done, so nothing a reader saw disappears in between.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeAlias

from annexpy.repo.records import Queued, record_path

__all__ = ["Batch", "Change", "Queue"]

Change: TypeAlias = tuple[bytes, Callable[[bytes], bytes], bool]
"""(path, what to make of its content, private)."""


class Batch:
    """Some records and changes, and the tip of the branch before the first of them.

    Attributes:
        base: That tip; empty when there was no branch.
        lines: Records, in the order of their times.
        changes: In order.
    """

    __slots__ = ("_index", "_indexed", "_indexing", "base", "changes", "lines")

    def __init__(self, base: bytes = b"") -> None:
        self.base = base
        self.lines: list[bytes] = []
        self.changes: list[Change] = []
        self._index: dict[bytes, list[Queued]] = {}
        self._indexed = 0
        self._indexing = threading.Lock()  # others go on adding meanwhile

    def __bool__(self) -> bool:
        return bool(self.lines or self.changes)

    def records(self, path: bytes) -> list[Queued]:
        """The records about *path*."""
        with self._indexing:
            self._bring_up_to_date()
            return list(self._index.get(path, ()))

    def paths(self) -> set[bytes]:
        """Every path that has a record or a change here."""
        with self._indexing:
            self._bring_up_to_date()
            return {*self._index, *(path for path, _, _ in self.changes)}

    def _bring_up_to_date(self) -> None:
        """The index is built when somebody reads, not while a million are added."""
        end = len(self.lines)  # as of now: what comes while this runs is for the next time
        if self._indexed < end:
            for line in self.lines[self._indexed : end]:
                self._index.setdefault(record_path(line), []).append(Queued(line, self.base))
            self._indexed = end


class Queue:
    """Batches: one that is filled, and those that are being written. For any number of threads.

    Attributes:
        spooling: Held by whoever moves records from here to the spool, so that they get there in order.
        syncing: Held by whoever does that and syncs the spool, so that who comes meanwhile is synced with the next.
    """

    def __init__(self, tip: Callable[[], bytes | None]) -> None:
        self._tip = tip
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._spooling, self._syncing = threading.Lock(), threading.Lock()
        self._filling = Batch()
        self._writing: list[Batch] = []

    def _check_fork(self) -> None:
        # What was queued before a fork is the parent's to write; its lock may be held by a thread that
        # does not exist here.
        if self._pid != os.getpid():
            self._begin()

    @property
    def spooling(self) -> threading.Lock:
        self._check_fork()
        return self._spooling

    @property
    def syncing(self) -> threading.Lock:
        self._check_fork()
        return self._syncing

    def add(self, *lines: bytes) -> int:
        """Queue records; how many are waiting now."""
        self._check_fork()
        with self._mutex:
            batch = self._filling
            waiting = batch.lines
            if not waiting and not batch.changes:
                batch.base = self._tip() or b""
            waiting.extend(lines)
            return len(waiting)

    def add_change(self, change: Change) -> None:
        """Queue a change."""
        self._check_fork()
        with self._mutex:
            if not self._filling:
                self._filling.base = self._tip() or b""
            self._filling.changes.append(change)

    def take(self) -> Batch:
        """Everything that is being filled, to be written. Then ``done`` or ``give_back`` it."""
        self._check_fork()
        with self._mutex:
            batch, self._filling = self._filling, Batch()
            if batch:
                self._writing.append(batch)
            return batch

    def done(self, batch: Batch) -> None:
        """It is in the spool or in the branch."""
        with self._mutex:
            if batch in self._writing:
                self._writing.remove(batch)

    def give_back(self, batch: Batch) -> None:
        """It could not be written: it comes before whatever was queued since."""
        with self._mutex:
            if batch in self._writing:
                self._writing.remove(batch)
                whole = Batch(batch.base)
                whole.lines = batch.lines + self._filling.lines
                whole.changes = batch.changes + self._filling.changes
                self._filling = whole

    def batches(self) -> list[Batch]:
        """What is queued or being written, oldest first."""
        self._check_fork()
        with self._mutex:
            return [batch for batch in (*self._writing, self._filling) if batch]

    def __bool__(self) -> bool:
        self._check_fork()
        return bool(self._filling or self._writing)
