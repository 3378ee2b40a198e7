"""How fast a job may go, and when: limits as values, and the token buckets that hold them.

A limit is one of the whole job. Each worker keeps its share of it by itself, with no service in the middle: of N
workers that hold leases of equal size each gets 1/N. So the sum never exceeds the limit, and a share that a worker
does not use is not used by others until the leases change.

Everything here is a function of the time that is handed in. ``throttle`` waits for real.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta
from typing import Final

import annexpy as annex
from glimmer_store.errors import ConfigError

__all__ = ["Bucket", "Limiter", "Limits", "PlaceLimits", "Share", "Window", "parse_bandwidth", "parse_requests"]

_UNITS: Final = {"s": 1, "min": 60, "m": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW: Final = re.compile(r"(?:([a-z]{3})(?:-([a-z]{3}))?\s+)?(\d\d):(\d\d)-(\d\d):(\d\d)\Z")
_MOST_WORKERS: Final = 10_000
_NO_LIMIT: Final = ("none", "unlimited", "")


def parse_bandwidth(text: str) -> float:
    """``200MB/s`` as bytes in a second; ``/min`` and ``/h`` are known too.

    Raises:
        ConfigError: It is no such thing.
    """
    amount, unit = _split(text, "a bandwidth such as 200MB/s")
    size = annex.parse_size(amount) if re.fullmatch(r"\d[\d.]*\s*[A-Za-z]*", amount) else None
    if not size:
        raise ConfigError(f"{text!r}: more than 0 bytes are wanted", remedy="a bandwidth such as 200MB/s, or none")
    return size / unit


def parse_requests(text: str) -> float:
    """``50/s`` as requests in a second; ``/min`` and ``/h`` are known too.

    Raises:
        ConfigError: It is no such thing.
    """
    amount, unit = _split(text, "requests such as 50/s")
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", amount) or float(amount) == 0:
        raise ConfigError(f"{text!r}: more than 0 requests are wanted", remedy="requests such as 50/s, or none")
    return float(amount) / unit


def _split(text: str, wanted: str) -> tuple[str, int]:
    amount, slash, unit = text.strip().rpartition("/")
    if not slash or unit not in _UNITS:
        raise ConfigError(f"{text!r} is not {wanted}", remedy=f"give {wanted}, or none")
    return amount.strip(), _UNITS[unit]


@dataclass(frozen=True, slots=True)
class Window:
    """When a job may move contents: ``20:00-06:00``, or ``mon-fri 20:00-06:00, sat-sun 00:00-24:00``.

    Times are those of the wall clock that the caller hands in. A part that ends before it begins goes on after
    midnight, and belongs to the day on which it begins.

    Attributes:
        text: As it was written.
        parts: (days, minute of begin, minutes it lasts) each.
    """

    text: str
    parts: tuple[tuple[frozenset[int], int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read it.

        Raises:
            ConfigError: It is no such thing.
        """
        return cls(text, tuple(map(_part, text.split(","))))

    def open(self, at: datetime) -> bool:
        """Contents may be moved at that moment."""
        return any(begin <= at < end for begin, end in self._around(at))

    def opens(self, at: datetime) -> float:
        """Seconds until it is open; 0 when it is."""
        if self.open(at):
            return 0.0
        return min((begin - at).total_seconds() for begin, _ in self._around(at) if begin > at)

    def _around(self, at: datetime) -> Iterator[tuple[datetime, datetime]]:
        today = at.replace(hour=0, minute=0, second=0, microsecond=0)
        for days, begin, minutes in self.parts:
            for ahead in range(-1, 8):
                day = today + timedelta(days=ahead)
                if day.weekday() in days:
                    start = day + timedelta(minutes=begin)
                    yield start, start + timedelta(minutes=minutes)


def _part(text: str) -> tuple[frozenset[int], int, int]:
    match = _WINDOW.match(text.strip().lower())
    if match is None:
        raise ConfigError(
            f"{text.strip()!r} is no window of time", remedy="such as 20:00-06:00, or mon-fri 20:00-06:00"
        )
    first, last = match[1], match[2] or match[1]
    begin, end = int(match[3]) * 60 + int(match[4]), int(match[5]) * 60 + int(match[6])
    known = (first is None or first in _DAYS) and (last is None or last in _DAYS)
    if not known or begin >= 1440 or end > 1440 or begin == end or max(int(match[4]), int(match[6])) > 59:
        raise ConfigError(f"{text.strip()!r} is no window of time", remedy="days mon to sun, hours 00:00 to 24:00")
    days = frozenset(range(7))
    if first is not None and last is not None:
        one, other = _DAYS.index(first), _DAYS.index(last)
        days = frozenset((one + step) % 7 for step in range((other - one) % 7 + 1))
    return days, begin, (end - begin) % 1440 or 1440


