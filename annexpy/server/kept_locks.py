"""Locks of clients that vanished, behind a proxy: kept until their retention is over.

A stock server gives a lock up with its connection. Whoever locked a node through us may have asked for a removal
elsewhere, which relies on the lock, and then lost the connection to us: so we keep ours to the node, as we would keep
the content if it were here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from types import TracebackType
from typing import Final

from anyio import TASK_STATUS_IGNORED, Event, create_task_group, get_cancelled_exc_class, move_on_after
from anyio.abc import TaskGroup, TaskStatus

from annexpy.clock import Clock
from annexpy.errors import AnnexError, ConnectionLost
from annexpy.keys.key import Key
from annexpy.remote.base import LockedCopy, Remote, is_open_end
from annexpy.remote.wrappers import Wrapper

__all__ = ["Keeping", "KeptLocks"]

_MOST: Final = 100
"""Locks that are kept for who has vanished; beyond that they end with their client."""
_LOOK: Final = 5.0


class KeptLocks:
    """The locks of one gateway. A context; leaving it hangs up on the nodes: those of ours keep the contents then."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._group: TaskGroup | None = None
        self._left: set[_Hold] = set()

    async def __aenter__(self) -> KeptLocks:
        group = create_task_group()
        await group.__aenter__()
        self._group = group
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        assert group is not None
        group.cancel_scope.cancel()
        await group.__aexit__(None, None, None)

    async def linger(self) -> None:
        """Wait until nothing is kept any more."""
        while self._left:
            await next(iter(self._left)).ended.wait()

    @asynccontextmanager
    async def locked(self, remote: Remote, key: Key) -> AsyncIterator[LockedCopy]:
        """The lock of *key* at *remote*. Left with an open end, which says that the client is gone, it is kept."""
        assert self._group is not None
        hold = _Hold(remote, key, self._clock)
        await self._group.start(hold.run)
        if hold.error is not None:
            raise hold.error
        assert hold.lock is not None
        try:
            yield hold.lock
        except BaseException as error:
            if is_open_end(error) and len(self._left) < _MOST:
                self._left.add(hold)
                hold.keep(lambda: self._left.discard(hold))
            else:
                hold.let_go(vanish=is_open_end(error) or not isinstance(error, Exception))
            raise
        await hold.release()


class _Hold:
    """A lock in a task of its own, which enters and leaves it."""

    def __init__(self, remote: Remote, key: Key, clock: Clock) -> None:
        self._remote, self._key, self._clock = remote, key, clock
        self.lock: LockedCopy | None = None
        self.error: AnnexError | None = None
        self._over, self.ended = Event(), Event()
        self._until = inf
        self._vanishes = False
        self._forget: Callable[[], None] = _nothing

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        ended: BaseException | None = None
        try:
            async with self._remote.lock_content(self._key) as self.lock:
                task_status.started()
                try:
                    await self._wait(self.lock)
                except get_cancelled_exc_class() as error:
                    ended = error  # the gateway ends; whoever relies on the lock may go on
                if self._vanishes or ended is not None:
                    raise ConnectionLost("whoever relies on this lock", "the end of a content lock")
        except AnnexError as error:
            self.error = error
            if self.lock is None:
                task_status.started()
        finally:
            self._forget()
            self.ended.set()
        if ended is not None:
            raise ended

    async def _wait(self, lock: LockedCopy) -> None:
        while not self._over.is_set():
            with move_on_after(_LOOK):
                await self._over.wait()
            if self._until < inf and (self._clock.now() >= self._until or not await lock.held()):
                return

    def keep(self, forget: Callable[[], None]) -> None:
        """The client is gone: until the retention is over, or the node is."""
        assert self.lock is not None
        self._forget = forget
        self._until = self.lock.expires

    def let_go(self, *, vanish: bool) -> None:
        """Give it up without waiting for that; *vanish*: without an unlock."""
        self._vanishes = vanish
        self._over.set()

    async def release(self) -> None:
        self._over.set()
        await self.ended.wait()


def _nothing() -> None:
    """Nobody is to be told."""


class Keeping(Wrapper):
    """A remote behind a wire, whose locks are in *locks*."""

    def __init__(self, remote: Remote, locks: KeptLocks) -> None:
        super().__init__(remote)
        self._locks = locks

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        return self._locks.locked(self.remote, key)
