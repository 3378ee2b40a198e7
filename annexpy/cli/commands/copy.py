"""``annexpy copy``: from one remote to another, by streaming."""

from __future__ import annotations

import click

from annexpy.cli.keys import key_batches
from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("copy")
@click.argument("source", type=REMOTE)
@click.argument("destination", type=REMOTE)
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
def command(options: Options, source: str, destination: str, keys: tuple[str, ...], batch: bool) -> int:
    """Copy each KEY from SOURCE to DESTINATION. Contents stream through; nothing is stored in between.

    `.` is the repository you work in.
    """
    report = Report(options, "copy")

    async def work() -> int:
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            giver, taker = await at.remote(source), await at.remote(destination)

            from annexpy.actions.copy import copy  # while a server far away does the same
            from annexpy.cli.progress import progress

            note = f"to {taker.name}..."
            with progress(options, "copy", note) as told:
                async for some in key_batches(keys, batch, report):
                    copying = copy(giver, taker, some, jobs=options.jobs, progress=told)
                    await copying.tell(lambda result: report.transfer(result, note=note))
        return report.exit_code

    return in_event_loop(work)
