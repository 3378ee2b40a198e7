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
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from math import inf
from typing import Final

import anyio

from annexpy.clock import MAX_REMOVAL_AHEAD, Clock, Deadline
from annexpy.errors import (
    AnnexError,
    ConnectionLost,
    ContentChanged,
    ContentLocked,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    NotLocked,
    RemoteProtocolError,
    TimedOut,
    TransportError,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.keys.storable import check_storable
from annexpy.p2p.associated import unescape_associated_file
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
from annexpy.p2p.messages import (
    ALREADY_HAVE,
    AUTH_FAILURE,
    FAILURE,
    INVALID,
    MAX_VERSION,
    SUCCESS,
    VALID,
    AlreadyHavePlus,
    Auth,
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
    UnlockContent,
    Valid,
    Version,
)
from annexpy.remote.base import BatchRemove, LockedCopy, Remote, Removed, Stored, Upload, check_present_many
from annexpy.server.limits import Authenticate, Deadlines, LockQuota, ServerMode, Services
from annexpy.system import CLOCK
from annexpy.transport.base import CHUNK, Transport
from annexpy.uuids import UUID, is_cluster

__all__ = ["Deadlines", "LockQuota", "ServerMode", "Services", "serve"]

log = logging.getLogger(__name__)

_TOGETHER: Final = 64 * 1024  # pieces up to this size are joined to one write, larger ones are not copied
_DRAIN: Final = 16 * 1024 * 1024  # this much of a body is read to its end after storing it has failed
_AUTH_TRIES: Final = 5
_LOOK: Final = 1.0  # seconds between two looks at held locks and idleness
_GLANCE: Final = 5.0  # and at deadlines alone
_QUICK: Final = 100  # the cost of a repository on this machine
_USUAL: Final = Deadlines()
_STRANGER: Final = frozenset((State.AUTH, State.AUTH_ANSWER, State.AUTH_REFUSED))
_NOT_THE_CONTENT: Final = (VerificationFailed, IncompleteTransfer, ContentChanged, KeyNotPresent)


async def serve(
    transport: Transport,
    remote: Remote,
    *,
    mode: ServerMode = ServerMode.WRITE,
    authenticated: bool = True,
    authenticate: Authenticate | None = None,
    connection: Connection | None = None,
    client: str = "",
    deadlines: Deadlines = _USUAL,
    locks: LockQuota | None = None,
    services: Services | None = None,
    bypass: Callable[[tuple[UUID, ...]], Remote] | None = None,
    max_version: int = MAX_VERSION,
    allow_unverifiable: bool = True,
    clock: Clock = CLOCK,
    on_idle: Callable[[], Awaitable[object]] | None = None,
) -> AnnexError | None:
    """Answer one client until it leaves, then close *transport*. *remote* stays open.

    Locks. ``lock_content`` is left normally after UNLOCKCONTENT (and after anything else that the
    client says in its place), and with ``ConnectionLost`` when the client vanishes: the remote is to
    keep the content locked then until the retention is over, because somebody may rely on it.

    Args:
        transport: The wire.
        remote: What to show.
        mode: What the client may change.
        authenticated: True: say AUTH-SUCCESS at once, as p2pstdio does. False: wait for AUTH.
        authenticate: Judges AUTH; without it every AUTH fails.
        connection: A session that has been begun elsewhere; nothing is said first then.
        client: Who it is, for the lock quota and for messages; AUTH sets it too.
        deadlines: How long to wait for the client. Remotes have their own.
        locks: Shared between all sessions of a server.
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
    session = _Session(transport, remote, connection, mode, client, deadlines, clock)
    session.authenticate, session.locks, session.services, session.bypass = authenticate, locks, services, bypass
    session.max_version, session.allow_unverifiable, session.on_idle = max_version, allow_unverifiable, on_idle
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(session.watch)
            ended = await session.run()
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await transport.aclose()
    if ended is not None:
        log.info("%s: %s", transport.peer, ended)
    return ended


class _ClientGone(ConnectionLost):
    """Our own wire is lost: not to be taken for a lost wire behind the remote."""


class _HangUp(Exception):
    """The answer has been given, and after it there is no way to go on."""

    def __init__(self, reason: AnnexError) -> None:
        self.reason = reason
        super().__init__(str(reason))


class _Session:
    def __init__(
        self,
        transport: Transport,
        remote: Remote,
        connection: Connection,
        mode: ServerMode,
        client: str,
        deadlines: Deadlines,
        clock: Clock,
    ) -> None:
        self._transport, self._remote, self._connection = transport, remote, connection
        self._mode, self._client, self._deadlines, self._clock = mode, client, deadlines, clock
        self.authenticate: Authenticate | None = None
        self.locks: LockQuota | None = None
        self.services: Services | None = None
        self.bypass: Callable[[tuple[UUID, ...]], Remote] | None = None
        self.max_version = MAX_VERSION
        self.allow_unverifiable = True
        self.on_idle: Callable[[], Awaitable[object]] | None = None
        self._answers: list[bytes] = []
        self._answers_size = 0
        self._patience = deadlines.first
        self._tries = _AUTH_TRIES
        self._debug = log.isEnabledFor(logging.DEBUG)
        # For the watch: what we wait for since when, and until when.
        self._waiting_for = ""
        self._since = self._until = inf
        self._out_of_time: TimedOut | None = None
        self._held: LockedCopy | None = None
        self._changed = False
        self._broken: RemoteProtocolError | None = None

    # -- the wire -----------------------------------------------------------------------------------

    def _say(self, message: Message) -> None:
        if self._debug:
            log.debug("%s < %s", self._transport.peer, message)
        line = self._connection.send(message)
        self._answers.append(line)
        self._answers_size += len(line)

    async def _flush(self) -> None:
        if self._answers:
            answers = self._answers[0] if len(self._answers) == 1 else b"".join(self._answers)
            self._answers.clear()
            self._answers_size = 0
            await self._send(answers)

    async def _send(self, data: bytes) -> None:
        self._wait("the client to read", self._deadlines.send)
        try:
            await self._transport.send(data)
        except TransportError as error:
            raise self._gone(str(error)) from error
        finally:
            self._until = self._since = inf

    async def _receive(self, waiting_for: str, seconds: float) -> None:
        self._wait(waiting_for, seconds)
        try:
            self._connection.receive_data(await self._transport.receive(CHUNK))
        except TransportError as error:
            raise self._gone(str(error)) from error
        finally:
            self._until = self._since = inf

    def _wait(self, waiting_for: str, seconds: float) -> None:
        self._waiting_for = waiting_for
        self._since = anyio.current_time()
        self._until = self._since + seconds

    def _gone(self, reason: str = "") -> _ClientGone:
        return _ClientGone(self._transport.peer, self._connection.waiting_for or "the next request", reason)

    async def _next(self) -> ConnectionEvent:
        """The next event; sends the answers before it waits for one."""
        while (event := self._connection.next_event()) is NEED_DATA:
            await self._flush()
            await self._receive(self._connection.waiting_for or "a request", self._patience)
        if self._connection.state not in _STRANGER:
            self._patience = self._deadlines.idle
        if self._debug and type(event) is not Data:
            log.debug("%s > %s", self._transport.peer, event)
        return event

    def _gather(self, kind: type[CheckPresent] | type[Remove], key: Key) -> tuple[list[Key], ConnectionEvent]:
        """*key* and the keys of the requests of that *kind* right behind it; then the event after them."""
        keys = [key]
        try:
            while type(event := self._connection.next_event()) is kind:
                keys.append(event.key)
        except RemoteProtocolError as error:
            self._broken = error  # but what came before it is answered
            return keys, CLOSED
        return keys, event

    async def _make_room(self) -> None:
        """Before a wait that may be long: let go of what is answered already."""
        if self._answers and self._remote.cost > _QUICK:
            await self._flush()

    # -- the session --------------------------------------------------------------------------------

    async def run(self) -> AnnexError | None:
        try:
            if self._connection.state is State.GREETING:
                self._say(AuthSuccess(self._remote.uuid))
            await self._work()
            await self._flush()
        except _HangUp as end:
            try:
                await self._flush()
            except _ClientGone:
                log.debug("%s: left before the answer", self._transport.peer)
            return end.reason
        except _ClientGone as gone:
            return self._out_of_time or gone
        except AnnexError as error:
            return error
        return None

    async def _work(self) -> None:
        event = await self._next()
        while True:
            following: ConnectionEvent | None = None
            match event:
                case CheckPresent(key):
                    following = await self._check(key)
                case Get():
                    await self._get(event)
                case Put():
                    await self._put(event)
                case Remove(key):
                    following = await self._remove(key)
                case RemoveBefore(key, timestamp):
                    await self._remove_before(key, timestamp)
                case GetTimestamp():
                    self._say(Timestamp(int(self._clock.now() // 1)))
                case LockContent(key):
                    await self._lock(key)
                case Success() | SuccessPlus() | Failure() | FailurePlus() | Error():
                    pass  # what the client thinks of a GET; after an ERROR that is more, Closed follows
                case Unexpected(_, answer):
                    self._objected(answer)
                case Closed(waiting_for):
                    if self._broken is not None:
                        raise _HangUp(self._broken)
                    if waiting_for:
                        raise self._gone()
                    return
                case Version(number):
                    self._say(Version(min(number, self.max_version)))
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
            event = following if following is not None and following is not NEED_DATA else await self._next()

    async def _auth(self, uuid: UUID, token: str) -> None:
        mode = await self.authenticate(uuid, token) if self.authenticate is not None else None
        if mode is not None:
            self._mode, self._client = mode, uuid
            self._say(AuthSuccess(self._remote.uuid))
            return
        self._say(AUTH_FAILURE)
        self._tried()

    def _objected(self, answer: Error) -> None:
        stranger = self._connection.state in _STRANGER
        self._say(answer)
        if stranger:
            self._tried()

    def _tried(self) -> None:
        self._tries -= 1
        if not self._tries:
            raise _HangUp(RemoteProtocolError(f"{_AUTH_TRIES} tries without a good AUTH"))

    # -- asking and removing --------------------------------------------------------------------------

    async def _check(self, key: Key) -> ConnectionEvent:
        """Answer this presence check and those that are waiting behind it; the event after them."""
        keys, event = self._gather(CheckPresent, key)
        await self._make_room()
        present: Sequence[bool | AnnexError]
        try:
            present = [await self._remote.check_present(key)] if len(keys) == 1 else await self._check_many(keys)
        except AnnexError as error:
            present = [error] * len(keys)
        for found in present:
            self._say(SUCCESS if found is True else FAILURE if found is False else Error(str(found)))
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

    async def _remove(self, key: Key) -> ConnectionEvent | None:
        """Answer this removal and those that are waiting behind it; the event after them, if known."""
        if refused := self._mode.forbids_remove:
            self._say(Error(refused))
            return None
        if not isinstance(self._remote, BatchRemove):
            await self._make_room()
            await self._removed(self._remote.remove_content(key))
            return None
        keys, event = self._gather(Remove, key)
        await self._make_room()
        try:
            results = await self._remote.remove_content_many(keys)
        except AnnexError as error:
            for _ in keys:
                self._say(Error(str(error)))
        else:
            for result in results:
                self._tell_removed(result)
        return event

    async def _remove_before(self, key: Key, timestamp: int) -> None:
        if refused := self._mode.forbids_remove:
            self._say(Error(refused))
        elif timestamp > self._clock.now() + MAX_REMOVAL_AHEAD:
            # No lock lasts that long: the proof is older than our last reboot.
            error = InvalidInput("timestamp", timestamp, f"at most {MAX_REMOVAL_AHEAD} seconds ahead")
            self._say(Error(str(error)))
        else:
            await self._make_room()
            await self._removed(self._remote.remove_content(key, deadline=Deadline(float(timestamp))))

    async def _removed(self, removal: Awaitable[Removed]) -> None:
        try:
            self._tell_removed(await removal)
        except (ContentLocked, TimedOut):
            self._say(FAILURE)
        except AnnexError as error:
            self._say(Error(str(error)))

    def _tell_removed(self, removed: Removed) -> None:
        self._changed = True
        named = self._others(removed.uuids) if self._connection.version >= 2 else ()
        if removed.ok:
            self._say(SuccessPlus(named) if named else SUCCESS)
            return
        if named:
            self._say(FailurePlus(named))
            return
        reasons = [e for e in removed.failed.values() if not isinstance(e, (ContentLocked, TimedOut))]
        self._say(Error(str(reasons[0])) if reasons and not removed.uuids else FAILURE)

    def _others(self, uuids: frozenset[UUID]) -> tuple[UUID, ...]:
        """*uuids* for a -PLUS answer; none when a plain answer says as much. A cluster is never a copy."""
        if uuids <= {self._remote.uuid}:
            return ()
        return tuple(sorted(uuid for uuid in uuids if not is_cluster(uuid)))

    # -- locks ----------------------------------------------------------------------------------------

    async def _lock(self, key: Key) -> None:
        if self.locks is not None and not self.locks.take(self._client):
            self._say(Error("too many content locks are held for this client"))
            return
        told = unlocked = False
        try:
            async with self._remote.lock_content(key) as lock:
                self._say(SUCCESS)
                told = True
                self._held = lock
                await self._until_unlocked()
                unlocked = True
        except _ClientGone:
            raise
        except AnnexError as error:
            if told:
                log.warning("%s: unlocking %s: %s", self._transport.peer, key, error)
            elif isinstance(error, (NotLocked, KeyNotPresent)):
                self._say(FAILURE)
            else:
                self._say(Error(str(error)))
        finally:
            self._held = None
            if self.locks is not None:
                self.locks.give_back(self._client, left_behind=told and not unlocked)

    async def _until_unlocked(self) -> None:
        match await self._next():
            case UnlockContent():
                pass
            case Unexpected(_, answer):
                self._say(answer)
            case _:
                raise self._gone()

    # -- from us to the client --------------------------------------------------------------------------

    async def _get(self, request: Get) -> None:
        name = unescape_associated_file(request.associated_file) if request.associated_file else ""
        begun = False
        try:
            async with self._remote.get(request.key, offset=request.offset, associated_file=name) as download:
                left = download.length
                self._say(DataHeader(left))
                begun = True
                chunks = aiter(download)
                try:
                    async for chunk in chunks:
                        left -= len(chunk)
                        await self._pour(self._connection.send_data(chunk))
                finally:
                    if isinstance(chunks, AsyncGenerator):
                        await chunks.aclose()  # left early, it would be closed at some other time
                if left:
                    raise _HangUp(ConnectionLost(self._remote.name, f"{left} more bytes of {request.key}"))
                valid = download.valid
        except _ClientGone:
            raise
        except AnnexError as error:
            if begun:
                # The length is promised and the bytes are not there: only hanging up says so.
                raise _HangUp(error) from error
            if not isinstance(error, KeyNotPresent):
                self._say(Error(str(error)))
                return
            self._say(DataHeader(0))
            valid = False
        if self._connection.version:
            self._say(VALID if valid else INVALID)
        elif begun and not valid:
            raise _HangUp(RemoteProtocolError("version 0 has no word for content that has changed"))

    async def _pour(self, chunk: bytes) -> None:
        """Send *chunk*: together with what is waiting if it is small, by itself and not copied if not."""
        if len(chunk) > _TOGETHER:
            await self._flush()
            await self._send(chunk)
            return
        self._answers.append(chunk)
        self._answers_size += len(chunk)
        if self._answers_size > CHUNK:
            await self._flush()

    # -- from the client to us --------------------------------------------------------------------------

    async def _put(self, request: Put) -> None:
        if refused := self._mode.forbids_put:
            self._say(Error(refused))
            return
        name = unescape_associated_file(request.associated_file) if request.associated_file else ""
        try:
            check_storable(request.key, allow_unverifiable=self.allow_unverifiable)
            async with self._remote.put(request.key, associated_file=name) as upload:
                if upload.already is not None:
                    self._tell_already(upload.already)
                    return
                self._say(PutFrom(upload.offset))
                await self._take(upload)
        except _ClientGone:
            raise
        except AnnexError as error:
            match self._connection.state:
                case State.PUT | State.PUT_RESULT:
                    self._say(Error(str(error)))
                case State.IDLE | State.PUT_REFUSED:
                    log.warning("%s: after the put of %s: %s", self._transport.peer, request.key, error)
                case _:
                    raise _HangUp(error) from error

    def _tell_already(self, already: frozenset[UUID]) -> None:
        if not already:
            raise LocalProtocolError("nobody was found to have the content already")  # a claim that names nobody
        if self._connection.version >= 2 and (named := self._others(already)):
            self._say(AlreadyHavePlus(named))
        else:
            self._say(ALREADY_HAVE)

    async def _take(self, upload: Upload) -> None:
        """What follows PUT-FROM, up to the result."""
        match await self._next():
            case DataHeader(length):
                failure: AnnexError | None = None
                try:
                    await upload.start(length)
                except InvalidInput as error:
                    self._say(Error(str(error)))
                    raise _HangUp(error) from error
                except AnnexError as error:
                    failure = error
                failure = await self._body(upload, length, failure)
                valid = await self._validity()
                if failure is not None:
                    raise failure
                await self._result(upload.finish(valid))
            case DataPresent():
                await self._result(upload.data_present())
            case Unexpected(_, answer):
                self._say(answer)
            case Error():
                pass  # changed its mind
            case _:
                raise self._gone()

    async def _body(self, upload: Upload, left: int, failure: AnnexError | None) -> AnnexError | None:
        """Hand *left* bytes to *upload*. What it fails with is returned once the body is over."""
        connection, allowance = self._connection, self._deadlines.body
        patience, due = allowance, 0
        while True:
            if failure is not None and left > _DRAIN:
                self._say(Error(str(failure)))
                raise _HangUp(failure) from failure
            match connection.next_event():
                case Data(chunk, last):
                    left -= len(chunk)
                    due += len(chunk)
                    if due >= allowance * 1024:
                        patience, due = allowance, 0
                    if chunk and failure is None:
                        try:
                            await upload.write(chunk)
                        except AnnexError as error:
                            failure = error
                    if last:
                        return failure
                case Closed():
                    # As git-annex does; nobody may be left to hear it.
                    self._say(FAILURE)
                    await self._flush()
                    raise self._gone()
                case _:
                    await self._flush()
                    begun = anyio.current_time()
                    await self._receive(connection.waiting_for, patience)
                    patience -= anyio.current_time() - begun

    async def _validity(self) -> bool:
        """What the client says about its source. Something else gets its ERROR and counts as INVALID."""
        if self._connection.state is not State.PUT_VALID:
            return True  # version 0
        match await self._next():
            case Valid():
                return True
            case Invalid():
                return False
            case Unexpected(_, answer):
                self._say(answer)
                return False
            case _:
                raise self._gone()

    async def _result(self, storing: Awaitable[Stored]) -> None:
        try:
            stored = await storing
        except _NOT_THE_CONTENT as error:
            log.info("%s: %s", self._transport.peer, error)
            self._say(FAILURE)
            return
        except AnnexError as error:
            self._say(Error(str(error)))
            return
        if not stored.ok:
            self._say(FAILURE)
            return
        self._changed = True
        named = self._others(stored.copies) if self._connection.version >= 2 else ()
        self._say(SuccessPlus(named) if named else SUCCESS)

    # -- services -----------------------------------------------------------------------------------------

    async def _connect(self, service: bytes) -> None:
        if service == b"git-receive-pack" and self._mode.forbids_push:
            self._say(Error(self._mode.forbids_push))
        elif self.services is None:
            self._say(Error("unexpected command"))
        else:
            self._say(ConnectDone(await self.services.connect(service, self._relay_receive, self._relay_send)))

    async def _relay_receive(self) -> bytes:
        while True:
            match await self._next():
                case Data(chunk, _) if chunk:
                    return chunk
                case Closed():
                    return b""

    async def _relay_send(self, data: bytes) -> None:
        self._say(DataHeader(len(data)))
        await self._pour(self._connection.send_data(data))
        await self._flush()

    async def _notify_change(self) -> None:
        if self.services is None:
            self._say(Error("unexpected command"))
        else:
            self._say(Changed(await self.services.changed()))

    # -- at the side of the session -------------------------------------------------------------------

    async def watch(self) -> None:
        """Close the wire when the client takes too long or its lock is lost; tell ``on_idle``.

        Closing makes the session end as if the client had left, so locks are left as they should be.
        """
        while True:
            now = anyio.current_time()
            often = self._held is not None or (self._changed and self.on_idle is not None)
            await anyio.sleep_until(min(self._until, now + (_LOOK if often else _GLANCE)))
            now = anyio.current_time()
            if now >= self._until:
                self._out_of_time = TimedOut(self._transport.peer, self._waiting_for, self._until - self._since)
                await self._transport.aclose()
                return
            if self._held is not None and not await _still_held(self._held):
                log.warning("%s: the lock behind its lock is lost", self._transport.peer)
                await self._transport.aclose()
                return
            if self._changed and self.on_idle is not None and now - self._since >= _LOOK:
                self._changed = False
                try:
                    await self.on_idle()
                except AnnexError as error:
                    log.warning("%s: while idle: %s", self._transport.peer, error)


async def _still_held(lock: LockedCopy) -> bool:
    try:
        return await lock.held()
    except AnnexError:
        return False
