"""Time that jumps, for trio: whenever nobody can go on, it is at once what the next one waits for.

As ``trio.testing.MockClock`` with ``autojump_threshold=0``, at a fraction of its cost: no turn of the event loop is
spent on finding out that nobody can run, and who sleeps has no cancel scope.
"""

from __future__ import annotations

import sys
from collections.abc import MutableSequence
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random
from typing import Any, TypeAlias

import anyio
import trio
from trio._core import _run
from trio.lowlevel import Abort, checkpoint, current_task, reschedule, wait_task_rescheduled

__all__ = ["SHUFFLER", "Bell", "JumpingClock", "current_time", "install", "sleep", "sleep_until"]

Sleeper: TypeAlias = list[Any]
"""Until when, which, the task: None when it has been woken."""


class Shuffler(Random):
    """For the scheduler, which shuffles whoever is ready, and that is mostly one."""

    def shuffle(self, x: MutableSequence[Any]) -> None:
        if len(x) > 1:
            super().shuffle(x)


SHUFFLER = Shuffler()


def install() -> None:
    """Have everybody sleep by this clock, and ask it for the time."""
    right = anyio.current_time
    for module in list(sys.modules.values()):
        if module.__name__.split(".")[0] in ("annexpy", "anyio") and vars(module).get("current_time") is right:
            module.current_time = current_time  # type: ignore[attr-defined]
    trio.sleep, trio.sleep_until = sleep, sleep_until  # type: ignore[assignment]
    anyio.sleep, anyio.sleep_until = sleep, sleep_until


class JumpingClock(trio.abc.Clock):
    """The clock of one schedule, and of this process while that runs."""

    def __init__(self) -> None:
        self.time = 0.0
        self.sleepers: list[Sleeper] = []
        """(until when, which, task or None), a heap."""
        self.numbers = count()
        self._stuck = 0

    def start_clock(self) -> None:
        global _clock
        _clock = self
        self._entries = _run.GLOBAL_RUN_CONTEXT.runner.entry_queue

    def current_time(self) -> float:
        return self.time

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Asked by trio when nobody can run: jump."""
        sleepers = self.sleepers
        while sleepers and sleepers[0][2] is None:
            heappop(sleepers)
        if sleepers and sleepers[0][0] < deadline:
            deadline = sleepers[0][0]
        if self._entries.queue or self._entries.idempotent_queue:
            return 1  # what comes from outside of all tasks, as the end of an abandoned generator, is first
        if deadline == inf:
            self._stuck += 1
            if self._stuck > 10:
                raise RuntimeError("everybody waits for ever")
            return 1
        now = self.time = max(self.time, deadline)
        while sleepers and sleepers[0][0] <= now:
            sleeper = heappop(sleepers)
            task, sleeper[2] = sleeper[2], None
            if task is not None:
                reschedule(task)
        return 0


_clock = JumpingClock()


def current_time() -> float:
    return _clock.time


async def sleep_until(deadline: float) -> None:
    if deadline <= _clock.time:
        await checkpoint()
    else:
        await Bell().wait_until(deadline)


async def sleep(seconds: float) -> None:
    if not seconds >= 0:
        raise ValueError("not a number of seconds")
    await sleep_until(_clock.time + seconds)


class Bell:
    """Wakes the one task that waits for it."""

    __slots__ = ("_sleeper",)

    def __init__(self) -> None:
        self._sleeper: Sleeper | None = None

    async def wait_until(self, deadline: float) -> None:
        """Until it rings, or until then; ``inf``: until it rings."""
        self._sleeper = sleeper = [deadline, next(_clock.numbers), current_task()]
        if deadline < inf:
            heappush(_clock.sleepers, sleeper)

        def abort(_: object) -> Abort:
            sleeper[2] = None
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def ring(self) -> None:
        sleeper = self._sleeper
        if sleeper is not None and sleeper[2] is not None:
            task, sleeper[2] = sleeper[2], None
            reschedule(task)
