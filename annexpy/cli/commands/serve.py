"""``annexpy serve``: show a repository to others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import SOME_FAILED, in_event_loop
from annexpy.uuids import UUID

__all__ = ["command"]


@as_command("serve")
@click.argument("remotes", metavar="[REMOTE | DIR...]", nargs=-1, type=REMOTE)
@click.option("--stdio", "on_stdio", is_flag=True, help="One client, on standard input and output.")
@click.option(
    "--unix", "path", metavar="SOCKET", type=click.Path(), help="Many clients, on this unix socket (mode 0600)."
)
@click.option(
    "--p2p", "on_p2p", is_flag=True, help="Peers on the networks of `git annex p2p --enable`, with its tokens."
)
@click.option("--read-only", is_flag=True, help="Content may be read and locked.")
@click.option("--append-only", is_flag=True, help="Content may be read, locked and added, not removed.")
@click.option("--http", "places", metavar="HOST:PORT", multiple=True, help="HTTP clients, there (also unix:SOCKET).")
@click.option("--wideopen", is_flag=True, help="HTTP: everybody may do everything.")
@click.option("--unauth-readonly", is_flag=True, help="HTTP: everybody may read, and lock content.")
@click.option("--unauth-appendonly", is_flag=True, help="HTTP: everybody may read, lock and add.")
@click.option("--unauth-nolocking", is_flag=True, help="HTTP: not everybody may lock content.")
@click.option("--authenv", is_flag=True, help="HTTPS: users are in the environment, as for git-annex p2phttp.")
@click.option("--authenv-http", is_flag=True, help="The same, without TLS too.")
@click.option("--certfile", metavar="FILE", type=click.Path(), help="HTTPS: the certificate.")
@click.option("--chainfile", metavar="FILE", type=click.Path(), help="HTTPS: certificates between it and the root.")
@click.option("--privatekeyfile", metavar="FILE", type=click.Path(), help="HTTPS: its key, if in a file of its own.")
@click.option("--url", default="", metavar="URL", help="HTTP: where clients find this server.")
@click.option("--ssh", "ssh_places", metavar="HOST:PORT", multiple=True, help="ssh clients, there.")
@click.option("--authorized-keys", metavar="FILE", type=click.Path(), help="ssh: who may log in, and do what.")
@click.option("--host-key", metavar="FILE", type=click.Path(), help="ssh: our own key, made when it is not there.")
@click.option("--config", metavar="FILE", type=click.Path(), help="All that is about --http and --ssh, in TOML.")
def command(
    options: Options,
    remotes: tuple[str, ...],
    on_stdio: bool,
    path: str | None,
    on_p2p: bool,
    read_only: bool,
    append_only: bool,
    places: tuple[str, ...],
    ssh_places: tuple[str, ...],
    authorized_keys: str | None,
    host_key: str | None,
    config: str | None,
    **http: Any,  # the options of HTTP, by the names that HTTPOptions has for them
) -> int:
    """Show a repository, or any other remote, to others.

    With --stdio to the one who started the command (`exec:annexpy serve --stdio` is an address), with --unix to
    whoever may open the socket (`unix:SOCKET` is an address), with --p2p to peers on networks that programs
    `git-annex-p2p-NETWORK` carry, in place of git annex remotedaemon, git included; these speak P2P for REMOTE, by
    default the repository you work in, where what is stored in another remote is recorded. With --http the
    repositories at DIR... with everything they are gateways for: `git clone http://HOST:PORT/NAME` finds the contents
    too, NAME being the last part of DIR. With --ssh the same at `ssh://HOST:PORT/NAME`, for who has a key in the file
    of --authorized-keys, which is like that of sshd and git-annex-shell; a DIR that is no repository stands for all
    those below it. Ctrl-C ends it after everything is committed. --config FILE says the same in TOML; see
    docs/serve.md.
    """
    if config is not None:
        if remotes or on_stdio or path or places or ssh_places or authorized_keys or host_key or any(http.values()):
            raise click.UsageError("With --config everything is in FILE.")
        return _as_configured(options, config)
    if on_stdio + (path is not None) + on_p2p + bool(places or ssh_places) != 1:
        raise click.UsageError("Give --stdio, --unix SOCKET, --p2p, --http HOST:PORT or --ssh HOST:PORT.")
    if places or ssh_places:
        ssh = {"places": ssh_places, "authorized_keys": authorized_keys, "host_key": host_key}
        return _over_networks(options, remotes or (options.repository or ".",), http | {"places": places}, ssh)
    if any(http.values()):
        raise click.UsageError("Options of HTTP go with --http.")
    if len(remotes) > 1:
        raise click.UsageError("Give one REMOTE.")
    remote = remotes[0] if remotes else "."
    if read_only and append_only:
        raise click.UsageError("Give --read-only or --append-only.")

    async def work() -> int:
        from contextlib import AsyncExitStack

        from annexpy.cli.work import at_work
        from annexpy.repo.topology import cluster_names
        from annexpy.server.gateway import Gateway
        from annexpy.server.limits import Authenticate, LockQuota, ServerMode
        from annexpy.server.p2p_networks import serve_p2p_networks
        from annexpy.server.serve import serve
        from annexpy.server.services import RepositoryServices, WatchedRefs
        from annexpy.transport.base import Transport
        from annexpy.transport.pipe import stdio
        from annexpy.transport.sockets import listen_unix

        mode = ServerMode.READ_ONLY if read_only else ServerMode.APPEND_ONLY if append_only else ServerMode.WRITE
        locks = LockQuota()

        async with at_work(options) as at, AsyncExitStack() as stack:
            gateway, cluster = None, None
            if at.repository is not None and (cluster := cluster_names(at.repository.config).get(remote)) is not None:
                gateway = await stack.enter_async_context(Gateway(at.repository, durability=options.durability))
            shown = await at.remote(remote) if gateway is None or cluster is None else gateway.shown(cluster)
            watched = WatchedRefs(at.repository) if on_p2p and at.repository is not None else None
            holder = gateway or (None if at.repository is None else at.repository.branch)

            async def answer(transport: Transport, authenticate: Authenticate | None = None) -> bool:
                ended = await serve(
                    transport,
                    shown,
                    mode=mode,
                    authenticated=authenticate is None,
                    authenticate=authenticate,
                    services=None if watched is None else RepositoryServices(watched),
                    locks=locks,
                    bypass=None if gateway is None or cluster is None else gateway.bypassing(cluster),
                    on_idle=None if holder is None else holder.commit,
                )
                return ended is None

            if on_p2p:
                if at.repository is None:
                    raise click.UsageError("--p2p shows a repository: work in it, or give --repository.")
                await serve_p2p_networks(at.repository, answer, mode, ready=partial(_ready, options, shown.uuid))
            if path is None:
                return 0 if await answer(stdio()) else SOME_FAILED
            async with await listen_unix(path) as listener:
                if not options.quiet:
                    click.echo(f"annexpy: serve: {shown.uuid} at unix:{path}", err=True)
                await listener.serve(answer)
        return 0

    return _until_interrupted(work)


def _ready(options: Options, uuid: UUID, addresses: Sequence[object]) -> None:
    if not options.quiet:
        click.echo(f"annexpy: serve: {uuid} at {', '.join(map(str, addresses))}", err=True)


def _over_networks(options: Options, directories: tuple[str, ...], http: dict[str, Any], ssh: dict[str, Any]) -> int:
    async def work() -> int:
        from annexpy.cli.serving import HTTPOptions, SSHOptions, serve_networks

        return await serve_networks(options, directories, HTTPOptions(**http), SSHOptions(**ssh))

    return _until_interrupted(work)


def _as_configured(options: Options, path: str) -> int:
    async def work() -> int:
        from annexpy.cli.serve_config import read_config
        from annexpy.cli.serving import serve_networks

        return await serve_networks(options, *read_config(path))

    return _until_interrupted(work)


def _until_interrupted(work: Callable[[], Awaitable[int]]) -> int:
    from annexpy.server.limits import raise_descriptor_limit

    raise_descriptor_limit()
    try:
        return in_event_loop(work)
    except KeyboardInterrupt:  # which is how a server ends
        return 0
