"""The HTTP server: ``/git-annex/UUID/vN/…`` over any ``Remote``, many repositories in one process.

A request is routed, judged, and only then is its repository looked for: whoever may not ask learns nothing about
what there is. Requests cost a task switch and no thread or worker, so a client that is slow, or that is gone,
holds up nobody.

Differences from git-annex on purpose (docs/deviations.md): 404 for versions and verbs that are not there, since
stock clients fall back on nothing else; a content that cannot be removed because it is locked is ``removed:false``
and not 500; ``putoffset`` says ``alreadyhave`` only of places that were positively checked; a lock that was not
given uses nothing up; presence and time may be asked with GET.

Source: fact sheet p2p-protocol, sections 0 and 6.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import anyio
from anyio.abc import TaskGroup

from annexpy.clock import Clock
from annexpy.errors import AnnexError
from annexpy.p2p.http import DATA_LENGTH, WrongMethod, parse_request, parse_route
from annexpy.server.auth import Access, Role, Verdict, Visitor
from annexpy.server.commits import Commits
from annexpy.server.http_locks import HeldLocks
from annexpy.server.http_told import Asked, hardest, line, refuse, say, tell
from annexpy.server.http_verbs import Verbs
from annexpy.server.limits import LockQuota, Quota
from annexpy.server.metrics import METRICS_TYPE, Metrics
from annexpy.server.shown import Find, Mount, Shown, ShownRepositories
from annexpy.system import CLOCK, new_uuid
from annexpy.transport.base import Transport
from annexpy.transport.http_exchange import Exchange
from annexpy.transport.http_head import BadHTTP
from annexpy.transport.http_server import HTTPConnections
from annexpy.transport.http_wire import ClientLeft, HTTPDeadlines
from annexpy.transport.sockets import Listener
from annexpy.transport.tls import start_tls

__all__ = ["Routes", "serve_http"]

log = logging.getLogger(__name__)

_ROLES: Final = {
    b"key": Role.READ,
    b"checkpresent": Role.READ,
    b"gettimestamp": Role.READ,
    b"possession": Role.READ,
    b"lockcontent": Role.LOCK,
    b"keeplocked": Role.LOCK,
    b"putoffset": Role.APPEND,
    b"put": Role.APPEND,
    b"remove": Role.WRITE,
    b"remove-before": Role.WRITE,
}
_QUICK: Final = 100  # the cost of a repository on this machine


class Routes:
    """What one server answers. An async context manager: locks live while it is entered.

    Attributes:
        shown, access, mounts: The repositories, the rules, what else is served. May be replaced while the server runs.
        metrics: What was done.
        connections: The native connections; those of ASGI are counted elsewhere.
    """

    def __init__(
        self,
        shown: ShownRepositories,
        *,
        access: Access,
        deadlines: HTTPDeadlines | None = None,
        locks: Quota | None = None,
        mounts: tuple[Mount, ...] = (),
        allow_unverifiable: bool = True,
        clock: Clock = CLOCK,
        on_idle: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """What is served, to whom.

        Args:
            shown: The repositories.
            access: Who may do what.
            deadlines: How long clients may take.
            locks: How many locks one client may hold or leave behind; to be shared with other servers of the process.
            mounts: What else is served.
            allow_unverifiable: False refuses put of keys whose content cannot be verified.
            clock: For time and the removals that rely on it.
            on_idle: Called about a second after something was stored or removed, and every ten seconds while
                that goes on; and at the end.
        """
        self.shown, self.access, self.mounts = shown, access, mounts
        self._allow_unverifiable, self._clock = allow_unverifiable, clock
        self._commits = Commits(on_idle)
        self._quota = LockQuota() if locks is None else locks
        self._group: TaskGroup | None = None
        self._locks: HeldLocks | None = None
        self._verbs: Verbs | None = None
        self.metrics = Metrics()
        usual = HTTPDeadlines() if deadlines is None else deadlines
        self.connections = HTTPConnections(self.answer, deadlines=usual, clock=clock)
        self._handshake = usual.head
        self.metrics.gauge("connections", "Connections that are open.", lambda: self.connections.open)
        self.metrics.gauge("busy", "Requests that are being answered.", lambda: self.connections.busy)
        self.metrics.gauge("tasks", "Tasks of the event loop.", lambda: len(anyio.get_running_tasks()))
        self.metrics.gauge("locks", "Content locks that are held.", lambda: len(self._locks or ()))

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        locks = self._locks = HeldLocks(self._group, self._quota, new_uuid)
        self._verbs = Verbs(locks, self._commits, self._note, self._clock, allow_unverifiable=self._allow_unverifiable)
        self._group.start_soon(self.connections.watch)
        self._group.start_soon(self._commits.run)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None
        assert self._locks is not None
        with anyio.move_on_after(2, shield=True):
            await self._locks.let_go()
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(kind, error, trace)
        with anyio.CancelScope(shield=True):
            await self._commits.now()

    # -- serving --------------------------------------------------------------------------------------

    async def serve(
        self,
        listener: Listener,
        *,
        tls: ssl.SSLContext | None = None,
        secure: bool = False,
        most: int = 4096,
        stop: anyio.Event | None = None,
        grace: float = 30.0,
    ) -> None:
        """Answer who connects to *listener*, until cancelled or told to *stop*.

        Args:
            listener: Stays open.
            tls: Speak TLS. Certificates may be loaded into it again while the server runs.
            secure: Nobody can read along although there is no TLS (a unix socket, a proxy in front).
            most: Connections at once; more wait to be accepted.
            stop: When set, no more requests are taken, and those that were are answered.
            grace: Seconds they get for that.
        """
        room = anyio.Semaphore(most)

        async def one(transport: Transport) -> None:
            try:
                await self._connection(transport, tls, secure)
            finally:
                room.release()

        async with anyio.create_task_group() as group:
            if stop is not None:
                group.start_soon(self._stop, stop, grace, group)
            while True:
                await room.acquire()
                try:
                    transport = await listener.accept()
                except BaseException:
                    room.release()
                    raise
                group.start_soon(one, transport)

    async def _stop(self, stop: anyio.Event, grace: float, group: TaskGroup) -> None:
        await stop.wait()
        if self._locks is not None:
            await self._locks.let_go()  # their retention stays, and nobody would wait for them for ever
        if not await self.connections.leave(grace):
            log.warning("%d requests were not answered within %g s", self.connections.busy, grace)
        group.cancel_scope.cancel()

    async def _connection(self, transport: Transport, tls: ssl.SSLContext | None, secure: bool) -> None:
        try:
            if tls is not None:
                transport = await start_tls(transport, tls, server_side=True, timeout=self._handshake)
        except AnnexError as error:
            log.info("%s", error)
            return
        await self.connections.serve(transport, secure=secure or tls is not None)

    # -- one request ------------------------------------------------------------------------------------

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request: status, metrics and a line in the log for everything that can happen."""
        begun = self._clock.now()
        asked = Asked()
        try:
            await self._answer(exchange, asked)
        except (ClientLeft, BadHTTP) as error:
            asked.why = str(error)
            raise
        except AnnexError as error:
            asked.why = str(error)
            if not exchange.status:
                tell(exchange, error)
        finally:
            self._note(exchange, asked, begun)

    def _note(self, exchange: Exchange, asked: Asked, begun: float) -> None:
        seconds = self._clock.now() - begun
        self.metrics.request(asked.verb, exchange.status, seconds, exchange.received, exchange.sent)
        if log.isEnabledFor(logging.INFO):
            log.info("%s", line(exchange, asked, seconds))

    async def _answer(self, exchange: Exchange, asked: Asked) -> None:
        head = exchange.head
        base = self.shown.base(head.target.partition(b"?")[0])
        if not base:
            await self._elsewhere(exchange, asked)
            return
        route = parse_route(head.method, head.target, base)
        asked.verb = route.verb.decode()
        visitor = self._visitor(exchange, asked)
        role, request, refused = _ROLES[route.verb], None, Verdict.NOT_THERE
        for way in self.shown.ways(base, route.uuid):
            verdict = visitor.verdict(route.uuid if way.uuid is None else way.uuid, role)
            if verdict is not Verdict.ALLOWED:
                refused = hardest(refused, verdict)
                continue
            if request is None:
                request = parse_request(route, head.headers.get(DATA_LENGTH))
            remote = await way.find(route.uuid, request.bypass)
            if remote is not None:
                assert self._verbs is not None
                if remote.cost > _QUICK:
                    await exchange.flush()  # what was asked before has its answer, and this one may take its time
                await self._verbs.do(exchange, remote, route, request, asked)
                return
        refuse(exchange, Verdict.NOT_THERE if request is not None else refused)

    def _visitor(self, exchange: Exchange, asked: Asked) -> Visitor:
        visitor = self.access.visitor(exchange.head.headers.get(b"authorization"), secure=exchange.secure)
        asked.user = visitor.name
        return visitor

    async def _elsewhere(self, exchange: Exchange, asked: Asked) -> None:
        path = exchange.head.target.partition(b"?")[0]
        if path in (b"/healthz", b"/metrics"):
            asked.verb = path[1:].decode()
            if exchange.head.method not in (b"GET", b"HEAD"):
                raise WrongMethod(exchange.head.method, b"GET HEAD")
            if path == b"/healthz":
                say(exchange, 200, b"ok\n")
            else:
                exchange.answer(200, [(b"Content-Type", METRICS_TYPE)], self.metrics.text())
            return
        for mount in self.mounts:
            found = mount.asks(exchange)
            if found is not None:
                asked.verb = "git"
                visitor = self._visitor(exchange, asked)
                verdict = visitor.verdict(*found)
                if verdict is not Verdict.ALLOWED:
                    refuse(exchange, verdict)
                elif await mount.answer(exchange, visitor):
                    self._commits.note()
                return
        refuse(exchange, Verdict.NOT_THERE)


async def serve_http(
    listener: Listener,
    find: Find,
    *,
    access: Access,
    deadlines: HTTPDeadlines | None = None,
    tls: ssl.SSLContext | None = None,
    secure: bool = False,
    locks: Quota | None = None,
    mounts: tuple[Mount, ...] = (),
    allow_unverifiable: bool = True,
    clock: Clock = CLOCK,
    on_idle: Callable[[], Awaitable[object]] | None = None,
    stop: anyio.Event | None = None,
    grace: float = 30.0,
) -> None:
    """Serve what *find* gives to who connects to *listener*, until cancelled or told to *stop*.

    The arguments are those of ``Routes`` and of its ``serve``; for several repositories with rules of their own, or
    several listeners, use these.
    """
    routes = Routes(
        ShownRepositories((Shown(find),)),
        access=access,
        deadlines=deadlines,
        locks=locks,
        mounts=mounts,
        allow_unverifiable=allow_unverifiable,
        clock=clock,
        on_idle=on_idle,
    )
    async with routes:
        await routes.serve(listener, tls=tls, secure=secure, stop=stop, grace=grace)
