"""The P2P server: shows any ``Remote`` to the other side of a wire.

Requests are answered in order. All answers to what one chunk brought go out in one write: they are
collected, and sent when nothing more can be answered without waiting. Consecutive presence checks
and removals that are in the buffer already are given to the remote as one batch.

A request that fails is answered and the session goes on; it ends only where the two sides could no
longer agree on what is a line (a body cut short, longer than the key, an endless line).

Differences from git-annex on purpose (docs/deviations.md): REMOVE of locked content is a FAILURE,
not the end of the session; a lock whose client vanished without UNLOCKCONTENT keeps its retention;
DATA longer than the key is refused before it is read; putting into a full or broken repository
fails and does not hang up; content that is not verifiable and comes with INVALID is not stored.

Source: fact sheet p2p-protocol, sections 3 and 4.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import anyio

from annexpy.clock import Clock
from annexpy.errors import AnnexError, KeyNotPresent, LocalProtocolError, RemoteProtocolError
from annexpy.keys.key import Key
from annexpy.p2p.connection import NEED_DATA, Closed, Connection, ConnectionEvent, Data, Role, State, Unexpected
from annexpy.p2p.extensions import GetRange, Possessed, Possession, agreed
from annexpy.p2p.messages import (
    AUTH_FAILURE,
    FAILURE,
    Auth,
    AuthSuccess,
    Bypass,
    Changed,
    CheckPresent,
    Connect,
    ConnectDone,
    Error,
    Failure,
    FailurePlus,
    Get,
    GetTimestamp,
    LockContent,
    NotifyChange,
    Put,
    Remove,
    RemoveBefore,
    Success,
    SuccessPlus,
    Timestamp,
    Version,
)
from annexpy.p2p.versions import MAX_VERSION
from annexpy.remote.base import Remote
from annexpy.remote.possession import possession
from annexpy.server.batches import check_waiting, remove_waiting
from annexpy.server.limits import Authenticate, Deadlines, LockQuota, Quota, ServerMode, Services
from annexpy.server.lockcontent import keep_locked
from annexpy.server.transfers import receive_content, send_content
from annexpy.server.wire import STRANGER, ClientGone, ClientWire, HangUp
from annexpy.system import CLOCK
from annexpy.transport.base import Transport
from annexpy.uuids import UUID, is_cluster

__all__ = ["Deadlines", "LockQuota", "ServerMode", "Services", "serve"]

log = logging.getLogger(__name__)

_AUTH_TRIES: Final = 5
_USUAL: Final = Deadlines()


async def serve(
    transport: Transport,
    remote: Remote,
    *,
    mode: ServerMode = ServerMode.WRITE,
    authenticated: bool = True,
    authenticate: Authenticate | None = None,
    connection: Connection | None = None,
    client: str = "",
    who: str = "",
    deadlines: Deadlines = _USUAL,
    locks: Quota | None = None,
    running: set[ClientWire] | None = None,
    services: Services | None = None,
    bypass: Callable[[tuple[UUID, ...]], Remote] | None = None,
    max_version: int = MAX_VERSION,
    allow_unverifiable: bool = True,
    clock: Clock = CLOCK,
    on_idle: Callable[[], Awaitable[object]] | None = None,
) -> AnnexError | None:
    """Answer one client until it leaves, then close *transport*. *remote* stays open.

    Locks. ``lock_content`` is left normally after UNLOCKCONTENT (and after anything else that the
    client says in its place), and with ``ConnectionLost`` when the client vanishes, or when this is cancelled: the
    remote is to keep the content locked then until the retention is over, because somebody may rely on it.

    Args:
        transport: The wire.
        remote: What to show.
        mode: What the client may change.
        authenticated: True: say AUTH-SUCCESS at once, as p2pstdio does. False: wait for AUTH.
        authenticate: Judges AUTH; without it every AUTH fails.
        connection: A session that has been begun elsewhere; nothing is said first then.
        client: Which one it says it is, for the lock quota and for messages; AUTH sets it too.
        who: Whose client it is, as far as that is known; for the lock quota.
        deadlines: How long to wait for the client. Remotes have their own.
        locks: Shared between all sessions of a server.
        running: The wires of all sessions that are under way, for who wants to end them in order.
        services: CONNECT and NOTIFYCHANGE; refused when None.
        bypass: What to show instead once the client has said BYPASS (gateways).
        max_version: The highest version to agree to.
        allow_unverifiable: False refuses PUT of keys whose content cannot be verified.
        clock: For GETTIMESTAMP and REMOVE-BEFORE.
        on_idle: Called about a second after the last change when the client says nothing more, at the
            side of the session; called again only after another change.

    Returns:
        None when the client left and nothing was owed, else why the session ended. What the peer does
        is never raised.
    """
    if connection is None:
        connection = Connection(Role.SERVER, state=State.GREETING if authenticated else State.AUTH)
    wire = ClientWire(transport, connection, deadlines, on_idle)
    session = _Session(wire, remote, mode, client, clock)
    session.authenticate, session.locks, session.services, session.bypass = authenticate, locks, services, bypass
    session.max_version, session.allow_unverifiable, session.who = max_version, allow_unverifiable, who
    under_way = set() if running is None else running
    under_way.add(wire)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(wire.watch)
            ended = await session.run()
            group.cancel_scope.cancel()
    finally:
        under_way.discard(wire)
        with anyio.CancelScope(shield=True):
            await transport.aclose()
    if ended is not None:
        log.info("%s: %s", transport.peer, ended)
    return ended


class _Session:
    def __init__(self, wire: ClientWire, remote: Remote, mode: ServerMode, client: str, clock: Clock) -> None:
        self._wire, self._remote = wire, remote
        self._mode, self._client, self._clock = mode, client, clock
        self.authenticate: Authenticate | None = None
        self.locks: Quota | None = None
        self.who = ""
        self.services: Services | None = None
        self.bypass: Callable[[tuple[UUID, ...]], Remote] | None = None
        self.max_version = MAX_VERSION
        self.allow_unverifiable = True
        self._tries = _AUTH_TRIES

    # -- the session --------------------------------------------------------------------------------

    async def run(self) -> AnnexError | None:
        try:
            if self._wire.connection.state is State.GREETING:
                self._wire.say(AuthSuccess(self._remote.uuid))
            await self._work()
            await self._wire.flush()
        except HangUp as end:
            try:
                await self._wire.flush()
            except ClientGone:
                log.debug("%s: left before the answer", self._wire.peer)
            return end.reason
        except ClientGone as gone:
            return self._wire.out_of_time or gone
        except AnnexError as error:
            return error
        return None

    async def _work(self) -> None:
        event = await self._wire.next()
        while True:
            following: ConnectionEvent | None = None
            match event:
                case CheckPresent():
                    following = await check_waiting(self._wire, self._remote, event)
                case Get() | GetRange():
                    await send_content(self._wire, self._remote, event)
                case Put():
                    await self._put(event)
                case Remove() | RemoveBefore():
                    following = await self._remove(event)
                case Possession(nonce, key):
                    await self._prove(key, nonce)
                case GetTimestamp():
                    self._wire.say(Timestamp(int(self._clock.now() // 1)))
                case LockContent(key):
                    await keep_locked(self._wire, self._remote, key, self.locks, self._client, self.who)
                case Success() | SuccessPlus() | Failure() | FailurePlus() | Error():
                    pass  # what the client thinks of a GET; after an ERROR that is more, Closed follows
                case Unexpected(_, answer):
                    self._objected(answer)
                case Closed(waiting_for):
                    if self._wire.broken is not None:
                        raise HangUp(self._wire.broken)
                    if waiting_for:
                        raise self._wire.gone()
                    return
                case Version(number):
                    self._wire.say(Version(agreed(number, self.max_version, proofs=not is_cluster(self._remote.uuid))))
                case Bypass(uuids):
                    if self.bypass is not None:
                        self._remote = self.bypass(uuids)
                case Auth(uuid, token):
                    await self._auth(uuid, token)
                case Connect(service):
                    await self._connect(service)
                case NotifyChange():
                    await self._notify_change()
                case other:
                    raise LocalProtocolError(f"{type(other).__name__} has no place in a session of ours")
            event = following if following is not None and following is not NEED_DATA else await self._wire.next()

    async def _auth(self, uuid: UUID, token: str) -> None:
        mode = await self.authenticate(uuid, token) if self.authenticate is not None else None
        if mode is not None:
            self._mode, self._client = mode, uuid
            self._wire.say(AuthSuccess(self._remote.uuid))
            return
        self._wire.say(AUTH_FAILURE)
        self._tried()

    def _objected(self, answer: Error) -> None:
        stranger = self._wire.connection.state in STRANGER
        self._wire.say(answer)
        if stranger:
            self._tried()

    def _tried(self) -> None:
        self._tries -= 1
        if not self._tries:
            raise HangUp(RemoteProtocolError(f"{_AUTH_TRIES} tries without a good AUTH"))

    async def _put(self, request: Put) -> None:
        if refused := self._mode.forbids_put:
            self._wire.say(Error(refused))
        else:
            await receive_content(self._wire, self._remote, request, allow_unverifiable=self.allow_unverifiable)

    async def _remove(self, request: Remove | RemoveBefore) -> ConnectionEvent | None:
        if refused := self._mode.forbids_remove:
            self._wire.say(Error(refused))
            return None
        return await remove_waiting(self._wire, self._remote, request, self._clock)

    async def _prove(self, key: Key, nonce: bytes) -> None:
        """Read the content, however long that takes, unless the client leaves."""
        await self._wire.flush()
        try:
            digest = await self._wire.unless_gone(lambda: possession(self._remote, key, nonce))
        except ClientGone:
            raise
        except KeyNotPresent:
            self._wire.say(FAILURE)
        except AnnexError as error:
            self._wire.say(Error(str(error)))
        else:
            self._wire.say(Possessed(digest))

    # -- services -----------------------------------------------------------------------------------------

    async def _connect(self, service: bytes) -> None:
        if service == b"git-receive-pack" and self._mode.forbids_push:
            self._wire.say(Error(self._mode.forbids_push))
        elif self.services is None:
            self._wire.say(Error("unexpected command"))
        else:
            await self._wire.flush()
            code = await self.services.connect(service, self._relay_receive, self._wire.send_frame)
            self._wire.say(ConnectDone(code))
            self._wire.changed = True

    async def _relay_receive(self) -> bytes:
        while True:
            match await self._wire.next():
                case Data(chunk, _) if chunk:
                    return chunk
                case Closed():
                    return b""

    async def _notify_change(self) -> None:
        if self.services is None:
            self._wire.say(Error("unexpected command"))
        else:
            await self._wire.flush()
            self._wire.say(Changed(await self._wire.unless_gone(self.services.changed)))
