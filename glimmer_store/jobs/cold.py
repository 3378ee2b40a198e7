"""Cold tiers: remotes that have a content and cannot give it before somebody asked for it to be brought up.

Tape, HSM and the archive classes of S3 have the same four answers, so they stand behind one interface. What is warm is
so for a while only: a copy that nobody took in time has to be brought up, and paid for, again.

Source: fact sheet datamanifest-and-backfill, B6.6.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, assert_never

import annexpy as annex
from glimmer_store.errors import ContentCold

__all__ = ["Availability", "Cold", "ColdRemote", "ColdTier", "Expired", "Online", "Warming", "rank", "readable_until"]


@dataclass(frozen=True, slots=True)
class Online:
    """It can be read now.

    Attributes:
        until: Seconds since 1970 from which it no longer can; None: it stays.
    """

    until: float | None = None


@dataclass(frozen=True, slots=True)
class Cold:
    """It is there, and nobody has asked for it."""


@dataclass(frozen=True, slots=True)
class Warming:
    """It was asked for and is on its way.

    Attributes:
        eta: Seconds since 1970 at which it may be there; None where nobody says.
    """

    eta: float | None = None


@dataclass(frozen=True, slots=True)
class Expired:
    """It was warm, and nobody took it in time."""


Availability: TypeAlias = Online | Cold | Warming | Expired
"""What a cold tier says about one key."""


class ColdTier(Protocol):
    """What brings contents up. Every method may raise TransportError."""

    async def availability(self, key: annex.Key) -> Availability:
        """How the content can be had now.

        Raises:
            KeyNotPresent: It is not there at all.
        """
        ...

    async def warm(self, keys: Sequence[annex.Key], *, tier: str, days: float) -> Mapping[annex.Key, annex.AnnexError]:
        """Ask that *keys* be brought up, which costs what ``cost`` says.

        Args:
            keys: Which; one that is on its way, or warm, is not asked for twice.
            tier: ``bulk``, ``standard`` or ``expedited``.
            days: How long they have to stay.

        Returns:
            The keys that were certainly not asked for, and why. Of all others nothing is promised but that the
            request was made.
        """
        ...

    def cost(self, keys: Sequence[annex.Key], *, tier: str) -> float:
        """What ``warm`` of *keys* costs, in the currency of the job's ``max-cost``. Never too low."""
        ...


def readable_until(availability: Availability) -> float | None:
    """When reading has to be over: seconds since 1970, infinite for what stays; None: it cannot be read now."""
    match availability:
        case Online(until):
            return float("inf") if until is None else until
        case Cold() | Warming() | Expired():
            return None
        case _:
            assert_never(availability)


def rank(availability: Availability) -> tuple[int, float]:
    """For sorting: what is warm for a while (the sooner it expires the earlier), what stays, and then the rest."""
    match availability:
        case Online(None):
            return 1, 0.0
        case Online(until):
            return 0, until or 0.0
        case Warming(eta):
            return 2, float("inf") if eta is None else eta
        case Cold() | Expired():
            return 3, 0.0
        case _:
            assert_never(availability)


class ColdRemote(annex.Wrapper):
    """A Remote whose contents have to be warm to be read: a get of what is not raises ``ContentCold``.

    Everything else (presence, puts, removal) is that of the Remote below.
    """

    def __init__(self, remote: annex.Remote, tier: ColdTier) -> None:
        super().__init__(remote)
        self.tier = tier

    @asynccontextmanager
    async def get(
        self, key: annex.Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AsyncIterator[annex.Download]:
        found = await self.tier.availability(key)
        if readable_until(found) is None:
            raise ContentCold(str(key), self.name, type(found).__name__.lower())
        async with self.remote.get(key, offset=offset, end=end, associated_file=associated_file) as download:
            yield download
