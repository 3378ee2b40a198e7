"""The figures of a job: sums over the tasks and events of one shard, and what the sums of all shards amount to.

Everything here is a function of what is handed in, the time included. ``of_shard`` looks at one shard,
``ShardSums.add`` joins two: in whatever order, and however the tasks were cut into shards, the same comes out. What is
kept does not grow with the number of keys, but for 8 bytes a node (``tally`` does without those, too).
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

from glimmer_store.jobs.event import Event, Folded, Task
from glimmer_store.jobs.states import PROVEN, FailureKind, State

__all__ = ["BIN", "HOUR", "RECENT", "SHOWN", "Flow", "Open", "ShardSums", "SizeSums", "of_shard", "size_class"]

BIN: Final = 10
"""Seconds that are counted together."""
RECENT: Final = 600
"""Seconds for which bins are kept."""
HOUR: Final = 3600
_ACTIVE: Final = frozenset(
    (State.CLAIMED, State.COPYING, State.COPIED, State.VERIFYING, State.WARMING, State.RETRY_WAIT)
)
_OLDEST: Final = 50
"""Open tasks that are kept by name."""
SHOWN: Final = 50
"""Reasons of failures that are kept, the first by the alphabet: the same ones however shards are joined."""


def size_class(size: int | None) -> int:
    """Sizes within a factor of four are alike."""
    return 0 if not size else (size.bit_length() + 1) // 2


@dataclass(slots=True)
class Flow:
    """What was moved, or read back: in all, and in the last ten minutes.

    Attributes:
        keys, size, seconds: Keys, bytes, and the time of workers that it took.
        first, last: When the first and the last was done, seconds since 1970; 0: none.
        bins: Number of a bin → keys, bytes.
        minutes: In which something was done.
    """

    keys: int = 0
    size: int = 0
    seconds: float = 0.0
    first: float = 0.0
    last: float = 0.0
    bins: dict[int, tuple[int, int]] = field(default_factory=dict)
    minutes: set[int] = field(default_factory=set)

    def note(self, event: Event, now: float) -> None:
        """One more. A clock that is ahead of ours counts as now."""
        when = min(event.time, now)
        self.keys += 1
        self.size += event.size
        self.seconds += event.seconds
        self.first = min(self.first or when, when)
        self.last = max(self.last, when)
        self.minutes.add(int(when // 60))
        if when > now - RECENT - BIN:
            keys, size = self.bins.get(int(when // BIN), (0, 0))
            self.bins[int(when // BIN)] = keys + 1, size + event.size

    def add(self, other: Flow) -> None:
        """Both together."""
        self.keys += other.keys
        self.size += other.size
        self.seconds += other.seconds
        self.first = min(filter(None, (self.first, other.first)), default=0.0)
        self.last = max(self.last, other.last)
        self.minutes |= other.minutes
        for number, (keys, size) in other.bins.items():
            before = self.bins.get(number, (0, 0))
            self.bins[number] = before[0] + keys, before[1] + size

    @property
    def active(self) -> float:
        """Seconds in which something went on: nights and pauses do not count."""
        return max(1.0, min(self.last - self.first, 60.0 * len(self.minutes)))

    def speed(self, now: float, seconds: int) -> tuple[float, float]:
        """Keys and bytes in a second, over the last *seconds*."""
        oldest = int((now - seconds) // BIN)
        recent = [counted for number, counted in self.bins.items() if number > oldest]
        over = max(1.0, min(float(seconds), now - self.first)) if self.keys else 1.0
        return sum(keys for keys, _ in recent) / over, sum(size for _, size in recent) / over

    def to_json(self, now: float) -> dict[str, object]:
        """Totals and speeds: now (half a minute), ten minutes, the whole run."""
        speeds = {"now": self.speed(now, 30), "10min": self.speed(now, RECENT)}
        speeds["whole"] = self.keys / self.active, self.size / self.active
        return {
            "keys": self.keys,
            "bytes": self.size,
            "worker-seconds": round(self.seconds, 3),
            "keys-per-second": {name: round(keys, 3) for name, (keys, _) in speeds.items()},
            "bytes-per-second": {name: round(size, 1) for name, (_, size) in speeds.items()},
        }


@dataclass(slots=True)
class SizeSums:
    """Of tasks of one size class.

    Attributes:
        left, left_bytes: Not proven, or not dropped, yet, failures aside.
        copied, proven: How many copies were made, and how many proven.
        recent: Proven in the last ten minutes.
        seconds: Worker's time that copying and proving took.
    """

    left: int = 0
    left_bytes: int = 0
    copied: int = 0
    proven: int = 0
    recent: int = 0
    seconds: float = 0.0

    def add(self, other: SizeSums) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True, order=True)
class Open:
    """A task that was begun and is not at its end: since when it says nothing new, and what is waited for.

    Attributes:
        since: Seconds since 1970.
        key, dest, state, size, worker: Of the task, and who spoke of it last.
        wait: Seconds that it means to wait by itself.
    """

    since: float
    key: str
    dest: str
    state: State
    size: int
    worker: str
    wait: float


@dataclass(slots=True)
class ShardSums:
    """Everything about one shard that is counted, or about several."""

    keys: Counter[State] = field(default_factory=Counter)
    size: Counter[State] = field(default_factory=Counter)
    unproven: Counter[str] = field(default_factory=Counter)  # storage class → keys
    copies: dict[tuple[str, str], Flow] = field(default_factory=dict)  # ("source" | "dest" | "worker" | "", who)
    proofs: dict[tuple[str, str], Flow] = field(default_factory=dict)
    methods: Counter[str] = field(default_factory=Counter)
    sizes: dict[int, SizeSums] = field(default_factory=dict)
    retries: Counter[str] = field(default_factory=Counter)  # kind
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)  # kind, where
    reasons: dict[tuple[str, str, str], tuple[int, str]] = field(default_factory=dict)  # kind, where, why → keys, one
    bad: Counter[str] = field(default_factory=Counter)  # where
    left_at: Counter[str] = field(default_factory=Counter)  # destination → bytes that are still to come
    open: list[Open] = field(default_factory=list)
    workers: dict[str, float] = field(default_factory=dict)  # → last event
    expiries: Counter[int] = field(default_factory=Counter)  # hour in which warm copies expire, 0: never → keys
    last: float = 0.0
    nodes: array[int] = field(default_factory=lambda: array("Q"))  # hash of each, bit 0: all of it is proven here

    def add(self, other: ShardSums) -> None:
        """Both together; the nodes are left to ``tally``."""
        for name in ("keys", "size", "unproven", "methods", "retries", "failures", "bad", "left_at", "expiries"):
            getattr(self, name).update(getattr(other, name))
        for mine, theirs in ((self.copies, other.copies), (self.proofs, other.proofs)):
            for who, flow in theirs.items():
                mine.setdefault(who, Flow()).add(flow)
        for number, sums in other.sizes.items():
            self.sizes.setdefault(number, SizeSums()).add(sums)
        self.open = heapq.nsmallest(_OLDEST, [*self.open, *other.open])
        for reason, (count, key) in other.reasons.items():
            self._because(reason, count, key)
        self.trim()
        for worker, when in other.workers.items():
            self.workers[worker] = max(when, self.workers.get(worker, 0.0))
        self.last = max(self.last, other.last)

    def failed(self, kind: str, where: str, why: str, key: str) -> None:
        """One more task that failed for good."""
        self.failures[kind, where] += 1
        self._because((kind, where, why), 1, key)

    def _because(self, reason: tuple[str, str, str], count: int, key: str) -> None:
        before, example = self.reasons.get(reason, (0, key))
        self.reasons[reason] = before + count, min(example, key)

    def trim(self) -> None:
        """Keep only the first reasons."""
        for reason in sorted(self.reasons)[SHOWN:]:
            del self.reasons[reason]

    @property
    def total(self) -> int:
        """Keys."""
        return self.keys.total()


def of_shard(tasks: Iterable[Task], folded: Mapping[str, Folded], events: Iterable[Event], now: float) -> ShardSums:
    """The sums of one shard, from its tasks, where each of them is, and what happened; *now* in seconds since 1970."""
    sums = ShardSums()
    by_key: dict[str, Task] = {}
    nodes: dict[str, bool] = {}
    for task in tasks:
        by_key[task.key] = task
        _count_task(sums, task, folded[task.key])
        proven = folded[task.key].state in PROVEN
        for node in task.nodes:
            nodes[node] = nodes.get(node, True) and proven
    sums.open = heapq.nsmallest(_OLDEST, sums.open)
    sums.trim()
    sums.nodes.extend(_hash(node) | proven for node, proven in nodes.items())
    seen: set[tuple[object, ...]] = set()
    for event in events:
        if event.key in by_key:
            _count_event(sums, event, by_key[event.key], seen, now)
    return sums


def _count_task(sums: ShardSums, task: Task, one: Folded) -> None:
    state, size = one.state, task.size or 0
    sums.keys[state] += 1
    sums.size[state] += size
    of_size = sums.sizes.setdefault(size_class(task.size), SizeSums())
    if state not in PROVEN:
        sums.unproven[task.storage_class or "none"] += 1
        if state is not State.FAILED:
            of_size.left += 1
            of_size.left_bytes += size
            if one.step not in (State.COPIED, State.VERIFYING):
                sums.left_at[task.dest] += size
    last = one.last
    if last is not None and state is State.FAILED:
        at_source = last.kind is FailureKind.SOURCE_BAD and last.source
        sums.failed(
            str(last.kind or "unknown"),
            last.source if at_source else task.dest,
            last.text.replace(task.key, "KEY"),
            task.key,
        )
    if last is not None and state is State.WARM:
        sums.expiries[int((last.time + last.wait) // HOUR) if last.wait else 0] += 1
    if last is not None and state in _ACTIVE:
        sums.open.append(Open(last.time, task.key, task.dest, state, size, last.worker, last.wait))


def _count_event(sums: ShardSums, event: Event, task: Task, seen: set[tuple[object, ...]], now: float) -> None:
    what = (event.key, event.dest, event.attempt, event.state, event.worker, event.kind, event.time)
    if what in seen:  # a line that stands twice
        return
    seen.add(what)
    sums.last = max(sums.last, event.time)
    sums.workers[event.worker] = max(event.time, sums.workers.get(event.worker, 0.0))
    if event.kind is not None:
        if event.state is State.RETRY_WAIT:
            sums.retries[event.kind] += 1
        if event.kind is FailureKind.SOURCE_BAD:
            sums.bad[event.source] += 1
        elif event.kind is FailureKind.DEST_BAD:
            sums.bad[event.dest] += 1
    of_size = sums.sizes[size_class(task.size)]
    if event.state is State.COPIED:
        of_size.copied += 1
        of_size.seconds += event.seconds
        _flow(sums.copies, event, now, source=event.source)
    elif event.state in (State.VERIFIED, State.DROPPED):
        of_size.proven += 1
        of_size.seconds += event.seconds
        of_size.recent += event.time > now - RECENT
        sums.methods[event.method or "unknown"] += 1
        _flow(sums.proofs, event, now)


def _flow(flows: dict[tuple[str, str], Flow], event: Event, now: float, *, source: str = "") -> None:
    worker = event.worker.removesuffix(".reread")
    for who in (("", ""), ("source", source), ("dest", event.dest), ("worker", worker)):
        if who[1] or not who[0]:
            flows.setdefault(who, Flow()).note(event, now)


def _hash(node: str) -> int:
    """63 bits, the lowest one free."""
    return int.from_bytes(blake2b(node.encode("utf-8", "surrogateescape"), digest_size=8).digest()) & ~1
