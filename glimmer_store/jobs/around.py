"""What is around the sums of a job: its state, who works on it, how safe the dataset is; looked up by ``survey``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from glimmer_store.jobs.figures import HOUR, ShardSums
from glimmer_store.jobs.lease import Holding
from glimmer_store.jobs.states import DONE, PROVEN, JobState, State

__all__ = ["Around", "ColdFigures", "Safety", "cold_figures", "iso", "job_state"]


@dataclass(frozen=True, slots=True)
class Safety:
    """How safe the objects of the dataset are, by the copies that were proven and recorded.

    Attributes:
        objects, irreplaceable: How many there are.
        below, irreplaceable_below: With fewer proven copies than their class needs.
        enough: With as many.
        by_copies: Proven copies → objects.
        worst: Some of the irreplaceable ones that are below.
        at: When that was looked at.
    """

    objects: int
    irreplaceable: int
    below: int
    irreplaceable_below: int
    enough: int
    by_copies: Mapping[int, int]
    worst: tuple[str, ...]
    at: float

    def to_json(self) -> dict[str, object]:
        fields = asdict(self)
        fields["by-copies"] = {str(n): count for n, count in sorted(self.by_copies.items())}
        del fields["by_copies"]
        return {name.replace("_", "-"): value for name, value in fields.items()} | {"at": iso(self.at)}


@dataclass(frozen=True, slots=True)
class ColdFigures:
    """Of contents in cold tiers.

    Attributes:
        requested: Keys that were asked for, each time.
        warming, online: On their way; and there, not copied yet.
        expiring: Of the latter, those that will be gone within 24 hours.
        expired_unused: Those that are gone, and have to be asked for again.
        cost: What all requests cost so far.
    """

    requested: int
    warming: int
    online: int
    expiring: int
    expired_unused: int
    cost: float

    def to_json(self) -> dict[str, object]:
        return {name.replace("_", "-"): value for name, value in asdict(self).items()}


def cold_figures(sums: ShardSums, requested: int, cost: float, now: float) -> ColdFigures:
    """From where the tasks are at *now*, to the hour, and what was asked for."""
    this = int(now // HOUR)
    gone = sum(count for hour, count in sums.expiries.items() if 0 < hour < this)
    soon = sum(count for hour, count in sums.expiries.items() if this <= hour <= this + 24)
    return ColdFigures(requested, sums.keys[State.WARMING], sums.keys[State.WARM] - gone, soon, gone, cost)


@dataclass(frozen=True, slots=True)
class Around:
    """What the sums do not tell.

    Attributes:
        now: Seconds since 1970.
        job, type: Id and type of the job.
        names: UUID → what people call it.
        state: Of the job; with a *reason* where somebody paused or cancelled it.
        holdings: Who works on which shard.
        heartbeat: Seconds.
        last: Shard that is held → its last event.
        held: Destination that takes nothing → why.
        nodes: Complete ones, and all.
        free: Destination → bytes that are free; None: not known.
        ledger: Bytes of the ledger.
        connections: Sockets that workers on this machine have open; None: not known.
        limits: In force.
        safety: None: not looked at.
        cold: None: nothing is.
    """

    now: float
    job: str
    type: str
    names: Mapping[str, str]
    state: JobState
    reason: str = ""
    holdings: Sequence[Holding] = ()
    heartbeat: float = 6.0
    last: Mapping[str, float] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[int, int] = (0, 0)
    free: Mapping[str, int | None] = field(default_factory=dict)
    ledger: int = 0
    connections: int | None = None
    limits: Mapping[str, object] = field(default_factory=dict)
    safety: Safety | None = None
    cold: ColdFigures | None = None


def job_state(keys: Counter[State], *, paused: bool, cancelled: bool, begun: bool, at_work: bool) -> JobState:
    """How the job stands, from where its tasks are.

    Args:
        keys: State → keys.
        paused, cancelled: As an operator said.
        begun: There is an event.
        at_work: Somebody holds a lease.
    """
    if all(state in DONE for state, count in keys.items() if count):
        return JobState.SUCCEEDED
    if cancelled:
        return JobState.CANCELLED
    settled = all(state in PROVEN or state is State.FAILED for state, count in keys.items() if count)
    if settled and keys[State.FAILED] and not keys[State.VERIFIED] and not at_work:
        return JobState.FAILED
    if paused:
        return JobState.PAUSED
    return JobState.PROCESSING if begun or at_work else JobState.ACCEPTED


def iso(at: float) -> str:
    """Seconds since 1970 as UTC, to the second."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
