"""Many schedules, on every processor, and what they come to."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from math import inf
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.simulation.world import Report

__all__ = ["FAULTS", "KEPT", "Summary", "kept_seeds", "run_campaign", "try_mutant"]

KEPT = Path(__file__).with_name("failing_seeds.txt")
_TOGETHER = 8
_LEAST = {"succeeded": 10.0, "puts": 5.0, "drops": 2.0, "removed": 2.0, "faults": 1.0}
"""What has to happen in a schedule, on average, for a run to mean anything."""
_MANY = 200
"""Schedules in which every kind of fault has to have happened."""
FAULTS = (
    *("kill", "restart", "power", "reboot", "partition", "lost request", "lost reply", "stall", "late removal"),
    *("full", "errors", "rot", "wall", "cancel", "flip", "boast"),
)


@dataclass
class Summary:
    """What a campaign came to."""

    first: int = 0
    next: int = 0
    """The first seed that was not run."""
    schedules: int = 0
    began: str = ""
    seconds: float = 0.0
    rate: float = 0.0
    processor_seconds: float = 0.0
    processes: int = 1
    violations: dict[str, list[str]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    """Those of ``KINDS`` under their names there, and what follows from them: restarts, reboots, lost replies."""
    scenes: dict[str, int] = field(default_factory=dict)
    too_little: list[str] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    """Each that added to this: when it began, and what it came to."""

    def take(self, report: Report) -> None:
        """One more schedule."""
        self.schedules += 1
        self.processor_seconds += report.seconds
        for counts, more in ((self.totals, {**report.counts, "events": report.events}), (self.faults, report.faults)):
            for name, count in more.items():
                counts[name] = counts.get(name, 0) + count
        self.scenes[report.scene or "anything"] = self.scenes.get(report.scene or "anything", 0) + 1
        if report.violations:
            self.violations[f"{report.seed} {report.scene}".strip()] = report.violations[:5]

    def took(self, began: str, seconds: float, schedules: int) -> None:
        """So many schedules in so many seconds of the run that began then, which may not be over: judge everything."""
        if not self.runs or self.runs[-1]["began"] != began:
            self.runs.append({"began": began})
        rate = round(schedules / seconds, 2) if seconds else 0.0
        self.runs[-1] |= {"seconds": round(seconds, 1), "schedules": schedules, "rate": rate}
        self.seconds = sum(float(run["seconds"]) for run in self.runs)
        self.rate = self.schedules / self.seconds if self.seconds else 0.0
        each = {**self.totals, "faults": sum(self.faults.values())}
        self.too_little = [
            f"{got:.1f} {name} a schedule, where {least:.0f} are the least"
            for name, least in _LEAST.items()
            if (got := each.get(name, 0) / max(1, self.schedules)) < least
        ]
        if self.schedules >= _MANY:
            self.too_little += [
                f"0 {name} in {self.schedules} schedules" for name in FAULTS if not self.faults.get(name)
            ]

    @property
    def ok(self) -> bool:
        return bool(self.schedules) and not self.violations and not self.too_little

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.schedules} schedules from seed {self.first} in {self.seconds:.1f} s: {self.rate:.1f} a second"
        each = Counter(self.totals)
        shown = ("operations", "succeeded", "puts", "drops", "gets", "removed", "events")
        yield "per schedule: " + ", ".join(f"{name} {each[name] / max(1, self.schedules):.1f}" for name in shown)
        yield "faults: " + (", ".join(f"{name} {count}" for name, count in sorted(self.faults.items())) or "none")
        for seed, found in self.violations.items():
            yield f"VIOLATION in seed {seed}: {found[0]}"
        for text in self.too_little:
            yield f"too little happened: {text}"

    @classmethod
    def of(cls, path: Path) -> Summary:
        """What an earlier run came to, to go on with."""
        saved = json.loads(path.read_text())
        return cls(**{name: value for name, value in saved.items() if name not in ("ok", "too_little")})

    def save(self, path: Path) -> None:
        """Write it down whole, or not at all."""
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.write_text(json.dumps({**asdict(self), "ok": self.ok}, indent=1) + "\n")
        aside.replace(path)


def kept_seeds() -> list[int]:
    """Seeds that have shown something once."""
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def _schedules(seeds: Sequence[int]) -> list[Report]:
    from tests.simulation.run import install, run_schedule

    install()
    return [run_schedule(seed) for seed in seeds]


def _quiet() -> None:
    """Whoever wants a campaign to end tells the process that began it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_campaign(
    first: int,
    *,
    seeds: int | None = None,
    minutes: float | None = None,
    jobs: int | None = None,
    also: Sequence[int] = (),
    told: Callable[[Summary], None] | None = None,
    earlier: Summary | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> Summary:
    """Run so many schedules, or for so long; those *also* come first.

    Processes have the same hash seed, so that a seed means the same everywhere.

    Args:
        told: Hears what it has come to, every now and then.
        earlier: Is added to, from where it ended.
        enough: Asked every second; then what was begun is finished.
    """
    os.environ["PYTHONHASHSEED"] = "0"
    jobs = jobs or len(os.sched_getaffinity(0))
    began_at = datetime.now(UTC).isoformat(timespec="seconds")
    summary = earlier or Summary(first, first, began=began_at)
    summary.processes = jobs
    before, began = summary.schedules, time.monotonic()
    until = inf if minutes is None else began + minutes * 60
    chunks = _chunks(summary.next, seeds, also)
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        running: dict[Future[list[Report]], Sequence[int]] = {}
        while True:
            over = enough() or time.monotonic() >= until
            while not over and len(running) < 2 * jobs and (chunk := next(chunks, None)) is not None:
                running[pool.submit(_schedules, chunk)] = chunk
            if over:
                running = {future: chunk for future, chunk in running.items() if not future.cancel()}
            if not running:
                break
            done = wait(running, timeout=1, return_when=FIRST_COMPLETED).done
            for future in done:
                chunk = running.pop(future)
                summary.next = max(summary.next, chunk.stop) if isinstance(chunk, range) else summary.next
                for report in future.result():
                    summary.take(report)
            summary.took(began_at, time.monotonic() - began, summary.schedules - before)
            if done and told is not None:
                told(summary)
    return summary


def _chunks(first: int, seeds: int | None, also: Sequence[int]) -> Iterator[Sequence[int]]:
    if also:
        yield also
    at, last = first, None if seeds is None else first + seeds
    while last is None or at < last:
        end = at + _TOGETHER if last is None else min(at + _TOGETHER, last)
        yield range(at, end)
        at = end


def try_mutant(number: int, limit: int) -> tuple[int, str]:
    """After how many schedules, or states of the exhaustive run, a mutant is caught, and by what: "" by nobody."""
    from tests.simulation.exhaustive import SETTINGS, explore
    from tests.simulation.mutants import EXHAUSTIVE, MUTANTS, planted
    from tests.simulation.run import install, run_schedule

    install()
    mutant = MUTANTS[number]
    with planted(mutant):
        if mutant.where == EXHAUSTIVE:
            found = explore(SETTINGS[mutant.setting])
            return found.states, found.violation
        for tried in range(limit):
            report = run_schedule(mutant.first + tried, scene=mutant.where)
            if report.violations:
                return tried + 1, report.violations[0]
    return limit, ""
