"""A cold tier that is simulated: real contents underneath, and the delay, expiry and request limit of an archive.

It is there to try jobs, limits and costs before they meet the real thing. Its state is one small file per key in a
folder, so that all processes of a job see the same; it is kept by rename, so that a crash leaves the old or the new.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import annexpy as annex
from glimmer_store.errors import TooManyRequests
from glimmer_store.jobs.cold import Availability, Cold, Expired, Online, Warming

__all__ = ["SimulatedTier", "TierSettings"]

_DAY = 86400.0
_GB = 1e9


@dataclass(frozen=True, slots=True)
class TierSettings:
    """How the simulated tier behaves.

    Attributes:
        delay: Seconds from a request to the content being there, per tier; that of ``bulk`` for others.
        day: Seconds of a day, for those who do not want to wait for one.
        requests: Contents that may be on their way at once.
        price: Of one request, and of one gigabyte.
    """

    delay: Mapping[str, float] = field(
        default_factory=lambda: {"bulk": 12 * 3600.0, "standard": 5 * 3600.0, "expedited": 300.0}
    )
    day: float = _DAY
    requests: int = 1000
    price: tuple[float, float] = (0.0, 0.0)


class SimulatedTier:
    """``ColdTier`` over *remote*, which has the contents.

    Args:
        remote: Asked for presence only.
        folder: Where the state is; made when it is not there.
        settings: How it behaves.
        now: Seconds since 1970.
    """

    def __init__(
        self,
        remote: annex.Remote,
        folder: Path,
        settings: TierSettings | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._remote, self._folder, self._settings, self._now = remote, folder, settings or TierSettings(), now

    def _file(self, key: annex.Key) -> Path:
        return self._folder / hashlib.sha256(key.raw).hexdigest()

    def _state(self, key: annex.Key) -> tuple[float, float] | None:
        """(from when, until when) it can be read."""
        try:
            ready, expires = self._file(key).read_text().split()
        except FileNotFoundError:
            return None
        return float(ready), float(expires)

    async def availability(self, key: annex.Key) -> Availability:
        if not await self._remote.check_present(key):
            raise annex.KeyNotPresent(key, self._remote.name)
        state, now = self._state(key), self._now()
        if state is None:
            return Cold()
        ready, expires = state
        if now < ready:
            return Warming(ready)
        return Online(expires) if now < expires else Expired()

    async def warm(self, keys: Sequence[annex.Key], *, tier: str, days: float) -> Mapping[annex.Key, annex.AnnexError]:
        refused: dict[annex.Key, annex.AnnexError] = {}
        now, settings = self._now(), self._settings
        delay = settings.delay.get(tier, settings.delay.get("bulk", 0.0))
        self._folder.mkdir(parents=True, exist_ok=True)
        room = settings.requests - self._on_their_way(now)
        for key in keys:
            state = self._state(key)
            if state is not None and now < state[1]:
                continue
            if room <= 0:
                refused[key] = TooManyRequests(self._remote.name, settings.requests)
                continue
            room -= 1
            file = self._file(key)
            aside = file.with_suffix(f".{os.getpid()}")
            aside.write_text(f"{now + delay} {now + delay + days * settings.day}\n")
            aside.replace(file)
        return refused

    def _on_their_way(self, now: float) -> int:
        count = 0
        for file in self._folder.iterdir():
            if not file.suffix:
                count += now < float(file.read_text().split()[0])
        return count

    def cost(self, keys: Sequence[annex.Key], *, tier: str) -> float:
        request, gigabyte = self._settings.price
        return sum(request + gigabyte * (key.size or 0) / _GB for key in keys)
