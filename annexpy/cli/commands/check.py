"""``annexpy check``: does a remote really have these keys?"""

from __future__ import annotations

import click

from annexpy.cli.keys import key_batches
from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("check")
@click.argument("remote", type=REMOTE)
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
def command(options: Options, remote: str, keys: tuple[str, ...], batch: bool) -> int:
    """Ask REMOTE whether it has each KEY. It looks; no log is believed.

    The exit code is 0 when it has them all. Many keys go out in few round trips, so 100,000 of them are a matter
    of seconds.
    """
    report = Report(options, "check")

    async def work() -> int:
        from annexpy.actions.has import has_many
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            asked = await at.remote(remote)
            async for some in key_batches(keys, batch, report):
                found = await has_many(asked, some)
                report.answers(zip(some, found, strict=True), yes="present", no="not present")
        return report.exit_code

    return in_event_loop(work)
