"""A P2P session without any input or output: bytes in, events out, and the other way round.

Both roles are the same class. Feed what arrives to ``receive_data`` and take events from
``next_event`` until it says ``NEED_DATA``; what ``send`` and ``send_data`` return goes to the wire as
it is. The table in ``states`` decides what is legal; neither side can send what it forbids.

As a client::

    connection = Connection(Role.CLIENT)               # p2pstdio: the server speaks first
    wire.write(connection.send(Version(MAX_VERSION)))  # may be sent before AUTH-SUCCESS has come
    wire.write(connection.send(CheckPresent(key)))     # not before VERSION is answered, though
    wire.write(connection.send(CheckPresent(other)))   # pipelined: before the first answer
    while (event := connection.next_event()) is NEED_DATA:
        connection.receive_data(wire.read())           # b"" at the end of the stream
    # Success() or Failure() or Error(text): the answers come in the order of the requests

    wire.write(connection.send(Put(key)))              # -> PutFrom(offset), AlreadyHave() …
    wire.write(connection.send(DataHeader(length)))
    wire.write(connection.send_data(chunk))            # as many as make up the length
    wire.write(connection.send(VALID))                 # from version 1: look at connection.version
    wire.write(connection.send(Put(next_key)))         # may ride along; then Success() comes for the first

As a server::

    connection = Connection(Role.SERVER)
    wire.write(connection.send(AuthSuccess(uuid)))
    match connection.next_event():
        case CheckPresent(key): wire.write(connection.send(SUCCESS if key in store else FAILURE))
        case Put(key): wire.write(connection.send(PutFrom(0)))
        case DataHeader(length): ...                   # then Data events, one of them with last=True
        case Data(chunk, last): store.write(chunk)
        case Unexpected(_, answer): wire.write(connection.send(answer))
        case Closed(waiting_for): ...                  # "" when nothing was owed
        case NEED_DATA | PAUSED: ...                   # PAUSED: answer first

Promises. The same events for every way to cut the stream (but ``Data`` chunks follow the cuts). Only
``LocalProtocolError`` from ``send*`` and ``RemoteProtocolError`` from ``next_event``; after the latter
the connection is CLOSED and should be hung up. At most one line is kept of what came (``MAX_LINE``
characters) besides what was handed to ``receive_data`` and not yet asked for. Bodies are not copied:
a chunk that is all body is the very object that was received, others are slices.

Not promised: that the peer got what ``send`` returned; write it, in order, or drop the connection.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, TypeAlias

from annexpy.errors import LocalProtocolError, RemoteProtocolError
from annexpy.p2p.lines import parse
from annexpy.p2p.messages import (
    DataHeader,
    Error,
    Message,
    Unknown,
    Version,
    format,
)
from annexpy.p2p.received import Received
from annexpy.p2p.states import (
    AFTER_DATA,
    PIPELINING,
    WAITING_FOR,
    Event,
    Role,
    Row,
    State,
    Unexpected,
    legal,
    objection,
    transitions,
)
from annexpy.p2p.versions import MAX_VERSION

__all__ = [
    "CLOSED",
    "MAX_UNANSWERED",
    "NEED_DATA",
    "PAUSED",
    "Closed",
    "Connection",
    "ConnectionEvent",
    "Data",
    "NeedData",
    "Paused",
    "Role",
    "State",
    "Unexpected",
]

MAX_UNANSWERED: Final = 32 * 1024
"""Bytes of request lines that a client may have sent and not yet got an answer to.

A server that answers one by one stops reading when nobody takes its answers; with no more than this
under way neither side can fill the buffers of a pipe and wait for the other for ever.
"""


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a DATA body. There is exactly one with *last* per DATA, so ``DATA 0`` is one empty chunk."""

    chunk: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class NeedData:
    """Nothing to report before more bytes come."""


@dataclass(frozen=True, slots=True)
class Paused:
    """Server: there may be more, but the request in hand has to be answered first."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The stream is over, or of no more use. *waiting_for* says what the peer still owed, "" if nothing."""

    waiting_for: str = ""


ConnectionEvent: TypeAlias = Message | Data | Unexpected | NeedData | Paused | Closed

NEED_DATA: Final = NeedData()
PAUSED: Final = Paused()
CLOSED: Final = Closed()

