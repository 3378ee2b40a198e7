"""The wire of one session as its server sees it: answers that are collected, waits that end, a watch.

What the verbs in ``serve`` and the modules beside it need: say, flush, next event, and two ways for a session
to end in the middle, ``ClientGone`` and ``HangUp``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final, TypeVar

import anyio

from annexpy.errors import AnnexError, ConnectionLost, RemoteProtocolError, TimedOut, TransportError
from annexpy.p2p.connection import NEED_DATA, Connection, ConnectionEvent, Data, State
from annexpy.p2p.messages import MAX_LINE, DataHeader, Message
from annexpy.remote.base import LockedCopy, Remote
from annexpy.server.limits import Deadlines
from annexpy.transport.base import CHUNK, SendsFiles, Transport
from annexpy.uuids import UUID, is_cluster

__all__ = ["STRANGER", "ClientGone", "ClientWire", "HangUp", "others"]

log = logging.getLogger(__name__)
T = TypeVar("T")

STRANGER: Final = frozenset((State.AUTH, State.AUTH_ANSWER, State.AUTH_REFUSED))
"""Before AUTH."""

_QUIET: Final = STRANGER | {State.GREETING, State.IDLE}
"""Nothing is owed."""

_TOGETHER: Final = 64 * 1024  # pieces up to this size are joined to one write, larger ones are not copied
_FILE_PIECE: Final = 1024 * 1024  # for which a client that reads has as long as for a piece that we read
_LOOK: Final = 1.0  # seconds between two looks at held locks and idleness
_GLANCE: Final = 5.0  # and at deadlines alone
_QUICK: Final = 100  # the cost of a repository on this machine


class ClientGone(ConnectionLost):
    """Our own wire is lost: not to be taken for a lost wire behind the remote."""


class HangUp(Exception):
    """The answer has been given, and after it there is no way to go on."""

    def __init__(self, reason: AnnexError) -> None:
        self.reason = reason
        super().__init__(str(reason))


def others(uuids: frozenset[UUID], remote: Remote) -> tuple[UUID, ...]:
    """*uuids* for a -PLUS answer; none when a plain answer says as much. A cluster is never a copy."""
    if uuids <= {remote.uuid}:
        return ()
    return tuple(sorted(uuid for uuid in uuids if not is_cluster(uuid)))


class ClientWire:
    """Transport and connection of one session.

    Attributes:
        connection: What has been said. To be used directly for looking, and for events that need no wait.
        deadlines: How long the client may take.
        held: The lock that the client holds, for the watch.
        changed: Something was stored or removed since ``on_idle`` was called.
        broken: What the client said that nobody can follow, when what it said before that had no answer yet.
        out_of_time: Set when the watch has closed the wire because the client took too long.
    """

    def __init__(
        self,
        transport: Transport,
        connection: Connection,
        deadlines: Deadlines,
        on_idle: Callable[[], Awaitable[object]] | None,
    ) -> None:
        self._transport = transport
        self.connection, self.deadlines = connection, deadlines
        self._on_idle = on_idle
        self._answers: list[bytes] = []
        self._answers_size = 0
        self._patience = deadlines.first
        self._debug = log.isEnabledFor(logging.DEBUG)
        # For the watch: what we wait for since when, and until when.
        self._waiting_for = ""
        self._since = self._until = inf
        self._listening = False
        self.held: LockedCopy | None = None
        self.changed = False
        self.broken: RemoteProtocolError | None = None
        self.out_of_time: TimedOut | None = None

    @property
    def peer(self) -> str:
        """Who the client is, for messages."""
        return self._transport.peer

    # -- saying ---------------------------------------------------------------------------------------

    def say(self, message: Message) -> None:
        """Collect *message*; it is sent when there is nothing more to say without waiting."""
        if self._debug:
            log.debug("%s < %s", self.peer, message)
        line = self.connection.send(message)
        self._answers.append(line)
        self._answers_size += len(line)

    async def pour(self, chunk: bytes) -> None:
        """Say *chunk* of DATA: with what is collected if it is small, by itself and not copied if not."""
        self.connection.send_data(chunk)
        if len(chunk) > _TOGETHER:
            await self.flush()
            await self._send(chunk)
            return
        self._answers.append(chunk)
        self._answers_size += len(chunk)
        if self._answers_size > CHUNK:
            await self.flush()

    async def send_frame(self, data: bytes) -> None:
        """Send *data* as one DATA now. Another task may be in ``next``, if nothing is collected."""
        line = self.connection.send(DataHeader(len(data)))
        self.connection.send_data(data)
        await self._send(line + data)

    @property
    def sends_files(self) -> bool:
        """``pour_file`` is possible."""
        return isinstance(self._transport, SendsFiles)

    async def pour_file(self, fd: int, offset: int, size: int) -> int:
        """Say a part of a file as DATA, without reading it; how much of it there was."""
        transport, sent = self._transport, 0
        assert isinstance(transport, SendsFiles)
        await self.flush()
        while sent < size:
            piece = min(size - sent, _FILE_PIECE)
            self._wait("the client to read", self.deadlines.send)
            try:
                part = await transport.send_file(fd, offset + sent, piece)
            except TransportError as error:
                raise self.gone(str(error)) from error
            finally:
                self._until = self._since = inf
            self.connection.sent_data(part)
            sent += part
            if part < piece:
                break
        return sent

    async def flush(self) -> None:
        """Send what is collected."""
        if self._answers:
            answers = self._answers[0] if len(self._answers) == 1 else b"".join(self._answers)
            self._answers.clear()
            self._answers_size = 0
            await self._send(answers)

    async def make_room(self, remote: Remote) -> None:
        """Before *remote* is asked: send what is collected, if the answer may take its time."""
        if self._answers and remote.cost > _QUICK:
            await self.flush()

    async def _send(self, data: bytes) -> None:
        self._wait("the client to read", self.deadlines.send)
        try:
            await self._transport.send(data)
        except TransportError as error:
            raise self.gone(str(error)) from error
        finally:
            self._until = self._since = inf

    # -- hearing --------------------------------------------------------------------------------------

    async def next(self) -> ConnectionEvent:
        """The next event; sends what is collected before it waits for one.

        Raises:
            ClientGone: The wire is lost.
            HangUp: The client said a line of no end.
        """
        try:
            while (event := self.connection.next_event()) is NEED_DATA:
                await self.flush()
                await self.receive(self._patience)
        except RemoteProtocolError as error:
            raise HangUp(error) from error
        if self.connection.state not in STRANGER:
            self._patience = self.deadlines.idle
        if self._debug and type(event) is not Data:
            log.debug("%s > %s", self.peer, event)
        return event

    async def receive(self, seconds: float) -> None:
        """Wait for more from the client, and hand it to the connection."""
        self._wait(self.connection.waiting_for or "a request", seconds)
        self._listening = True
        try:
            self.connection.receive_data(await self._transport.receive(CHUNK))
        except TransportError as error:
            raise self.gone(str(error)) from error
        finally:
            self._until = self._since = inf
            self._listening = False

    async def unless_gone(self, wait: Callable[[], Awaitable[T]]) -> T:
        """What *wait* gives, as long as that takes, unless the client leaves.

        Raises:
            ClientGone: It has left.
            HangUp: It goes on talking, more than a line, while it is its turn to listen.
        """
        problem: Exception | None = None

        async def listen() -> None:
            nonlocal problem
            heard = 0
            try:
                while heard <= MAX_LINE and (data := await self._transport.receive(CHUNK)):
                    self.connection.receive_data(data)
                    heard += len(data)
                problem = HangUp(RemoteProtocolError("much before it was asked")) if heard > MAX_LINE else self.gone()
            except TransportError as error:
                problem = self.gone(str(error))
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            try:
                result = await wait()
            except AnnexError as error:  # out of the group as itself
                problem = error
                group.cancel_scope.cancel()
            else:
                group.cancel_scope.cancel()
                return result
        assert problem is not None
        raise problem

    def gone(self, reason: str = "") -> ClientGone:
        """The error for a client that has left."""
        return ClientGone(self.peer, self.connection.waiting_for or "the next request", reason)

    # -- watching ---------------------------------------------------------------------------------------

    def _wait(self, waiting_for: str, seconds: float) -> None:
        self._waiting_for = waiting_for
        self._since = anyio.current_time()
        self._until = self._since + seconds

    async def let_go(self) -> None:
        """Close the wire if the client has asked for nothing: as if it had left."""
        if self._listening and self.connection.state in _QUIET:
            await self._transport.aclose()

    async def watch(self) -> None:
        """Close the wire when the client takes too long or its lock is lost; call ``on_idle``.

        Closing makes the session end as if the client had left, so locks are left as they should be.
        One task that wakes now and then is much cheaper than a timer for every wait.
        """
        while True:
            now = anyio.current_time()
            often = self.held is not None or self._on_idle is not None
            await anyio.sleep_until(min(self._until, now + (_LOOK if often else _GLANCE)))
            now = anyio.current_time()
            if now >= self._until:
                self.out_of_time = TimedOut(self.peer, self._waiting_for, self._until - self._since)
                await self._transport.aclose()
                return
            if self.held is not None and not await _still_held(self.held):
                log.warning("%s: the lock behind its lock is lost", self.peer)
                await self._transport.aclose()
                return
            if self.changed and self._on_idle is not None and now - self._since >= _LOOK:
                self.changed = False
                try:
                    await self._on_idle()
                except AnnexError as error:
                    log.warning("%s: while idle: %s", self.peer, error)


async def _still_held(lock: LockedCopy) -> bool:
    try:
        return await lock.held()
    except AnnexError:
        return False
