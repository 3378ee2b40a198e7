"""Events: what happened to a task, one line of JSON each; and the fold that makes states of them.

An event has the fields ``v t job key dest from to try worker`` and, where there is something to tell, ``src bytes secs
hash method wait err{kind,text}``. Lines that are no events (the torn last one of a worker that died) are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from glimmer_store.jobs.states import RANK, FailureKind, State

__all__ = ["Event", "Folded", "Task", "fold_shard", "read_events"]


@dataclass(frozen=True, slots=True)
class Task:
    """One key that one repository is to have, as it was planned.

    Attributes:
        key: As text (bytes that are no UTF-8 as surrogates).
        size: Bytes; None when the key does not tell.
        storage_class: Of the nodes that need it, the strictest; empty when no node names it.
        nodes: Ids of those nodes.
        sources: UUIDs of the repositories that had it, the best first.
        dest: UUID of the repository that is to have it.
    """

    key: str
    size: int | None
    storage_class: str
    nodes: tuple[str, ...]
    sources: tuple[str, ...]
    dest: str

    def to_line(self) -> str:
        """A line of ``keys/SHARD.tsv``: key, size, class, nodes, sources."""
        size = "" if self.size is None else str(self.size)
        return "\t".join((_escape(self.key), size, self.storage_class, ",".join(self.nodes), ",".join(self.sources)))

    @classmethod
    def from_line(cls, line: str, dest: str) -> Task:
        """The reverse. Raises ValueError."""
        key, size, storage_class, nodes, sources = line.split("\t")
        return cls(_unescape(key), int(size) if size else None, storage_class, _split(nodes), _split(sources), dest)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_PLAIN = {escaped[1]: plain for plain, escaped in _ESCAPES.items()}


def _escape(text: str) -> str:
    if "\\" in text or "\t" in text or "\n" in text or "\r" in text:
        return "".join(_ESCAPES.get(c, c) for c in text)
    return text


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    signs = iter(text)
    return "".join(_PLAIN[next(signs)] if c == "\\" else c for c in signs)


@dataclass(frozen=True, slots=True)
class Event:
    """One step of one task.

    Attributes:
        time: Seconds since 1970 by the worker's clock: for people and figures, never for decisions between workers.
        job, key, dest: Which task.
        was, state: From which state to which.
        attempt: The try that the new state belongs to; a failure belongs to the next one.
        worker: Who says so.
        source: UUID the content came from.
        size: Bytes that were moved or read.
        seconds: How long the step took.
        digest: What was computed, where the key does not say it already.
        method: How it was verified.
        wait: Seconds before a retry.
        kind, text: Of a failure; *text* also says why a task was skipped, or what allowed a drop.
    """

    time: float
    job: str
    key: str
    dest: str
    was: State
    state: State
    attempt: int
    worker: str
    source: str = ""
    size: int = 0
    seconds: float = 0.0
    digest: str = ""
    method: str = ""
    wait: float = 0.0
    kind: FailureKind | None = None
    text: str = ""

    def to_line(self) -> bytes:
        """One line of JSON, with LF."""
        fields: dict[str, object] = {
            "v": 1, "t": round(self.time, 3), "job": self.job, "key": self.key, "dest": self.dest,
            "from": self.was, "to": self.state, "try": self.attempt, "worker": self.worker,
        }  # fmt: skip
        more = {
            "src": self.source, "bytes": self.size, "secs": round(self.seconds, 6),
            "hash": self.digest, "method": self.method, "wait": round(self.wait, 3),
        }  # fmt: skip
        fields |= {name: value for name, value in more.items() if value}
        if self.kind is not None or self.text:
            fields["err"] = {"kind": self.kind, "text": self.text}
        return json.dumps(fields, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Event | None:
        """None for a line that is no event of this version."""
        try:
            fields: dict[str, Any] = json.loads(line)  # Any: parsed JSON
            if fields["v"] != 1:
                return None
            error = fields.get("err") or {}
            kind = error.get("kind")
            get = fields.get
            return cls(
                fields["t"], get("job", ""), fields["key"], fields["dest"], State(fields["from"]), State(fields["to"]),
                int(fields["try"]), get("worker", ""), get("src", ""), get("bytes", 0), get("secs", 0.0),
                get("hash", ""), get("method", ""), get("wait", 0.0),
                None if kind is None else FailureKind(kind), error.get("text", ""),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def read_events(lines: Iterable[bytes]) -> Iterator[Event]:
    """The events among *lines*, which end with LF: a last line without it is torn."""
    for line in lines:
        if line.endswith(b"\n") and (event := Event.from_line(line)) is not None:
            yield event


@dataclass(slots=True)
class Folded:
    """Where one task is: a fold over its events that depends neither on their order nor on repetition.

    Attributes:
        last: The event that counts; None while there is none.
        step: In ``retry_wait``: the state to go on from.
        begun: The try that an operator asked for last, 0 for the first.
        bad_sources: UUIDs that turned out to be bad since then.
        spoiled: How often since then what was read back was wrong.
    """

    last: Event | None = None
    begun: int = 0
    _bad: dict[str, int] = field(default_factory=dict)
    _spoiled: set[int] = field(default_factory=set)
    _cold: set[int] = field(default_factory=set)

    @property
    def state(self) -> State:
        return State.PLANNED if self.last is None else self.last.state

    @property
    def attempt(self) -> int:
        """The try it is at, from 1."""
        return 1 if self.last is None else self.last.attempt

    @property
    def tries(self) -> int:
        """How many tries there were since it was planned, this one included; not those that found it cold."""
        return self.attempt - self.begun + (0 if self.begun == 0 else 1) - self.found_cold

    @property
    def found_cold(self) -> int:
        """How many tries since it was planned found that it has to be brought up first."""
        return sum(attempt > self.begun for attempt in self._cold)

    @property
    def step(self) -> State:
        """The state that work goes on from: what came before the failure that is waited for."""
        last = self.last
        if last is None:
            return State.PLANNED
        if last.state is State.RETRY_WAIT:
            return State.PLANNED if last.kind is FailureKind.DEST_BAD else last.was
        return last.state

    @property
    def bad_sources(self) -> frozenset[str]:
        return frozenset(uuid for uuid, attempt in self._bad.items() if attempt > self.begun)

    @property
    def spoiled(self) -> int:
        return sum(attempt > self.begun for attempt in self._spoiled)

    @property
    def asked(self) -> str:
        """UUID of the cold source that was found to have it last, as long as nothing else went wrong since."""
        last = self.last
        if last is None or (last.kind is not FailureKind.COLD and last.state not in (State.WARMING, State.WARM)):
            return ""
        return last.source

    def add(self, event: Event) -> None:
        """Take one more event into account."""
        if event.state is State.PLANNED and event.attempt > self.begun and event.attempt > 1:
            self.begun = event.attempt
        if event.kind is FailureKind.SOURCE_BAD and event.source:
            self._bad[event.source] = max(event.attempt, self._bad.get(event.source, 0))
        elif event.kind is FailureKind.DEST_BAD:
            self._spoiled.add(event.attempt)
        elif event.kind is FailureKind.COLD:
            self._cold.add(event.attempt)
        if self.last is None or _is_after(event, self.last):
            self.last = event


def _is_after(event: Event, other: Event) -> bool:
    one, two = _order(event), _order(other)
    return one > two or (one == two and event.to_line() > other.to_line())  # any order, as long as all agree on it


def _order(event: Event) -> tuple[int, int, float, str, str]:
    return event.attempt, RANK[event.state], event.time, event.worker, event.text


def fold_shard(tasks: Iterable[Task], events: Iterable[Event]) -> dict[str, Folded]:
    """Key → where its task is, for the tasks of one shard. Events of other tasks are left out."""
    folded = {task.key: Folded() for task in tasks}
    for event in events:
        one = folded.get(event.key)
        if one is not None:
            one.add(event)
    return folded
