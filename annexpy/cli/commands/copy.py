"""``annexpy copy``: keys from one remote to another."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("copy")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
def command(options: Options, source: str, destination: str, keys: tuple[str, ...], batch: bool) -> int:
    """Copy each KEY from SRC to DST, streaming.

    SRC and DST are remotes; `.` is the repository you are in. What was cut off is resumed by the next copy.
    """
    from annexpy.cli.keys import wants_stdin
    from annexpy.cli.run import in_event_loop

    wants_stdin(keys, batch)
    return in_event_loop(lambda: _copy(options, source, destination, keys, batch))


async def _copy(options: Options, source: str, destination: str, keys: tuple[str, ...], batch: bool) -> int:
    from annexpy.actions.copy import copy
    from annexpy.cli.keys import key_batches
    from annexpy.cli.progress import progress
    from annexpy.cli.session import session
    from annexpy.cli.transfers import show_transfer

    report = Report(options, "copy")
    async with session(options) as here:
        src, dst = await here.remote(source), await here.remote(destination)
        with progress(options, "copy") as told:
            async for some in key_batches(keys, batch, report):
                async for transfer in copy(src, dst, some, jobs=options.jobs, progress=told):
                    show_transfer(report, transfer)
    return report.exit_code
