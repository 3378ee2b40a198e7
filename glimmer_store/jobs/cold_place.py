"""What the configuration of a remote says about its cold tier: ``remote.NAME.glimmer-cold``.

One line of words: ``s3``, or ``simulated folder=DIR``, and then what it costs and how it behaves::

    s3 price-request=0.00003 price-gb=0.0025
    simulated folder=/var/tape delay=12h day=24h requests=1000 price-gb=0.01

It is frozen into the job, so that workers on other machines go by the same.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import annexpy as annex
from glimmer_store.errors import ConfigError
from glimmer_store.jobs.cold import ColdRemote, ColdTier
from glimmer_store.jobs.cold_simulated import SimulatedTier, TierSettings
from glimmer_store.jobs.spec import Place, seconds

__all__ = ["ConnectedCold", "check_cold", "cold_remote"]

_DEARER: Final = 1000
"""What a cold remote costs more than one that is online, as git-annex counts costs."""
_WORDS: Final = {
    "s3": frozenset(("price-request", "price-gb")),
    "simulated": frozenset(("folder", "delay", "day", "requests", "price-request", "price-gb")),
}


class ConnectedCold(ColdRemote):
    """A cold remote that was connected to; dearer than those that are online."""

    @property
    def cost(self) -> int:
        return super().cost + _DEARER

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@dataclass(frozen=True, slots=True)
class _Said:
    kind: str
    words: dict[str, str]

    @property
    def price(self) -> tuple[float, float]:
        return float(self.words.get("price-request", 0)), float(self.words.get("price-gb", 0))


def _parse(name: str, text: str) -> _Said:
    try:
        kind, *rest = shlex.split(text)
        words = dict(word.split("=", 1) for word in rest)
        if kind not in _WORDS or set(words) - _WORDS[kind] or (kind == "simulated" and "folder" not in words):
            raise ValueError(text)
        said = _Said(kind, words)
        if min(said.price) < 0 or any(seconds(words.get(one, 1)) < 0 for one in ("delay", "day")):
            raise ValueError(text)
        int(words.get("requests", 1))
    except ValueError as error:
        raise ConfigError(
            f"remote.{name}.glimmer-cold: {text!r}",
            remedy="give it as: s3 price-gb=0.0025; or: simulated folder=DIR delay=12h",
        ) from error
    return said


def check_cold(name: str, text: str) -> None:
    """See that *text* is something, or empty.

    Raises:
        ConfigError: It is not; the message names the remote.
    """
    if text:
        _parse(name, text)


def cold_remote(place: Place, remote: annex.Remote, repository: annex.Repository | None) -> ConnectedCold:
    """*remote*, read only through the cold tier that *place* says it has.

    Raises:
        ConfigError: It says nothing of the kind, or ``s3`` of what is no S3 remote.
    """
    said = _parse(place.name, place.cold)
    tier: ColdTier
    if said.kind == "s3":
        settings, credentials = getattr(remote, "settings", None), getattr(remote, "credentials", None)
        if not isinstance(settings, annex.S3Settings) or not isinstance(credentials, annex.S3Credentials):
            raise ConfigError(
                f"remote.{place.name}.glimmer-cold: s3, and the remote is no S3 special remote",
                remedy="git config --unset it, or say simulated",
            )
        from glimmer_store.jobs.cold_s3 import S3Tier  # HTTP takes time to import

        tier = S3Tier(settings, credentials, name=place.name, price=said.price)
    else:
        words = said.words
        usual = TierSettings()
        tier = SimulatedTier(
            remote,
            Path(repository.path if repository is not None else ".", words["folder"]).absolute(),
            TierSettings(
                {"bulk": seconds(words["delay"])} if "delay" in words else usual.delay,
                seconds(words.get("day", usual.day)),
                int(words.get("requests", usual.requests)),
                said.price,
            ),
        )
    return ConnectedCold(remote, tier)
