"""``glimmer-store serve``: host tenants over ssh and HTTP."""

from __future__ import annotations

import ssl

import click

from glimmer_store.errors import TenantError

__all__ = ["command"]


@click.command("serve")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--http", "http", metavar="HOST:PORT", multiple=True, help="HTTP clients, there (port 0: a free one).")
@click.option("--ssh", "ssh_", metavar="HOST:PORT", multiple=True, help="ssh clients, there.")
@click.option("--certfile", metavar="FILE", type=click.Path(exists=True), help="HTTPS: certificate and chain.")
@click.option("--privatekeyfile", metavar="FILE", type=click.Path(exists=True), help="HTTPS: its key.")
@click.option("--plain-http", is_flag=True, help="Take passwords without TLS: on one machine, or behind a proxy.")
@click.option("--url", default="", metavar="URL", help="Where clients find the HTTP side, if that is elsewhere.")
@click.option("--callback-host", "callbacks", metavar="HOST", multiple=True, help="May be told when a job ends.")
@click.option("--durability", type=click.Choice(["full", "fast"]), default="full", show_default=True)
def command(
    folder: str,
    http: tuple[str, ...],
    ssh_: tuple[str, ...],
    certfile: str | None,
    privatekeyfile: str | None,
    plain_http: bool,
    url: str,
    callbacks: tuple[str, ...],
    durability: str,
) -> int:
    """Host the tenants in FOLDER, in one process, until Ctrl-C or SIGTERM.

    Tenants are made with `glimmer-store tenant create NAME --server FOLDER`, or over HTTP with the credential of
    `glimmer-store tenant operator --server FOLDER`. Repositories are at http://HOST:PORT/TENANT/NAME and, for who has
    a key of the tenant, at ssh://HOST:PORT/NAME, for stock git and git-annex too.
    """
    from annexpy.server import run_server
    from glimmer_store.serve import Listening, TenantServer
    from glimmer_store.tenants import Tenants

    if not http and not ssh_:
        raise click.UsageError("Give --http HOST:PORT, --ssh HOST:PORT or both.")
    tls = None
    if certfile is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            tls.load_cert_chain(certfile, privatekeyfile)
        except (OSError, ssl.SSLError) as error:
            raise TenantError(f"{certfile}: {error}") from error
    elif http and not plain_http:
        raise click.UsageError("HTTP without TLS shows passwords to the network: give --certfile, or --plain-http.")
    listening = Listening([_at(one) for one in http], [_at(one) for one in ssh_], tls, plain_http, url)
    server = TenantServer(
        Tenants(folder),
        listening,
        durability="fast" if durability == "fast" else "full",
        ready=lambda where: click.echo(f"glimmer-store: serve: {where}", err=True),
        callbacks=callbacks,
    )

    run_server(server.run)
    return 0


def _at(place: str) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or not host:
        raise click.UsageError(f"{place}: give HOST:PORT.")
    return host.removeprefix("[").removesuffix("]"), int(port)
