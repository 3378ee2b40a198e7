"""``annexpy serve``: repositories, what they are gateways for, and their git history, to many clients of any kind.

Without HTTP and ssh it is one remote of any kind that is shown, to those who speak P2P.
"""

from __future__ import annotations

import logging
import os
import resource
import ssl
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio
import click
from anyio.abc import TaskGroup

from annexpy.cli.options import Options
from annexpy.cli.run import SOME_FAILED
from annexpy.cli.serve_options import ServeOptions
from annexpy.cli.serve_p2p import GRACE, Door, Doors, socket_of, sockets_of
from annexpy.errors import AnnexError
from annexpy.repo.p2p_networks import own_addresses
from annexpy.repo.repository import Repository
from annexpy.server.gateway import Gateway
from annexpy.server.git import GitMount
from annexpy.server.http import Routes
from annexpy.server.limits import LockQuota
from annexpy.server.places import Places, is_folder
from annexpy.server.process import ORDERS
from annexpy.server.shown import Shown, ShownRepositories
from annexpy.transport.sockets import Listener, listen_tcp, listen_unix

if TYPE_CHECKING:
    from annexpy.server.ssh import SSHServer

__all__ = ["serve_networks", "serve_remote"]

log = logging.getLogger(__name__)

_ALL = "0.0.0.0"
"""Who leaves the host out asks for it."""


async def serve_remote(options: Options, asked: ServeOptions) -> int:
    """Show one remote to P2P clients, until SIGINT or SIGTERM, or until the one client on stdin leaves."""
    stop, code = anyio.Event(), 0
    async with anyio.create_task_group() as group:
        group.start_soon(ORDERS.obey, stop, group, _nothing)
        code = await _serve_remote(options, asked, stop, group)
        group.cancel_scope.cancel()
    return code


async def _serve_remote(options: Options, asked: ServeOptions, stop: anyio.Event, group: TaskGroup) -> int:
    from annexpy.cli.work import at_work
    from annexpy.repo.topology import cluster_names
    from annexpy.transport.pipe import stdio

    name = asked.directories[0] if asked.directories else "."
    async with at_work(options) as at, AsyncExitStack() as stack:
        repository, gateway, bypass = at.repository, None, None
        cluster = None if repository is None else cluster_names(repository.config).get(name)
        if repository is not None and cluster is not None:
            gateway = await stack.enter_async_context(Gateway(repository, durability=options.durability))
            shown, bypass = gateway.shown(cluster), gateway.bypassing(cluster)
        else:
            shown = await at.remote(name)
        holder = gateway or (None if repository is None else repository.branch)
        on_idle = None if holder is None else holder.commit
        doors = Doors(asked.mode, asked.p2p.uuids, LockQuota())
        door = Door(doors, shown, on_idle=on_idle, bypass=bypass, repository=repository, gateway=gateway)
        if asked.p2p.stdio:
            group.start_soon(_cancel_when, stop, group)
            return 0 if await door.answer(stdio()) else SOME_FAILED
        tell = partial(_say, options, f"{shown.uuid} at ")
        async with anyio.create_task_group() as serving:
            for text in asked.p2p.sockets:
                path = socket_of(text)[1]
                listener = await stack.enter_async_context(await listen_unix(path))
                tell(f"unix:{path}")
                serving.start_soon(listener.serve, door.answer)
            if asked.p2p.networks:
                serving.start_soon(door.listen_to_networks, tell)
            await stop.wait()
            await doors.leave()
            serving.cancel_scope.cancel()
    return 0


async def _cancel_when(stop: anyio.Event, group: TaskGroup) -> None:
    await stop.wait()
    group.cancel_scope.cancel()


