"""When a server commits what was recorded: soon after the last change, and at times while they go on."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from annexpy.errors import AnnexError

__all__ = ["Commits"]

log = logging.getLogger(__name__)

_SOON: Final = 1.0  # seconds without a change after which it is committed
_AT_LAST: Final = 10.0  # and with changes that do not end


class Commits:
    """Calls *commit* when it is time. ``run`` in a task, and ``now`` at the end."""

    def __init__(self, commit: Callable[[], Awaitable[object]] | None) -> None:
        self._commit = commit
        self._changed = anyio.Event()
        self._last_change = 0.0

    def note(self) -> None:
        """Something was stored or removed."""
        self._last_change = anyio.current_time()
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._changed.wait()
            latest = anyio.current_time() + _AT_LAST
            while True:
                due = min(self._last_change + _SOON, latest)
                if due <= anyio.current_time():
                    break
                await anyio.sleep_until(due)
            await self.now()

    async def now(self) -> None:
        """If anything was stored or removed since the last time."""
        if not self._changed.is_set():
            return
        self._changed = anyio.Event()
        if self._commit is not None:
            try:
                await self._commit()
            except AnnexError as error:
                log.warning("while idle: %s", error)
