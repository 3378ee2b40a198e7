"""``annexpy sync``: exchange the git-annex branch."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("sync")
@click.argument("remotes", metavar="[REMOTE]...", nargs=-1, type=REMOTE)
@click.option("--pull/--no-pull", default=True, help="Fetch and merge what others know (yes).")
@click.option("--push/--no-push", default=True, help="Send what is known here (yes).")
def command(options: Options, remotes: tuple[str, ...], pull: bool, push: bool) -> int:
    """Fetch, merge and push the git-annex branch: who has what, numcopies, trust. No content moves.

    REMOTEs are git remotes; all of them when none is named. A push that somebody else was faster with is merged and
    tried again.
    """
    report = Report(options, "sync")

    async def work() -> int:
        from annexpy.actions.sync import sync
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            at.remember_neighbours()
            for result in await sync(at.here, remotes or None, pull=pull, push=push):
                report.synced(result)
        return report.exit_code

    return in_event_loop(work)
