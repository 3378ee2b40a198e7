"""``annexpy whereis``: which repositories have a key."""

from __future__ import annotations

import click

from annexpy.cli.keys import given_keys, key_batches, wants_stdin
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
    from annexpy.actions.whereis import WhereisReader, whereis_all
    from annexpy.cli.around import facts_around
    from annexpy.cli.show_whereis import WhereisLines

    report = Report(options, "whereis")
    lines = WhereisLines(report)
    with facts_around(options) as facts:
        if not keys and not batch:
            lines.show(whereis_all(facts))
            return report.exit_code
        reader = WhereisReader(facts)
        with facts.repository.branch.reading():
            if not wants_stdin(keys, batch):  # an event loop, for nothing to wait for, would take half of the time
                lines.show(reader.many(given_keys(keys)))
                return report.exit_code

            async def work() -> int:
                async for some in key_batches(keys, batch, report, at_once=_AT_ONCE):
                    lines.show(reader.many(some))
                return report.exit_code

            return in_event_loop(work)
