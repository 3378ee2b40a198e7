"""``annexpy move``: copy, then drop."""

from __future__ import annotations

import click

from annexpy.cli.copies import Wanted, copies_options
from annexpy.cli.keys import key_batches
from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("move")
@click.argument("source", type=REMOTE)
@click.argument("destination", type=REMOTE)
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
@copies_options
def command(options: Options, source: str, destination: str, keys: tuple[str, ...], batch: bool, wanted: Wanted) -> int:
    """Copy each KEY from SOURCE to DESTINATION, and then drop it from SOURCE. `.` is the repository you work in.

    A copy that is new at DESTINATION replaces the one at SOURCE, so the number of copies stays what it was.
    Where DESTINATION had it already, the rules of `annexpy drop` hold.
    """
    report = Report(options, "move")

    async def work() -> int:
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            giver, taker = await at.remote(source), await at.remote(destination)

            from annexpy.actions.copy import move  # while a server far away does the same
            from annexpy.cli.evidence import evidence
            from annexpy.cli.progress import progress

            known = evidence(at, [giver, taker], wanted)
            note = f"to {taker.name}..."
            with progress(options, "move", note) as told:
                async for some in key_batches(keys, batch, report):
                    moving = move(
                        giver,
                        taker,
                        some,
                        copies=known.copies,
                        others=known.others,
                        trust=known.trust,
                        recorded=known.recorded,
                        nodes=known.nodes,
                        force=wanted.force,
                        jobs=options.jobs,
                        progress=told,
                    )
                    await moving.tell(lambda result: report.moved(result, note=note))
        return report.exit_code

    return in_event_loop(work)
