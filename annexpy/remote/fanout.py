"""One put into many nodes: the source is read once, and no node can spoil it for the others.

Each node has a lane: one task that owns the node's ``put()`` from enter to exit (a cancel scope must
be left by the task that entered it) and takes what it is to send from a bounded queue. The one who
holds the ``FanOut`` only ever talks to queues.

::

    write ─→ pending ─→ queue ─→ lane ─→ node        offset 7: gets all but the first 5 bytes
               (256 KiB) queue ─→ lane ─→ node       offset 2: the smallest, which the source is told
                         queue ─→ lane ✗ (full)      leaves with its reason in ``Stored.failed``

Nothing is handed over before 256 KiB have come together or the end has come, so a small key costs
each lane two wake-ups.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum
from math import inf
from typing import Final

from anyio import CancelScope, Event, current_time

from annexpy.errors import (
    AnnexError,
    ContentChanged,
    IncompleteTransfer,
    InvalidInput,
    LocalProtocolError,
    NodesFailed,
    RemoteProtocolError,
    TimedOut,
    TransportError,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.remote.base import Stored, Upload
from annexpy.remote.health import Node, reasons
from annexpy.remote.waiting import Waiting
from annexpy.transport.base import CHUNK
from annexpy.uuids import UUID, is_cluster

__all__ = ["SETTLING_RATE", "WINDOW", "FanOut", "Lane"]

WINDOW: Final = 4 * 1024 * 1024
"""Bytes that may wait for one node. The chunks are shared, so it is also about what one put holds."""
SETTLING_RATE: Final = 16 * 1024 * 1024
"""Bytes a second that a node may take to hash and sync what it got, on top of the deadline."""


class _End(Enum):
    """How the source ended."""

    VALID = "VALID"
    INVALID = "INVALID"
    PRESENT = "DATA-PRESENT"
    LEFT = "left"


class FanOut:
    """``Upload`` of a cluster.

    Attributes:
        lanes: One for each node that takes part.
        asking, following: How many of them have not said what they want; how many take content.
        offset: The smallest that a node wants; each node skips what it has beyond that.
        failed: Nodes that are out so far, and why; those that were not even asked included.
    """

    def __init__(
        self,
        name: str,
        key: Key,
        associated_file: str,
        nodes: Sequence[Node],
        not_asked: dict[UUID, AnnexError],
    ) -> None:
        self.name, self.key, self.associated_file = name, key, associated_file
        self.lanes = [Lane(self, node) for node in nodes]
        self.asking, self.following = len(self.lanes), 0
        self.offset = 0
        self.length: int | None = None
        self.end: _End | None = None
        self._not_asked = not_asked
        self._already: frozenset[UUID] | None = None
        self._left = 0
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._source = Waiting()

    # -- the Upload that the source sees ----------------------------------------------------------

    @property
    def already(self) -> frozenset[UUID] | None:
        return self._already

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
        """Wait until every node has said what it wants, or is out.

        Raises:
            NodesFailed: No node wants it and none has it.
        """
        await self._source.until(self._all_asked)
        wanted = [lane.offset for lane in self.lanes if lane.offset is not None and lane.error is None]
        if wanted:
            self.offset = min(wanted)
            return
        self._already = frozenset().union(*(lane.already for lane in self.lanes))
        if not self._already:
            raise self._nobody()

    async def start(self, length: int) -> None:
        if self._already is not None or self.length is not None:
            raise LocalProtocolError("content was announced twice, or is already there")
        size = self.key.size
        if length < 0 or (length and size is not None and self.offset + length > size):
            raise InvalidInput("length of content", length, f"0 to {max(0, (size or 0) - self.offset)} bytes")
        self.length = self._left = length

    async def write(self, data: bytes) -> None:
        """Hand over the next bytes. Waits while a node that makes progress has ``WINDOW`` bytes before it.

        Raises:
            NodesFailed: Every node that wanted them is out, and none has the content.
        """
        if self.length is None or len(data) > self._left:
            raise LocalProtocolError(f"{len(data)} bytes of content where {self._left} were announced")
        self._left -= len(data)
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= CHUNK:
            self._hand_over()
            await self._source.until(self._all_have_room)
            if not any(lane.follows or lane.already for lane in self.lanes):
                raise self._nobody()

    async def finish(self, valid: bool = True) -> Stored:
        if self.length is None:
            raise LocalProtocolError("the end of content that was never announced")
        return await self._finish(_End.VALID if valid else _End.INVALID)

    async def data_present(self) -> Stored:
        if self._already is not None or self.length is not None:
            raise LocalProtocolError("DATA-PRESENT after content was announced, or is already there")
        return await self._finish(_End.PRESENT)

    # -- the other side of the queues -------------------------------------------------------------

    def leave(self) -> None:
        """The source is gone. What it gave still goes to the nodes, which keep it as a partial."""
        if self.end is None:
            self._end(_End.LEFT)

    def tell(self) -> None:
        """A lane changed."""
        self._source.tell()

    def _all_asked(self) -> bool:
        return not self.asking

    def _all_have_room(self) -> bool:
        return all(lane.queued <= WINDOW or not lane.follows for lane in self.lanes)

    def _all_done(self) -> bool:
        return not self.following

    async def _finish(self, end: _End) -> Stored:
        if self.end is not None:
            raise LocalProtocolError("the end of content that has ended")
        self._end(end)
        await self._source.until(self._all_done)
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
        failed = {uuid: error for uuid, error in self.failed.items() if uuid not in uuids and uuid not in already}
        return Stored(frozenset(uuids), frozenset(already), failed)

    def _end(self, end: _End) -> None:
        self.end = end
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
        for kind in (VerificationFailed, ContentChanged, IncompleteTransfer):
            for error in errors:
                if error is not None and all(isinstance(other, kind) for other in errors):
                    raise error from self._nobody()

    def _nobody(self) -> NodesFailed:
        return NodesFailed(self.name, f"to store {self.key}", self.failed.items())


class Lane:
    """One node's part of a put.

    Attributes:
        asked: The node said what it wants, or is out.
        offset: The first byte it wants; None unless it wants any.
        already: Who was found there to have the content before.
        stored: How the node's put ended.
        error: Why the node is out.
        follows: It wants the content and its put has not ended.
        queue, queued: What waits for the node, and how many bytes that is.
    """

    __slots__ = (
        "_fan",
        "_scope",
        "_wake",
        "_what",
        "already",
        "asked",
        "error",
        "follows",
        "node",
        "offset",
        "queue",
        "queued",
        "stored",
    )

    def __init__(self, fan: FanOut, node: Node) -> None:
        self._fan, self.node = fan, node
        self.asked = self.follows = False
        self.offset: int | None = None
        self.already: frozenset[UUID] = frozenset()
        self.stored: Stored | None = None
        self.error: AnnexError | None = None
        self.queue: deque[bytes] = deque()
        self.queued = 0
        self._wake: Event | None = None
        self._what = "an answer to PUT"
        self._scope: CancelScope

    def wake(self) -> None:
        if self._wake is not None:
            self._wake.set()

    async def run(self) -> None:
        """The task. Ends only when the node's ``put()`` has been left; raises nothing but cancellation."""
        node = self.node
        try:
            began = node.begin()
        except AnnexError as error:
            self.error = error
            self._settled()
            return
        try:
            with CancelScope(deadline=current_time() + node.deadline) as self._scope:
                await self._put(began)
            if self._scope.cancelled_caught:
                self._leave(began, TimedOut(node.remote.name, self._what, node.deadline))
        except AnnexError as error:
            self._leave(began, error)
        finally:
            node.end(began)

    async def _put(self, began: float) -> None:
        fan, remote = self._fan, self.node.remote
        for attempt in ("first", "last"):
            async with remote.put(fan.key, associated_file=fan.associated_file) as upload:
                claimed = upload.already
                if claimed is None:
                    if fan.key.size is None or upload.offset <= fan.key.size:
                        self.node.heard(began)
                        await self._follow(upload)
                        return
                    if attempt == "last":
                        raise RemoteProtocolError(f"{remote.name} wants byte {upload.offset} of {fan.key}, twice")
                    await self._give_up_partial(upload)
                    continue
            self.already = real(claimed) or await self._checked()
            self.node.heard(began)
            self._settled()
            return

    async def _give_up_partial(self, upload: Upload) -> None:
        """A partial longer than the key can only be wrong. No bytes and VALID make the node drop it."""
        await upload.start(0)
        try:
            await upload.finish()
        except TransportError:
            raise
        except AnnexError:  # the refusal that was asked for; what it led to shows when we ask again
            return

    async def _checked(self) -> frozenset[UUID]:
        """Who has it, after a claim that names nobody: a claim is not a copy."""
        node, key = self.node, self._fan.key
        if await node.remote.check_present(key):
            found = real(frozenset((node.uuid,)))
            if found:
                return found
        raise RemoteProtocolError(f"{node.remote.name} claims to have {key}, but it was found nowhere")

    async def _follow(self, upload: Upload) -> None:
        """Take part in the transfer until the source ends."""
        fan = self._fan
        self.offset = upload.offset
        self.asked = self.follows = True
        fan.asking -= 1
        fan.following += 1
        fan.tell()
        if not self.queue and fan.end is None:
            await self._idle()
        if fan.end is _End.LEFT and not self.queue:
            return
        if fan.end is _End.PRESENT:
            self._settling("an answer to DATA-PRESENT", 0)
            self._store(await upload.data_present())
            return
        assert fan.length is not None
        skip = self.offset - fan.offset
        length = fan.length - skip
        if length < 0:
            if fan.length or fan.end is not _End.INVALID:
                # The key does not tell its size, so this node alone cannot see that its partial is wrong.
                raise IncompleteTransfer(fan.key, self.offset, fan.offset + fan.length, self.node.remote.name)
            length = 0
        self._settling("content", length)
        await upload.start(length)
        while True:
            while self.queue:
                piece = self.queue.popleft()
                if skip < len(piece):
                    await upload.write(piece[skip:] if skip else piece)
                    self.node.moves()
                    skip = 0
                    if self.queue:
                        self._settling("content", 0)
                else:
                    skip -= len(piece)
                self.queued -= len(piece)
                fan.tell()
            if fan.end is not None:
                break
            await self._idle()
            self._settling("content", 0)
        if fan.end is not _End.LEFT:
            self._settling("an answer to content", self.offset + length)
            self._store(await upload.finish(fan.end is _End.VALID))

    async def _idle(self) -> None:
        """Wait for the source, which has all the time it wants."""
        self._scope.deadline = inf
        self._wake = Event()
        await self._wake.wait()
        self._wake = None

    def _settling(self, what: str, size: int) -> None:
        """From now on the node has to do something about *size* bytes, and may take so long."""
        self._what = what
        self._scope.deadline = current_time() + self.node.deadline + size / SETTLING_RATE

    def _store(self, stored: Stored) -> None:
        uuids, already = real(stored.uuids), real(stored.already)
        if not uuids and not already:
            failed = dict(stored.failed)
            if failed:
                raise NodesFailed(self.node.remote.name, f"to store {self._fan.key}", failed.items())
            raise RemoteProtocolError(f"{self.node.remote.name} stored {self._fan.key} in no place that it names")
        self.stored = Stored(uuids, already, stored.failed)
        self._settled()

    def _leave(self, began: float, error: AnnexError) -> None:
        self.node.failed(error, began)
        if self.stored is None and not self.already:  # what was said before stands
            self.error = error
        self._settled()

    def _settled(self) -> None:
        fan = self._fan
        fan.asking -= not self.asked
        fan.following -= self.follows
        self.asked, self.follows = True, False
        self.queue.clear()
        self.queued = 0
        fan.tell()


def real(uuids: frozenset[UUID]) -> frozenset[UUID]:
    """*uuids* of repositories: a cluster's own is never a copy."""
    for uuid in uuids:
        if is_cluster(uuid):
            return frozenset(uuid for uuid in uuids if not is_cluster(uuid))
    return uuids
