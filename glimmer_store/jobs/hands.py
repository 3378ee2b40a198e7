"""What a worker works with, and what it says that it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import annexpy as annex
from glimmer_store.attest import Signer
from glimmer_store.jobs.ledger import Ledger, Writer
from glimmer_store.jobs.places import Places
from glimmer_store.jobs.rereader import Rereader
from glimmer_store.jobs.throttle import Throttle

__all__ = ["Hands", "WorkerSummary"]


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


@dataclass(frozen=True, slots=True)
class Hands:
    """What one worker has, for all its shards."""

    ledger: Ledger
    writer: Writer
    places: Places
    throttle: Throttle
    rereading: Rereader
    signer: Signer
    clock: annex.Clock
    summary: WorkerSummary