# What a client may send in a state; where it may pipeline, that is a new exchange. No entry: not its turn.
_CLIENT_TURN: Final[dict[State, dict[Event, Row]]] = {
    state: rows for state in State if (rows := transitions(State.IDLE if state in PIPELINING else state, Role.CLIENT))
}


class Connection:
    """One side of one session.

    Args:
        role: Our side.
        state: GREETING when the server speaks first (p2pstdio), AUTH when the client has to (sockets),
            IDLE when that is behind us.
        version: What has been agreed on already; 0 before VERSION.

    Attributes:
        role: Our side.
        version: Protocol version in force. Changes when the answer to VERSION is sent or received.
    """

    __slots__ = (
        "_asked",
        "_behind",
        "_incoming",
        "_outgoing",
        "_received",
        "_sizes",
        "_state",
        "_unanswered",
        "role",
        "version",
    )

    def __init__(self, role: Role, *, state: State = State.GREETING, version: int = 0) -> None:
        self.role = role
        self.version = version
        # The exchange that is being worked off, and those that were started behind it.
        self._state = state
        self._behind: deque[State] = deque()
        self._sizes: deque[int] = deque()  # bytes of the request lines, in the same order, the first included
        self._unanswered = 0
        self._asked = MAX_VERSION
        self._received = Received()  # what is not yet an event
        self._incoming: int | None = None
        self._outgoing = 0

    # -- looking ------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Of the oldest exchange that is not over."""
        return self._state

    @property
    def outstanding(self) -> int:
        """Client: requests that have been sent and whose exchange is not over."""
        return len(self._sizes)

    @property
    def room(self) -> int:
        """Client: bytes of request lines that may still be pipelined (``MAX_UNANSWERED``)."""
        return MAX_UNANSWERED - self._unanswered

    @property
    def waiting_for(self) -> str:
        """What the peer owes us now, for messages; "" if nothing."""
        if self._incoming is not None:
            return f"{self._incoming} more bytes of DATA"
        peer = Role.SERVER if self.role is Role.CLIENT else Role.CLIENT
        return WAITING_FOR.get(self._state, "") if transitions(self._state, peer) else ""

    @property
    def unread(self) -> bool:
        """True when bytes have come that no event has used up. Not a promise that they make an event."""
        return self._received.unread

    def legal(self) -> list[type[Message]]:
        """What may be sent now."""
        if self.role is Role.SERVER:
            return legal(self._state, Role.SERVER, self.version)
        return legal(self._behind[-1] if self._behind else self._state, Role.CLIENT, self.version)

    # -- sending ------------------------------------------------------------------------------------

    def send(self, message: Message) -> bytes:
        """The bytes that say *message*; from now on it counts as sent.

        Raises:
            LocalProtocolError: Not legal now or at this version, not to be put on one line, or more
                than ``room``. Nothing has changed then.
        """
        line = format(message)
        if self.role is Role.SERVER:
            row = transitions(self._state, Role.SERVER).get(type(message))
            if row is None or row.since > self.version:
                raise self._refuse(message, self._state)
            self._server_sent(row, message)
        else:
            state = self._behind[-1] if self._behind else self._state
            rows = _CLIENT_TURN.get(state)
            row = rows.get(type(message)) if rows is not None else None
            if row is None or row.since > self.version:
                raise self._refuse(message, state)
            if state in PIPELINING and len(line) > self.room:
                raise LocalProtocolError(f"{MAX_UNANSWERED} bytes of requests are unanswered already")
            self._client_sent(row, message, state, len(line))
        if type(message) is DataHeader:
            self._outgoing = message.length
            if not message.length:
                self._data_over()
        return line

    def send_data(self, chunk: bytes) -> bytes:
        """*chunk* itself, counted towards the DATA that was announced.

        Raises:
            LocalProtocolError: More than was announced.
        """
        self.sent_data(len(chunk))
        return chunk

    def sent_data(self, size: int) -> None:
        """Count *size* bytes that go out without passing here.

        Raises:
            LocalProtocolError: More than was announced.
        """
        if size > self._outgoing:
            raise LocalProtocolError(f"{size} bytes of DATA where {self._outgoing} are left")
        self._outgoing -= size
        if size and not self._outgoing:
            self._data_over()

    def _refuse(self, message: Message, state: State) -> LocalProtocolError:
        return LocalProtocolError(
            f"{type(message).verb.decode()} is not legal for the {self.role} in state {state} at version {self.version}"
        )

    # -- receiving ----------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take what has arrived; ``b""`` is the end of the stream. *data* is kept, not copied."""
        self._received.add(data)

    def next_event(self) -> ConnectionEvent:
        """The next thing that the peer said.

        Raises:
            RemoteProtocolError: It must not say that, or not at such length. A server raises only for
                the length, and while it relays a git service: everything else is an ``Unexpected``
                that it can answer.
        """
        if self._incoming is not None:
            return self._next_data()
        if self._state is State.CLOSED:
            return CLOSED
        if self.role is Role.SERVER:
            state = self._behind[-1] if self._behind else self._state
            rows = _CLIENT_TURN.get(state)
            if rows is None:
                return CLOSED if state is State.CLOSED else PAUSED
            line = self._next_line()
            if line is None:
                return self._nothing_more()
            message = parse(line)
            row = rows.get(type(message))
            if row is None or row.accepted > self.version:
                if Unexpected not in rows:  # inside a git service there is no way back to lines
                    raise self._protest(message)
                answer = Error(objection(State.IDLE if state in PIPELINING else state, message, self.version))
                self._client_sent(rows[Unexpected], message, state, 0)
                return Unexpected(message, answer)
            self._client_sent(row, message, state, 0)
        else:
            line = self._next_line()
            if line is None:
                return self._nothing_more()
            message = parse(line)
            row = transitions(self._state, Role.SERVER).get(type(message))
            if row is None or row.accepted > self.version:
                raise self._protest(message)
            if type(message) is Version and message.number > self._asked:
                raise self._protest(message)
            self._server_sent(row, message)
        if type(message) is DataHeader:
            self._incoming = message.length
        return message

    def _next_data(self) -> ConnectionEvent:
        missing = self._incoming or 0
        chunk = self._received.take(missing) if missing else b""
        if chunk is None:
            return self._nothing_more()
        missing -= len(chunk)
        self._incoming = missing or None
        if not missing:
            self._data_over()
        return Data(chunk, not missing)

    def _nothing_more(self) -> Closed | NeedData:
        return Closed(self.waiting_for) if self._received.ended else NEED_DATA

    def _next_line(self) -> bytes | None:
        try:
            return self._received.line()
        except RemoteProtocolError:
            if self.role is Role.SERVER and self._state in PIPELINING:
                self._behind.append(State.CLOSED)  # what came before is still answered
            else:
                self._close()
            raise

    def _protest(self, message: Message) -> RemoteProtocolError:
        shown = message.raw if isinstance(message, Unknown) else message.line()
        waiting_for = self.waiting_for or "nothing"
        self._close()
        return RemoteProtocolError(f"{shown[:200]!r} came while waiting for {waiting_for}")

    # -- following the table ------------------------------------------------------------------------

    def _client_sent(self, row: Row, message: Message, state: State, size: int) -> None:
        if state in PIPELINING:
            if row.next is State.IDLE:  # BYPASS: nothing to wait for
                return
            self._behind.append(row.next)
        elif self._behind:
            self._behind[-1] = row.next
            return
        else:
            self._state = row.next
            if self._sizes:  # the exchange goes on
                if row.next is State.IDLE:
                    self._unanswered -= self._sizes.popleft()
                return
            if row.next is State.IDLE or row.next is State.CLOSED:
                return
        if size:
            self._sizes.append(size)
            self._unanswered += size
            if type(message) is Version:
                self._asked = message.number

    def _server_sent(self, row: Row, message: Message) -> None:
        if type(message) is Version:
            self.version = message.number
        following = row.next
        if following is State.IDLE or following is State.PUT_REFUSED or following is State.AUTH:
            if self._sizes and row.state is not State.GREETING:
                self._unanswered -= self._sizes.popleft()
            if self._behind:
                following = self._behind.popleft()
        elif following is State.CLOSED:
            self._close()
        self._state = following

    def _data_over(self) -> None:
        after = AFTER_DATA.get(self._state)
        if after is not None:
            self._state = after[self.version > 0]

    def _close(self) -> None:
        self._state = State.CLOSED
        self._behind.clear()
        self._sizes.clear()
        self._unanswered = 0
