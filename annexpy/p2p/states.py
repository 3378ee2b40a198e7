"""THE table: who may send which message when, and what state the session is in afterwards.

Everything that changes the state of a session is in this file; nothing in this file knows which side
we are. ``connection`` follows the table, ``talk`` shows it, the manual draws it.

One *exchange* is a request with all that belongs to it, and it has one joint state, because the
protocol takes turns (only CONNECT does not). A row says: in ``state``, ``sender`` may send
``message``, which leads to ``next``. ``since`` is the version from which it may be sent.

Pipelining. A row marked ``pipelined`` leads to a state in which only the server owes something and
after which the exchange is over; there the client may already send its next request. That starts
another exchange behind the first, in IDLE: the server works them off in order. (CHECKPRESENT,
REMOVE, REMOVE-BEFORE and GETTIMESTAMP; also the request that rides behind VALID. Behind the SUCCESS
that ends a GET it needs no pipelining: that exchange is over.) Stock servers read ahead of nothing
and answer in order, so they take it: fact sheet performance, section 3.13.

Refusals. What a client sends out of place is an ``Unexpected`` for the server: the row says which
state follows, ``EXPECTED`` what the ``ERROR`` says. Clients of ours cannot send such a thing.

Source: fact sheet p2p-protocol, sections 2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from annexpy.p2p.extensions import PROOFS, RANGES, GetRange, Possessed, Possession
from annexpy.p2p.messages import (
    AlreadyHave,
    AlreadyHavePlus,
    Auth,
    AuthFailure,
    AuthSuccess,
    Bypass,
    Changed,
    CheckPresent,
    Connect,
    ConnectDone,
    DataHeader,
    DataPresent,
    Error,
    Failure,
    FailurePlus,
    Get,
    GetTimestamp,
    Invalid,
    LockContent,
    Message,
    NotifyChange,
    Put,
    PutFrom,
    Remove,
    RemoveBefore,
    Success,
    SuccessPlus,
    Timestamp,
    Unknown,
    UnlockContent,
    Valid,
    Version,
)

__all__ = [
    "AFTER_DATA",
    "PIPELINING",
    "ROWS",
    "WAITING_FOR",
    "Role",
    "Row",
    "State",
    "Unexpected",
    "legal",
    "objection",
    "transitions",
]


class Role(StrEnum):
    """A side of the session."""

    CLIENT = "client"
    SERVER = "server"


class State(StrEnum):
    """Where one exchange stands. The comment says whose turn it is."""

    GREETING = "GREETING"  # server: AUTH-SUCCESS, unasked (p2pstdio)
    AUTH = "AUTH"  # client: AUTH (sockets)
    AUTH_ANSWER = "AUTH-ANSWER"  # server
    AUTH_REFUSED = "AUTH-REFUSED"  # server: ERROR, then AUTH again
    IDLE = "IDLE"  # client: any request
    VERSION = "VERSION"  # server
    CHECK = "CHECK"  # server: SUCCESS or FAILURE
    REMOVE = "REMOVE"  # server: SUCCESS or FAILURE, or -PLUS
    TIMESTAMP = "TIMESTAMP"  # server
    PROOF = "PROOF"  # server
    LOCK = "LOCK"  # server
    LOCKED = "LOCKED"  # client: UNLOCKCONTENT
    GET = "GET"  # server: DATA
    GET_DATA = "GET-DATA"  # server: the bytes
    GET_VALID = "GET-VALID"  # server: VALID or INVALID
    GET_DONE = "GET-DONE"  # client: SUCCESS or FAILURE
    PUT = "PUT"  # server: PUT-FROM or ALREADY-HAVE
    PUT_FROM = "PUT-FROM"  # client: DATA
    PUT_DATA = "PUT-DATA"  # client: the bytes
    PUT_VALID = "PUT-VALID"  # client: VALID or INVALID
    PUT_OBJECTION = "PUT-OBJECTION"  # server: ERROR about that word, and then the result all the same
    PUT_RESULT = "PUT-RESULT"  # server: SUCCESS or FAILURE, or -PLUS
    PUT_REFUSED = "PUT-REFUSED"  # client: as IDLE; a stock client first answers our ERROR with its own
    REFUSED = "REFUSED"  # server: ERROR about what came out of place
    WATCH = "WATCH"  # server: CHANGED
    RELAY = "RELAY"  # both: DATA frames of a git service, until CONNECTDONE
    CLOSED = "CLOSED"  # nobody: hang up


@dataclass(frozen=True, slots=True)
class Unexpected:
    """The client sent *message* where it has no place. The server owes *answer*, and then goes on."""

    message: Message
    answer: Error


Event: TypeAlias = type[Message] | type[Unexpected]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        state: Of the exchange, before.
        sender: Who sends.
        message: What.
        next: State afterwards; IDLE ends the exchange.
        since: Protocol version from which it may be sent.
        accepted: Version from which the receiver takes it. Lower than *since* where the reference does
            not look at the version.
        pipelined: The client may send its next request before this one is answered.
    """

    state: State
    sender: Role
    message: Event
    next: State
    since: int = 0
    accepted: int = 0
    pipelined: bool = False


