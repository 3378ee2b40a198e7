"""How long an emit waits for others: whoever has a lock is waited for, and named while it lasts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from annexpy import LockHeld

__all__ = ["Patience"]

log = logging.getLogger(__name__)

_ONE_LOCK: Final = 30.0
"""Seconds to wait for one lock before we look again what there is to do."""
_QUIET: Final = 10.0
"""Seconds of waiting before anything is said, and then between two words about it."""


class Patience:
    """What is left of *seconds*, and what is said meanwhile: one warning in ten seconds, with holder and time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._told = self._began

    @property
    def waited(self) -> float:
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds that one lock may be waited for."""
        return min(_ONE_LOCK, max(0.0, self._seconds - self.waited))

    def wait_for(self, held: LockHeld | Callable[[float], LockHeld]) -> None:
        """Say who has what we wait for, if it is time to.

        Args:
            held: Who; or what finds that out, given how long we have waited.

        Raises:
            LockHeld: The same, when nothing is left.
        """
        waited, now = self.waited, time.monotonic()
        over = waited >= self._seconds
        if not over and now - self._told < _QUIET:
            return
        error = held if isinstance(held, LockHeld) else held(waited)
        if over:
            raise LockHeld(error.lock, error.holder, round(waited, 1))
        self._told = now
        at_most = self._seconds - waited
        log.warning("%s is held by %s; waited %.0f s, %.0f s more at most", error.lock, error.holder, waited, at_most)
