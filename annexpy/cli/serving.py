"""``annexpy serve --http``: repositories, what they are gateways for, and their git history, to HTTP clients."""

from __future__ import annotations

import logging
import os
import signal
import ssl
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from urllib.parse import quote

import anyio
import click

from annexpy.cli.options import Options
from annexpy.errors import AnnexError
from annexpy.repo.repository import Repository
from annexpy.server.auth import Access, open_to_all, users_of_environment
from annexpy.server.gateway import Gateway
from annexpy.server.git import GitMount
from annexpy.server.http import Routes
from annexpy.server.shown import Shown, ShownRepositories
from annexpy.transport.sockets import Listener, listen_tcp, listen_unix
from annexpy.values import dataclass

__all__ = ["HTTPOptions", "serve_over_http"]

log = logging.getLogger(__name__)

_ALL = "0.0.0.0"
"""Who leaves the host out asks for it."""


@dataclass(frozen=True, slots=True)
class HTTPOptions:
    """What may be said on the command line; as git-annex p2phttp names it.

    Attributes:
        places: ``HOST:PORT``, ``:PORT`` or ``unix:PATH``, of which each is listened on.
        url: Where clients find the server, when that is not what they call it.
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

    def access(self) -> Access:
        """The rules."""
        anonymous = open_to_all(
            wideopen=self.wideopen,
            unauth_readonly=self.unauth_readonly,
            unauth_appendonly=self.unauth_appendonly,
            unauth_nolocking=self.unauth_nolocking,
        )
        users = users_of_environment(os.environ) if self.authenv or self.authenv_http else []
        return Access(anonymous=anonymous, users=users, allow_plain_http=self.authenv_http)

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


async def serve_over_http(options: Options, directories: Sequence[str], http: HTTPOptions) -> int:
    """Serve until SIGINT or SIGTERM; what is being answered then is answered. SIGHUP reads certificates again."""
    _log_requests(options)
    tls, access = http.tls(), http.access()
    stop = anyio.Event()
    async with AsyncExitStack() as stack:
        shown, mount, gateways = [], {}, []
        for directory in directories:
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
        async with routes, anyio.create_task_group() as group:
            group.start_soon(_obey, stop, group, http, tls)
            async with anyio.create_task_group() as serving:
                for place, listener in zip(http.places, listeners, strict=True):
                    private = place.startswith("unix:")
                    _tell(options, place, listener, mount, tls)
                    serving.start_soon(partial(routes.serve, listener, tls=tls, secure=private, stop=stop))
            group.cancel_scope.cancel()
    return 0


def _name(repository: Repository) -> str:
    return os.path.basename(os.path.realpath(repository.path)).removesuffix(".git") or "annex"


async def _listen(place: str) -> Listener:
    if place.startswith("unix:"):
        return await listen_unix(place.removeprefix("unix:"))
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise click.UsageError(f"--http {place}: give HOST:PORT, :PORT or unix:PATH.")
    return await listen_tcp(host.removeprefix("[").removesuffix("]") or _ALL, int(port))


def _tell(
    options: Options, place: str, listener: Listener, names: dict[bytes, Repository], tls: ssl.SSLContext | None
) -> None:
    if options.quiet:
        return
    where = place
    if isinstance(listener.address, tuple):
        host, port = listener.address
        where = f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}"
    for name, repository in names.items():
        click.echo(f"annexpy: serve: {repository.uuid} at {where}/{name.decode()}", err=True)


def _log_requests(options: Options) -> None:
    requests = logging.getLogger("annexpy")
    if options.debug:
        requests.setLevel(logging.DEBUG)
    elif not options.quiet:
        requests.setLevel(logging.INFO)
    if not logging.getLogger().handlers:
        logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s")


async def _obey(stop: anyio.Event, group: anyio.abc.TaskGroup, http: HTTPOptions, tls: ssl.SSLContext | None) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                if tls is not None:
                    try:
                        http.load(tls)
                    except click.ClickException as error:
                        log.warning("kept the old one: %s", error.format_message())
                continue
            if stop.is_set():
                group.cancel_scope.cancel()
            stop.set()