@dataclass(frozen=True, slots=True)
class PlaceLimits:
    """Of one repository, in place of those that hold for every source or destination; None: those."""

    bandwidth: float | None = None
    requests: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job may use. None is without limit.

    Attributes:
        workers: Processes that work on it at once.
        per_source, per_dest: Transfers at once from, or to, each repository.
        bandwidth, source_bandwidth, dest_bandwidth: Bytes in a second: of the whole job, read from each source, and
            moved to or from each destination. What is read for verification counts as well.
        requests, source_requests, dest_requests: Requests in a second, of the same.
        window: When contents may be moved.
        places: UUID → limits of that one.
    """

    workers: int | None = None
    per_source: int | None = None
    per_dest: int | None = None
    bandwidth: float | None = None
    source_bandwidth: float | None = None
    dest_bandwidth: float | None = None
    requests: float | None = None
    source_requests: float | None = None
    dest_requests: float | None = None
    window: Window | None = None
    places: Mapping[str, PlaceLimits] = field(default_factory=dict)

    @classmethod
    def of(cls, table: Mapping[str, object]) -> Limits:
        """From a table of TOML: names with dashes, ``bandwidth = "200MB/s"``, ``places.UUID.requests = "5/s"``.

        Raises:
            ConfigError: A field is not known or malformed; the message names it.
        """
        return cls().changed(table)

    def changed(self, table: Mapping[str, object]) -> Limits:
        """With the fields of *table* in place of what they were; ``none`` takes a limit away.

        Raises:
            ConfigError: As ``of``.
        """
        known = {one.name for one in fields(self)} - {"places"}
        new: dict[str, object] = {}
        for name, value in table.items():
            if name == "places":
                new["places"] = self._places(value)
            elif (attribute := name.replace("-", "_")) in known:
                new[attribute] = _limit(name, attribute, value)
            else:
                names = ", ".join(sorted(one.replace("_", "-") for one in known))
                raise ConfigError(f"limits: {name!r} is not known", remedy=f"one of {names}")
        return replace(self, **new)  # type: ignore[arg-type]  # each was read as what its field is

    def _places(self, value: object) -> dict[str, PlaceLimits]:
        if not isinstance(value, Mapping):
            raise ConfigError("limits: places: a table of UUIDs is wanted")
        places = dict(self.places)
        for uuid, table in value.items():
            if not isinstance(table, Mapping) or not set(table) <= {"bandwidth", "requests"}:
                raise ConfigError(f"limits: places.{uuid}: bandwidth and requests are what there is")
            new = {name: _limit(f"places.{uuid}.{name}", name, limit) for name, limit in table.items()}
            places[str(uuid)] = replace(places.get(str(uuid), PlaceLimits()), **new)  # type: ignore[arg-type]  # as above
        return places

    def to_json(self) -> dict[str, object]:
        """What is limited, in bytes and requests a second."""
        given = {one.name.replace("_", "-"): getattr(self, one.name) for one in fields(self)[:-2]}
        given["window"] = None if self.window is None else self.window.text
        given["places"] = {uuid: asdict(place) for uuid, place in self.places.items()}
        return {name: value for name, value in given.items() if value}


def _limit(name: str, attribute: str, value: object) -> object:
    if isinstance(value, str) and value.strip().lower() in _NO_LIMIT:
        return None
    try:
        match attribute:
            case "workers" | "per_source" | "per_dest":
                count = int(value) if isinstance(value, str) and value.isdecimal() else value
                if type(count) is not int or not 1 <= count <= _MOST_WORKERS:
                    raise ConfigError(f"{value!r}: a number from 1 to {_MOST_WORKERS} is wanted")
                return count
            case "window":
                return Window.parse(str(value))
            case _ if attribute.endswith("requests"):
                return parse_requests(str(value))
            case _:
                return parse_bandwidth(str(value))
    except (annex.AnnexError, ValueError) as error:
        remedy = getattr(error, "remedy", "")
        raise ConfigError(f"limits: {name}: {error}", remedy=remedy or "mend the limit named") from error


class Bucket:
    """A token bucket that may be overdrawn: who takes more than there is waits until it is even.

    Holds at most what flows in within a second (at least one request, so that a slow rate begins at once).
    """

    __slots__ = ("_at", "_least", "_level", "_rate")

    def __init__(self, rate: float, now: float, *, least: float = 0.0) -> None:
        """*rate* in a second; *least*: what it holds at any rate."""
        self._rate, self._at, self._least = rate, now, least
        self._level = max(rate, least)

    def change(self, rate: float, now: float) -> None:
        """Another rate from *now* on; what is owed stays owed."""
        self._flow(now)
        self._rate = rate
        self._level = min(self._level, max(rate, self._least))

    def take(self, amount: float, now: float) -> None:
        """Use *amount*, and ``wait`` before the next."""
        self._flow(now)
        self._level -= amount

    def wait(self, now: float) -> float:
        """Seconds until nothing is owed."""
        self._flow(now)
        return max(0.0, -self._level / self._rate)

    def _flow(self, now: float) -> None:
        gained = max(0.0, now - self._at) * self._rate
        self._level = min(self._level + gained, max(self._rate, self._least))
        self._at = now


class Limiter:
    """The buckets of one worker."""

    def __init__(self, limits: Limits, *, share: float = 1.0) -> None:
        """Hold *limits*, or that *share* of them."""
        self._limits, self._share = limits, share
        self._buckets: dict[tuple[str, str, str], Bucket] = {}

    def change(self, limits: Limits, share: float, now: float) -> None:
        """Others from *now* on."""
        if (limits, share) == (self._limits, self._share):
            return
        self._limits, self._share = limits, share
        for (role, uuid, what), bucket in [*self._buckets.items()]:
            rate = self._rate(role, uuid, what)
            if rate is None:
                del self._buckets[role, uuid, what]
            else:
                bucket.change(rate, now)

    def take(self, now: float, *, source: str = "", dest: str = "", size: int = 0, requests: int = 0) -> None:
        """Note that *size* bytes and *requests* are about to be used.

        Args:
            now: Seconds of a clock that never steps.
            source: UUID of the repository that is read.
            dest: UUID of the repository that the job fills, or whose new copy is read again.
            size: Bytes.
            requests: How many.
        """
        for role, uuid in (("", ""), ("source", source), ("dest", dest)):
            if role and not uuid:
                continue
            for what, amount in (("bandwidth", size), ("requests", requests)):
                if amount and (bucket := self._bucket(role, uuid, what, now)) is not None:
                    bucket.take(amount, now)

    def wait(self, now: float, *, source: str = "", dest: str = "") -> float:
        """Seconds until the limits allow more for these two."""
        asked = (("", ""), ("source", source), ("dest", dest))
        found = [self._buckets.get((*one, what)) for one in asked for what in ("bandwidth", "requests")]
        return max((bucket.wait(now) for bucket in found if bucket is not None), default=0.0)

    def _bucket(self, role: str, uuid: str, what: str, now: float) -> Bucket | None:
        bucket = self._buckets.get((role, uuid, what))
        if bucket is None and (rate := self._rate(role, uuid, what)) is not None:
            bucket = self._buckets[role, uuid, what] = Bucket(rate, now, least=1.0 if what == "requests" else 0.0)
        return bucket

    def _rate(self, role: str, uuid: str, what: str) -> float | None:
        own = getattr(self._limits.places.get(uuid, PlaceLimits()), what) if role else None
        usual = getattr(self._limits, f"{role}_{what}" if role else what)
        rate: float | None = usual if own is None else own
        return None if rate is None else rate * self._share


@dataclass(frozen=True, slots=True)
class Share:
    """What one of *of* workers gets, the one with the number *rank* (from 0)."""

    rank: int = 0
    of: int = 1

    @property
    def fraction(self) -> float:
        """Of every rate."""
        return 1 / self.of

    def slots(self, most: int) -> int:
        """Of *most* transfers at once; those of all workers together are *most*, so it may be 0."""
        return (self.rank + 1) * most // self.of - self.rank * most // self.of
