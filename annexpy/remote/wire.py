"""One wire to a P2P server: requests and answers, a deadline for every wait. ``greeting`` opens one.

Everything above (``pool``, ``p2p``) asks in messages; everything below moves bytes. Whatever goes
wrong here leaves the wire unusable, and ``usable`` says so.
"""

from __future__ import annotations

import logging
from math import inf
from typing import Final

from anyio import CancelScope, Event, current_time
from anyio.lowlevel import checkpoint

from annexpy.errors import ConnectionLost, RemoteProtocolError, TimedOut
from annexpy.p2p.connection import (
    NEED_DATA,
    Closed,
    Connection,
    ConnectionEvent,
    Data,
    NeedData,
    Paused,
    State,
    Unexpected,
)
from annexpy.p2p.messages import Auth, DataHeader, Message
from annexpy.transport.base import CHUNK, Transport, Watched
from annexpy.uuids import UUID

__all__ = ["Wire", "was_stale"]

log = logging.getLogger(__name__)

_ROOM: Final = "room for more bytes"
_AT_REST = (State.IDLE, State.PUT_REFUSED)
_NOTHING_MORE = (Closed, NeedData, Paused, Unexpected)  # the last two are never told to a client


class Wire:
    """A connection, once it has been greeted. Owned by one task at a time.

    An owner who only waits for his last answer may ``lend`` it: the next owner's request goes out with his
    last words, and the answer to it is heard after his.

    Attributes:
        name: The peer, for messages.
        uuid: The repository that answered.
        deadline: Seconds without a byte after which an answer or a body counts as stuck.
        delivered: False while, or since, the last request went out only in part or not at all.
        heard: The peer has said something since the last owner took it.
        used: True once it has served a request and came back.
        doomed: The next owner gave up while the wire was lent: it is to be closed when the answer is there.
        clock_offset: (seconds to add to ``Clock.now()`` to get at most the peer's clock, when that
            was found out), or None.
    """

    __slots__ = (
        "_ahead",
        "_connection",
        "_debug",
        "_spoiled",
        "_transport",
        "_unsent",
        "_within",
        "clock_offset",
        "deadline",
        "delivered",
        "doomed",
        "heard",
        "name",
        "used",
        "uuid",
    )

    def __init__(self, name: str, transport: Transport, connection: Connection, deadline: float) -> None:
        self.name, self._transport, self._connection = name, transport, connection
        self.deadline = deadline
        self.uuid = UUID("")
        self.used = False
        self.heard = False
        self.delivered = True
        self.clock_offset: tuple[float, float] | None = None
        self.doomed = False
        self._ahead: Event | None = None  # set when the one who lent the wire has his answer
        self._spoiled = False  # he has not got it
        self._unsent = b""
        self._within = transport.within if isinstance(transport, Watched) else None
        self._debug = log.isEnabledFor(logging.DEBUG)

    @property
    def version(self) -> int:
        return self._connection.version

    @property
    def usable(self) -> bool:
        """Whether the next request may be sent: nothing is owed, and the peer has neither left nor said anything."""
        connection = self._connection
        return (
            connection.state in _AT_REST
            and not self._spoiled
            and not connection.outstanding
            and not connection.unread
            and not self._transport.has_input
            and not self._transport.at_eof
        )

    @property
    def lent(self) -> bool:
        """Whether the answer to the request before still has to come. The next one may be sent all the same."""
        return self._ahead is not None

    @property
    def lendable(self) -> bool:
        """Whether the next request may be sent although an answer is owed."""
        connection = self._connection
        result = bool(connection.version) and connection.state is State.PUT_RESULT
        return result and not (self.broken or self._transport.at_eof)

    @property
    def broken(self) -> bool:
        """Nobody can tell any more what is an answer to what."""
        return self._spoiled or self.doomed

    @property
    def has_input(self) -> bool:
        """The peer has said something that was not looked at, or has left."""
        return self._connection.unread or self._transport.has_input

    @property
    def room(self) -> int:
        """Bytes of request lines that may be sent before an answer comes."""
        return self._connection.room

    # -- sending --------------------------------------------------------------------------------------

    def put(self, message: Message) -> bytes:
        """*message* as bytes that will be sent with the next ``flush``; they count as sent from here on."""
        line = self._connection.send(message)
        self._unsent = self._unsent + line if self._unsent else line
        if self._debug:
            log.debug("%s > %s", self.name, _shown(message))
        return line

    def put_data(self, chunk: bytes) -> None:
        """Bytes of a body, likewise. For small bodies: they are copied."""
        self._unsent += self._connection.send_data(chunk)

    async def flush(self, chunk: bytes | None = None) -> None:
        """Send what was put, and *chunk* of a body after it.

        Raises:
            ConnectionLost, TimedOut: The peer left, or reads nothing.
        """
        data, self._unsent = self._unsent, b""
        if chunk is not None:
            self._connection.send_data(chunk)
            if not data:
                data = chunk
            elif len(chunk) < CHUNK // 4:
                data += chunk
            else:
                await self._send(data)
                data = chunk
        if data:
            await self._send(data)

    def flush_soon(self) -> None:
        """Send what was put with the next request, or as soon as the event loop has its turn."""
        if self._unsent:
            data, self._unsent = self._unsent, b""
            self._transport.send_soon(data)

    async def _send(self, data: bytes) -> None:
        # In pieces, because a deadline is about bytes that do not move, not about how fast they do.
        pieces = (data,) if len(data) <= CHUNK else [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
        for piece in pieces:
            with CancelScope(deadline=current_time() + self.deadline) as scope:
                await self._transport.send(piece)
            if scope.cancelled_caught:
                raise TimedOut(self.name, _ROOM, self.deadline)

    # -- receiving ------------------------------------------------------------------------------------

    async def event(self, seconds: float | None = None) -> Message | Data:
        """The next message, or piece of a body, and send first what was put.

        Args:
            seconds: To wait, in place of ``deadline``.

        Raises:
            ConnectionLost: The peer left; outcome unknown. The reason has what it said elsewhere (stderr).
            TimedOut: Nothing came.
            RemoteProtocolError: It said what it must not say.
        """
        if self._ahead is not None:
            await self._go_behind()
        event = await self._next(seconds)
        self.heard = True
        return event

    async def _go_behind(self) -> None:
        """Send our request; the first answer is for the one who lent us the wire, and he has his own deadline."""
        self.delivered = False
        try:
            await self.flush()
            self.delivered = True
        except ConnectionLost:
            pass  # he hears why
        if self._ahead is not None:
            await self._ahead.wait()
        if self._spoiled:
            raise self._gone()

    async def _next(self, seconds: float | None) -> Message | Data:
        connection = self._connection
        try:
            event = connection.next_event()
            if event is NEED_DATA or self._unsent:
                limit = seconds or self.deadline
                if self._within is not None:
                    self._within(limit)
                    try:
                        event = await self._exchange(event)
                    except TimeoutError as error:
                        raise self._late(limit) from error
                    finally:
                        self._within(inf)
                else:
                    with CancelScope(deadline=current_time() + limit) as scope:
                        event = await self._exchange(event)
                    if scope.cancelled_caught:
                        raise self._late(limit)
        except ConnectionLost as error:
            raise self._gone(error.reason) from error
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{self.name}: {error}") from error
        if isinstance(event, _NOTHING_MORE):
            raise self._gone()
        if self._debug and not isinstance(event, Data):
            log.debug("%s < %s", self.name, _shown(event))
        return event

    async def _exchange(self, event: ConnectionEvent) -> ConnectionEvent:
        """Send what was put, and receive until there is an event, if *event* is none."""
        connection, transport = self._connection, self._transport
        if self._unsent:
            data, self._unsent = self._unsent, b""
            self.delivered = False
            try:
                await transport.send(data)
                self.delivered = True
            except ConnectionLost:
                pass  # whoever left without reading may have said why: that is heard next
        while event is NEED_DATA:
            connection.receive_data(await transport.receive())
            event = connection.next_event()
        return event

    def _late(self, limit: float) -> TimedOut:
        return TimedOut(self.name, self._connection.waiting_for.removeprefix("the ") or _ROOM, limit)

    def _gone(self, reason: str = "") -> ConnectionLost:
        said = self._transport.complaint
        waiting_for = self._connection.waiting_for or "the next answer"
        return ConnectionLost(self.name, waiting_for, f"{reason}: {said}" if reason and said else reason or said)

    def lend(self) -> None:
        """Let somebody else send his request while we wait for the answer; what was put goes out with it, or soon."""
        self._ahead = Event()
        self.flush_soon()

    async def last_answer(self, seconds: float) -> Message | Data:
        """The answer that is owed to the one who lent the wire; as ``event``. Without it, the wire is spoiled."""
        assert self._ahead is not None
        try:
            return await self._next(seconds)
        except BaseException:
            self._spoiled = True
            raise
        finally:
            self._ahead.set()
            self._ahead = None

    async def answer(self, seconds: float | None = None) -> Message:
        """The next message; for where no body can come."""
        event = await self.event(seconds)
        if isinstance(event, Data):
            raise RemoteProtocolError(f"{self.name}: DATA where a line was expected")
        return event

    async def ask(self, message: Message, seconds: float | None = None) -> Message:
        """Send *message* and wait for the answer."""
        self.put(message)
        return await self.answer(seconds)

    def answers(self, into: list[Message]) -> None:
        """Add what can be had without waiting, for as long as answers are owed."""
        connection = self._connection
        try:
            while connection.outstanding:
                event = connection.next_event()
                if isinstance(event, (*_NOTHING_MORE, Data)):
                    return
                into.append(event)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{self.name}: {error}") from error

    async def quiet(self) -> bool:
        """Let the event loop look, then say whether the peer is still there and has said nothing."""
        for _ in range(2):
            await checkpoint()
        return not self.has_input and not self._transport.at_eof

    # -- the end --------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        await self._transport.aclose()


def was_stale(wire: Wire, error: BaseException) -> bool:
    """The peer had closed a kept wire before it could hear us, so the same may be asked over a new one."""
    return isinstance(error, ConnectionLost) and wire.used and not wire.heard


def _shown(message: Message) -> str:
    if isinstance(message, Auth):
        return "AUTH (hidden)"
    if isinstance(message, DataHeader):
        return f"DATA {message.length}"
    return message.line().decode("utf-8", "backslashreplace")
