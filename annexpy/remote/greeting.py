"""The beginning of a wire to a P2P server: connect, AUTH or the greeting, the version, gateways to bypass."""

from __future__ import annotations

from dataclasses import dataclass

from anyio import CancelScope, current_time

from annexpy.errors import (
    AuthFailed,
    ConnectFailed,
    ConnectionLost,
    LocalProtocolError,
    PeerError,
    RemoteProtocolError,
    TimedOut,
    UnknownUUID,
)
from annexpy.p2p.connection import Connection, Role, State
from annexpy.p2p.messages import Auth, AuthFailure, AuthSuccess, Bypass, Error, Version
from annexpy.p2p.versions import MAX_VERSION
from annexpy.remote.wire import Wire
from annexpy.transport.base import Dial
from annexpy.uuids import UUID

__all__ = ["Greeting", "open_wire"]


@dataclass(frozen=True, slots=True)
class Greeting:
    """How to begin, and how long to wait.

    Attributes:
        name: The peer, for messages.
        uuid: Which repository must answer; None takes whatever is there.
        client_uuid, token: Said in AUTH, where the client has to speak first.
        max_version: Highest protocol version to speak.
        bypass: Gateways that have been passed already.
        connect: Seconds for the connection and for each of its first answers.
        deadline: Seconds without a byte after which an answer or a body counts as stuck.
    """

    name: str
    uuid: UUID | None = None
    client_uuid: UUID | None = None
    token: str | None = None
    max_version: int = MAX_VERSION
    bypass: tuple[UUID, ...] = ()
    connect: float = 20.0
    deadline: float = 60.0


async def open_wire(dial: Dial, greeting: Greeting) -> Wire:
    """Connect and greet: AUTH-SUCCESS of the right repository, VERSION agreed on, BYPASS ready to go.

    VERSION is sent without waiting for the greeting, which saves a round trip.

    Raises:
        ConnectFailed, AuthFailed: No connection, or one that ended before the greeting did.
        UnknownUUID: Another repository answered.
        PeerError: ERROR in place of the greeting.
        ConnectFailed, TimedOut, RemoteProtocolError: The greeting never came, or was none.
    """
    with CancelScope(deadline=current_time() + greeting.connect) as scope:
        transport = await dial()
    if scope.cancelled_caught:
        raise TimedOut(greeting.name, "connection", greeting.connect)
    token = greeting.token
    state = State.GREETING if token is None else State.AUTH
    wire = Wire(greeting.name, transport, Connection(Role.CLIENT, state=state), greeting.connect)
    try:
        if token is not None:
            if greeting.client_uuid is None:
                raise LocalProtocolError("AUTH needs the UUID of the client")
            wire.put(Auth(greeting.client_uuid, token))
        elif greeting.max_version:
            wire.put(Version(greeting.max_version))
        await _greeted(wire, greeting)
    except BaseException as error:
        await wire.aclose()
        if isinstance(error, ConnectionLost):  # nothing was asked, so no outcome is unknown: there is nobody
            raise ConnectFailed(greeting.name, str(error).removeprefix(f"{greeting.name} ")) from error
        raise
    wire.deadline = greeting.deadline
    return wire


async def _greeted(wire: Wire, greeting: Greeting) -> None:
    match await wire.event():
        case AuthSuccess(uuid):
            if greeting.uuid is not None and uuid != greeting.uuid:
                raise UnknownUUID(f"{wire.name}: expected repository {greeting.uuid} but found {uuid}")
            wire.uuid = uuid
        case AuthFailure():
            raise AuthFailed(wire.name)
        case Error(text):
            raise PeerError(wire.name, text)
        case other:
            raise RemoteProtocolError(f"{wire.name}: {other!r} in place of a greeting")
    if greeting.max_version:
        if greeting.token is not None:
            wire.put(Version(greeting.max_version))
        match await wire.event():
            case Version() | Error():
                pass  # ERROR is how a server of version 0 says that it knows no VERSION
            case other:
                raise RemoteProtocolError(f"{wire.name}: {other!r} in answer to VERSION")
    if greeting.bypass and wire.version >= 2:
        wire.put(Bypass(greeting.bypass))  # never answered, so it rides with the first request
