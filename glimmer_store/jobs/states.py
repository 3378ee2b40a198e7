"""The states of one task (a key and the repository that is to have it), and the kinds of failure.

::

    planned → (warming → warm) → claimed → copying → copied → verifying → verified → registered
       any step → retry_wait → (the same step)   → failed(kind)          an operator: → planned
    planned → skipped(reason)
    planned → (verifying) → dropped → registered           of a job that empties a repository

A task is always at the highest (try, rank) that any event names, whoever wrote it and in whatever order the events
are read. A failure opens the next try, so what goes wrong later outranks what went well before, and a try that goes
well outranks the failure that opened it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["DONE", "PROVEN", "RANK", "SETTLED", "FailureKind", "JobState", "State"]


class State(StrEnum):
    """Where a task is."""

    PLANNED = "planned"
    RETRY_WAIT = "retry_wait"
    FAILED = "failed"
    WARMING = "warming"
    WARM = "warm"
    CLAIMED = "claimed"
    COPYING = "copying"
    COPIED = "copied"
    VERIFYING = "verifying"
    SKIPPED = "skipped"
    VERIFIED = "verified"
    DROPPED = "dropped"
    REGISTERED = "registered"


RANK: Final = {state: rank for rank, state in enumerate(State)}
"""Order within one try."""

DONE: Final = frozenset((State.REGISTERED, State.SKIPPED))
"""Nothing is left to be done."""

PROVEN: Final = DONE | {State.VERIFIED, State.DROPPED}
"""What was to be shown was shown, or it need not be: nothing is left but to register it."""

SETTLED: Final = PROVEN | {State.FAILED}
"""Nothing is left to be done by a worker."""


class FailureKind(StrEnum):
    """What kind of failure it is, which decides what is done about it."""

    TRANSIENT = "transient"
    """Time out, lost connection, a busy peer: the same step again, later."""
    SOURCE_BAD = "source-bad"
    """A source lost the content or has another: the next source."""
    DEST_BAD = "dest-bad"
    """What was read back is wrong or gone: remove it, copy again once, then fail."""
    DEST_FULL = "dest-full"
    """No space: the destination is held, the job goes on elsewhere."""
    COLD = "cold"
    """The content is not online: warm it first."""
    TERMINAL = "terminal"
    """No source is left, no checksum, no permission: a person is needed."""
    TOO_FEW = "too-few"
    """It may not be dropped: too few proven copies would stay."""
    REQUIRED = "required"
    """It may not be dropped: it is required content where it is."""
    LOST_WORKER = "lost-worker"
    """Whoever worked on it is gone."""


class JobState(StrEnum):
    """How a job as a whole stands. Never goes back, but that a failed job may succeed when it is run again."""

    ACCEPTED = "accepted"
    PROCESSING = "processing"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
