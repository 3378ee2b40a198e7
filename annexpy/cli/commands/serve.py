"""``annexpy serve``: show a repository to others."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import SOME_FAILED, in_event_loop

__all__ = ["command"]


@as_command("serve")
@click.argument("remote", default=".", type=REMOTE)
@click.option("--stdio", "on_stdio", is_flag=True, help="One client, on standard input and output.")
@click.option(
    "--unix", "path", metavar="SOCKET", type=click.Path(), help="Many clients, on this unix socket (mode 0600)."
)
@click.option("--read-only", is_flag=True, help="Content may be read and locked.")
@click.option("--append-only", is_flag=True, help="Content may be read, locked and added, not removed.")
def command(options: Options, remote: str, on_stdio: bool, path: str | None, read_only: bool, append_only: bool) -> int:
    """Speak P2P for REMOTE, the repository you work in, or any other remote: then what is stored is recorded here.

    With --stdio for the one who started the command (`exec:annexpy serve --stdio` is an address), with --unix for
    whoever may open the socket (`unix:SOCKET` is an address). Ctrl-C ends it after everything is committed.
    """
    if on_stdio == (path is not None):
        raise click.UsageError("Give --stdio or --unix SOCKET.")
    if read_only and append_only:
        raise click.UsageError("Give --read-only or --append-only.")

    async def work() -> int:
        from annexpy.cli.work import at_work
        from annexpy.server.limits import LockQuota, ServerMode
        from annexpy.server.serve import serve
        from annexpy.transport.base import Transport
        from annexpy.transport.pipe import stdio
        from annexpy.transport.sockets import listen_unix

        mode = ServerMode.READ_ONLY if read_only else ServerMode.APPEND_ONLY if append_only else ServerMode.WRITE
        locks = LockQuota()

        async with at_work(options) as at:
            shown = await at.remote(remote)
            branch = None if at.repository is None else at.repository.branch

            async def answer(transport: Transport) -> bool:
                ended = await serve(
                    transport, shown, mode=mode, locks=locks, on_idle=None if branch is None else branch.commit
                )
                return ended is None

            if path is None:
                return 0 if await answer(stdio()) else SOME_FAILED
            async with await listen_unix(path) as listener:
                if not options.quiet:
                    click.echo(f"annexpy: serve: {shown.uuid} at unix:{path}", err=True)
                await listener.serve(answer)
        return 0

    try:
        return in_event_loop(work)
    except KeyboardInterrupt:  # which is how a server ends
        return 0
