"""Expected, stored and observed: three values that are never mixed, what they say together, and when to look again.

*Expected* is what the author declared in the manifest. *Stored* is what the archive's key says. *Observed* is what
somebody measured at one place at one time. Only an observation says anything about the bytes that are there now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from types import MappingProxyType
from typing import Final

__all__ = ["AHEAD", "Observed", "Policy", "Standing", "standing"]

_AGES: Final = MappingProxyType({"irreplaceable": timedelta(days=90), "generated": timedelta(days=365)})
AHEAD: Final = timedelta(minutes=5)
"""How far the clock of whoever looked may be ahead of ours."""


class Standing(Enum):
    """How a place stands.

    ``MODIFIED``: what was observed is not what is stored. ``DRIFT``: what is stored is not what is expected, so the
    source changed, or the manifest. ``STALE``: the observation is older than the policy allows.
    """

    MATCH = "match"
    MODIFIED = "modified"
    DRIFT = "drift"
    UNVERIFIED = "unverified"
    STALE = "stale"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Observed:
    """One measurement.

    Attributes:
        digest: ``sha256:…`` or ``gt1:…``; empty when nothing was there.
        when: In UTC.
    """

    digest: str
    when: datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """When to look again.

    Attributes:
        max_age: Storage class → how old an observation may be.
        sample: Which part of the rest is looked at in every run, so that every place is touched in time.
    """

    max_age: Mapping[str, timedelta] = field(default_factory=lambda: _AGES)
    sample: float = 0.01

    def stale(self, observed: Observed, storage_class: str, now: datetime) -> bool:
        """The observation is older than the class allows; or of the future, where it would never grow old."""
        age = now - observed.when
        return age > self.max_age.get(storage_class, _AGES["irreplaceable"]) or age < -AHEAD

    def due(self, name: str, observed: Observed | None, storage_class: str, now: datetime) -> bool:
        """It is to be looked at now: never observed, stale, or drawn. The draw is by name and day."""
        if observed is None or self.stale(observed, storage_class, now):
            return True
        draw = hashlib.sha256(f"{now.date().isoformat()} {name}".encode()).digest()
        return int.from_bytes(draw[:8]) < self.sample * 2**64


def standing(
    expected: tuple[str, ...], stored: tuple[str, ...], observed: Observed | None, *, stale: bool = False
) -> Standing:
    """What the three say together.

    Args:
        expected: Digests that the manifest accepts; empty when it asks for nothing.
        stored: Digests of what is stored, its aliases among them; empty when nothing is.
        observed: The newest measurement at the place.
        stale: It is older than the policy allows.
    """
    if observed is not None and not observed.digest:
        return Standing.MISSING
    if observed is not None and stored and observed.digest not in stored:
        return Standing.MODIFIED
    if expected and stored and not set(expected) & set(stored):
        return Standing.DRIFT
    if observed is None:
        return Standing.UNVERIFIED
    return Standing.STALE if stale else Standing.MATCH