_C, _S, _ST = Role.CLIENT, Role.SERVER, State

_REQUESTS: Final = (
    Row(_ST.IDLE, _C, Version, _ST.VERSION),
    Row(_ST.IDLE, _C, Bypass, _ST.IDLE, since=2),
    Row(_ST.IDLE, _C, CheckPresent, _ST.CHECK, pipelined=True),
    Row(_ST.IDLE, _C, Remove, _ST.REMOVE, pipelined=True),
    Row(_ST.IDLE, _C, RemoveBefore, _ST.REMOVE, since=3, pipelined=True),
    Row(_ST.IDLE, _C, GetTimestamp, _ST.TIMESTAMP, since=3, pipelined=True),
    Row(_ST.IDLE, _C, Possession, _ST.PROOF, since=PROOFS, accepted=PROOFS),
    Row(_ST.IDLE, _C, LockContent, _ST.LOCK),
    Row(_ST.IDLE, _C, Get, _ST.GET),
    Row(_ST.IDLE, _C, GetRange, _ST.GET, since=RANGES, accepted=RANGES),
    Row(_ST.IDLE, _C, Put, _ST.PUT),
    Row(_ST.IDLE, _C, Connect, _ST.RELAY),
    Row(_ST.IDLE, _C, NotifyChange, _ST.WATCH),
    Row(_ST.IDLE, _C, Unexpected, _ST.REFUSED),
)

