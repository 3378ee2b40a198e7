"""The wires to one P2P server: a pool of them that asks, and lends a wire of which only the last answer is awaited."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from annexpy.p2p.connection import Data
from annexpy.p2p.messages import Message
from annexpy.remote.pool import Pool, Use
from annexpy.remote.wire import Wire, was_stale

__all__ = ["Wires"]

T = TypeVar("T")


class Wires(Pool[Wire]):
    """As ``Pool``. What was asked over a stale wire is asked again; a wire can be lent while its answer is awaited."""

    async def ask(self, question: Callable[[Wire], Awaitable[T]]) -> tuple[Wire, T]:
        """What *question* got over a wire, and the wire, for its names only; over another where it was stale."""
        while True:
            wire = await self.take(Use.QUESTION)
            try:
                answer = await question(wire)
            except BaseException as error:
                await self.discard(wire, Use.QUESTION)
                if was_stale(wire, error):
                    continue
                raise
            await self.give_back(wire, Use.QUESTION)
            return wire, answer

    def lend(self, wire: Wire, use: Use) -> bool:
        """Give *wire* to the next who waits, if there is one, although one answer is still to come.

        Who lent it gets that with ``last_answer``, and has nothing to do with the wire afterwards.
        """
        wanted = self._hoping or self._waiting[Use.QUESTION] or self._waiting[Use.TRANSFER]
        if self._closed or not wanted or not wire.lendable:
            return False
        wire.lend()
        self._came_back(wire)
        self._release(use)
        return True

    async def last_answer(self, wire: Wire, seconds: float) -> Message | Data:
        """What ``lend`` left open; as ``Wire.event``."""
        try:
            return await wire.last_answer(seconds)
        finally:
            if wire.broken or (self._closed and wire in self._idle):
                if wire in self._idle:
                    self._idle.remove(wire)
                await wire.aclose()
