"""Bringing cold contents up in waves: no more at once than may lie around, and never more than may be spent.

What is asked for, and what it costs, is written down and synced *before* it is asked for. So a crash between the two
can make a job believe that it spent more than it did, and never less; and whoever goes on knows what is on its way.
Only one process may bring up for one job: it holds the lease of that name.

Source: fact sheet datamanifest-and-backfill, B6.6.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import annexpy as annex
from glimmer_store.errors import ConfigError, StoreError
from glimmer_store.jobs.cold import Availability, Cold, ColdTier, Expired, Online, Warming, readable_until
from glimmer_store.jobs.spec import Warm
from glimmer_store.synced import append

__all__ = ["ColdTask", "WarmLog", "WarmStep", "WarmUp"]

_TOGETHER: Final = 500
"""Keys of one request."""
_WAVE: Final = 5000
"""Keys that are looked at in one step."""
_POLL: Final = 300.0
"""Seconds until the next look where nobody says how long it takes."""


@dataclass(frozen=True, slots=True)
class ColdTask:
    """A content that has to be brought up.

    Attributes:
        place: UUID of the cold remote that has it.
        key: Which.
    """

    place: str
    key: annex.Key

    @property
    def size(self) -> int:
        """Bytes; 0 for a key that does not tell."""
        return self.key.size or 0


@dataclass(frozen=True, slots=True)
class WarmStep:
    """What one look at the cold contents came to.

    Attributes:
        ready: What can be read now, and until when (seconds since 1970); the earliest expiry first.
        warming: What is on its way.
        requested: What was asked for just now.
        failed: What could not be asked for or about, and why; it is tried again with the next step.
        waiting: How many have to wait for room, or for money.
        outstanding: Bytes that were asked for and are not copied yet.
        spent: What all requests of the job cost so far.
        stopped: Why nothing more was asked for: ``ahead``, ``max-cost``, or empty.
        wake: When it is worth looking again; None when nothing is on its way.
    """

    ready: tuple[tuple[ColdTask, float], ...]
    warming: tuple[ColdTask, ...]
    requested: tuple[ColdTask, ...]
    failed: Mapping[ColdTask, annex.AnnexError]
    waiting: int
    outstanding: int
    spent: float
    stopped: str
    wake: float | None


class WarmLog:
    """What was asked for, in a file of its own: one line of JSON for each request, synced before it is made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.spent = 0.0
        self.asked: set[ColdTask] = set()
        for line in self._lines():
            self._take(line)

    def _lines(self) -> list[dict[str, object]]:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return []
        whole, _, torn = raw.rpartition(b"\n")
        if torn:  # nothing was asked for before the line was whole
            with self._path.open("r+b") as file:
                file.truncate(len(raw) - len(torn))
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise StoreError(f"{self._path}: {error}", remedy="mend the line: it says what was spent") from error

    def _take(self, line: Mapping[str, object]) -> None:
        some = {ColdTask(str(line["place"]), annex.Key.parse(str(key))) for key in _list(line["keys"])}
        if line["what"] == "request":
            self.asked |= some
            self.spent += float(str(line["cost"]))
        else:
            self.asked -= some
            self.spent -= float(str(line["cost"]))

    def write(self, what: str, tasks: Sequence[ColdTask], cost: float, now: float) -> None:
        """Write a ``request`` that is to be made, or one that was certainly ``refused``."""
        line: dict[str, object] = {"v": 1, "t": round(now, 3), "what": what, "place": tasks[0].place, "cost": cost}
        line |= {"bytes": sum(task.size for task in tasks), "keys": [str(task.key) for task in tasks]}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        append(self._path, [json.dumps(line).encode(), b"\n"])
        self._take(line)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


@dataclass(slots=True)
class _Look:
    """One step while it is taken."""

    ready: list[tuple[ColdTask, float]] = field(default_factory=list)
    warming: list[ColdTask] = field(default_factory=list)
    cold: list[ColdTask] = field(default_factory=list)
    failed: dict[ColdTask, annex.AnnexError] = field(default_factory=dict)
    outstanding: int = 0
    waiting: int = 0
    stopped: str = ""


