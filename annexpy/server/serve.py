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
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import anyio

from annexpy.clock import MAX_REMOVAL_AHEAD, Clock, Deadline
from annexpy.errors import (
    AnnexError,
    ConnectionLost,
    ContentLocked,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    NotLocked,
    RemoteProtocolError,
    TimedOut,
    TransportError,
)
from annexpy.keys.key import Key
from annexpy.p2p.connection import (
    CLOSED,
    NEED_DATA,
    Closed,
    Connection,
    ConnectionEvent,
    Data,
    Role,
    State,
    Unexpected,
)
from annexpy.p2p.extensions import GetRange, Possessed, Possession, agreed
from annexpy.p2p.messages import (
    AUTH_FAILURE,
    FAILURE,
    MAX_VERSION,
    SUCCESS,
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
    UnlockContent,
    Version,
)
from annexpy.remote.base import BatchRemove, Remote, Removed, check_present_many, may_happen_yet
from annexpy.remote.possession import possession
from annexpy.server.limits import Authenticate, Deadlines, LockQuota, Quota, ServerMode, Services
from annexpy.server.transfers import receive_content, send_content
from annexpy.server.wire import STRANGER, ClientGone, ClientWire, HangUp, others
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
        self._broken: RemoteProtocolError | None = None

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
                    following = await self._check(event)
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
                    await self._lock(key)
                case Success() | SuccessPlus() | Failure() | FailurePlus() | Error():
                    pass  # what the client thinks of a GET; after an ERROR that is more, Closed follows
                case Unexpected(_, answer):
                    self._objected(answer)
                case Closed(waiting_for):
                    if self._broken is not None:
                        raise HangUp(self._broken)
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

    def _gather(self, first: CheckPresent | Remove | RemoveBefore) -> tuple[list[Key], ConnectionEvent]:
        """The keys of *first* and of what asks the same right behind it; then the event after them."""
        keys, kind = [first.key], type(first)
        try:
            while type(event := self._wire.connection.next_event()) is kind:
                if type(event) is RemoveBefore and type(first) is RemoveBefore and event.timestamp != first.timestamp:
                    break
                keys.append(event.key)
        except RemoteProtocolError as error:
            self._broken = error  # but what came before it is answered
            return keys, CLOSED
        return keys, event

    async def _put(self, request: Put) -> None:
        if refused := self._mode.forbids_put:
            self._wire.say(Error(refused))
        else:
            await receive_content(self._wire, self._remote, request, allow_unverifiable=self.allow_unverifiable)

    # -- asking and removing --------------------------------------------------------------------------

    async def _check(self, request: CheckPresent) -> ConnectionEvent:
        """Answer this presence check and those that are waiting behind it; the event after them."""
        keys, event = self._gather(request)
        await self._wire.make_room(self._remote)
        present: Sequence[bool | AnnexError]
        try:
            present = [await self._remote.check_present(keys[0])] if len(keys) == 1 else await self._check_many(keys)
        except AnnexError as error:
            present = [error] * len(keys)
        for found in present:
            self._wire.say(SUCCESS if found is True else FAILURE if found is False else Error(str(found)))
        return event

    async def _check_many(self, keys: list[Key]) -> list[bool | AnnexError]:
        try:
            return [*await check_present_many(self._remote, keys)]
        except TransportError:
            raise
        except AnnexError:
            # One key spoils the batch: let it fail alone.
            found: list[bool | AnnexError] = []
            for key in keys:
                try:
                    found.append(await self._remote.check_present(key))
                except AnnexError as error:
                    found.append(error)
            return found

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

    async def _remove(self, first: Remove | RemoveBefore) -> ConnectionEvent | None:
        """Answer this removal and those that are waiting behind it; the event after them, if known."""
        deadline = None
        if refused := self._mode.forbids_remove:
            self._wire.say(Error(refused))
            return None
        if isinstance(first, RemoveBefore):
            deadline = Deadline(float(first.timestamp))
            if deadline.at > self._clock.now() + MAX_REMOVAL_AHEAD:
                # No lock lasts that long: the proof is older than our last reboot.
                error = InvalidInput("timestamp", first.timestamp, f"at most {MAX_REMOVAL_AHEAD} seconds ahead")
                self._wire.say(Error(str(error)))
                return None
        keys, event = [first.key], None
        if isinstance(self._remote, BatchRemove):
            keys, event = self._gather(first)
        await self._wire.make_room(self._remote)
        try:
            if len(keys) > 1 and isinstance(self._remote, BatchRemove):
                results = await self._remote.remove_content_many(keys, deadline=deadline)
            else:
                results = [await self._remote.remove_content(first.key, deadline=deadline)]
        except AnnexError as error:
            if may_happen_yet(error):
                raise HangUp(error) from error  # which alone says that nobody knows
            answer = FAILURE if isinstance(error, (ContentLocked, TimedOut)) else Error(str(error))
            for _ in keys:
                self._wire.say(answer)
        else:
            for result in results:
                self._tell_removed(result)
        return event

    def _tell_removed(self, removed: Removed) -> None:
        self._wire.changed = True
        named = others(removed.uuids, self._remote) if self._wire.connection.version >= 2 else ()
        if removed.ok:
            self._wire.say(SuccessPlus(named) if named else SUCCESS)
            return
        if named:
            self._wire.say(FailurePlus(named))
            return
        if may_happen_yet(*removed.failed.values()):
            raise HangUp(ConnectionLost(self._remote.name, "the outcome of a removal"))
        reasons = [e for e in removed.failed.values() if not isinstance(e, (ContentLocked, TimedOut))]
        self._wire.say(Error(str(reasons[0])) if reasons and not removed.uuids else FAILURE)

    # -- locks ----------------------------------------------------------------------------------------

    async def _lock(self, key: Key) -> None:
        if self.locks is not None and not self.locks.take(self._client, self.who):
            self._wire.say(Error("too many content locks are held for this client"))
            return
        told = unlocked = False
        stopped: BaseException | None = None
        try:
            async with self._remote.lock_content(key) as lock:
                self._wire.say(SUCCESS)
                told = True
                self._wire.held = lock
                try:
                    await self._until_unlocked()
                except (anyio.get_cancelled_exc_class(), KeyboardInterrupt, SystemExit) as error:
                    stopped = error  # we are ended; the client may go on, and relies on the lock
                    raise self._wire.gone("the server ends") from None
                unlocked = True
        except ClientGone:
            if stopped is not None:
                raise stopped from None
            raise
        except AnnexError as error:
            if stopped is not None:
                raise stopped from None
            if told:
                log.warning("%s: unlocking %s: %s", self._wire.peer, key, error)
            elif isinstance(error, (NotLocked, KeyNotPresent)):
                self._wire.say(FAILURE)
            else:
                self._wire.say(Error(str(error)))
        finally:
            self._wire.held = None
            if self.locks is not None:
                self.locks.give_back(self._client, self.who, left_behind=told and not unlocked)

    async def _until_unlocked(self) -> None:
        match await self._wire.next():
            case UnlockContent():
                pass
            case Unexpected(_, answer):
                self._wire.say(answer)
            case _:
                raise self._wire.gone()

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
