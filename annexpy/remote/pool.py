"""The wires to one peer: opened when needed, used again, limited in number, given up when broken."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Final

from anyio import CancelScope, Event, create_task_group, current_time
from anyio.lowlevel import EventLoopToken, current_token

from annexpy.errors import TimedOut
from annexpy.remote.wire import Wire

__all__ = ["MAX_CONNECTIONS", "Pool", "Use"]

MAX_CONNECTIONS: Final = 16
MAX_LOCKS: Final = 64
"""Each lock on a stock server needs a wire of its own, and ends with it."""


class Use(IntEnum):
    """What a wire is wanted for."""

    QUESTION = 0  # one request and its answer, or many pipelined
    TRANSFER = 1  # as long as a body takes
    LOCK = 2  # as long as the lock


class Pool:
    """Hands out wires, one owner each.

    Transfers wait for each other; questions wait for questions only, because one wire beyond the
    limit is kept for them. Locks are counted by themselves: otherwise a removal could wait for the
    very lock that it relies on.

    Wires do not survive a fork or the end of an event loop: the child and the next loop start with
    an empty pool and leave the parent's wires alone.
    """

    def __init__(self, open_: Callable[[], Awaitable[Wire]], name: str, *, limit: int, patience: float) -> None:
        self._open, self._name = open_, name
        self._limit = max(1, min(limit, MAX_CONNECTIONS))
        self._patience = patience
        self._idle: list[Wire] = []
        self._busy = [0, 0, 0]
        self._waiting: deque[tuple[Use, Event]] = deque()
        self._home: tuple[int, EventLoopToken] | None = None
        self._closed = False

    async def take(self, use: Use) -> Wire:
        """A wire that is ready for a request. Give it back, whatever happened.

        Raises:
            TimedOut: All stayed in use.
            Exception: Whatever opening a new one raised.
        """
        if self._home is None or self._home[0] != os.getpid() or self._home[1] != current_token():
            self._move_in()
        self._closed = False
        if self._room(use) and not any(turn[0] == use for turn in self._waiting):
            self._busy[use] += 1
        else:
            await self._wait(use)
        try:
            while self._idle:
                wire = self._idle.pop()
                if wire.usable:
                    wire.used, wire.heard = True, False
                    return wire
                await wire.aclose()
            return await self._open()
        except BaseException:
            self._release(use)
            raise

    async def give_back(self, wire: Wire, use: Use) -> None:
        """*wire* is to be used again, if it is at rest; otherwise it is closed.

        What it has not sent yet (the end of a get, of a lock) goes out with its next request, or as
        soon as the event loop has its turn. The wire that came back last is the first to be used
        again, so whatever its owner asks next comes after the end of his lock.
        """
        surplus = wire
        try:
            if wire.usable:
                wire.flush_soon()
                if not self._closed:
                    self._idle.append(wire)
                    if len(self._idle) <= self._limit + 1:
                        return
                    surplus = self._idle.pop(0)
            await surplus.aclose()
        finally:
            self._release(use)

    async def discard(self, wire: Wire, use: Use) -> None:
        """*wire* is broken, or in the middle of something."""
        try:
            await wire.aclose()
        finally:
            self._release(use)

    async def aclose(self) -> None:
        """Close what is idle; what is in use is closed when it comes back. The pool can be used again."""
        self._closed = True
        idle, self._idle = self._idle, []
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
        turn = (use, Event())
        self._waiting.append(turn)
        try:
            with CancelScope(deadline=current_time() + self._patience) as scope:
                await turn[1].wait()
            if scope.cancelled_caught:
                in_use = sum(self._busy)
                raise TimedOut(self._name, f"free connection ({in_use} in use)", self._patience)
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn[1].is_set():  # our turn came when we had given up
                self._release(use)
            raise

    def _release(self, use: Use) -> None:
        self._busy[use] -= 1
        for turn in tuple(self._waiting):
            if self._room(turn[0]):
                self._waiting.remove(turn)
                self._busy[turn[0]] += 1
                turn[1].set()

    def _move_in(self) -> None:
        """Start anew in this process and loop. What the old ones had is theirs to close."""
        self._home = (os.getpid(), current_token())
        self._idle.clear()
        self._waiting.clear()
        self._busy = [0, 0, 0]
