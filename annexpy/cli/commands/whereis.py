"""``annexpy whereis``: which repositories have a key."""

from __future__ import annotations

import click

from annexpy.cli.keys import key_batches
from annexpy.cli.options import Options, as_command
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report

__all__ = ["command"]

_AT_ONCE = 8192


@as_command("whereis")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
def command(options: Options, keys: tuple[str, ...], batch: bool) -> int:
    """Tell which repositories have each KEY, or every known key, according to the git-annex branch.

    Nobody is asked: `annexpy check` looks for itself.
    """
    report = Report(options, "whereis")

    async def work() -> int:
        from annexpy.actions.whereis import WhereisReader, whereis_all
        from annexpy.cli.show_whereis import WhereisLines
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            lines = WhereisLines(report)
            reader = WhereisReader(at.facts())
            if not keys and not batch:
                lines.show(whereis_all(reader.facts))
            else:
                with at.here.branch.reading():
                    async for some in key_batches(keys, batch, report, at_once=_AT_ONCE):
                        lines.show(reader.many(some))
        return report.exit_code

    return in_event_loop(work)