async def serve_networks(options: Options, asked: ServeOptions, again: Callable[[], ServeOptions] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; what is being answered then is answered.

    SIGHUP reads certificates and keys again, and what *again* gives: users, and what is open to everybody. Over ssh a
    directory that is no repository stands for all repositories below it.
    """
    _log_requests(options)
    stop = anyio.Event()
    async with anyio.create_task_group() as group:
        async with AsyncExitStack() as stack:
            server = _Server(options, asked, stack, stop)
            group.start_soon(ORDERS.obey, stop, group, partial(server.reload, again))
            await server.open()
            await server.serve()
        group.cancel_scope.cancel()
    return 0


class _Server:
    def __init__(self, options: Options, asked: ServeOptions, stack: AsyncExitStack, stop: anyio.Event) -> None:
        self._options, self._asked, self._stack, self._stop = options, asked, stack, stop
        self._tls, access = asked.http.tls(), asked.http.access(asked.mode)
        self._keys = asked.ssh.keys(asked.mode) if asked.ssh.places else None
        self._gateways: dict[str, Gateway] = {}
        self._folders: list[str] = []
        self._locks = LockQuota()
        self._routes = Routes(ShownRepositories(()), access=access, locks=self._locks, on_idle=self._commit)
        self._doors = Doors(asked.mode, asked.p2p.uuids, self._locks)
        self._sshd: SSHServer | None = None

    async def open(self) -> None:
        """Open the repositories, and listen."""
        asked, stack = self._asked, self._stack
        self._folders = [one for one in asked.directories if asked.ssh.places and is_folder(one)]
        for directory in asked.directories:
            if directory not in self._folders:
                repository = stack.enter_context(Repository.open(directory))
                name = _name(repository)
                if name in self._gateways:
                    raise click.UsageError(f"Two repositories are called {name}.")
                gateway = Gateway(repository, durability=self._options.durability)
                self._gateways[name] = await stack.enter_async_context(gateway)
        quoted = {quote(name).encode(): gateway for name, gateway in self._gateways.items()}
        shown = [Shown(gateway.remote, gateway.uuid, name) for name, gateway in quoted.items()]
        self._routes.shown = ShownRepositories(shown)
        self._routes.mounts = (GitMount(quoted, url=asked.http.url),)
        self._listeners = [await stack.enter_async_context(await _listen(place)) for place in asked.http.places]
        if self._keys is not None:
            places = Places(self._gateways, self._folders, durability=self._options.durability)
            await stack.enter_async_context(places)
            server = asked.ssh.server(places, self._keys, self._routes.metrics, self._locks)
            self._sshd = await stack.enter_async_context(server)
            for place in asked.ssh.places:
                host, port = await self._sshd.listen(*_address("--ssh", place))
                self._tell(f"ssh://{_in_url(host)}:{port}", self._folders)
        self._sockets = []
        for gateway, path in sockets_of(asked.p2p.sockets, self._gateways):
            self._sockets.append((gateway, path, await stack.enter_async_context(await listen_unix(path))))

    async def serve(self) -> None:
        """Answer until told to stop."""
        routes, http, stop = self._routes, self._asked.http, self._stop
        most = _connections(len(self._listeners))
        async with routes, anyio.create_task_group() as group:
            for gateway, path, unix in self._sockets:
                _say(self._options, f"{gateway.uuid} at ", f"unix:{path}")
                group.start_soon(unix.serve, Door.of(self._doors, gateway).answer)
            if self._asked.p2p.networks:
                for gateway in self._on_networks():
                    tell = partial(_say, self._options, f"{gateway.uuid} at ")
                    group.start_soon(Door.of(self._doors, gateway).listen_to_networks, tell)
            async with anyio.create_task_group() as serving:
                for place, listener in zip(http.places, self._listeners, strict=True):
                    self._tell(_url(place, listener, self._tls))
                    private = place.startswith("unix:")
                    serve = partial(routes.serve, tls=self._tls, secure=private, most=most, stop=stop, grace=GRACE)
                    serving.start_soon(serve, listener)
                await stop.wait()
                serving.start_soon(self._doors.leave)
                if self._sshd is not None:
                    serving.start_soon(self._sshd.leave, GRACE)
            group.cancel_scope.cancel()

    def _on_networks(self) -> list[Gateway]:
        """Those that have addresses there; all if none has, which then says so."""
        having = [gateway for gateway in self._gateways.values() if own_addresses(gateway.repository.files)]
        return having or [*self._gateways.values()]

    def reload(self, again: Callable[[], ServeOptions] | None) -> None:
        """Read again what may change while it runs; *again* gives it, else what is in files is read again."""
        try:
            asked = self._asked if again is None else again()
            access = asked.http.access(self._asked.mode)
            keys = asked.ssh.keys(self._asked.mode) if self._keys is not None else None
            if self._tls is not None:
                asked.http.load(self._tls)
        except (click.ClickException, AnnexError) as error:
            log.warning("kept the old one: %s", getattr(error, "message", None) or error)
            return
        self._routes.access, self._keys = access, keys
        if self._sshd is not None and keys is not None:
            self._sshd.reload(keys)
        if asked.fixed != self._asked.fixed:
            log.warning("directories, listeners and what they show stay as they were until the server starts anew")
        log.info("reloaded")

    async def _commit(self) -> None:
        for gateway in self._gateways.values():
            try:
                await gateway.commit()
            except AnnexError as error:
                log.warning("%s: %s", gateway.repository.path, error)

    def _tell(self, where: str, folders: Sequence[str] = ()) -> None:
        for name, gateway in self._gateways.items():
            _say(self._options, f"{gateway.uuid} at ", f"{where}/{quote(name)}")
        for folder in folders:
            _say(self._options, f"repositories below {folder} at ", f"{where}/")


def _nothing() -> None:
    """There is nothing to reload."""


def _say(options: Options, what: str, where: str) -> None:
    if not options.quiet:
        click.echo(f"annexpy: serve: {what}{where}", err=True)


def _connections(listeners: int) -> int:
    """How many each listener may have: a request may need descriptors for files beside its own."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 4096
    return max(8, min(4096, (soft - 64) // 2 // max(1, listeners)))


def _name(repository: Repository) -> str:
    return os.path.basename(os.path.realpath(repository.path)).removesuffix(".git") or "annex"


async def _listen(place: str) -> Listener:
    if place.startswith("unix:"):
        return await listen_unix(place.removeprefix("unix:"))
    return await listen_tcp(*_address("--http", place))


def _address(option: str, place: str) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        more = " or unix:PATH" if option == "--http" else ""
        raise click.UsageError(f"{option} {place}: give HOST:PORT, :PORT{more}.")
    return host.removeprefix("[").removesuffix("]") or _ALL, int(port)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _url(place: str, listener: Listener, tls: ssl.SSLContext | None) -> str:
    if not isinstance(listener.address, tuple):
        return place
    host, port = listener.address
    return f"http{'s' if tls else ''}://{_in_url(host)}:{port}"


def _log_requests(options: Options) -> None:
    requests = logging.getLogger("annexpy")
    if options.debug:
        requests.setLevel(logging.DEBUG)
    elif not options.quiet:
        requests.setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")
