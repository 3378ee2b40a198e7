"""One put into many nodes: the source is read once, and no node can spoil it for the others.

::

    write ─→ pending ─→ queue ─→ lane ─→ node        offset 7: gets all but the first 5 bytes
               (256 KiB) queue ─→ lane ─→ node       offset 2: the smallest, which the source is told
                         queue ─→ lane ✗ (full)      leaves with its reason in ``Stored.failed``

The one who holds the ``FanOut`` only ever talks to queues. Nothing is handed over before 256 KiB have
come together or the end has come, so a small key costs each lane two wake-ups; a node that nobody has to
wait for costs none (``quick_put``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeAlias

from anyio import Event, create_task_group, current_time, move_on_after
from anyio.abc import TaskGroup

from annexpy.errors import (
    AnnexError,
    ContentChanged,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    NodesFailed,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.remote.base import Stored
from annexpy.remote.catch_up import catch_up
from annexpy.remote.health import Node, reasons
from annexpy.remote.put_lane import Course, End, Lane
from annexpy.remote.quick_put import QuickLane, lane_of
from annexpy.transport.base import CHUNK
from annexpy.uuids import UUID

__all__ = ["WINDOW", "FanOut", "Instead"]

Instead: TypeAlias = Callable[[frozenset[UUID], frozenset[UUID]], Sequence[Node]]
"""Who stands in, given who has or takes the content and who does not."""

WINDOW: Final = 4 * 1024 * 1024
"""Bytes that may wait for one node. The chunks are shared, so it is also about what one put holds."""


class FanOut:
    """``Upload`` of a cluster. A context: entering it asks the nodes, and all of them have been left when it is.

    Attributes:
        course: Where the source stands, for the lanes.
        lanes: One for each node that takes part.
        failed: Nodes that are out so far, and why; those that were not even asked included.
        early: It was answered while there were nodes left to do.
    """

    def __init__(
        self,
        name: str,
        key: Key,
        associated_file: str,
        nodes: Sequence[Node],
        not_asked: dict[UUID, AnnexError],
        *,
        afterwards: bool = False,
        enough: int | None = None,
        slack: float = 0.0,
        late: Callable[[Stored], None] | None = None,
        behind: Callable[[Node], bool] = lambda node: False,
        instead: Instead | None = None,
    ) -> None:
        """With *afterwards* the holder sees to it that those with a wrong partial get the content after the answer.

        *enough* copies end the put; *slack* seconds is how long all of it waits for the nodes beyond that.
        Those that are *behind* with earlier puts are not waited for. What they store later goes to *late*. *instead*
        is asked for others when nodes refuse.
        """
        self._name, self._key = name, key
        self.course = Course(key, associated_file, asking=len(nodes))
        self.lanes = [lane_of(self.course, node) for node in nodes]
        self._until = self.course.source.until
        self._not_asked = not_asked
        self._afterwards, self._enough, self._slack = afterwards, enough, slack
        self._late, self._instead = late, instead
        self._behind = behind
        self._group: TaskGroup | None = None
        self._own: TaskGroup | None = None
        self.launched = Event()
        self.early = False
        self._already: frozenset[UUID] | None = None
        self._left = 0
        self._pending: list[bytes] = []
        self._pending_size = 0

    async def __aenter__(self) -> Self:
        try:
            for lane in self.lanes:
                if not isinstance(lane, QuickLane):
                    await self._start(lane)
            await self.asked()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        group, self._own = self._own, None
        try:
            await self.leave()
        finally:
            ended = None
            if group is not None and isinstance(error, Exception):  # a task group would wrap what the holder raised
                await group.__aexit__(None, None, None)
            elif group is not None:
                ended = await group.__aexit__(kind, error, trace)
        return ended

    def launch(self, group: TaskGroup) -> None:
        """In place of entering it: let the lanes run in *group*, which must stay open until ``launched`` is set."""
        self._group = group
        for lane in self.lanes:
            if not isinstance(lane, QuickLane):
                group.start_soon(lane.run)

    async def _start(self, lane: Lane) -> None:
        """A task for *lane*; most puts of small contents need none, and no group."""
        if self._group is None:
            self._own = create_task_group()
            self._group = await self._own.__aenter__()
        self._group.start_soon(lane.run)

    # -- the Upload that the source sees ----------------------------------------------------------

    @property
    def already(self) -> frozenset[UUID] | None:
        return self._already

    @property
    def offset(self) -> int:
        """The smallest that a node wants; each node skips what it has beyond that."""
        return self.course.offset

    @property
    def failed(self) -> dict[UUID, AnnexError]:
        failed = dict(self._not_asked)
        for lane in self.lanes:
            if lane.stored is not None:
                failed.update(lane.stored.failed)
            elif lane.error is not None:
                failed.update(reasons(lane.node, lane.error))
        return failed

    async def asked(self) -> None:
        """Wait until every node has said what it wants, or is out, and others stand in for those.

        Raises:
            NodesFailed: No node wants it and none has it.
        """
        try:
            await self._begin_quick()
            await self._at_most_slack(self._all_asked, self._not_asked_yet)
            while more := self._stand_in():
                lanes = [lane_of(self.course, node) for node in more]
                self.course.asking += len(lanes)
                self.lanes += lanes
                for lane in lanes:
                    if not isinstance(lane, QuickLane):
                        await self._start(lane)
                await self._begin_quick()
                await self._at_most_slack(self._all_asked, self._not_asked_yet)
        finally:
            self.launched.set()
        wanted = [lane.offset for lane in self.lanes if lane.offset is not None and lane.error is None]
        if wanted:
            self.course.offset = min(wanted)
            return
        self._already = frozenset().union(*(lane.already for lane in self.lanes))
        if not self._already:
            raise self._nobody()

    async def start(self, length: int) -> None:
        if self._already is not None or self.course.length is not None:
            raise LocalProtocolError("content was announced twice, or is already there")
        size = self._key.size
        if length < 0 or (length and size is not None and self.offset + length > size):
            raise InvalidInput("length of content", length, f"0 to {max(0, (size or 0) - self.offset)} bytes")
        self.course.length = self._left = length

    async def write(self, data: bytes) -> None:
        """Hand over the next bytes. Waits while a node that makes progress has ``WINDOW`` bytes before it.

        Raises:
            NodesFailed: Every node that wanted them is out, and none has the content.
        """
        if self.course.length is None or len(data) > self._left:
            raise LocalProtocolError(f"{len(data)} bytes of content where {self._left} were announced")
        self._left -= len(data)
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= CHUNK:
            self._hand_over()
            await self._at_most_slack(
                self._all_have_room, lambda: [lane for lane in self.lanes if lane.queued > WINDOW]
            )
            if not any(lane.follows or lane.already for lane in self.lanes):
                raise self._nobody()

    async def finish(self, valid: bool = True) -> Stored:
        if self.course.length is None:
            raise LocalProtocolError("the end of content that was never announced")
        return await self._finish(End.VALID if valid else End.INVALID)

    async def data_present(self) -> Stored:
        if self._already is not None or self.course.length is not None:
            raise LocalProtocolError("DATA-PRESENT after content was announced, or is already there")
        return await self._finish(End.PRESENT)

    # -- the other side of the queues -------------------------------------------------------------

    async def leave(self) -> None:
        """The source is gone. What it gave still goes to the nodes, which keep it as a partial."""
        if self.course.end is None:
            self._end(End.LEFT)
        await self._end_quick()

    async def _begin_quick(self) -> None:
        for number, lane in enumerate(self.lanes):
            if isinstance(lane, QuickLane) and not lane.asked and not await lane.begin():
                self.lanes[number] = slow = Lane(self.course, lane.node)
                await self._start(slow)

    async def _end_quick(self) -> None:
        for lane in self.lanes:
            if isinstance(lane, QuickLane):
                await lane.end()

    def having(self) -> list[Node]:
        """Nodes that have all of it."""
        return [lane.node for lane in self.lanes if lane.stored is not None or lane.already]

    def _stand_in(self) -> list[Node]:
        """Nodes that were not asked yet, in place of those that are out."""
        if self._instead is None:
            return []
        spoilt: set[UUID] = set()  # who is not out: it takes the next attempt
        for lane in self.lanes:
            if lane.error is not None and lane.spoilt:
                spoilt |= {lane.node.uuid, *reasons(lane.node, lane.error)}
        out = self.failed.keys() - spoilt
        if not out:
            return []
        taking = spoilt | {lane.node.uuid for lane in self.lanes if lane.follows}
        asked = {id(lane.node) for lane in self.lanes}
        more = self._instead(frozenset(taking | self._copies()), frozenset(out))
        return [node for node in more if id(node) not in asked]

    def _not_asked_yet(self) -> list[Lane]:
        return [lane for lane in self.lanes if not lane.asked]

    def _all_asked(self) -> bool:
        return not self.course.asking

    def _all_have_room(self) -> bool:
        return all(lane.queued <= WINDOW or not lane.follows for lane in self.lanes)

    def _all_done(self) -> bool:
        return not self.course.following

    def _enough_done(self) -> bool:
        """There are enough copies. Those that were here before count as well."""
        return self._enough is not None and len(self._copies()) >= self._enough

    def _copies(self) -> set[UUID]:
        copies: set[UUID] = set()
        for lane in self.lanes:
            copies |= lane.already
            if lane.stored is not None:
                copies |= lane.stored.copies
        return copies

    async def _at_most_slack(self, awaited: Callable[[], bool], late: Callable[[], list[Lane]]) -> None:
        """Wait until *awaited* is so; for longer than the slack only while there would not be enough without *late*."""
        if self._enough is not None and not awaited():
            began = current_time()
            with move_on_after(self._slack):
                await self._until(lambda: awaited() or self._hopeless(late()))
            self._slack -= current_time() - began
            await self._until(lambda: awaited() or self._can_spare(late()))
            if not awaited():
                for lane in late():
                    lane.lag()
        await self._until(awaited)

    def _hopeless(self, late: list[Lane]) -> bool:
        """All that are *late* are nodes that will be late, and they can be spared."""
        return self._can_spare(late) and all(self._behind(lane.node) for lane in late)

    def _can_spare(self, late: list[Lane]) -> bool:
        wanting = sum(lane.follows and lane not in late for lane in self.lanes)
        return self._enough is not None and wanting + len(self._copies()) >= self._enough

    async def _finish(self, end: End) -> Stored:
        if self.course.end is not None:
            raise LocalProtocolError("the end of content that has ended")
        self._end(end)
        await self._end_quick()
        await self._until(lambda: self._all_done() or self._enough_done())
        await self._make_up()
        uuids: set[UUID] = set()
        already: set[UUID] = set()
        for lane in self.lanes:
            already |= lane.already
            if lane.stored is not None:
                uuids |= lane.stored.uuids
                already |= lane.stored.already
        already -= uuids
        if not uuids and not already:
            self._blame_source()
            raise self._nobody()
        for lane in self.lanes:
            if lane.spoilt and self._afterwards:
                lane.lag()
        failed = self.failed
        for lane in self.lanes:
            if lane.follows:
                failed.update(reasons(lane.node, lane.not_yet()))
            self.early |= lane.follows or lane.lagging
        if self.early:
            self.course.late = self._late
        return Stored(
            frozenset(uuids),
            frozenset(already),
            {uuid: error for uuid, error in failed.items() if uuid not in uuids and uuid not in already},
        )

    async def _make_up(self) -> None:
        """Where nodes could not store what they had begun to take, others get it from one that has it."""
        while (sources := self.having()) and (more := self._stand_in()):
            for node in more:
                lane = Lane(self.course, node)
                lane.asked = True
                self.lanes.append(lane)
                try:
                    lane.stored = await catch_up(self._key, self.course.associated_file, sources, node)
                except AnnexError as error:
                    lane.error = error

    def _end(self, end: End) -> None:
        self.course.end = end
        self._hand_over()

    def _hand_over(self) -> None:
        """Give every lane what is pending, in pieces whose passing shows that a node makes progress."""
        pending = self._pending
        if pending:
            block = pending[0] if len(pending) == 1 else b"".join(pending)
            self._pending, self._pending_size = [], 0
            if len(block) < 2 * CHUNK:
                pieces = [block]
            else:
                pieces = [block[start : start + CHUNK] for start in range(0, len(block), CHUNK)]
            for lane in self.lanes:
                if lane.follows:
                    lane.queue.extend(pieces)
                    lane.queued += len(block)
        for lane in self.lanes:
            lane.wake()

    def _blame_source(self) -> None:
        """When all who took the content refuse it for the same reason, that is about the content and not about them."""
        errors = [lane.error for lane in self.lanes if lane.offset is not None]
        for kind in (VerificationFailed, ContentChanged, IncompleteTransfer, KeyNotPresent):
            for error in errors:
                if error is not None and all(isinstance(other, kind) for other in errors):
                    raise error from self._nobody()

    def _nobody(self) -> NodesFailed:
        return NodesFailed(self._name, f"to store {self._key}", self.failed.items())
