"""What a job is to do: ``job.toml``, written once when the job is planned and never changed.

What an operator changes while it runs (limits, pauses) stands in ``control.toml`` (``control``).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, get_args

from annexpy import UUID, AnnexError, parse_uuid
from glimmer_store.errors import StoreError
from glimmer_store.jobs.limits import Limits

__all__ = ["JobError", "JobSpec", "JobType", "Place", "Retry", "Select", "Strength", "Warm", "seconds"]

JobType: TypeAlias = Literal["archive", "backfill", "verify", "repair", "drain"]
Strength: TypeAlias = Literal["stream", "peer", "reread"]
_TRIES: Final = 5
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class JobError(StoreError):
    """A job cannot be made, found or read."""


@dataclass(frozen=True, slots=True)
class Place:
    """A repository that takes part, addressed by itself: never a cluster.

    Attributes:
        name: As people call it.
        uuid: Which it must be.
        url: What ``annexpy.connect`` takes, on whatever machine a worker runs.
        cold: How its contents are brought up before they can be read, as in ``cold_place``; empty: they are online.
    """

    name: str
    uuid: UUID
    url: str
    cold: str = ""


@dataclass(frozen=True, slots=True)
class Select:
    """Which keys: all that git-annex knows of, less what any of these leaves out.

    Attributes:
        storage_class: Only those of nodes with this class; empty: any, also keys without a node.
        nodes: Only those of these nodes.
        wanted: Only what the preferred content of the destination asks for.
        max_age: Seconds. Of a job that verifies: leave out what was proven within them; 0: nothing. Of one that empties
            a repository: how old the proof of a copy may be that counts; 0: as the storage class allows.
    """

    storage_class: str = ""
    nodes: tuple[str, ...] = ()
    wanted: bool = True
    max_age: float = 0.0


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how soon: *base* seconds, doubled with each try, at most *max*, each times 0.5 to 1."""

    tries: int = _TRIES
    base: float = 30.0
    max: float = 21600.0

    def wait(self, tries: int, chance: float) -> float:
        """Seconds before the try after *tries* of them; *chance* is from 0 to 1."""
        return float(min(self.max, self.base * 2 ** min(max(tries - 1, 0), 60)) * (0.5 + 0.5 * chance))


@dataclass(frozen=True, slots=True)
class Warm:
    """How cold contents are brought online.

    Attributes:
        tier: ``bulk``, ``standard`` or ``expedited``.
        days: How long a warm copy is asked for.
        ahead: Bytes that may be asked for before they are copied, as ``2TB``.
        max_cost: What it may cost in all; 0: nothing may be spent.
    """

    tier: str = "bulk"
    days: int = 7
    ahead: str = "2TB"
    max_cost: float = 0.0


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job.

    Attributes:
        id: Its name, also that of its folder.
        type: What kind.
        dataset: Path of the dataset whose objects these are; only the planner and the registrar need it.
        dests: The repositories that are to have the keys; that are looked at; the one that is emptied.
        sources: Where contents may come from, or copies may stay, the cheapest first.
        select: Which keys.
        verify: How strong a proof has to be before it counts.
        limits: As ``limits.Limits.of`` takes them; ``planned_limits`` are those.
        retry, warm: See there.
        heartbeat: Seconds between two signs of life of a worker; after five of them without one it counts as lost.
        callback: URL that is told when the job ends.
    """

    id: str
    type: JobType
    dataset: str
    dests: tuple[Place, ...]
    sources: tuple[Place, ...]
    select: Select = field(default_factory=Select)
    verify: Strength = "reread"
    limits: Mapping[str, object] = field(default_factory=dict)
    retry: Retry = field(default_factory=Retry)
    warm: Warm = field(default_factory=Warm)
    heartbeat: float = 6.0
    callback: str = ""

    @property
    def copies(self) -> bool:
        """Contents may be brought to the destination."""
        return self.type in ("archive", "backfill", "repair")

    @property
    def drains(self) -> bool:
        """Contents go from the destination."""
        return self.type == "drain"

    @property
    def planned_limits(self) -> Limits:
        """What it may use unless an operator says otherwise."""
        return Limits.of(self.limits)

    def place(self, uuid: str) -> Place | None:
        """Who that is; None when it does not take part."""
        return next((place for place in (*self.dests, *self.sources) if place.uuid == uuid), None)

    def to_toml(self) -> str:
        """The file."""
        lines = ["[job]", f"id = {_toml(self.id)}", f"type = {_toml(self.type)}", f"dataset = {_toml(self.dataset)}"]
        lines += [f"heartbeat = {self.heartbeat}", f"callback = {_toml(self.callback)}"]
        lines += [f"require = {{ verify = {_toml(self.verify)} }}"]
        for name in ("select", "limits", "retry", "warm"):
            value = getattr(self, name)
            table = value if isinstance(value, Mapping) else {slot: getattr(value, slot) for slot in value.__slots__}
            lines += ["", f"[{name}]"]
            lines += [f"{one.replace('_', '-')} = {_toml(said)}" for one, said in table.items()]
        for kind, places in (("dest", self.dests), ("source", self.sources)):
            for place in places:
                lines += ["", f"[[{kind}]]"]
                lines += [f"{slot} = {_toml(str(getattr(place, slot)))}" for slot in place.__slots__]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str, name: str = "job.toml") -> JobSpec:
        """The reverse.

        Raises:
            JobError: It is malformed; the message names the field.
        """
        try:
            raw = tomllib.loads(text)
            job = raw["job"]
            if job["type"] not in get_args(JobType):
                raise ValueError(f"type {job['type']!r}: {', '.join(get_args(JobType))}")
            strength = job.get("require", {}).get("verify", "reread")
            if strength not in get_args(Strength):
                raise ValueError(f"verify {strength!r}: {', '.join(get_args(Strength))}")
            retry = _fields(raw.get("retry", {}))
            tries = int(retry.pop("tries", _TRIES))
            limits = raw.get("limits", {})
            Limits.of(limits)
            return cls(
                str(job["id"]),
                job["type"],
                str(job["dataset"]),
                tuple(map(_place, raw["dest"])),
                tuple(map(_place, raw.get("source", []))),
                Select(**_fields(raw.get("select", {}))),
                strength,
                limits,
                Retry(tries, **{name: seconds(value) for name, value in retry.items()}),
                Warm(**_fields(raw.get("warm", {}))),
                seconds(job.get("heartbeat", 6.0)),
                str(job.get("callback", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, AnnexError) as error:
            raise JobError(f"{name}: {type(error).__name__}: {error}", remedy="mend the field named") from error


def seconds(value: object) -> float:
    """A number of seconds, or text such as ``30s``, ``6h``, ``90d``. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = text[len(number) :].strip() or "s"
    if unit not in _UNITS:
        raise ValueError(f"{text!r}: a number with one of {', '.join(_UNITS)}")
    return float(number) * _UNITS[unit]


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(name)} = {_toml(one)}" for name, one in value.items()) + " }"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=True)


def _place(entry: Mapping[str, Any]) -> Place:  # Any: parsed TOML
    uuid, cold = parse_uuid(str(entry["uuid"])), str(entry.get("cold", ""))
    return Place(str(entry["name"]), uuid, str(entry["url"]), cold)


def _fields(entry: Mapping[str, Any]) -> dict[str, Any]:  # Any: parsed TOML
    return {name.replace("-", "_"): tuple(v) if isinstance(v, list) else v for name, v in entry.items()}
