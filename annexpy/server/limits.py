"""What a server allows: who may write, how long it waits, how many locks a client may leave behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Final, Protocol, TypeAlias

from annexpy.clock import LOCK_RETENTION, Clock
from annexpy.system import CLOCK
from annexpy.uuids import UUID

__all__ = [
    "APPEND_ONLY_TEXT",
    "PER_CLIENT",
    "PER_CROWD",
    "READ_ONLY_TEXT",
    "Authenticate",
    "Deadlines",
    "LockQuota",
    "Quota",
    "ServerMode",
    "Services",
]

READ_ONLY_TEXT = "this repository is read-only; write access denied"
APPEND_ONLY_TEXT = "this repository is append-only; removal denied"
PER_CLIENT: Final = 100
"""Content locks that one client may hold or leave behind."""
PER_CROWD: Final = 2000
"""And all clients of one user, key or address."""


class ServerMode(Enum):
    """What a client may change. Locking content is allowed in every mode, as git-annex has it."""

    WRITE = "write"
    APPEND_ONLY = "append-only"
    READ_ONLY = "read-only"

    @property
    def forbids_put(self) -> str:
        """Why content may not come in; "" when it may."""
        return READ_ONLY_TEXT if self is ServerMode.READ_ONLY else ""

    @property
    def forbids_remove(self) -> str:
        """Why content may not be removed; "" when it may."""
        return APPEND_ONLY_TEXT if self is ServerMode.APPEND_ONLY else self.forbids_put

    @property
    def forbids_push(self) -> str:
        """Why git-receive-pack is refused; "" when it is not."""
        return "" if self is ServerMode.WRITE else READ_ONLY_TEXT


Authenticate: TypeAlias = Callable[[UUID, str], Awaitable[ServerMode | None]]
"""Who says AUTH with which token → what they may do, or None. Compares in constant time."""


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a server waits for its client, checked every five seconds or so. ``inf`` waits for ever.

    Attributes:
        first: Until the first line.
        idle: Between requests, and for UNLOCKCONTENT.
        body: In which at least *body* KiB of a DATA body have to come; only time spent waiting counts.
        send: Until the client has taken a piece of what we send.
    """

    first: float = 15.0
    idle: float = 600.0
    body: float = 60.0
    send: float = 60.0

    @classmethod
    def never(cls) -> Deadlines:
        """Somebody else (sshd, a test) ends the connection when the client is gone."""
        return cls(inf, inf, inf, inf)


class Quota(Protocol):
    """How many content locks one client may hold or have left behind.

    A lock whose client vanished keeps its content for ``LOCK_RETENTION`` seconds, so without a limit
    a client that comes and goes could keep everything from being removed. Clients say themselves which one
    they are; who they are (user, key, address) is known, and has a limit too.
    """

    def take(self, client: str, who: str) -> bool:
        """Count one more lock of *client*; False, and not counted, when it or *who* has too many."""
        ...

    def give_back(self, client: str, who: str, *, left_behind: bool) -> None:
        """The lock is no longer held; *left_behind*: its content stays locked for a while all the same."""
        ...


class LockQuota:
    """``Quota`` of one process, whichever way its clients come. All of whom nothing is known are one crowd.

    Args:
        limit: Locks of one client.
        crowd: Locks of all clients of one user, key or address.
        clock: For retention.
    """

    def __init__(self, limit: int = PER_CLIENT, *, crowd: int = PER_CROWD, clock: Clock = CLOCK) -> None:
        self._limit, self._crowd, self._clock = limit, crowd, clock
        self._held: Counter[tuple[str, ...]] = Counter()
        self._left_behind: dict[tuple[str, ...], list[float]] = {}

    def take(self, client: str, who: str = "") -> bool:
        """As ``Quota``."""
        counted = self._counted(client, who)
        if any(self._count(at) >= limit for at, limit in counted):
            return False
        for at, _ in counted:
            self._held[at] += 1
        return True

    def give_back(self, client: str, who: str = "", *, left_behind: bool) -> None:
        """As ``Quota``."""
        for at, _ in self._counted(client, who):
            self._held[at] -= 1
            if not self._held[at]:
                del self._held[at]
            if left_behind:
                self._left_behind.setdefault(at, []).append(self._clock.now() + LOCK_RETENTION)

    def _counted(self, client: str, who: str) -> list[tuple[tuple[str, ...], int]]:
        return [((who, client), self._limit), ((who,), self._crowd)]

    def _count(self, at: tuple[str, ...]) -> int:
        now = self._clock.now()
        left = [until for until in self._left_behind.get(at, ()) if until > now]
        if left:
            self._left_behind[at] = left
        else:
            self._left_behind.pop(at, None)
        return self._held[at] + len(left)


class Services(Protocol):
    """What a server may offer besides keys: CONNECT and NOTIFYCHANGE."""

    async def connect(
        self, service: bytes, receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]
    ) -> int:
        """Run ``git-upload-pack`` or ``git-receive-pack``.

        Args:
            service: Which.
            receive: Bytes from the client; ``b""`` when it has left.
            send: Bytes to the client.

        Returns:
            Exit code.
        """
        ...

    async def changed(self) -> tuple[bytes, ...]:
        """Wait until refs of the repository change; the object ids that they have now."""
        ...
