"""A lock on a content, over a wire of its own."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from anyio import CancelScope, current_time

from annexpy.clock import LOCK_RETENTION, Clock
from annexpy.errors import AnnexError, NotLocked
from annexpy.keys.key import Key
from annexpy.p2p.messages import UNLOCK_CONTENT, Failure, LockContent, Success
from annexpy.remote.base import is_open_end
from annexpy.remote.p2p_answers import refusal
from annexpy.remote.pool import Use
from annexpy.remote.wire import Wire, was_stale
from annexpy.remote.wires import Wires
from annexpy.uuids import UUID

__all__ = ["P2PLock"]

_UNLOCK_SECONDS: Final = 2.0


class P2PLock:
    """``LockedCopy`` over a wire of its own, and the ``async with`` block around it."""

    __slots__ = ("_clock", "_key", "_pool", "_wire", "expires", "uuid")

    def __init__(self, pool: Wires, key: Key, clock: Clock) -> None:
        self._pool, self._key, self._clock = pool, key, clock
        self._wire: Wire | None = None
        self.uuid = UUID("")
        self.expires = 0.0

    async def __aenter__(self) -> Self:
        while True:
            wire = await self._pool.take(Use.LOCK)
            self.expires = self._clock.now() + LOCK_RETENTION
            try:
                answer = await wire.ask(LockContent(self._key))
            except BaseException as error:
                if not isinstance(error, Exception):
                    await self._undo(wire)
                await self._pool.discard(wire, Use.LOCK)
                if was_stale(wire, error):
                    continue
                raise
            if isinstance(answer, Success):
                self._wire, self.uuid = wire, wire.uuid
                return self
            await self._pool.give_back(wire, Use.LOCK)
            if isinstance(answer, Failure):
                raise NotLocked(self._key, wire.name)
            raise refusal(wire, self._key, answer, "LOCKCONTENT")

    @staticmethod
    async def _undo(wire: Wire) -> None:
        """Cancelled while the answer is on its way: it may be a lock, and nobody will hold it."""
        if wire.delivered:
            with CancelScope(shield=True, deadline=current_time() + _UNLOCK_SECONDS):
                try:
                    if isinstance(await wire.answer(), Success):
                        wire.put(UNLOCK_CONTENT)
                        await wire.flush()
                except AnnexError:
                    pass  # the wire is closed anyway

    async def held(self) -> bool:
        return self._wire is not None and await self._wire.quiet() and self._clock.now() < self.expires

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wire is not None:
            wire, self._wire = self._wire, None
            if is_open_end(error):
                # Whoever relies on the lock cannot be told any more: hang up, so that the retention stands.
                await self._pool.discard(wire, Use.LOCK)
                return
            # Also when cancelled: a server of ours keeps a lock whose holder just vanishes.
            with CancelScope(shield=True, deadline=current_time() + _UNLOCK_SECONDS):
                wire.put(UNLOCK_CONTENT)
                await self._pool.give_back(wire, Use.LOCK)
