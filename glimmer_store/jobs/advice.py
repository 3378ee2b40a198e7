"""What happens next with a task, and what a person can do about one that failed, by the type of its job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from glimmer_store.jobs.states import FailureKind, State

__all__ = ["next_of", "remedy_of"]

_READ_BACK: Final = "another process reads it back from the destination"
_NEXT: Final[Mapping[State, str]] = {
    State.PLANNED: "a worker claims its shard, and copies it",
    State.WARMING: "it is copied when it is online",
    State.WARM: "it is copied before it expires",
    State.CLAIMED: "it is copied",
    State.COPYING: "it is copied; what arrived before an interruption is not sent again",
    State.COPIED: _READ_BACK,
    State.VERIFYING: _READ_BACK,
    State.VERIFIED: "the registrar writes it into the dataset",
    State.DROPPED: "the registrar writes into the dataset that it is gone",
    State.REGISTERED: "nothing: it is done",
    State.SKIPPED: "nothing: it need not be done",
    State.RETRY_WAIT: "it is tried again when its time has come",
    State.FAILED: "nothing, until a person does something",
}
_OF_TYPE: Final[Mapping[tuple[str, State], str]] = {
    ("verify", State.PLANNED): "a worker claims its shard, and another process reads it",
    ("repair", State.PLANNED): "a worker claims its shard, and another process reads it",
    ("drain", State.PLANNED): "a worker claims its shard, proves the copies elsewhere, and drops it",
    ("drain", State.VERIFYING): "copies elsewhere are read, and if enough of them are good it is dropped",
}
_REMEDY: Final[Mapping[FailureKind, str]] = {
    FailureKind.TRANSIENT: "see whether both repositories can be reached",
    FailureKind.SOURCE_BAD: "bring a good copy to one of the sources",
    FailureKind.DEST_BAD: "look at the disk of the destination",
    FailureKind.DEST_FULL: "make room at the destination, then: backfill resume",
    FailureKind.COLD: "give the job [warm] settings that allow it",
    FailureKind.TERMINAL: "do what the last error asks for",
    FailureKind.TOO_FEW: "bring more copies elsewhere: backfill run --to NAME",
    FailureKind.REQUIRED: 'let it go, if it may: git annex required NAME ""',
    FailureKind.LOST_WORKER: "see why workers die (memory, time limits)",
}


def next_of(state: State, job: str) -> str:
    """What happens next with a task in that state; *job* is the type of its job."""
    return _OF_TYPE.get((job, state)) or _NEXT[state]


def remedy_of(kind: FailureKind) -> str:
    """What a person can do about a task that failed like that, and how to have it tried again."""
    again = "" if kind is FailureKind.DEST_FULL else f", then: backfill retry --kind {kind}"
    return _REMEDY[kind] + again
