"""Look at a running job: read its ledger, a shard at a time, and what is around it, and make the figures of it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import annexpy as annex
from glimmer_store.attest import Attestations, Verdict
from glimmer_store.errors import StoreError
from glimmer_store.jobs.around import Around, ColdFigures, Safety, cold_figures, job_state
from glimmer_store.jobs.control import Control, ControlFile
from glimmer_store.jobs.event import fold_shard
from glimmer_store.jobs.figures import ShardSums, of_shard
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.states import State
from glimmer_store.jobs.summary import Figures
from glimmer_store.jobs.warming import LOG as WARM_LOG

__all__ = ["REPORT", "Survey", "safety_of"]

REPORT: Final = "report.json"
_WORST: Final = 20


@dataclass(frozen=True, slots=True)
class _Seen:
    stamp: tuple[int, ...]
    until: float
    sums: ShardSums


class Survey:
    """Looks at one job again and again. Shards in which nothing happened are not read a second time.

    Args:
        ledger: Of the job.
        clock: For the time of the figures.
        keep: Remember the sums of each shard: some kilobytes each, for a view that is drawn anew every second.
    """

    def __init__(self, ledger: Ledger, *, clock: annex.Clock | None = None, keep: bool = False) -> None:
        self._ledger, self._clock, self._keep = ledger, clock or annex.SystemClock(), keep
        self._seen: dict[str, _Seen] = {}

    def look(self, *, safety: Safety | None = None) -> Figures:
        """The figures now.

        Raises:
            JobError: A file of the ledger is malformed.
        """
        from glimmer_store.jobs.tally import NodeTally

        ledger, now = self._ledger, self._clock.wall()
        whole, last = ShardSums(), {}
        holdings = list(ledger.holdings())
        held = {one.shard for one in holdings}
        with NodeTally() as tally:
            for shard in ledger.shards():
                sums = self._shard(shard, now)
                whole.add(sums)
                tally.add(sums.nodes)
                if shard in held:
                    last[shard] = sums.last
            nodes = tally.counts()
        control = self._control()
        alive = any(not one.expired for one in holdings)
        state = job_state(
            whole.keys, paused=control.paused, cancelled=control.cancelled, begun=whole.last > 0, at_work=alive
        )
        spec = ledger.spec
        places = (*spec.sources, *spec.dests)
        around = Around(
            now,
            spec.id,
            spec.type,
            {str(place.uuid): place.name for place in places},
            state,
            reason=control.reason,
            holdings=holdings,
            heartbeat=spec.heartbeat,
            last=last,
            held=control.held,
            nodes=nodes,
            free={str(place.uuid): _free(place.url) for place in spec.dests},
            ledger=_size(ledger.folder),
            connections=_connections([one.pid for one in holdings if one.host == os.uname().nodename]),
            limits=spec.planned_limits.changed(control.limits).to_json(),
            safety=safety or self._told_safety(),
            cold=_cold(ledger.folder / WARM_LOG, whole, now),
        )
        return Figures(whole, around)

    def _shard(self, shard: str, now: float) -> ShardSums:
        stamp = _stamp(self._ledger.folder / "events" / shard)
        seen = self._seen.get(shard)
        if seen is not None and seen.stamp == stamp and now < seen.until:
            return seen.sums
        events, tasks = list(self._ledger.events(shard)), list(self._ledger.tasks(shard))
        sums = of_shard(tasks, fold_shard(tasks, events), events, now)
        if self._keep:
            # what was done in the last ten minutes has to be forgotten in time
            self._seen[shard] = _Seen(stamp, now + 60 if now - sums.last < 700 else float("inf"), sums)
        return sums

    def _control(self) -> Control:
        return ControlFile(self._ledger.folder).read()

    def _told_safety(self) -> Safety | None:
        """As the last report said, with the time of that."""
        try:
            told: dict[str, Any] = json.loads((self._ledger.folder / REPORT).read_bytes())["safety"]["objects"]
            return _safety_from(told)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def _safety_from(told: Mapping[str, Any]) -> Safety:  # Any: parsed JSON
    from datetime import datetime

    return Safety(
        told["objects"],
        told["irreplaceable"],
        told["below"],
        told["irreplaceable-below"],
        told["enough"],
        {int(copies): count for copies, count in told["by-copies"].items()},
        tuple(told["worst"]),
        datetime.fromisoformat(told["at"]).timestamp(),
    )


async def safety_of(dataset: Path, *, now: Callable[[], float] | None = None) -> Safety | None:
    """How safe the objects of a dataset are by its nodes, read one after the other; None where there is no graph.

    Raises:
        StoreError: A node is malformed.
    """
    from glimmer_store.config import CONFIG_NAME
    from glimmer_store.graph import GlimmerGraph

    if not (dataset / CONFIG_NAME).exists():
        return None
    by_copies: Counter[int] = Counter()
    irreplaceable = below = irreplaceable_below = 0
    worst: list[str] = []
    attested = Attestations(dataset)
    async with GlimmerGraph.open(dataset) as graph:
        for node in graph.nodes():
            record = node.record
            if record is None:
                continue
            copies = record.copies if record.verified else _proven(attested, node.key)
            by_copies[copies] += 1
            precious = record.storage_class.value == "irreplaceable"
            irreplaceable += precious
            if copies < record.numcopies_required:
                below += 1
                irreplaceable_below += precious
                if precious and len(worst) < _WORST:
                    worst.append(node.id)
    at = (now or annex.SystemClock().wall)()
    objects = by_copies.total()
    return Safety(
        objects, irreplaceable, below, irreplaceable_below, objects - below, dict(by_copies), tuple(worst), at
    )


def _proven(attested: Attestations, key: annex.Key | None) -> int:
    """Of a node that is not verified as a whole: the copies whose newest attestation is good."""
    if key is None:
        return 0
    return sum(one.verdict is Verdict.GOOD for one in attested.newest(key).values())


def _cold(path: Path, sums: ShardSums, now: float) -> ColdFigures | None:
    """What was asked of cold tiers, from the log of that and where the tasks are."""
    requested, cost = 0, 0.0
    for line in _json_lines(path):
        sign = 1 if line.get("what") == "request" else -1
        requested += sign * len(line.get("keys", ()))
        cost += sign * float(line.get("cost", 0))
    if not requested and not sums.keys[State.WARMING] and not sums.expiries:
        return None
    return cold_figures(sums, requested, round(cost, 6), now)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    with suppress(ValueError):
                        yield json.loads(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path}: {error}") from error


def _stamp(folder: Path) -> tuple[int, ...]:
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(entry.stat().st_size for entry in entries if entry.name.endswith(".jsonl")))
    except FileNotFoundError:
        return ()


def _free(url: str) -> int | None:
    if not os.path.isdir(url):
        return None
    status = os.statvfs(url)
    return status.f_bavail * status.f_frsize


def _size(folder: Path) -> int:
    total = 0
    for name, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(name, file)).st_size
    return total


def _connections(pids: list[int]) -> int | None:
    """Sockets of processes of ours; None where the system does not tell."""
    if not os.path.isdir("/proc/self/fd"):
        return None
    sockets = 0
    for pid in set(pids):
        with suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    sockets += os.readlink(f"/proc/{pid}/fd/{fd}").startswith("socket:")
    return sockets
