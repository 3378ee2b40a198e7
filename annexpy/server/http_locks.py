"""Content locks that HTTP clients hold by id, from ``lockcontent`` to the end of ``keeplocked``.

A lock lives in a task of its own, because whoever enters ``lock_content`` has to leave it. Until ``keeplocked``
takes it up it lasts as long as a lock's retention, ten minutes; then as long as that request does. A client that
vanishes without unlocking may have asked for a removal that relies on the lock: its content stays locked until the
retention is over, which is what ``lock_content`` does when it is left with ``ConnectionLost``. git-annex gives
such a lock up at once (docs/deviations.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import TaskGroup

from annexpy.clock import LOCK_RETENTION
from annexpy.errors import AnnexError, ConnectionLost, KeyNotPresent, NotLocked
from annexpy.keys.key import Key
from annexpy.p2p.http_answers import KeepLockedBody
from annexpy.remote.base import LockedCopy, Remote
from annexpy.server.limits import Quota
from annexpy.transport.http_exchange import Exchange
from annexpy.uuids import UUID

__all__ = ["HeldLocks"]

log = logging.getLogger(__name__)

_PATIENCE: Final = 1200.0
"""Seconds between two pieces of the body of ``keeplocked``, as stock clients announce (``Keep-Alive``)."""
_LOOK: Final = 1.0


class _Held:
    """One lock.

    Attributes:
        uuid, owner: The repository that was asked, and by whom.
        answer: Set once it is known whether it could be locked.
        lock: The lock; None while, or because, there is none.
        error: Why not.
        over: Set when it is to be left.
        left: Set when it was.
        unlocked: The client has said that it needs it no longer.
        keeping: The scope of the request that keeps it.
    """

    __slots__ = ("answer", "error", "keeping", "left", "lock", "over", "owner", "unlocked", "uuid")

    def __init__(self, uuid: UUID, owner: str) -> None:
        self.uuid, self.owner = uuid, owner
        self.answer, self.over, self.left = anyio.Event(), anyio.Event(), anyio.Event()
        self.lock: LockedCopy | None = None
        self.error: AnnexError | None = None
        self.unlocked = False
        self.keeping: anyio.CancelScope | None = None


class HeldLocks:
    """The locks of one server."""

    def __init__(self, group: TaskGroup, quota: Quota, new_id: Callable[[], str]) -> None:
        self._group, self._quota, self._new_id = group, quota, new_id
        self._held: dict[str, _Held] = {}

    def __len__(self) -> int:
        return len(self._held)

    async def take(self, remote: Remote, key: Key, uuid: UUID, *, owner: str, client: str, who: str) -> str | None:
        """Lock the content of *key*.

        Args:
            remote: Where.
            key: Of the content.
            uuid: The repository that was asked, which ``keep`` has to name too.
            owner: The user, whom ``keep`` has to be too.
            client, who: As for ``Quota``.

        Returns:
            The id of the lock; None when there is nothing to lock.

        Raises:
            AnnexError: It cannot be told.
        """
        if not self._quota.take(client, who):
            log.warning("%s of %s: too many content locks are held", client, who)
            return None
        held, lock_id = _Held(uuid, owner), self._new_id()
        self._group.start_soon(self._hold, lock_id, held, remote, key, client, who)
        await held.answer.wait()
        if held.lock is None:
            if held.error is None or isinstance(held.error, (NotLocked, KeyNotPresent)):
                return None
            raise held.error
        return lock_id

    async def _hold(self, lock_id: str, held: _Held, remote: Remote, key: Key, client: str, who: str) -> None:
        ended: BaseException | None = None
        try:
            async with remote.lock_content(key) as lock:
                held.lock = lock
                self._held[lock_id] = held
                held.answer.set()
                try:
                    await self._watch(lock_id, held)
                except anyio.get_cancelled_exc_class() as error:
                    ended = error  # the server is ended; whoever relies on the lock may go on
                if not held.unlocked:
                    raise ConnectionLost(client, "the end of a content lock")
        except AnnexError as error:
            held.error = error
            if held.lock is not None and held.unlocked:
                log.warning("%s: unlocking %s: %s", remote.name, key, error)
        finally:
            self._held.pop(lock_id, None)
            held.answer.set()
            held.left.set()
            left_behind = held.lock is not None and not held.unlocked
            self._quota.give_back(client, who, left_behind=left_behind)
        if ended is not None:
            raise ended

    async def _watch(self, lock_id: str, held: _Held) -> None:
        """Wait until the lock is over: given up, kept by nobody any more, or lost."""
        until = anyio.current_time() + LOCK_RETENTION
        while not held.over.is_set():
            with anyio.move_on_after(_LOOK):
                await held.over.wait()
                break
            if held.keeping is None and anyio.current_time() >= until:
                break
            if not await _still_held(held):
                log.warning("the lock behind lock %s… is lost", lock_id[:8])
                break
        held.over.set()
        if held.keeping is not None and not held.unlocked:
            held.keeping.cancel()

    async def keep(self, lock_id: str, uuid: UUID, owner: str, exchange: Exchange) -> None:
        """Keep the lock while the body of *exchange* lasts. Returns when it is no longer locked.

        Raises:
            ClientLeft: Without unlocking.
            InvalidInput: The body is none of ``keeplocked``. The lock is given up as if the client had left.
        """
        held = self._held.get(lock_id)
        if held is None or held.uuid != uuid or held.owner != owner or held.keeping is not None:
            return
        body = KeepLockedBody()
        try:
            with anyio.CancelScope() as held.keeping:
                while data := await exchange.receive(_PATIENCE):
                    if body.unlocks(data):
                        held.unlocked = True
                        break
        finally:
            held.over.set()
        await held.left.wait()  # so that a removal that follows finds it unlocked

    async def let_go(self) -> None:
        """All of them, as if their clients had vanished."""
        all_held = list(self._held.values())
        for held in all_held:
            held.over.set()
        for held in all_held:
            await held.left.wait()


async def _still_held(held: _Held) -> bool:
    try:
        return held.lock is not None and await held.lock.held()
    except AnnexError:
        return False