class WarmUp:
    """Brings up what a job needs.

    Args:
        tiers: UUID → the cold tier of that remote.
        log: What was asked for before.
        settings: How much at once, for how long, at what price.
        now: Seconds since 1970.

    Raises:
        ConfigError: ``ahead`` is no size.
    """

    def __init__(
        self, tiers: Mapping[str, ColdTier], log: WarmLog, settings: Warm, *, now: Callable[[], float] = time.time
    ) -> None:
        ahead = annex.parse_size(settings.ahead)
        if ahead is None or ahead <= 0:
            raise ConfigError(f"warm: ahead {settings.ahead!r} is no size", remedy="give it as 500GB or 2TB")
        self._tiers, self._log, self._settings, self._now, self._ahead = tiers, log, settings, now, ahead
        self._known: dict[ColdTask, tuple[Availability, float]] = {}  # and when to ask again

    async def step(self, wanted: Iterable[ColdTask]) -> WarmStep:
        """Look at what is on its way, and ask for the next wave.

        Args:
            wanted: All that still has to be copied from cold remotes, in the order in which it should be.

        Returns:
            What can be copied now, and the rest.
        """
        look = _Look()
        new = []
        tasks = list(dict.fromkeys(wanted))
        for task in tasks:
            if task in self._log.asked or task in self._known:
                await self._see(task, look)
            else:
                new.append(task)
        self._known = {task: self._known[task] for task in tasks if task in self._known}
        requested = await self._ask_for(await self._wave([*look.cold, *new], look), look)
        look.ready.sort(key=lambda found: found[1])
        return WarmStep(
            tuple(look.ready),
            tuple(look.warming),
            tuple(requested),
            look.failed,
            look.waiting,
            look.outstanding,
            self._log.spent,
            look.stopped,
            self._wake(look, requested),
        )

    async def _see(self, task: ColdTask, look: _Look) -> None:
        """Sort *task* into *look*, asking about it only when the last answer may no longer hold."""
        now = self._now()
        found, again = self._known.get(task, (None, 0.0))
        if found is None or now >= again:
            try:
                found = await self._tiers[task.place].availability(task.key)
            except annex.AnnexError as error:
                look.failed[task] = error
                look.outstanding += task.size if task in self._log.asked else 0
                return
            self._known[task] = found, self._again(found)
        match found:
            case Online(until):
                look.ready.append((task, float("inf") if until is None else until))
                look.outstanding += 0 if until is None else task.size
            case Warming():
                look.warming.append(task)
                look.outstanding += task.size
            case Cold() | Expired():
                self._known.pop(task, None)
                look.cold.append(task)

    def _again(self, found: Availability) -> float:
        """When the answer may no longer hold."""
        match found:
            case Warming(eta):
                return self._now() + _POLL if eta is None else eta
            case _:
                return readable_until(found) or 0.0

    async def _wave(self, waiting: Sequence[ColdTask], look: _Look) -> list[ColdTask]:
        """What to ask for: in order, as long as there is room and money."""
        wave: list[ColdTask] = []
        cost = 0.0
        seen = set(look.cold)
        for number, task in enumerate(waiting):
            if task.size > self._ahead:
                look.failed[task] = ConfigError(
                    f"{task.key}: {task.size} bytes are more than may be brought up ahead",
                    remedy="raise ahead in the [warm] settings of the job",
                )
                continue
            if task not in seen:
                before = len(look.cold)
                await self._see(task, look)
                if len(look.cold) == before:
                    continue
            price = self._tiers[task.place].cost([task.key], tier=self._settings.tier)
            if look.outstanding + task.size > self._ahead:
                look.stopped = "ahead"
            elif price and self._log.spent + cost + price > self._settings.max_cost:
                look.stopped = "max-cost"
            if look.stopped or len(wave) == _WAVE:
                look.waiting = len(waiting) - number
                break
            cost += price
            look.outstanding += task.size
            wave.append(task)
        return wave

    async def _ask_for(self, wave: Sequence[ColdTask], look: _Look) -> list[ColdTask]:
        """Write down, then ask. Returns what was taken."""
        taken = []
        for place in dict.fromkeys(task.place for task in wave):
            tier, some = self._tiers[place], [task for task in wave if task.place == place]
            for start in range(0, len(some), _TOGETHER):
                batch = some[start : start + _TOGETHER]
                cost = tier.cost([task.key for task in batch], tier=self._settings.tier)
                self._log.write("request", batch, cost, self._now())
                try:
                    refused = await tier.warm(
                        [task.key for task in batch], tier=self._settings.tier, days=self._settings.days
                    )
                except annex.AnnexError as error:  # the outcome is unknown: it stays spent, and availability will tell
                    look.failed |= dict.fromkeys(batch, error)
                    continue
                back = [task for task in batch if task.key in refused]
                if back:
                    price = tier.cost([task.key for task in back], tier=self._settings.tier)
                    self._log.write("refused", back, price, self._now())
                    look.failed |= {task: refused[task.key] for task in back}
                    look.outstanding -= sum(task.size for task in back)
                taken += [task for task in batch if task.key not in refused]
        return taken

    def _wake(self, look: _Look, requested: Sequence[ColdTask]) -> float | None:
        now = self._now()
        if requested or (look.waiting and not look.stopped):
            return now
        coming = [again for found, again in self._known.values() if isinstance(found, Warming)]
        return max(now, min(coming)) if coming else now + _POLL if look.outstanding or look.failed else None
