"""What an operator changes while a job runs: ``control.toml`` in the job's folder.

The file is replaced as a whole, so whoever reads it sees all of a change or nothing of it, and workers look at it again
before each chunk that they move (``throttle``). It can be edited by hand, too. What is not in it is as the job was
planned.
"""

from __future__ import annotations

import fcntl
import json
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from glimmer_store.errors import ConfigError
from glimmer_store.jobs.limits import Limits
from glimmer_store.synced import sync

__all__ = ["BY_OPERATOR", "CONTROL", "Control", "ControlFile", "locked", "replace_file"]

CONTROL: Final = "control.toml"
BY_OPERATOR: Final = "paused: "
"""How the reason begins why a repository is held, where a person wanted it: only a person frees it then."""
_LOCK: Final = "control.lock"
_REASON: Final = 250


@dataclass(frozen=True, slots=True)
class Control:
    """What is asked of a job now.

    Attributes:
        paused: Nothing is moved until it is resumed.
        cancelled: Nothing is moved any more.
        reason: Why it is paused or cancelled, for people.
        held: UUID of a repository that nothing is moved to or from → why (it is full).
        limits: Those in place of the planned ones, as in ``Limits.changed``.
    """

    paused: bool = False
    cancelled: bool = False
    reason: str = ""
    held: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, *, name: str = CONTROL) -> Control:
        """Read the file.

        Raises:
            ConfigError: A field is not known or malformed; the message names it.
        """
        try:
            raw = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{name}: {error}", remedy="mend the file; it is plain TOML") from error
        kinds = {"paused": bool, "cancelled": bool, "reason": str, "held": dict, "limits": dict}
        for one, value in raw.items():
            if one not in kinds or not isinstance(value, kinds[one]):
                raise ConfigError(f"{name}: {one}", remedy=f"what there is: {', '.join(kinds)}")
        control = cls(**{**raw, "held": {str(uuid): str(why) for uuid, why in raw.get("held", {}).items()}})
        Limits.of(control.limits)  # the field is named, whoever reads it
        return control

    def format(self) -> str:
        """As it is written."""
        lines = ["# What a running job obeys; see: glimmer-store backfill set-limit --help"]
        lines += [f"paused = {str(self.paused).lower()}", f"cancelled = {str(self.cancelled).lower()}"]
        if self.reason:
            lines.append(f"reason = {_quoted(self.reason)}")
        for name, table in (("held", self.held), ("limits", self.limits)):
            plain = {one: value for one, value in table.items() if not isinstance(value, Mapping)}
            if plain:
                lines += ["", f"[{name}]", *(f"{_quoted(one)} = {_quoted(value)}" for one, value in plain.items())]
        places = self.limits.get("places")
        for uuid, table in places.items() if isinstance(places, Mapping) else ():
            lines += ["", f"[limits.places.{_quoted(uuid)}]"]
            lines += [f"{_quoted(one)} = {_quoted(value)}" for one, value in table.items()]
        return "\n".join(lines) + "\n"

    def limited(self, table: Mapping[str, object]) -> Control:
        """With the limits of *table*, besides those that are there.

        Raises:
            ConfigError: As ``Limits.of``.
        """
        Limits.of(table)
        new = {**self.limits, **table}
        old_places, places = self.limits.get("places", {}), table.get("places", {})
        if isinstance(old_places, Mapping) and isinstance(places, Mapping) and (old_places or places):
            merged = {uuid: {**old_places.get(uuid, {}), **places.get(uuid, {})} for uuid in {*old_places, *places}}
            new["places"] = merged
        return replace(self, limits=new)

    def resumed(self) -> Control:
        """Neither paused nor held at any place.

        Raises:
            ConfigError: It was cancelled, and that is for good.
        """
        if self.cancelled:
            raise ConfigError("the job was cancelled", remedy="plan a new one: what is stored needs no second copy")
        return replace(self, paused=False, reason="", held={})


def _quoted(value: object) -> str:
    if isinstance(value, bool | int | float):
        return str(value).lower()
    printable = "".join(one if one.isprintable() else " " for one in str(value))[:_REASON]
    return json.dumps(printable, ensure_ascii=False)


class ControlFile:
    """The file of the job in the folder *job*."""

    def __init__(self, job: Path) -> None:
        self.path = job / CONTROL
        self._stamp: tuple[int, int, int] | None = None

    def read(self) -> Control:
        """What is asked now; of a file that is not there, nothing.

        Raises:
            ConfigError: It is malformed.
        """
        try:
            return Control.parse(self.path.read_text(encoding="utf-8"), name=str(self.path))
        except FileNotFoundError:
            return Control()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path}: {error}", remedy="make it readable") from error

    def changed(self) -> Control | None:
        """What is asked now; None where that is what it was at the last call.

        Raises:
            ConfigError: It was changed, and is malformed. Until the next change None is given then.
        """
        try:
            status = self.path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            stamp = (0, 0, 0)
        if stamp == self._stamp:
            return None
        self._stamp = stamp
        return self.read()

    def change(self, change: Callable[[Control], Control]) -> Control:
        """Replace what is asked by what *change* makes of it; two operators do so one after the other.

        Raises:
            ConfigError: The file is malformed, or *change* refuses.
        """
        with locked(self.path.parent):
            new = change(self.read())
            replace_file(self.path, new.format().encode())
            sync(self.path.parent)
        return new


@contextmanager
def locked(job: Path) -> Iterator[None]:
    """Nobody else changes what the operators of the job share."""
    with (job / _LOCK).open("a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def replace_file(path: Path, content: bytes) -> None:
    """Whoever opens *path* sees the old content or the new one, whole, also after a crash."""
    aside = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