ROWS: Final[tuple[Row, ...]] = (
    # -- before anything else
    Row(_ST.GREETING, _S, AuthSuccess, _ST.IDLE),
    Row(_ST.GREETING, _S, Error, _ST.CLOSED),
    Row(_ST.AUTH, _C, Auth, _ST.AUTH_ANSWER),
    Row(_ST.AUTH, _C, Unexpected, _ST.AUTH_REFUSED),
    Row(_ST.AUTH_ANSWER, _S, AuthSuccess, _ST.IDLE),
    Row(_ST.AUTH_ANSWER, _S, AuthFailure, _ST.AUTH),
    Row(_ST.AUTH_ANSWER, _S, Error, _ST.AUTH),
    Row(_ST.AUTH_REFUSED, _S, Error, _ST.AUTH),
    # -- requests, and the answers of one line
    *_REQUESTS,
    Row(_ST.IDLE, _C, Error, _ST.CLOSED),
    Row(_ST.REFUSED, _S, Error, _ST.IDLE),
    Row(_ST.VERSION, _S, Version, _ST.IDLE),
    Row(_ST.VERSION, _S, Error, _ST.IDLE),
    Row(_ST.CHECK, _S, Success, _ST.IDLE),
    Row(_ST.CHECK, _S, Failure, _ST.IDLE),
    Row(_ST.CHECK, _S, Error, _ST.IDLE),
    Row(_ST.REMOVE, _S, Success, _ST.IDLE),
    Row(_ST.REMOVE, _S, SuccessPlus, _ST.IDLE, since=2, accepted=2),
    Row(_ST.REMOVE, _S, Failure, _ST.IDLE),
    Row(_ST.REMOVE, _S, FailurePlus, _ST.IDLE, since=2, accepted=2),
    Row(_ST.REMOVE, _S, Error, _ST.IDLE),
    Row(_ST.TIMESTAMP, _S, Timestamp, _ST.IDLE),
    Row(_ST.TIMESTAMP, _S, Error, _ST.IDLE),
    Row(_ST.PROOF, _S, Possessed, _ST.IDLE, since=PROOFS, accepted=PROOFS),
    Row(_ST.PROOF, _S, Failure, _ST.IDLE),
    Row(_ST.PROOF, _S, Error, _ST.IDLE),
    # -- a lock
    Row(_ST.LOCK, _S, Success, _ST.LOCKED),
    Row(_ST.LOCK, _S, Failure, _ST.IDLE),
    Row(_ST.LOCK, _S, Error, _ST.IDLE),
    Row(_ST.LOCKED, _C, UnlockContent, _ST.IDLE),
    Row(_ST.LOCKED, _C, Unexpected, _ST.REFUSED),
    # -- from the server to the client (AFTER_DATA leads out of GET-DATA)
    Row(_ST.GET, _S, DataHeader, _ST.GET_DATA),
    Row(_ST.GET, _S, Error, _ST.IDLE),
    Row(_ST.GET_VALID, _S, Valid, _ST.GET_DONE),
    Row(_ST.GET_VALID, _S, Invalid, _ST.GET_DONE),
    Row(_ST.GET_DONE, _C, Success, _ST.IDLE),
    Row(_ST.GET_DONE, _C, SuccessPlus, _ST.IDLE, since=2, accepted=2),
    Row(_ST.GET_DONE, _C, Failure, _ST.IDLE),
    Row(_ST.GET_DONE, _C, FailurePlus, _ST.IDLE, since=2, accepted=2),
    Row(_ST.GET_DONE, _C, Error, _ST.IDLE),
    Row(_ST.GET_DONE, _C, Unexpected, _ST.REFUSED),
    # -- from the client to the server (AFTER_DATA leads out of PUT-DATA)
    Row(_ST.PUT, _S, PutFrom, _ST.PUT_FROM),
    Row(_ST.PUT, _S, AlreadyHave, _ST.IDLE),
    Row(_ST.PUT, _S, AlreadyHavePlus, _ST.IDLE, since=2, accepted=2),
    Row(_ST.PUT, _S, Failure, _ST.PUT_REFUSED),
    Row(_ST.PUT, _S, Error, _ST.PUT_REFUSED),
    *(
        Row(_ST.PUT_REFUSED, row.sender, row.message, row.next, row.since, row.accepted, row.pipelined)
        for row in _REQUESTS
    ),
    Row(_ST.PUT_REFUSED, _C, Error, _ST.IDLE),
    Row(_ST.PUT_FROM, _C, DataHeader, _ST.PUT_DATA),
    Row(_ST.PUT_FROM, _C, DataPresent, _ST.PUT_RESULT, since=4, accepted=4, pipelined=True),
    Row(_ST.PUT_FROM, _C, Error, _ST.IDLE),
    Row(_ST.PUT_FROM, _C, Unexpected, _ST.REFUSED),
    # Refused while the bytes come: what is still on its way cannot be told from lines, so it is over.
    Row(_ST.PUT_DATA, _S, Failure, _ST.CLOSED),
    Row(_ST.PUT_DATA, _S, Error, _ST.CLOSED),
    Row(_ST.PUT_VALID, _S, Failure, _ST.CLOSED),
    Row(_ST.PUT_VALID, _S, Error, _ST.CLOSED),
    Row(_ST.PUT_VALID, _C, Valid, _ST.PUT_RESULT, pipelined=True),
    Row(_ST.PUT_VALID, _C, Invalid, _ST.PUT_RESULT, pipelined=True),
    Row(_ST.PUT_VALID, _C, Unexpected, _ST.PUT_OBJECTION),
    Row(_ST.PUT_OBJECTION, _S, Error, _ST.PUT_RESULT),
    Row(_ST.PUT_RESULT, _S, Success, _ST.IDLE),
    Row(_ST.PUT_RESULT, _S, SuccessPlus, _ST.IDLE, since=2, accepted=2),
    Row(_ST.PUT_RESULT, _S, Failure, _ST.IDLE),
    Row(_ST.PUT_RESULT, _S, FailurePlus, _ST.IDLE, since=2, accepted=2),
    Row(_ST.PUT_RESULT, _S, Error, _ST.IDLE),
    # -- services
    Row(_ST.WATCH, _S, Changed, _ST.IDLE),
    Row(_ST.WATCH, _S, Error, _ST.IDLE),
    Row(_ST.RELAY, _C, DataHeader, _ST.RELAY),
    Row(_ST.RELAY, _S, DataHeader, _ST.RELAY),
    Row(_ST.RELAY, _S, ConnectDone, _ST.CLOSED),
    Row(_ST.RELAY, _S, Error, _ST.IDLE),
)

