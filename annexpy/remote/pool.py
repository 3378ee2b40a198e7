"""The connections to one peer: opened when waiting does not pay, used again, few, given up when broken."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Final, Generic, Protocol, TypeVar

from anyio import CancelScope, Event, create_task_group, current_time
from anyio.lowlevel import EventLoopToken, current_token

from annexpy.errors import TimedOut

__all__ = ["MAX_CONNECTIONS", "Pool", "Pooled", "Use"]

MAX_CONNECTIONS: Final = 16
MAX_LOCKS: Final = 64
"""Each lock on a stock server needs a wire of its own, and ends with it."""
_AT_ONCE: Final = 2
"""So many wires are opened without hoping for another one: one for either end to have something to do."""


class Use(IntEnum):
    """What a wire is wanted for."""

    QUESTION = 0  # one request and its answer, or many pipelined
    TRANSFER = 1  # as long as a body takes
    LOCK = 2  # as long as the lock


class Pooled(Protocol):
    """A connection as a pool sees it; attributes as those of ``Wire``."""

    used: bool
    heard: bool
    doomed: bool

    @property
    def usable(self) -> bool: ...

    @property
    def lent(self) -> bool: ...

    @property
    def lendable(self) -> bool: ...

    def flush_soon(self) -> None: ...

    async def aclose(self) -> None: ...


W = TypeVar("W", bound=Pooled)


class Pool(Generic[W]):
    """Hands out wires, one owner each.

    Transfers wait for each other; questions wait for questions only, because one wire beyond the
    limit is kept for them. Locks are counted by themselves: otherwise a removal could wait for the
    very lock that it relies on.

    A wire that is a process at the other end costs more than hundreds of small requests. So beyond the
    first few, whoever may have one of his own waits first for one to come back, as long as it would take to
    open one. Waiting for it to be free is not always needed: an upload that only waits for its result lends
    its wire, and the next request goes out with its last bytes.

    Wires do not survive a fork or the end of an event loop: the child and the next loop start with
    an empty pool and leave the parent's wires alone.
    """

    def __init__(
        self, open_: Callable[[], Awaitable[W]], name: str, *, limit: int, patience: float, price: float = 0.0
    ) -> None:
        """Begin with nothing.

        Args:
            open_: Opens one more.
            name: For messages.
            limit: Wires for transfers and questions, up to ``MAX_CONNECTIONS``.
            patience: Seconds to wait for one.
            price: What opening one costs, in seconds of waiting for another.
        """
        self._open, self._name, self._price = open_, name, price
        self._limit = max(1, min(limit, MAX_CONNECTIONS))
        self._patience = patience
        self._idle: list[W] = []
        self._busy = [0, 0, 0]
        self._waiting: tuple[deque[Event], ...] = tuple(deque() for _ in Use)
        self._hoping: deque[Event] = deque()  # may open a wire, and would rather have one that comes back
        self._home: tuple[int, EventLoopToken] | None = None
        self._closed = False

    async def take(self, use: Use) -> W:
        """A wire that is ready for a request. Give it back, whatever happened.

        Raises:
            TimedOut: All stayed in use.
            Exception: Whatever opening a new one raised.
        """
        if self._home is None or self._home[0] != os.getpid() or self._home[1] != current_token():
            self._move_in()
        self._closed = False
        if not self._waiting[use] and self._room(use):
            self._busy[use] += 1
        else:
            await self._wait(use)
        try:
            wire = await self._pick(use)
            if wire is None and self._price and sum(self._busy) > _AT_ONCE:
                until = current_time() + self._price
                while wire is None and current_time() < until:
                    await self._hope(until)
                    wire = await self._pick(use)
            return await self._open() if wire is None else wire
        except BaseException:
            self._release(use)
            raise

    async def _pick(self, use: Use) -> W | None:
        """An idle wire, the last that came back; or one that is lent, if need be."""
        lent: W | None = None
        for wire in reversed(tuple(self._idle)):
            if wire.lent and wire.lendable:
                lent = wire
            elif not wire.lent:
                self._idle.remove(wire)
                if wire.usable:
                    wire.used, wire.heard = True, False
                    return wire
                await wire.aclose()
        if lent is None or use is Use.LOCK:
            return None
        self._idle.remove(lent)
        lent.used, lent.heard = True, False
        return lent

    async def _hope(self, until: float) -> None:
        """Until a wire came back, or until it would have been as well to open one."""
        turn = Event()
        self._hoping.append(turn)
        try:
            with CancelScope(deadline=until):
                await turn.wait()
        finally:
            if turn in self._hoping:
                self._hoping.remove(turn)

    def _came_back(self, wire: W) -> None:
        self._idle.append(wire)
        if self._hoping:
            self._hoping.popleft().set()

    async def give_back(self, wire: W, use: Use) -> None:
        """*wire* is to be used again, if it is at rest; otherwise it is closed.

        What it has not sent yet (the end of a get, of a lock) goes out with its next request, or as
        soon as the event loop has its turn. The wire that came back last is the first to be used
        again, so whatever its owner asks next comes after the end of his lock.
        """
        surplus = wire
        try:
            if wire.lent:  # so nothing was asked over it, and somebody else still waits for his answer
                if wire.lendable:
                    self._came_back(wire)
                else:
                    wire.doomed = True
                return
            if wire.usable:
                wire.flush_soon()
                if not self._closed:
                    self._came_back(wire)
                    free = [idle for idle in self._idle if not idle.lent]
                    if len(free) <= self._limit + 1:
                        return
                    surplus = free[0]
                    self._idle.remove(surplus)
            await surplus.aclose()
        finally:
            self._release(use)

    async def discard(self, wire: W, use: Use) -> None:
        """*wire* is broken, or in the middle of something."""
        try:
            if wire.lent:
                wire.doomed = True  # somebody else waits for an answer
            else:
                await wire.aclose()
        finally:
            self._release(use)

    async def aclose(self) -> None:
        """Close what is idle; what is in use is closed when it comes back. The pool can be used again."""
        self._closed = True
        idle = [wire for wire in self._idle if not wire.lent]
        self._idle = [wire for wire in self._idle if wire.lent]
        async with create_task_group() as tasks:
            for wire in idle:
                tasks.start_soon(wire.aclose)

    def _room(self, use: Use) -> bool:
        questions, transfers, locks = self._busy
        match use:
            case Use.QUESTION:
                return questions == 0 or questions + transfers < self._limit
            case Use.TRANSFER:
                return questions + transfers < self._limit or transfers == 0
            case Use.LOCK:
                return locks < MAX_LOCKS

    async def _wait(self, use: Use) -> None:
        """Until it is our turn; whoever gives us the turn has counted us as busy already."""
        turn, waiting = Event(), self._waiting[use]
        waiting.append(turn)
        try:
            with CancelScope(deadline=current_time() + self._patience) as scope:
                await turn.wait()
            if scope.cancelled_caught:
                in_use = sum(self._busy)
                raise TimedOut(self._name, f"free connection ({in_use} in use)", self._patience)
        except BaseException:
            if turn in waiting:
                waiting.remove(turn)
            elif turn.is_set():  # our turn came when we had given up
                self._release(use)
            raise

    def _release(self, use: Use) -> None:
        self._busy[use] -= 1
        for waiting_for, waiting in zip(Use, self._waiting, strict=True):
            while waiting and self._room(waiting_for):
                self._busy[waiting_for] += 1
                waiting.popleft().set()

    def _move_in(self) -> None:
        """Start anew in this process and loop. What the old ones had is theirs to close."""
        self._home = (os.getpid(), current_token())
        self._idle.clear()
        for waiting in self._waiting:
            waiting.clear()
        self._hoping.clear()
        self._busy = [0, 0, 0]
