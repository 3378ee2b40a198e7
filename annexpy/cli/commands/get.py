"""``annexpy get``: keys from a remote into a repository, or one key into a file."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("get")
@click.argument("remote")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option(
    "-o", "--output", metavar="PATH", type=click.Path(dir_okay=False), help="Put the content of one KEY here."
)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
def command(options: Options, remote: str, keys: tuple[str, ...], output: str | None, batch: bool) -> int:
    """Fetch each KEY from REMOTE, verified while it streams.

    The contents go into the repository you are in (or of -C); with -o into a file. What was cut off is
    resumed by the next get.
    """
    from annexpy.cli.keys import wants_stdin
    from annexpy.cli.run import in_event_loop

    if wants_stdin(keys, batch) and output is not None:
        raise click.UsageError("-o takes one KEY.")
    if output is not None and len(keys) != 1:
        raise click.UsageError("-o takes one KEY.")
    return in_event_loop(lambda: _get(options, remote, keys, output, batch))


async def _get(options: Options, address: str, keys: tuple[str, ...], output: str | None, batch: bool) -> int:
    from annexpy.actions.copy import copy
    from annexpy.actions.get import get
    from annexpy.cli.keys import key_batches
    from annexpy.cli.progress import progress
    from annexpy.cli.session import session
    from annexpy.cli.transfers import show_transfer
    from annexpy.errors import AnnexError
    from annexpy.keys.key import Key

    report = Report(options, "get")
    async with session(options) as here:
        remote = await here.remote(address)
        with progress(options, "get") as told:
            if output is not None:
                key = Key.parse(keys[0])
                try:
                    transfer = await get(remote, key, output, progress=told, durable=options.durability == "full")
                except AnnexError as error:
                    report.failed(error, key, file=output, input=list(keys))
                else:
                    report.done(key, file=output, input=list(keys), **{"bytes-received": transfer.bytes})
                return report.exit_code
            destination = here.here()
            async for some in key_batches(keys, batch, report):
                async for transfer in copy(remote, destination, some, jobs=options.jobs, progress=told):
                    show_transfer(report, transfer)
    return report.exit_code
