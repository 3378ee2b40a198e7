"""``annexpy serve``: show a repository to others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop

if TYPE_CHECKING:
    from annexpy.cli.serve_options import ServeOptions

__all__ = ["command"]


@as_command("serve")
@click.argument("remotes", metavar="[REMOTE | DIR...]", nargs=-1, type=REMOTE)
@click.option("--stdio", "on_stdio", is_flag=True, help="One client, on standard input and output.")
@click.option(
    "--unix",
    "sockets",
    metavar="[NAME=]SOCKET",
    multiple=True,
    help="Many clients, on this unix socket (mode 0600); NAME is which repository, if several.",
)
@click.option(
    "--p2p", "on_p2p", is_flag=True, help="Peers on the networks of `git annex p2p --enable`, with its tokens."
)
@click.option("--read-only", is_flag=True, help="Nobody may do more than read and lock content.")
@click.option("--append-only", is_flag=True, help="Nobody may do more than read, lock and add content.")
@click.option(
    "--uuid",
    "uuids",
    metavar="UUID",
    multiple=True,
    help="Pushes over HTTP and --p2p speak for these repositories only. For ssh: see --authorized-keys.",
)
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
@click.option("--config", metavar="FILE", type=click.Path(), help="All of this, in TOML.")
def command(
    options: Options,
    remotes: tuple[str, ...],
    on_stdio: bool,
    sockets: tuple[str, ...],
    on_p2p: bool,
    read_only: bool,
    append_only: bool,
    uuids: tuple[str, ...],
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
    default the repository you work in, where what is stored in another remote is recorded. Beside --http or --ssh
    they speak it for the repository at DIR. With --http the repositories at DIR... with everything they are
    gateways for: `git clone http://HOST:PORT/NAME` finds the contents too, NAME being the last part of DIR. With
    --ssh the same at `ssh://HOST:PORT/NAME`, for who has a key in the file of --authorized-keys, which is like that
    of sshd and git-annex-shell; a DIR that is no repository stands for all those below it. Ctrl-C lets what is
    under way come to its end and commits everything; twice, it ends at once. --config FILE says the same in TOML;
    see docs/serve.md.
    """
    from annexpy.cli.serve_options import HTTPOptions, P2POptions, ServeOptions, SSHOptions
    from annexpy.server.limits import ServerMode
    from annexpy.uuids import parse_uuid

    if config is not None:
        if (
            remotes
            or any((on_stdio, sockets, on_p2p, read_only, append_only, uuids, places, ssh_places))
            or (authorized_keys or host_key or any(http.values()))
        ):
            raise click.UsageError("With --config everything is in FILE.")
        return _as_configured(options, config)
    if read_only and append_only:
        raise click.UsageError("Give --read-only or --append-only.")
    mine = frozenset(map(parse_uuid, uuids)) if uuids else None
    asked = ServeOptions(
        remotes,
        HTTPOptions(places, uuids=mine, **http),
        SSHOptions(ssh_places, authorized_keys, host_key),
        P2POptions(sockets, on_p2p, on_stdio, mine),
        ServerMode.READ_ONLY if read_only else ServerMode.APPEND_ONLY if append_only else ServerMode.WRITE,
    )
    if on_stdio and (sockets or on_p2p or asked.of_networks):
        raise click.UsageError("--stdio ends with its one client, and goes with nothing else.")
    if not asked.of_networks and not asked.p2p:
        raise click.UsageError("Give --stdio, or any of --unix SOCKET, --p2p, --http HOST:PORT and --ssh HOST:PORT.")
    if any(http.values()) and not places:
        raise click.UsageError("Options of HTTP go with --http.")
    if len(remotes) > 1 and not asked.of_networks:
        raise click.UsageError("Give one REMOTE.")
    return _serve(options, asked)


def _as_configured(options: Options, path: str) -> int:
    from annexpy.cli.serve_config import read_config

    return _serve(options, read_config(path), lambda: read_config(path))


def _serve(options: Options, asked: ServeOptions, again: Callable[[], ServeOptions] | None = None) -> int:
    async def work() -> int:
        from annexpy.cli.serving import serve_networks, serve_remote

        if not asked.of_networks and again is None:
            return await serve_remote(options, asked)
        here = replace(asked, directories=asked.directories or (options.repository or ".",))
        return await serve_networks(options, here, again)

    return _until_interrupted(work)


def _until_interrupted(work: Callable[[], Awaitable[int]]) -> int:
    from annexpy.server.process import ORDERS, prepare_process

    prepare_process()
    with ORDERS.expected():
        return in_event_loop(work)
