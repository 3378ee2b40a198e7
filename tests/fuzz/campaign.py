"""Feeds a parser many inputs, and sees whether it breaks, hangs, or keeps memory."""

from __future__ import annotations

import base64
import gc
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from random import Random
from types import FrameType

from tests.fuzz.mutation import Mutator

__all__ = ["MOST_PROBLEMS", "Hangs", "Report", "Target", "run"]

TICK = 0.5
"""Seconds of cpu time between two looks of the watchdog; an input that is still there at the second look hangs."""

MOST_KEPT = 16 << 20
MOST_AT_ONCE = 64 << 20
MOST_PROBLEMS = 5
"""After so many of them a parser is fed no more."""


class Hangs(BaseException):
    """An input took too long."""


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        name: What it is called in reports.
        feed: Parses one input; the random numbers decide how it is cut in pieces, and the like.
        seeds: Good inputs.
        words: What they are made of.
        refusals: What it may raise.
    """

    name: str
    feed: Callable[[bytes, Random], object]
    seeds: Sequence[bytes]
    words: Sequence[bytes]
    refusals: tuple[type[Exception], ...]


@dataclass
class Report:
    """What was seen. Memory in bytes: *kept* over the last nine tenths of the run, *at_once* above the start."""

    name: str
    rounds: int = 0
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    bytes: int = 0
    cpu_seconds: float = 0.0
    slowest_milliseconds: float = 0.0
    kept: int = 0
    at_once: int = 0
    problems: list[dict[str, str]] = field(default_factory=list)

    def problem(self, what: str, data: bytes = b"", trace: str = "") -> None:
        self.problems.append({"what": what, "input": base64.b64encode(data).decode(), "trace": trace})

    def add(self, more: Report) -> None:
        """*more* is another round of the same parser."""
        for name in ("rounds", "inputs", "accepted", "refused", "bytes", "cpu_seconds", "problems"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        for name in ("slowest_milliseconds", "kept", "at_once"):
            setattr(self, name, max(getattr(self, name), getattr(more, name)))
        self.cpu_seconds = round(self.cpu_seconds, 3)

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def memory(name: str) -> int:
    with open("/proc/self/status", "rb") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name.encode()))


def forget_peak() -> None:
    with open("/proc/self/clear_refs", "wb") as clear:
        clear.write(b"5")


def run(target: Target, inputs: int, seconds: float, seed: str) -> Report:
    """Feed *target* so many inputs, or as many as *seconds* of wall time allow."""
    report = Report(target.name, rounds=1)
    random = Random(f"{seed} {target.name}")
    make = Mutator(target.seeds, target.words, random)
    seen = -1

    def tick(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if report.inputs == seen:
            seen = -1
            raise Hangs
        seen = report.inputs

    before = signal.signal(signal.SIGPROF, tick)
    signal.setitimer(signal.ITIMER_PROF, TICK, TICK)
    gc.collect()
    forget_peak()
    start, warm, began, until = memory("VmRSS:"), 0, time.process_time(), time.monotonic() + seconds
    try:
        while report.inputs < inputs and len(report.problems) < MOST_PROBLEMS:
            if report.inputs % 1000 == 0:
                if time.monotonic() > until:
                    break
                if not warm and report.inputs * 10 >= inputs:
                    gc.collect()
                    warm = memory("VmRSS:")
            feed_one(target, make(), random, report)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    report.cpu_seconds = round(time.process_time() - began, 3)
    gc.collect()
    report.kept, report.at_once = memory("VmRSS:") - (warm or start), memory("VmHWM:") - start
    if report.kept > MOST_KEPT:
        report.problem(f"keeps {report.kept} bytes")
    if report.at_once > MOST_AT_ONCE:
        report.problem(f"takes {report.at_once} bytes at once")
    return report


def feed_one(target: Target, data: bytes, random: Random, report: Report) -> None:
    report.bytes += len(data)
    started = time.thread_time()
    try:
        target.feed(data, random)
        report.accepted += 1
    except target.refusals:
        report.refused += 1
    except Hangs:
        report.problem("hangs", data)
    except Exception as error:
        report.problem(f"breaks with {type(error).__name__}: {error}"[:300], data, traceback.format_exc(limit=-6))
    report.slowest_milliseconds = max(report.slowest_milliseconds, round((time.thread_time() - started) * 1000, 3))
    report.inputs += 1
