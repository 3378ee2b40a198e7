"""Copies that were not finished when their put was answered with enough of them.

A cluster that answers early owns what is left to do, until it is left. A node whose queue holds all
that it lacks goes on; one that fell behind gets the content from a node that finished. Nothing waits
for them, except a removal or a new put of the same key, which ends them first: otherwise what was
removed would come back. A node that has been sent everything may store it whatever we do, so it is
waited for, as long as it may take to answer.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Final, TypeAlias

from anyio import TASK_STATUS_IGNORED, CancelScope, Event, Semaphore, create_task_group, move_on_after
from anyio.abc import TaskGroup, TaskStatus

from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.remote.base import Stored
from annexpy.remote.catch_up import catch_up
from annexpy.remote.fanout import FanOut
from annexpy.remote.health import Node

__all__ = ["Arrived", "LateCopies", "LatePut"]

log = logging.getLogger(__name__)

Arrived: TypeAlias = Callable[[Key, Stored], None]
"""Hears of a copy that was finished after its put had been answered."""

_CATCHING_UP: Final = 4
"""Nodes that catch up at a time. For those that wait, no more is kept than the key."""
_WITH_CONTENT: Final = 16
"""Puts whose queues are kept for nodes that are about to finish. Beyond that, nodes catch up."""
_LINGERS: Final = 600.0
"""Seconds for which ``made_up`` waits."""
_BACKLOG: Final = 1000
"""Late puts of one cluster. Beyond that a copy that is late is given up."""


class LateCopies:
    """The late copies of one cluster. A context; leaving it cancels them, and their partials stay."""

    def __init__(self, arrived: Arrived | None) -> None:
        self.arrived = arrived
        self.turns = Semaphore(_CATCHING_UP, fast_acquire=True)
        self._group: TaskGroup | None = None
        self._puts: dict[Key, set[LatePut]] = {}
        self._behind: Counter[int] = Counter()
        self._making_up: set[LatePut] = set()

    @property
    def entered(self) -> bool:
        return self._group is not None

    async def __aenter__(self) -> LateCopies:
        group = create_task_group()
        await group.__aenter__()
        self._group = group
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        group, self._group = self._group, None
        assert group is not None
        group.cancel_scope.cancel()
        if isinstance(error, Exception):  # a task group would wrap what the holder raised
            await group.__aexit__(None, None, None)
            return None
        return await group.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def running(self, fan: FanOut) -> AsyncIterator[FanOut]:
        """As entering *fan*, except that what is left to do once *fan* was answered outlives this."""
        assert self._group is not None
        put = LatePut(self, fan)
        await self._group.start(put.run)
        try:
            await fan.asked()
            yield fan
        finally:
            await fan.leave()
            await put.over()

    @asynccontextmanager
    async def making_up(self, fan: FanOut) -> AsyncIterator[FanOut]:
        """As entering *fan*; nodes that had a wrong partial get the content after its answer."""
        async with fan:
            yield fan
        if fan.early and self._group is not None:
            put = LatePut(self, fan)
            self.keep(put)
            self._making_up.add(put)
            self._group.start_soon(put.catch_up)

    async def made_up(self) -> bool:
        """Wait until nodes that had a wrong partial have got the content, ten minutes at most; False: none had."""
        waited = bool(self._making_up)
        with move_on_after(_LINGERS):
            for put in tuple(self._making_up):
                await put.ended.wait()
        return waited

    def is_behind(self, node: Node) -> bool:
        """It has yet to take what was put before."""
        return self._behind[id(node)] > 0

    async def settle(self, keys: Iterable[Key]) -> None:
        """End the late copies of *keys*, and wait until their nodes have been left."""
        if not self._puts:
            return
        for key in keys:
            for put in tuple(self._puts.get(key, ())):
                put.settle()
                await put.ended.wait()

    def keep(self, put: LatePut) -> None:
        """*put* was answered and goes on."""
        if put.ended.is_set():
            return
        kept = sum(map(len, self._puts.values()))
        if kept >= _BACKLOG:
            log.warning("%s: no late copy: there are %d already", put.key, kept)
            put.cancel()
        elif kept >= _WITH_CONTENT:
            put.drop_content()
        self._puts.setdefault(put.key, set()).add(put)
        put.behind = put.nodes()
        self._behind.update(put.behind)

    def forget(self, put: LatePut) -> None:
        puts = self._puts.get(put.key)
        if puts is not None:
            puts.discard(put)
            if not puts:
                del self._puts[put.key]
        self._behind.subtract(put.behind)
        put.behind = []
        self._making_up.discard(put)


class LatePut:
    """The lanes of one put, and after its answer what they have not done."""

    def __init__(self, late: LateCopies, fan: FanOut) -> None:
        self._late, self._fan = late, fan
        self._scope = CancelScope()
        self.key = fan.course.key
        self._left, self.ended = Event(), Event()
        self._over = False  # no more catching up
        self.behind: list[int] = []

    def nodes(self) -> list[int]:
        """Who has not done it yet."""
        return [id(lane.node) for lane in self._fan.lanes if lane.follows or lane.lagging]

    def cancel(self) -> None:
        self._scope.cancel()

    def settle(self) -> None:
        """End it, but for what the nodes do that have been sent everything."""
        if not any(lane.finishing for lane in self._fan.lanes):
            self.cancel()
            return
        self._over = True
        for lane in self._fan.lanes:
            if lane.follows and not lane.finishing:
                lane.lag()

    def drop_content(self) -> None:
        for lane in self._fan.lanes:
            if lane.follows and not lane.finishing:
                lane.lag()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """The task."""
        task_status.started()
        with self._at_work():
            async with create_task_group() as group:
                self._fan.launch(group)
                await self._fan.launched.wait()
            await self._left.wait()
            if self._fan.early:
                await self._catch_up_all()

    async def catch_up(self) -> None:
        """The task, where the lanes have ended."""
        with self._at_work():
            await self._catch_up_all()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        try:
            with self._scope:
                yield
        finally:
            self._late.forget(self)
            self.ended.set()

    async def over(self) -> None:
        """The put is left: wait for its nodes, unless it was answered without them."""
        self._left.set()
        if self._fan.early:
            self._late.keep(self)
            return
        try:
            await self.ended.wait()
        except BaseException:
            self.cancel()
            with CancelScope(shield=True):  # what each node does then is bounded by itself
                await self.ended.wait()
            raise

    async def _catch_up_all(self) -> None:
        """Give the nodes that are behind what they lack, from those that have all."""
        for lane in self._fan.lanes:
            if not (lane.lagging or lane.spoilt) or self._over:
                continue
            async with self._late.turns:
                try:
                    stored = await catch_up(self.key, self._fan.course.associated_file, self._fan.having(), lane.node)
                except AnnexError as error:
                    log.warning("%s: no late copy of %s: %s", lane.node.remote.name, self.key, error)
                else:
                    if self._late.arrived is not None:
                        self._late.arrived(self.key, stored)
