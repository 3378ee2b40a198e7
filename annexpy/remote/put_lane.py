"""One node's part of a put into many.

A lane is the task that owns the node's ``put()`` from enter to exit: a cancel scope must be left by
the task that entered it. It takes what it is to send from a queue, and is told through the
``Course`` that all lanes of a put share where the source stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final

from anyio import CancelScope, Event, current_time

from annexpy.errors import (
    AnnexError,
    IncompleteTransfer,
    NodesFailed,
    RemoteProtocolError,
    TimedOut,
    TransportError,
    VerificationFailed,
    WrongPartial,
)
from annexpy.keys.key import Key
from annexpy.remote.base import Stored, Upload
from annexpy.remote.health import Node
from annexpy.remote.local_content import LocalUpload
from annexpy.remote.waiting import Waiting
from annexpy.repo.shared_verifier import SharedVerifiers
from annexpy.uuids import UUID, is_cluster

__all__ = ["SETTLING_RATE", "Course", "End", "Lane", "give_up_partial", "real", "real_places"]

SETTLING_RATE: Final = 16 * 1024 * 1024
"""Bytes a second that a node may take to hash and sync what it got, on top of the deadline."""
_AHEAD: Final = 32 * 1024 * 1024
"""Bytes that may be on their way while the node still hashes what it had before: 10 MiB in the buffers of TCP, 8 MiB in
the queue at its end, and some to spare."""


class End(Enum):
    """How the source ended."""

    VALID = "VALID"
    INVALID = "INVALID"
    PRESENT = "DATA-PRESENT"
    LEFT = "left"


@dataclass(slots=True)
class Course:
    """What the lanes of one put have in common.

    Attributes:
        key, associated_file: What is stored.
        asking: Lanes whose node has not said what it wants.
        following: Lanes that take content.
        offset: The first byte that the source sends.
        length: How many it sends; None while it has not said.
        end: How it ended; None while it has not.
        late: Called with what a node stored after the source got its answer; set when it did.
        source: Where the source waits for the lanes.
        verifiers: For nodes on this machine: each gets the same bytes, so they are hashed once.
    """

    key: Key
    associated_file: str
    asking: int = 0
    following: int = 0
    offset: int = 0
    length: int | None = None
    end: End | None = None
    late: Callable[[Stored], None] | None = None
    source: Waiting = field(default_factory=Waiting)
    verifiers: SharedVerifiers = field(init=False)

    def __post_init__(self) -> None:
        self.verifiers = SharedVerifiers(self.key)


class Lane:
    """One node's part of a put.

    Attributes:
        asked: The node said what it wants, or is out.
        offset: The first byte it wants; None unless it wants any.
        already: Who was found there to have the content before.
        stored: How the node's put ended.
        error: Why the node is out.
        lagging: It is out because the source went on without it; it may still catch up.
        follows: It wants the content and its put has not ended.
        finishing: It has been sent everything, and has not answered: it may store it whatever we do.
        queue, queued: What waits for the node, and how many bytes that is.
    """

    __slots__ = (
        "_course",
        "_limit",
        "_scope",
        "_wake",
        "_what",
        "already",
        "asked",
        "error",
        "finishing",
        "follows",
        "lagging",
        "node",
        "offset",
        "queue",
        "queued",
        "stored",
    )

    def __init__(self, course: Course, node: Node) -> None:
        self._course, self.node = course, node
        self.asked = self.follows = self.finishing = self.lagging = False
        self.offset: int | None = None
        self.already: frozenset[UUID] = frozenset()
        self.stored: Stored | None = None
        self.error: AnnexError | None = None
        self.queue: deque[bytes] = deque()
        self.queued = 0
        self._wake: Event | None = None
        self._what, self._limit = "answer to PUT", node.deadline
        self._scope = CancelScope()

    @property
    def spoilt(self) -> bool:
        """It is out because its node's partial was wrong and is gone now, so that the node may get it anew."""
        return isinstance(self.error, WrongPartial)

    def wake(self) -> None:
        if self._wake is not None:
            self._wake.set()

    def lag(self) -> None:
        """The source goes on without this node."""
        self.lagging = True
        self.error = self.not_yet()
        self._settled()
        self._scope.cancel()

    def not_yet(self) -> AnnexError:
        return TimedOut(self.node.remote.name, "copy yet, which is still on its way,", 0)

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
            self._limit = node.patience
            self._scope.deadline = current_time() + self._limit
            node.waiting.add(self._scope)
            with self._scope:
                await self._put(began)
            if self._scope.cancelled_caught and not self.lagging:
                self._leave(began, TimedOut(node.remote.name, self._what, self._limit))
        except AnnexError as error:
            self._leave(began, error)
        finally:
            node.waiting.discard(self._scope)
            node.end(began)

    async def _put(self, began: float) -> None:
        course, remote = self._course, self.node.remote
        for attempt in ("first", "last"):
            async with remote.put(course.key, associated_file=course.associated_file) as upload:
                claimed = upload.already
                self.node.waiting.discard(self._scope)
                if claimed is None:
                    if course.key.size is None or upload.offset <= course.key.size:
                        self.node.heard(began)
                        await self._follow(upload)
                        return
                    if attempt == "last":
                        raise RemoteProtocolError(f"{remote.name} wants byte {upload.offset} of {course.key}, twice")
                    await give_up_partial(upload)
                    continue
            self.already = real(claimed) or await self._checked()
            self.node.heard(began)
            self._settled()
            return

    async def _checked(self) -> frozenset[UUID]:
        """Who has it, after a claim that names nobody: a claim is not a copy."""
        node, key = self.node, self._course.key
        if await node.remote.check_present(key):
            found = real(frozenset((node.uuid,)))
            if found:
                return found
        raise RemoteProtocolError(f"{node.remote.name} claims to have {key}, but it was found nowhere")

    async def _follow(self, upload: Upload) -> None:
        """Take part in the transfer until the source ends."""
        course = self._course
        self._takes_part(upload.offset)
        if isinstance(upload, LocalUpload) and not upload.offset and (check := course.verifiers.one()) is not None:
            upload.verify_with(check)
        if not self.queue and course.end is None:
            await self._idle()
        if course.end is End.LEFT and not self.queue:
            return
        if course.end is End.PRESENT:
            self._settling("answer to DATA-PRESENT", 0)
            self._store(await upload.data_present())
            return
        skip, length = self._share()
        had, ahead = upload.offset, _AHEAD
        self._settling("content", had)
        await upload.start(length)
        while True:
            while self.queue:
                piece = self.queue.popleft()
                if skip < len(piece):
                    await upload.write(piece[skip:] if skip else piece)
                    self.node.moves()
                    ahead -= len(piece) - skip
                    if ahead < 0:
                        had = 0  # it takes more, so that is done
                    skip = 0
                    if self.queue:
                        self._settling("content", had)
                else:
                    skip -= len(piece)
                self.queued -= len(piece)
                course.source.tell()
            if course.end is not None:
                break
            await self._idle()
            self._settling("content", had)
        if course.end is not End.LEFT:
            self._settling("answer to content", upload.offset + length)
            self.finishing = True
            try:
                stored = await upload.finish(course.end is End.VALID)
            finally:
                self.finishing = False
            self._store(stored)

    def _takes_part(self, offset: int) -> None:
        """The node wants the content from byte *offset* on."""
        course = self._course
        self.offset = offset
        self.asked = self.follows = True
        course.asking -= 1
        course.following += 1
        course.source.tell()

    def _share(self) -> tuple[int, int]:
        """How many of the source's bytes the node has already, and how many it gets."""
        course = self._course
        assert course.length is not None
        assert self.offset is not None
        skip = self.offset - course.offset
        length = course.length - skip
        if length < 0:
            if course.length or course.end is not End.INVALID:
                # The key does not tell its size, so this node alone cannot see that its partial is wrong.
                raise IncompleteTransfer(course.key, self.offset, course.offset + course.length, self.node.remote.name)
            length = 0
        return skip, length

    async def _idle(self) -> None:
        """Wait for the source, which has all the time it wants."""
        self._scope.deadline = inf
        self._wake = Event()
        await self._wake.wait()
        self._wake = None

    def _settling(self, what: str, size: int) -> None:
        """From now on the node has to do something about *size* bytes, and may take so long."""
        self._what, self._limit = what, self.node.deadline
        self._scope.deadline = current_time() + self.node.deadline + size / SETTLING_RATE

    def _store(self, stored: Stored) -> None:
        """The node said who has it now."""
        self.stored = real_places(self.node, self._course.key, stored)
        self._settling("end of a put", 0)
        self._settled()
        if self._course.late is not None:
            self._course.late(self.stored)

    def _leave(self, began: float, error: AnnexError) -> None:
        self.node.failed(error, began)
        if self.stored is None and not self.already and not self.lagging:  # what was said before stands
            if self.offset and isinstance(error, VerificationFailed):
                error = WrongPartial(self._course.key, self.node.remote.name)
            self.error = error
            self._settled()

    def _settled(self) -> None:
        course = self._course
        course.asking -= not self.asked
        course.following -= self.follows
        self.asked, self.follows = True, False
        self.queue.clear()
        self.queued = 0
        course.source.tell()


async def give_up_partial(upload: Upload) -> None:
    """A partial longer than the key can only be wrong. No bytes and VALID make the node drop it."""
    await upload.start(0)
    try:
        await upload.finish()
    except TransportError:
        raise
    except AnnexError:  # the refusal that was asked for; what it led to shows when we ask again
        return


def real_places(node: Node, key: Key, stored: Stored) -> Stored:
    """What *node* said of *key*, in real repositories.

    Raises:
        NodesFailed: None of its nodes stored it.
        RemoteProtocolError: It named no place.
    """
    uuids, already = real(stored.uuids), real(stored.already)
    if not uuids and not already:
        if stored.failed:
            raise NodesFailed(node.remote.name, f"to store {key}", stored.failed.items())
        raise RemoteProtocolError(f"{node.remote.name} stored {key} in no place that it names")
    return Stored(uuids, already, stored.failed)


def real(uuids: frozenset[UUID]) -> frozenset[UUID]:
    """*uuids* of repositories: a cluster's own is never a copy."""
    for uuid in uuids:
        if is_cluster(uuid):
            return frozenset(uuid for uuid in uuids if not is_cluster(uuid))
    return uuids
