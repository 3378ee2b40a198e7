"""The figures of a job in the OpenMetrics text format, for the textfile collector of a node exporter: no daemon."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from glimmer_store.jobs.control import replace_file
from glimmer_store.jobs.states import JobState
from glimmer_store.jobs.summary import GROUPS, Figures

__all__ = ["openmetrics", "write_metrics"]

_Sample: TypeAlias = tuple[Mapping[str, str], float]
_PREFIX = "glimmer_store_job_"


def openmetrics(figures: Figures) -> str:
    """The exposition, with its ``# EOF``."""
    job = {"job_id": figures.around.job, "type": figures.around.type}
    lines = [
        line for name, kind, text, samples in _families(figures) for line in _family(name, kind, text, samples, job)
    ]
    return "".join(lines) + "# EOF\n"


def write_metrics(figures: Figures, path: Path) -> None:
    """Replace the file as a whole: a collector never reads half of it."""
    replace_file(path, openmetrics(figures).encode())


def _families(figures: Figures) -> Iterable[tuple[str, str, str, list[_Sample]]]:
    sums, around = figures.sums, figures.around
    states: list[_Sample] = [({"state": one}, float(around.state is one)) for one in JobState]
    yield "state", "gauge", "1 for the state that the job is in.", states
    groups = {name: figures.group(name) for name in GROUPS}
    yield "keys", "gauge", "Keys by where they are.", [({"state": n}, float(k)) for n, (k, _) in groups.items()]
    yield "key_bytes", "gauge", "Bytes by where they are.", [({"state": n}, float(b)) for n, (_, b) in groups.items()]
    nodes, every = around.nodes
    yield "nodes", "gauge", "Nodes.", [({"complete": "yes"}, float(nodes)), ({"complete": "no"}, float(every - nodes))]
    flows = (("dropped", "proofs"),) if figures.drains else (("copied", "copies"), ("verified", "proofs"))
    for word, what in flows:
        for unit, attribute in (("keys", "keys"), ("bytes", "size")):
            samples: list[_Sample] = [
                ({"role": role, "name": name}, float(getattr(flow, attribute)))
                for role in ("source", "dest", "worker")
                for name, flow in figures.flows(what, role)
            ]
            yield f"{word}_{unit}", "counter", f"{unit.title()} that were {word}, by who took part.", samples
    unproven: list[_Sample] = [({"class": name}, float(count)) for name, count in sums.unproven.items()]
    yield "unproven_keys", "gauge", "Keys not proven at their destination.", unproven
    yield (
        "retries",
        "counter",
        "Failures that are tried again.",
        [({"kind": k}, float(n)) for k, n in sums.retries.items()],
    )
    failed: list[_Sample] = [({"kind": k, "place": figures.name(w)}, float(n)) for (k, w), n in sums.failures.items()]
    yield "failed_keys", "gauge", "Keys that need a person.", failed
    bad: list[_Sample] = [({"place": name}, float(count)) for name, count in figures.bad_copies().items()]
    yield "bad_copies", "counter", "Copies that were read and are wrong or gone.", bad
    yield "workers", "gauge", "Workers alive.", [({}, float(len({one.worker for one in figures.alive})))]
    yield "expired_leases", "gauge", "Leases of lost workers.", [({}, float(figures.expired))]
    yield "stalled_tasks", "gauge", "Work that is silent for too long.", [({}, float(len(figures.stalled)))]
    free: list[_Sample] = [({"place": figures.name(u)}, float(n)) for u, n in around.free.items() if n is not None]
    yield "free_bytes", "gauge", "Space at a destination.", free
    left: list[_Sample] = [({"place": figures.name(u)}, float(figures.to_come(u))) for u in around.free]
    yield f"bytes_to_{'go' if figures.drains else 'come'}", "gauge", "What a place is still to get or to lose.", left
    yield "ledger_bytes", "gauge", "Size of the ledger.", [({}, float(around.ledger))]
    yield from _now_and_then(figures)


def _now_and_then(figures: Figures) -> Iterable[tuple[str, str, str, list[_Sample]]]:
    """What is there only where it is known."""
    around, eta = figures.around, figures.eta
    if eta is not None:
        bounds: list[_Sample] = [({"bound": name}, getattr(eta, name)) for name in ("low", "seconds", "high")]
        yield "left_seconds", "gauge", "Time that is left: likely (seconds), at best, at worst.", bounds
    if around.safety is not None:
        safety = around.safety
        copies: list[_Sample] = [({"copies": str(n)}, float(count)) for n, count in sorted(safety.by_copies.items())]
        yield "objects", "gauge", "Objects of the dataset by proven copies.", copies
        below: list[_Sample] = [({}, float(safety.irreplaceable_below))]
        yield "irreplaceable_below_requirement", "gauge", "Irreplaceable objects with too few proven copies.", below
    if around.cold is not None:
        yield "cold_requested_keys", "gauge", "Keys asked of cold tiers.", [({}, float(around.cold.requested))]
        places = {"warming": around.cold.warming, "online": around.cold.online, "expiring": around.cold.expiring}
        samples: list[_Sample] = [({"state": name}, float(count)) for name, count in places.items()]
        yield "cold_keys", "gauge", "Keys in cold tiers; expiring are online for a day at most.", samples
        yield "cold_cost", "gauge", "What that costs so far.", [({}, around.cold.cost)]
    yield "looked_at_timestamp_seconds", "gauge", "When these figures were made.", [({}, around.now)]


def _family(name: str, kind: str, text: str, samples: Iterable[_Sample], job: Mapping[str, str]) -> Iterable[str]:
    yield f"# TYPE {_PREFIX}{name} {kind}\n# HELP {_PREFIX}{name} {text}\n"
    end = "_total" if kind == "counter" else ""
    for labels, value in samples:
        told = ",".join(f'{label}="{_escaped(of)}"' for label, of in {**job, **labels}.items())
        yield f"{_PREFIX}{name}{end}{{{told}}} {value!r}\n"


def _escaped(text: str) -> str:
    valid = str(text).encode("utf-8", "replace").decode()
    return valid.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
