"""How many large contents move at once.

Small ones wait for answers, so many of them at once cost nothing. A large one keeps a core busy at either end, and what
is done to more of them at once than there are cores takes longer in all (measured, two cores, 51 contents of 10 MiB
over HTTP: 0.65 s two at a time, 0.69 four, 0.75 sixteen).
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final

from anyio import Semaphore

from annexpy.keys.key import Key

__all__ = ["LargeTurns"]

_LARGE: Final = 4 * 1024 * 1024
_AT_ONCE: Final = 4


class LargeTurns:
    """``async with turns.of(key):`` around its transfer. Four large contents at once, or a quarter of *jobs*."""

    def __init__(self, jobs: int) -> None:
        self._turns = Semaphore(max(_AT_ONCE, jobs // 4))

    def of(self, key: Key) -> AbstractAsyncContextManager[object]:
        """The turn of *key*. There is nothing to wait for where it is small; without a size it counts as large."""
        return nullcontext() if key.size is not None and key.size <= _LARGE else self._turns
