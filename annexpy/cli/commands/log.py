"""``annexpy log``: when which repository got or lost keys."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.run import in_event_loop

__all__ = ["command"]


@as_command("log")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("-n", "--max-count", "limit", type=click.IntRange(1), metavar="N", help="At most this many changes.")
def command(options: Options, keys: tuple[str, ...], limit: int | None) -> int:
    """Show when which repository got (+) or lost (-) each KEY, or any key, the newest first.

    From the history of the git-annex branch, so only what was committed there.
    """
    from annexpy.keys.key import Key

    wanted = [Key.parse(key) for key in keys]

    async def work() -> int:
        from annexpy.actions.log import log
        from annexpy.cli.show_log import show_logged
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            facts = at.facts()
            await at.here.branch.commit()
            for number, entry in enumerate(log(at.here, wanted or None)):
                if number == limit:
                    break
                show_logged(options, entry, facts)
        return 0

    return in_event_loop(work)