AFTER_DATA: Final[dict[State, tuple[State, State]]] = {
    State.GET_DATA: (State.GET_DONE, State.GET_VALID),
    State.PUT_DATA: (State.PUT_RESULT, State.PUT_VALID),
}
"""Where the last byte leads: at version 0, which knows no VALID, and from version 1."""

PIPELINING: Final[frozenset[State]] = frozenset(row.next for row in ROWS if row.pipelined) | {State.GREETING}
"""States behind which the next request may follow. The greeting asks nothing of the client: VERSION need not wait."""

WAITING_FOR: Final[dict[State, str]] = {
    State.GREETING: "AUTH-SUCCESS",
    State.AUTH_ANSWER: "the answer to AUTH",
    State.VERSION: "the answer to VERSION",
    State.CHECK: "the answer to CHECKPRESENT",
    State.REMOVE: "the answer to REMOVE",
    State.TIMESTAMP: "TIMESTAMP",
    State.PROOF: "the answer to POSSESSION",
    State.LOCK: "the answer to LOCKCONTENT",
    State.LOCKED: "UNLOCKCONTENT",
    State.GET: "the answer to GET",
    State.GET_DATA: "DATA",
    State.GET_VALID: "VALID or INVALID",
    State.GET_DONE: "SUCCESS or FAILURE",
    State.PUT: "the answer to PUT",
    State.PUT_FROM: "DATA",
    State.PUT_DATA: "DATA",
    State.PUT_VALID: "VALID or INVALID",
    State.PUT_OBJECTION: "the result of PUT",
    State.PUT_RESULT: "the result of PUT",
    State.WATCH: "CHANGED",
    State.RELAY: "CONNECTDONE",
}
"""What is still owed in a state, for messages. Nothing is in the states that are not here."""


def objection(state: State, message: Message, version: int) -> str:
    """What a server says about *message*, which has no place in *state*. The words of git-annex."""
    match state:
        case State.LOCKED:
            return "expected UNLOCKCONTENT"
        case State.GET_DONE if version < 2:
            return "expected SUCCESS or FAILURE"
        case State.GET_DONE:
            return "expected SUCCESS or SUCCESS-PLUS or FAILURE or FAILURE-PLUS"
        case State.PUT_FROM:
            return "expected DATA"
        case State.PUT_VALID:
            return "expected VALID or INVALID"
    # Who has not agreed on ours has not heard of them.
    unknown = isinstance(message, Unknown | Possession | Possessed | GetRange)
    return "unknown command" if unknown else "unexpected command"


def transitions(state: State, sender: Role) -> dict[Event, Row]:
    """The rows for *sender* in *state*. The dict is shared: look, do not touch."""
    return _BY_STATE[state, sender]


def legal(state: State, sender: Role, version: int) -> list[type[Message]]:
    """What *sender* may send in *state* at *version*, in the order of the table; pipelined requests included."""
    starts = state if state not in PIPELINING or sender is Role.SERVER else State.IDLE
    return [
        row.message
        for row in ROWS
        if row.sender is sender
        and row.state is starts
        and row.since <= version
        and not issubclass(row.message, Unexpected)
    ]


_BY_STATE: Final[dict[tuple[State, Role], dict[Event, Row]]] = {
    (state, sender): {row.message: row for row in ROWS if row.state is state and row.sender is sender}
    for state in State
    for sender in Role
}
