"""What a cluster knows about one of its nodes: how busy it is, and whether asking it is worth the wait.

Two degrees, because they cost differently. A node that is *down* (it could not be reached, or did
not answer within the deadline) is not asked at all until its back-off ends; then one request at a
time tries it. A node that is *late* (others answered well before it) is asked after the others.

Why it is like this: a request that waits for a dead node pays a whole deadline, so that may happen
once a minute and to one request; a refused connection costs next to nothing, so it is tried again
after a second, and then ever more rarely. A connection that was lost says little (stock servers hang
up to say no), so it changes nothing: if the node is dead, the next request cannot connect.
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from anyio import CancelScope, current_time

from annexpy.abilities import Ability
from annexpy.clock import Clock
from annexpy.errors import AnnexError, AuthFailed, ConnectFailed, NodesFailed, TimedOut, TransportError
from annexpy.remote.base import Remote
from annexpy.uuids import UUID

__all__ = ["BACK_OFF", "SHARED_BACK_OFF", "Limited", "Node", "Patient", "Placed", "Usage", "not_asked", "reasons"]

BACK_OFF: Final = 60.0
"""Seconds for which a node that cost a whole deadline, or that the others overtook, is left alone."""
SHARED_BACK_OFF: Final = 15.0
"""Seconds for which other processes believe that a node is down: short sessions would each wait for it."""
_DOWN: Final = (ConnectFailed, TimedOut, AuthFailed)


@runtime_checkable
class Patient(Protocol, metaclass=Ability):
    """A Remote that waits for others, and so may need longer than they do."""

    @property
    def patience(self) -> float:
        """Seconds without an answer after which it may be taken for dead."""
        ...


@runtime_checkable
class Limited(Protocol, metaclass=Ability):
    """A Remote that makes a transfer wait while too many others are under way."""

    @property
    def transfers(self) -> int:
        """Puts and gets that can be under way at once."""
        ...


@runtime_checkable
class Placed(Protocol, metaclass=Ability):
    """A Remote that errors are told of under another UUID than its own, because several share that: gateways."""

    @property
    def place(self) -> UUID: ...


class Usage(Protocol):
    """Counts requests to one node, for all processes that share it, and tells them when it is down.

    Times are in seconds since 1970.
    """

    def down(self, error: str, time: float, until: float) -> None:
        """It could not be reached at *time*; others need not try before *until*."""
        ...

    def up(self) -> None:
        """It can be reached again."""
        ...

    def told_down(self, now: float) -> tuple[str, float] | None:
        """Why others need not try, and until when."""
        ...

    def begin(self) -> None:
        """One more of ours."""
        ...

    def end(self) -> None:
        """One less."""
        ...

    def others(self) -> int:
        """How many other processes have under way."""
        ...


class Node:
    """One node of a cluster and its standing.

    A request calls ``begin``, then ``heard``, ``failed`` or ``overtaken`` (or none of them: nothing
    was learnt), and in any case ``end``.

    Attributes:
        remote: The node itself.
        deadline: Seconds without progress after which it counts as dead.
        busy: Requests that are under way there.
        last: When it was last chosen, as a running number; for round-robin.
        waiting: The scopes of requests that wait for a first answer. Whenever the node shows a sign of
            life elsewhere they get its whole deadline again: they may have to wait for their turn.
        speed: Seconds to its first answer, smoothed; None while unknown.
        usage: What other processes ask of it; None when nobody counts that.
    """

    __slots__ = (
        "_clock",
        "_down_until",
        "_error",
        "_failures",
        "_in_vain",
        "_late_until",
        "_moved",
        "_probe",
        "busy",
        "deadline",
        "last",
        "remote",
        "speed",
        "usage",
        "waiting",
    )

    def __init__(self, remote: Remote, clock: Clock, deadline: float, usage: Usage | None = None) -> None:
        self.remote, self.deadline, self._clock, self.usage = remote, deadline, clock, usage
        self.busy = 0
        self.last = 0
        self.waiting: set[CancelScope] = set()
        self._moved = float("-inf")
        self.speed: float | None = None
        self._error: AnnexError | None = None
        self._failures = 0
        self._probe: float | None = None
        self._down_until = self._late_until = float("-inf")
        self._in_vain = 0.0
        told = None if usage is None else usage.told_down(clock.wall())
        if told is not None:
            self._error = ConnectFailed(remote.name, f"another process has found: {told[0]}")
            self._down_until = clock.now() + min(told[1] - clock.wall(), SHARED_BACK_OFF)

    @property
    def uuid(self) -> UUID:
        """The node's UUID, or its name while nobody could find that out."""
        try:
            return self.remote.uuid
        except AnnexError:
            return UUID(self.remote.name)

    @property
    def load(self) -> int:
        """Requests that are under way there, those of other processes included."""
        return self.busy + (self.usage.others() if self.usage is not None else 0)

    @property
    def error(self) -> AnnexError | None:
        """Why it is, or was until somebody tries it again, down."""
        return self._error

    def down(self) -> AnnexError | None:
        """Why it is not to be asked now, or None."""
        if self._error is None:
            return None
        return self._error if self._probe is not None or self._clock.now() < self._down_until else None

    @property
    def late(self) -> bool:
        return self._clock.now() < self._late_until

    @property
    def patience(self) -> float:
        """Seconds that a request may wait for its first answer: what the others have left of the deadline.

        So a node that is dead costs one deadline, and not one for each kind of request.
        """
        return self.deadline - self._in_vain if self._in_vain and self.late else self.deadline

    def begin(self) -> float:
        """A request goes out. Gives the moment, which the closing calls want back.

        Raises:
            AnnexError: The node is down after all: another request has begun to try it.
        """
        error = self.down()
        if error is not None:
            raise error
        now = self._clock.now()
        self.busy += 1
        if self.usage is not None:
            self.usage.begin()
        if self._error is not None:
            self._probe = now
        return now

    def glance(self) -> float:
        """As ``begin``, for a request that is over before others could count it: no ``end`` follows."""
        return self._clock.now()

    def heard(self, began: float) -> None:
        """It gave its first answer: it is well."""
        self.moves()
        took = self._moved - began
        if self._error is not None and self.usage is not None:
            self.usage.up()
        self.speed = took if self.speed is None else self.speed + (took - self.speed) / 8
        self._error, self._failures = None, 0

    def moves(self) -> None:
        """A sign of life: it did some of what it was asked."""
        self._moved = self._clock.now()
        self._in_vain = 0.0
        if self.waiting:
            deadline = current_time() + self.deadline
            for scope in self.waiting:
                scope.deadline = deadline

    def failed(self, error: AnnexError, began: float | None = None) -> None:
        """It did not do it. Down is only who could not be reached or did not answer in time."""
        if not isinstance(error, TransportError):
            self._error, self._failures = None, 0  # a refusal is an answer
        elif isinstance(error, _DOWN):
            now = self._clock.now()
            if isinstance(error, TimedOut) and now - self._moved < 0.9 * self.deadline:
                return
            if now >= self._down_until:  # requests that failed together count once
                self._failures += 1
            waited = self.deadline if isinstance(error, TimedOut) else now - (now if began is None else began)
            pause = min(BACK_OFF, max(waited / self.deadline * BACK_OFF, 2.0 ** min(self._failures - 1, 6)))
            self._error, self._down_until, self.speed = error, now + pause, None
            if self.usage is not None:
                wall = self._clock.wall()
                self.usage.down(str(error), wall, wall + min(pause, SHARED_BACK_OFF))

    def overtaken(self, waited: float) -> None:
        """Others answered while it did not, in *waited* seconds: so long that they go first from now on."""
        # What is left must be enough for somebody who is only slow.
        self._in_vain = min((self._in_vain if self.late else 0.0) + waited, 0.8 * self.deadline)
        self._late_until = self._clock.now() + BACK_OFF
        self.speed = None

    def end(self, began: float) -> None:
        """The request is over."""
        self.busy -= 1
        if self.usage is not None:
            self.usage.end()
        if self._probe == began:
            self._probe = None


def not_asked(name: str, error: AnnexError) -> AnnexError:
    """*error* of a node that is down, for a request that it does not get: it will not be done late either."""
    return ConnectFailed(name, str(error)) if isinstance(error, TimedOut) else error


def reasons(node: Node, error: AnnexError) -> dict[UUID, AnnexError]:
    """*error* of *node* by UUID; of a cluster in a cluster, the reasons of its nodes."""
    if isinstance(error, NodesFailed) and error.failed:
        return {UUID(uuid): why for uuid, why in error.failed.items()}
    return {node.remote.place if isinstance(node.remote, Placed) else node.uuid: error}
