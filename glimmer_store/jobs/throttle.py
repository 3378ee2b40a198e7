"""What a worker asks before each task, each request and each chunk: may it go on, and how soon.

``ready`` stands before a task and waits; ``spend`` stands before each request or chunk, waits as the limits want it,
and raises when the job was paused, cancelled, or its window closed: what was stored so far stays, as a partial that
the next try goes on with. So every change of ``control.toml`` holds from the next chunk on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, TypeAlias

import anyio

import annexpy as annex
from glimmer_store.errors import ConfigError, StoreError
from glimmer_store.jobs.control import Control, ControlFile
from glimmer_store.jobs.limits import Limiter, Limits, Share

__all__ = ["JobHeld", "Reason", "Throttle"]

log = logging.getLogger(__name__)

Reason: TypeAlias = Literal["paused", "cancelled", "held", "window"]
_LOOK: Final = 0.25
"""Seconds between two looks at the file."""
_SHARES: Final = 5.0
"""Seconds between two looks at how many workers there are."""
_NAP: Final = 1.0
"""Longest sleep between two looks: a change is heard of this soon."""

_EVEN: Final = 1e-6
"""Seconds that are not worth a sleep."""


class JobHeld(StoreError):
    """The job may not go on now. Nothing failed: no try is counted.

    Attributes:
        reason: ``paused``, ``cancelled``, ``held`` (one repository), or ``window`` (closed).
    """

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason: Reason = reason
        super().__init__(message, remedy="glimmer-store backfill resume" if reason in ("paused", "held") else "")


class Throttle:
    """The limits of one job in one worker. Not for several threads."""

    def __init__(
        self,
        job: Path,
        planned: Limits,
        *,
        clock: annex.Clock,
        share: Callable[[], Share] = Share,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        """Hold the limits of the job in that folder.

        Args:
            job: Its folder.
            planned: What the job was planned with.
            clock: Of this machine.
            share: Tells how many workers there are, and which of them this one is.
            sleep: For tests.
        """
        self._file, self._planned, self._clock, self._asked_share = ControlFile(job), planned, clock, share
        self._sleep = sleep
        self.control = Control()
        self.limits = planned
        self.share = share()
        self._limiter = Limiter(planned, share=self.share.fraction)
        self._looked = self._counted = -_SHARES

    def held(self, *places: str) -> JobHeld | None:
        """Why nothing may be moved now between these repositories; None: it may."""
        self._look()
        control = self.control
        if control.cancelled:
            return JobHeld("cancelled", f"the job was cancelled{_because(control.reason)}")
        if control.paused:
            return JobHeld("paused", f"the job is paused{_because(control.reason)}")
        for place in places:
            if place in control.held:
                return JobHeld("held", f"{place}: nothing is moved to or from it{_because(control.held[place])}")
        window = self.limits.window
        if window is not None and not window.open(self._local()):
            return JobHeld("window", f"outside {window.text}")
        return None

    async def ready(self, *places: str) -> None:
        """Wait until something may be moved between these repositories.

        Raises:
            JobHeld: The job was cancelled.
        """
        while (held := self.held(*places)) is not None:
            if held.reason == "cancelled":
                raise held
            await self._sleep(_NAP)

    async def spend(self, *, source: str = "", dest: str = "", size: int = 0, requests: int = 0) -> None:
        """Use *size* bytes and *requests* of what the limits allow, after waiting for them.

        Args:
            source: UUID of the repository that is read.
            dest: UUID of the one that is filled, or whose new copy is read again.
            size: Bytes.
            requests: How many.

        Raises:
            JobHeld: Nothing may be moved now.
        """
        self._check(source, dest)
        self._limiter.take(self._clock.now(), source=source, dest=dest, size=size, requests=requests)
        while (wait := self._limiter.wait(self._clock.now(), source=source, dest=dest)) > _EVEN:
            await self._sleep(min(wait, _NAP))
            self._check(source, dest)

    def _check(self, source: str, dest: str) -> None:
        held = self.held(source, dest)
        if held is not None:
            raise held

    def _local(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall()).astimezone()

    def _look(self) -> None:
        now = self._clock.now()
        if 0 <= now - self._looked < _LOOK:
            return
        self._looked = now
        try:
            control = self._file.changed()
            if control is not None:
                self.limits, self.control = self._planned.changed(control.limits), control
        except ConfigError as error:  # what was known goes on to hold
            log.warning("%s", error)
        if not 0 <= now - self._counted < _SHARES:
            self._counted = now
            self.share = self._asked_share()
        self._limiter.change(self.limits, self.share.fraction, now)


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
