"""How long a job still takes, from the mix of sizes: a guess with a range.

A key costs as much as keys of its size cost so far; the work that is left is the sum of that. It is divided by how much
work was done in a second, of late and over the whole run: where the two differ, the range is wide. Sizes that were not
met yet cost what the nearest known size suggests. Seconds are those in which the job runs: nights outside its window
and pauses come on top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Final

from glimmer_store.jobs.figures import RECENT, Flow, SizeSums

__all__ = ["ETA", "cost_of", "estimate"]

_UNKNOWN: Final = 0.002, 1e-8
"""Seconds for a key, and for a byte, while nothing is known."""
_MOST_ERROR: Final = 0.5


@dataclass(frozen=True, slots=True)
class ETA:
    """Seconds that are left: likely, at best, at worst."""

    seconds: float
    low: float
    high: float


def cost_of(sizes: Mapping[int, SizeSums]) -> Callable[[int], float]:
    """Size class → seconds of a worker that one key of it takes."""
    known = {
        number: sums.seconds / max(sums.copied, sums.proven)
        for number, sums in sizes.items()
        if sums.seconds > 0 and max(sums.copied, sums.proven)
    }

    def cost(number: int) -> float:
        if number in known:
            return known[number]
        below = [one for one in known if one < number]
        if below:  # time that grows with the bytes at worst
            return known[max(below)] * 4.0 ** (number - max(below))
        if known:
            return known[min(known)]
        return _UNKNOWN[0] + _UNKNOWN[1] * 4.0**number

    return cost


def estimate(sizes: Mapping[int, SizeSums], proofs: Flow, now: float) -> ETA | None:
    """What is left; None while nothing was proven.

    Args:
        sizes: Size class → sums.
        proofs: Of the whole job.
        now: Seconds since 1970.
    """
    cost = cost_of(sizes)
    left = sum(sums.left * cost(number) for number, sums in sizes.items())
    if not left:
        return ETA(0.0, 0.0, 0.0)
    whole = sum(sums.proven * cost(number) for number, sums in sizes.items()) / proofs.active
    recent = sum(sums.recent * cost(number) for number, sums in sizes.items())
    recent /= max(1.0, min(float(RECENT), now - proofs.first))
    rates = [rate for rate in (recent, whole) if rate > 0]
    if not rates:
        return None
    error = min(_MOST_ERROR, 1 / sqrt(max(1, sum(sums.proven for sums in sizes.values()))))
    return ETA(left / rates[0], left / max(rates) / (1 + error), left / min(rates) / (1 - error))
