"""``annexpy serve --http --ssh``: repositories, what they are gateways for, and their git history, to many clients."""

from __future__ import annotations

import logging
import os
import resource
import signal
import ssl
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

import anyio
import click

from annexpy.cli.options import Options
from annexpy.errors import AnnexError
from annexpy.repo.repository import Repository
from annexpy.server.auth import Access, User, open_to_all, users_of_environment
from annexpy.server.authorized import AuthorizedKeys, read_authorized_keys
from annexpy.server.gateway import Gateway
from annexpy.server.git import GitMount
from annexpy.server.http import Routes
from annexpy.server.metrics import Metrics
from annexpy.server.places import Places, is_folder
from annexpy.server.shown import Shown, ShownRepositories
from annexpy.transport.sockets import Listener, listen_tcp, listen_unix

__all__ = ["HTTPOptions", "SSHOptions", "serve_networks"]

if TYPE_CHECKING:
    from annexpy.server.ssh import SSHServer

log = logging.getLogger(__name__)

GRACE: Final = 30.0
"""Seconds for what is under way when the server is told to stop."""
_ALL = "0.0.0.0"
"""Who leaves the host out asks for it."""
_DESCRIPTORS = 16384
"""Files and connections that a server may have open, where the system lets it."""


@dataclass(frozen=True, slots=True)
class HTTPOptions:
    """What may be said on the command line; as git-annex p2phttp names it.

    Attributes:
        places: ``HOST:PORT``, ``:PORT`` or ``unix:PATH``, of which each is listened on.
        url: Where clients find the server, when that is not what they call it.
        users: Those of the configuration file.
    """

    places: tuple[str, ...]
    wideopen: bool = False
    unauth_readonly: bool = False
    unauth_appendonly: bool = False
    unauth_nolocking: bool = False
    authenv: bool = False
    authenv_http: bool = False
    certfile: str | None = None
    chainfile: str | None = None
    privatekeyfile: str | None = None
    url: str = ""
    users: tuple[User, ...] = ()

    def access(self) -> Access:
        """The rules."""
        anonymous = open_to_all(
            wideopen=self.wideopen,
            unauth_readonly=self.unauth_readonly,
            unauth_appendonly=self.unauth_appendonly,
            unauth_nolocking=self.unauth_nolocking,
        )
        users = users_of_environment(os.environ) if self.authenv or self.authenv_http else []
        return Access(anonymous=anonymous, users=[*self.users, *users], allow_plain_http=self.authenv_http)

    def tls(self) -> ssl.SSLContext | None:
        """TLS, when there is a certificate."""
        if self.certfile is None:
            if self.privatekeyfile is not None or self.chainfile is not None:
                raise click.UsageError("Give --certfile too.")
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load(context)
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Read the certificates, again when the server is told to reload."""
        assert self.certfile is not None
        try:
            if self.chainfile is None:
                context.load_cert_chain(self.certfile, self.privatekeyfile)
                return
            # OpenSSL wants them in one file, the server's own first.
            with open(self.certfile, "rb") as own, open(self.chainfile, "rb") as chain:
                both = own.read() + b"\n" + chain.read()
            fd = os.memfd_create("certificates")
            with open(fd, "wb") as file:
                file.write(both)
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{fd}", self.privatekeyfile or self.certfile)
        except (OSError, ssl.SSLError) as error:
            raise click.ClickException(f"certificate {self.certfile}: {error}") from error


@dataclass(frozen=True, slots=True)
class SSHOptions:
    """What may be said on the command line about ssh.

    Attributes:
        places: ``HOST:PORT`` or ``:PORT``, of which each is listened on.
        authorized_keys: The file that says who may log in.
        host_key: The file with our own key; made when it is not there. None: beside *authorized_keys*.
    """

    places: tuple[str, ...] = ()
    authorized_keys: str | None = None
    host_key: str | None = None

    def keys(self) -> AuthorizedKeys:
        """Who may log in."""
        if self.authorized_keys is None:
            raise click.UsageError("Give --authorized-keys with --ssh.")
        return read_authorized_keys(self.authorized_keys)

    def server(self, places: Places, metrics: Metrics) -> SSHServer:
        """The server."""
        from annexpy.server.ssh import SSHServer, host_key

        keys = self.keys()
        beside = os.path.join(os.path.dirname(self.authorized_keys or ""), "ssh_host_ed25519_key")
        return SSHServer(places, keys, [host_key(self.host_key or beside)], metrics=metrics)


async def serve_networks(options: Options, directories: Sequence[str], http: HTTPOptions, ssh: SSHOptions) -> int:
    """Serve until SIGINT or SIGTERM; what is being answered then is answered. SIGHUP reads certificates and keys again.

    Over ssh a directory that is no repository stands for all repositories below it.
    """
    _log_requests(options)
    tls, access = http.tls(), http.access()
    stop = anyio.Event()
    async with AsyncExitStack() as stack:
        shown, mount, gateways = [], {}, []
        folders = [one for one in directories if ssh.places and is_folder(one)]
        for directory in directories:
            if directory in folders:
                continue
            repository = stack.enter_context(Repository.open(directory))
            gateway = await stack.enter_async_context(Gateway(repository, durability=options.durability))
            name = quote(_name(repository)).encode()
            if name in mount:
                raise click.UsageError(f"Two repositories are called {name.decode()}.")
            mount[name] = repository
            gateways.append(gateway)
            shown.append(Shown(gateway.remote, repository.uuid, name))

        async def commit() -> None:
            for gateway in gateways:
                try:
                    await gateway.commit()
                except AnnexError as error:
                    log.warning("%s: %s", gateway.repository.path, error)

        git = GitMount(mount, url=http.url)
        routes = Routes(ShownRepositories(shown), access=access, mounts=(git,), on_idle=commit)
        listeners = [await stack.enter_async_context(await _listen(place)) for place in http.places]
        sshd = None
        if ssh.places:
            named = {unquote(name.decode()): gateway for name, gateway in zip(mount, gateways, strict=True)}
            places = await stack.enter_async_context(Places(named, folders, durability=options.durability))
            sshd = await stack.enter_async_context(ssh.server(places, routes.metrics))
            for place in ssh.places:
                host, port = await sshd.listen(*_address("--ssh", place))
                _tell(options, f"ssh://{_in_url(host)}:{port}", mount, folders)

        def reload() -> None:
            if tls is not None:
                http.load(tls)
            if sshd is not None:
                sshd.reload(ssh.keys())

        most = _connections(len(listeners))
        async with routes, anyio.create_task_group() as group:
            group.start_soon(_obey, stop, group, reload)
            async with anyio.create_task_group() as serving:
                for place, listener in zip(http.places, listeners, strict=True):
                    private = place.startswith("unix:")
                    _tell(options, _url(place, listener, tls), mount)
                    serving.start_soon(partial(routes.serve, listener, tls=tls, secure=private, most=most, stop=stop))
                if sshd is not None:
                    await stop.wait()
                    await sshd.leave(GRACE)
            group.cancel_scope.cancel()
    return 0


def _connections(listeners: int) -> int:
    """How many each listener may have: a request may need descriptors for files beside its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
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


def _tell(options: Options, where: str, names: Mapping[bytes, Repository], folders: Sequence[str] = ()) -> None:
    if options.quiet:
        return
    for name, repository in names.items():
        click.echo(f"annexpy: serve: {repository.uuid} at {where}/{name.decode()}", err=True)
    for folder in folders:
        click.echo(f"annexpy: serve: repositories below {folder} at {where}/", err=True)


def _log_requests(options: Options) -> None:
    requests = logging.getLogger("annexpy")
    if options.debug:
        requests.setLevel(logging.DEBUG)
    elif not options.quiet:
        requests.setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")


async def _obey(stop: anyio.Event, group: anyio.abc.TaskGroup, reload: Callable[[], None]) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                try:
                    reload()
                except (click.ClickException, AnnexError) as error:
                    log.warning("kept the old one: %s", getattr(error, "message", None) or error)
                continue
            if stop.is_set():
                group.cancel_scope.cancel()
            stop.set()
