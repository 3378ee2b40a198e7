"""One task waits until something is so; the others tell it that something changed."""

from __future__ import annotations

from collections.abc import Callable

from anyio import Event

__all__ = ["Waiting"]


class Waiting:
    """A place where one task waits. Cheap to tell: the waiter wakes only when what it waits for is so."""

    __slots__ = ("_awaited", "_event")

    def __init__(self) -> None:
        self._event: Event | None = None
        self._awaited: Callable[[], bool]

    async def until(self, awaited: Callable[[], bool]) -> None:
        """Wait until *awaited* says True. It is asked at once, and again by every ``tell``."""
        while not awaited():
            self._awaited, self._event = awaited, Event()
            try:
                await self._event.wait()
            finally:
                self._event = None

    def tell(self) -> None:
        if self._event is not None and self._awaited():
            self._event.set()
