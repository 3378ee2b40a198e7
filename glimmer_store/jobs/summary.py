"""What an operator wants to know of a job, made of its sums and of what is around them.

Still a function of what is handed in; ``survey`` looks. The names in ``to_json`` are those of ``report.json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from glimmer_store.jobs.advice import remedy_of
from glimmer_store.jobs.around import Around, iso
from glimmer_store.jobs.eta import ETA, cost_of, estimate
from glimmer_store.jobs.figures import Flow, Open, ShardSums, size_class
from glimmer_store.jobs.lease import Holding
from glimmer_store.jobs.states import PROVEN, FailureKind, JobState, State

__all__ = ["GROUPS", "Figures", "Stalled", "Why"]

GROUPS: Final[Mapping[str, tuple[State, ...]]] = {
    "planned": (State.PLANNED,),
    "warming": (State.WARMING, State.WARM),
    "copying": (State.CLAIMED, State.COPYING),
    "copied": (State.COPIED, State.VERIFYING),
    "waiting": (State.RETRY_WAIT,),
    "verified": (State.VERIFIED,),
    "dropped": (State.DROPPED,),
    "registered": (State.REGISTERED,),
    "failed": (State.FAILED,),
    "skipped": (State.SKIPPED,),
}
"""Word for people → states."""
_STALLED: Final = 3.0
"""Times what is expected."""
_PATIENCE: Final = 60.0
"""Seconds in which nothing is stalled."""


@dataclass(frozen=True, slots=True)
class Stalled:
    """Work that says nothing for longer than it should take."""

    what: str
    state: str
    worker: str
    seconds: float
    expected: float


@dataclass(frozen=True, slots=True)
class Why:
    """Why keys failed for good: kind, place, and what was said; how many keys and one of them; what a person can do."""

    kind: str
    place: str
    text: str
    keys: int
    example: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a job at one moment."""

    sums: ShardSums
    around: Around

    # -- progress --

    def group(self, name: str) -> tuple[int, int]:
        """Keys and bytes in the states of that group."""
        states = GROUPS[name]
        return sum(self.sums.keys[one] for one in states), sum(self.sums.size[one] for one in states)

    @property
    def drains(self) -> bool:
        """It is about contents that go, not about contents that come."""
        return self.around.type == "drain"

    @property
    def total(self) -> tuple[int, int]:
        """Keys and bytes of all tasks."""
        return self.sums.keys.total(), self.sums.size.total()

    @property
    def proven(self) -> tuple[int, int]:
        """Keys and bytes that need nothing more but to be registered."""
        return sum(self.sums.keys[one] for one in PROVEN), sum(self.sums.size[one] for one in PROVEN)

    @property
    def percent(self) -> dict[str, float]:
        """Done, by bytes, keys and nodes."""
        (keys, size), (all_keys, all_size), (nodes, all_nodes) = self.proven, self.total, self.around.nodes
        return {"bytes": _share(size, all_size), "keys": _share(keys, all_keys), "nodes": _share(nodes, all_nodes)}

    @property
    def eta(self) -> ETA | None:
        """None while nothing is known."""
        return estimate(self.sums.sizes, self.flow("proofs"), self.around.now)

    def flow(self, what: str, role: str = "", who: str = "") -> Flow:
        """What was copied (``copies``) or proven (``proofs``), by everybody or one source, dest or worker."""
        flows: dict[tuple[str, str], Flow] = getattr(self.sums, what)
        return flows.get((role, who), Flow())

    @property
    def flow_words(self) -> tuple[tuple[str, str], ...]:
        """(word for people, flow) of what this job does."""
        return (("dropping", "proofs"),) if self.drains else (("copying", "copies"), ("verifying", "proofs"))

    def to_come(self, uuid: str) -> int:
        """Bytes that a destination is still to get, or to lose."""
        return sum(one.left_bytes for one in self.sums.sizes.values()) if self.drains else self.sums.left_at[uuid]

    def flows(self, what: str, role: str) -> Iterable[tuple[str, Flow]]:
        """(name, flow) of each source, dest or worker, by name."""
        found: dict[tuple[str, str], Flow] = getattr(self.sums, what)
        return sorted((self.name(who), flow) for (as_, who), flow in found.items() if as_ == role and role)

    def name(self, uuid: str) -> str:
        """What people call a repository; workers are called what they are."""
        return self.around.names.get(uuid, uuid)

    # -- health --

    @property
    def alive(self) -> list[Holding]:
        """Workers that hold a shard and have shown that they live."""
        return [one for one in self.around.holdings if not one.expired]

    @property
    def expired(self) -> int:
        """Leases of workers that are lost."""
        return len(self.around.holdings) - len(self.alive)

    @property
    def oldest(self) -> Open | None:
        """The task that was begun and has said nothing for the longest time."""
        return min(self.sums.open, default=None)

    @property
    def stalled(self) -> list[Stalled]:
        """Tasks, and shards that somebody holds, that have said nothing for three times as long as expected."""
        around, cost = self.around, cost_of(self.sums.sizes)
        patience = max(_PATIENCE, 5 * around.heartbeat)
        found = []
        at_work = bool(around.holdings) or around.state is JobState.PROCESSING
        for one in self.sums.open if at_work else ():
            quiet, expected = around.now - one.since - one.wait, cost(size_class(one.size))
            if quiet > max(_STALLED * expected, patience):
                found.append(Stalled(one.key, one.state, one.worker, quiet, expected))
        for holding in self.alive:
            last = around.last.get(holding.shard, 0.0)
            if around.state is JobState.PROCESSING and last and around.now - last > _STALLED * patience:
                found.append(Stalled(f"shard {holding.shard}", "held", holding.worker, around.now - last, patience))
        return found

    def retries(self) -> dict[str, int]:
        """Kind of failure → how often something was tried again."""
        return dict(sorted(self.sums.retries.items()))

    def failures(self) -> list[tuple[str, str, int]]:
        """(kind, name of the place, keys) that failed for good."""
        found = ((kind, self.name(where), count) for (kind, where), count in self.sums.failures.items())
        return sorted(found, key=lambda one: (-one[2], one))

    def reasons(self) -> list[Why]:
        """Why keys failed for good, what most of them have in common first; not every reason where there are many."""
        found = (
            Why(kind, self.name(where), why, count, key, remedy_of(FailureKind(kind)) if kind != "unknown" else "")
            for (kind, where, why), (count, key) in self.sums.reasons.items()
        )
        return sorted(found, key=lambda one: (-one.keys, one.kind, one.place, one.text))

    def bad_copies(self) -> dict[str, int]:
        """Place → copies that were read and are wrong or gone."""
        return {self.name(where): count for where, count in sorted(self.sums.bad.items())}

    @property
    def at_risk(self) -> int:
        """Irreplaceable keys of the job whose copy at the destination is not proven, or is not dropped."""
        return self.sums.unproven["irreplaceable"]

    @property
    def first_line(self) -> str:
        """What has to be known before anything else."""
        safety = self.around.safety
        if self.drains:
            waits = f"{self.at_risk:,} irreplaceable keys of this job were not dropped"
            done = "every irreplaceable key of this job was dropped, with proven copies elsewhere"
        else:
            waits = f"{self.at_risk:,} irreplaceable keys of this job are not proven at their destination yet"
            done = "every irreplaceable key of this job is proven at its destination"
        if safety is None:
            return waits if self.at_risk else done
        if safety.irreplaceable_below:
            below = f"{safety.irreplaceable_below:,} of {safety.irreplaceable:,}"
            return f"IRREPLACEABLE BELOW REQUIREMENT: {below} objects lack proven copies; {waits}"
        said = f"all {safety.irreplaceable:,} irreplaceable objects have the proven copies they need"
        return f"{said}; {waits}" if self.at_risk else said

    # -- as JSON --

    def to_json(self) -> dict[str, object]:
        """Everything, for ``report.json``."""
        around = self.around
        return {
            "v": 1,
            "first": self.first_line,
            "job": {"id": around.job, "type": around.type, "state": around.state, "reason": around.reason},
            "at": iso(around.now),
            "safety": self._safety(),
            "progress": self._progress(),
            "speed": self._speed(),
            "eta": None if self.eta is None else {n: round(s, 1) for n, s in asdict(self.eta).items()},
            "health": self._health(),
            "cold": None if around.cold is None else around.cold.to_json(),
            "resources": self._resources(),
            "limits": dict(around.limits),
        }

    def _safety(self) -> dict[str, object]:
        safety = self.around.safety
        return {
            "objects": None if safety is None else safety.to_json(),
            "irreplaceable-unproven": self.at_risk,
            "unproven": dict(sorted(self.sums.unproven.items())),
            "claimed-unverified": self.group("copied")[0],
            "bad-copies": self.bad_copies(),
        }

    def _progress(self) -> dict[str, object]:
        (keys, size), (nodes, all_nodes) = self.total, self.around.nodes
        groups = {name: self.group(name) for name in GROUPS}
        return {
            "keys": keys,
            "bytes": size,
            "nodes": {"complete": nodes, "all": all_nodes},
            "percent": {name: round(value, 3) for name, value in self.percent.items()},
            "states": {name: {"keys": count, "bytes": many} for name, (count, many) in groups.items()},
        }

    def _speed(self) -> dict[str, object]:
        now = self.around.now
        told: dict[str, object] = {}
        for word, what in self.flow_words:
            by = {role: {n: f.to_json(now) for n, f in self.flows(what, role)} for role in ("source", "dest", "worker")}
            told[word] = self.flow(what).to_json(now) | {"by": {role: flows for role, flows in by.items() if flows}}
        return told | {"methods": dict(sorted(self.sums.methods.items()))}

    def _health(self) -> dict[str, object]:
        oldest = self.oldest
        failures = [{"kind": kind, "place": where, "keys": count} for kind, where, count in self.failures()]
        return {
            "workers-alive": len({one.worker for one in self.alive}),
            "leases": len(self.alive),
            "expired-leases": self.expired,
            "retries": self.retries(),
            "failures": failures,
            "reasons": [asdict(one) for one in self.reasons()],
            "oldest-open": None if oldest is None else {"key": oldest.key, "seconds": self.around.now - oldest.since},
            "stalled": [asdict(one) for one in self.stalled],
            "held": {self.name(uuid): why for uuid, why in self.around.held.items()},
        }

    def _resources(self) -> dict[str, object]:
        around = self.around
        dests = {
            self.name(uuid): {"free-bytes": free, "bytes-to-go" if self.drains else "bytes-to-come": self.to_come(uuid)}
            for uuid, free in around.free.items()
        }
        return {"dest": dests, "ledger-bytes": around.ledger, "connections": around.connections}


def _share(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0
