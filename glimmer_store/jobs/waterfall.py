"""How a job stood over time: events that are only added, and a status that never goes back.

``accepted → processing → failed → succeeded``: each step may be left out, none is ever undone, but that a failed job
may succeed when it is tried again; succeeded is the end. A job may be cancelled while it has not succeeded, and that is
the end as well. The status is a fold over the events: one that came late or twice does not turn it back.

Source: fact sheet datamanifest-and-backfill, B2.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import annexpy as annex
from glimmer_store.jobs.control import locked
from glimmer_store.jobs.states import JobState
from glimmer_store.synced import sync

__all__ = ["ALLOWED", "FINAL", "JobEvent", "JobLog", "allowed", "status_of"]

ALLOWED: Final[Mapping[JobState, frozenset[JobState]]] = {
    JobState.ACCEPTED: frozenset(JobState) - {JobState.PAUSED},
    JobState.PROCESSING: frozenset((JobState.PROCESSING, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)),
    JobState.FAILED: frozenset((JobState.FAILED, JobState.SUCCEEDED, JobState.CANCELLED)),
    JobState.SUCCEEDED: frozenset((JobState.SUCCEEDED,)),
    JobState.CANCELLED: frozenset((JobState.CANCELLED,)),
}
"""Status → what may come next. A pause is no status: it is asked of a job, and taken back."""
FINAL: Final = frozenset((JobState.SUCCEEDED, JobState.CANCELLED))
_LOG: Final = "status.jsonl"
_LONGEST: Final = 250


def allowed(now: JobState, then: JobState) -> bool:
    """The status may go from *now* to *then*."""
    return then in ALLOWED.get(now, ())


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One thing that happened to a job.

    Attributes:
        time: Seconds since 1970.
        status: What it says the status is; None: it says nothing of that, but a job that was accepted is being
            worked on then.
        text: One sentence: ``STEP started``, ``STEP succeeded``, ``STEP failed - REASON``.
    """

    time: float
    status: JobState | None
    text: str

    def to_line(self) -> bytes:
        return json.dumps({"v": 1, "t": round(self.time, 3), "status": self.status, "text": self.text}).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> JobEvent | None:
        """None for a line that is no event of this version."""
        try:
            fields: dict[str, Any] = json.loads(line)  # Any: parsed JSON
            if fields["v"] != 1:
                return None
            status = fields["status"]
            return cls(float(fields["t"]), None if status is None else JobState(status), str(fields["text"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def status_of(events: Iterable[JobEvent]) -> JobState:
    """The status after *events*; one that would go back is as if it said nothing."""
    now = JobState.ACCEPTED
    for event in events:
        then = event.status or JobState.PROCESSING
        if allowed(now, then) and (event.status is not None or now is JobState.ACCEPTED):
            now = then
    return now


class JobLog:
    """The events of the job in a folder, ``status.jsonl``."""

    def __init__(self, folder: Path, *, clock: annex.Clock | None = None) -> None:
        self._folder, self._clock = folder, clock or annex.SystemClock()

    def events(self) -> Iterator[JobEvent]:
        """All of them, in the order in which they were written."""
        try:
            raw = (self._folder / _LOG).read_bytes()
        except FileNotFoundError:
            return
        for line in raw.splitlines(keepends=True):
            if line.endswith(b"\n") and (event := JobEvent.from_line(line)) is not None:
                yield event

    @property
    def status(self) -> JobState:
        """Now."""
        return status_of(self.events())

    def say(self, text: str, status: JobState | None = None) -> JobState:
        """Add an event; the status after it. On disk when this returns."""
        text = " ".join(text.split())
        text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
        with locked(self._folder), (self._folder / _LOG).open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":  # a crash left a torn line
                    file.write(b"\n")
            file.write(JobEvent(self._clock.wall(), status, text).to_line())
            file.flush()
            os.fsync(file.fileno())
            if not end:
                sync(self._folder)
        return self.status
