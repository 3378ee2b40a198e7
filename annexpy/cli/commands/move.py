"""``annexpy move``: copy, then drop at the source."""

from __future__ import annotations

import click

from annexpy.cli.dropping import copies_options
from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("move")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@copies_options
def command(
    options: Options,
    source: str,
    destination: str,
    keys: tuple[str, ...],
    others: tuple[str, ...],
    numcopies: int | None,
    mincopies: int | None,
    force: bool,
    batch: bool,
) -> int:
    """Move each KEY from SRC to DST.

    SRC gives its copy up only after DST was seen to have it, and never when that leaves fewer proven copies
    than before and than numcopies.
    """
    from annexpy.cli.keys import wants_stdin
    from annexpy.cli.run import in_event_loop

    wants_stdin(keys, batch)
    return in_event_loop(lambda: _move(options, source, destination, keys, others, numcopies, mincopies, force, batch))


async def _move(
    options: Options,
    source: str,
    destination: str,
    keys: tuple[str, ...],
    others: tuple[str, ...],
    numcopies: int | None,
    mincopies: int | None,
    force: bool,
    batch: bool,
) -> int:
    from annexpy.actions.copy import move
    from annexpy.cli.dropping import rules
    from annexpy.cli.keys import key_batches
    from annexpy.cli.progress import progress
    from annexpy.cli.session import session

    report = Report(options, "move")
    async with session(options) as here:
        src, dst = await here.remote(source), await here.remote(destination)
        elsewhere = await here.others(others)
        rule = rules(here.facts(numcopies, mincopies), numcopies, mincopies)
        with progress(options, "move") as told:
            async for some in key_batches(keys, batch, report):
                async for moved in move(
                    src,
                    dst,
                    some,
                    copies=rule.copies,
                    others=elsewhere,
                    trust=rule.trust,
                    recorded=rule.recorded,
                    nodes=rule.nodes,
                    force=force,
                    jobs=options.jobs,
                    progress=told,
                ):
                    fields = {
                        "stored": sorted(moved.transfer.stored.uuids),
                        "already": sorted(moved.transfer.stored.already),
                    }
                    if moved.error is not None:
                        report.failed(moved.error, moved.key, input=[str(moved.key)], **fields)
                    else:
                        report.done(moved.key, input=[str(moved.key)], **fields)
    return report.exit_code
