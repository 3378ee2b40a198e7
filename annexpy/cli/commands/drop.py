"""``annexpy drop``: give up a copy, with proof that enough others stay."""

from __future__ import annotations

import click

from annexpy.cli.dropping import copies_options
from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("drop")
@click.argument("remote")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@copies_options
def command(
    options: Options,
    remote: str,
    keys: tuple[str, ...],
    others: tuple[str, ...],
    numcopies: int | None,
    mincopies: int | None,
    force: bool,
    batch: bool,
) -> int:
    """Remove each KEY from REMOTE when enough copies elsewhere are proven; `.` is the repository you are in.

    The others are locked while it happens. A refusal names every copy that was counted and every one that
    was not, and why.
    """
    from annexpy.cli.keys import wants_stdin
    from annexpy.cli.run import in_event_loop

    wants_stdin(keys, batch)
    return in_event_loop(lambda: _drop(options, remote, keys, others, numcopies, mincopies, force, batch))


async def _drop(
    options: Options,
    address: str,
    keys: tuple[str, ...],
    others: tuple[str, ...],
    numcopies: int | None,
    mincopies: int | None,
    force: bool,
    batch: bool,
) -> int:
    from annexpy.actions.drop import drop_many
    from annexpy.cli.dropping import rules
    from annexpy.cli.keys import key_batches
    from annexpy.cli.session import session

    report = Report(options, "drop")
    async with session(options) as here:
        from_ = await here.remote(address)
        elsewhere = await here.others(others)
        rule = rules(here.facts(numcopies, mincopies), numcopies, mincopies)
        async for some in key_batches(keys, batch, report):
            async for result in drop_many(
                some,
                from_=from_,
                others=elsewhere,
                copies=rule.copies,
                trust=rule.trust,
                recorded=rule.recorded,
                nodes=rule.nodes,
                force=force,
            ):
                removed = sorted(result.removed.uuids) if result.removed is not None else []
                if result.error is not None:
                    report.failed(result.error, result.key, input=[str(result.key)], removed=removed)
                else:
                    report.done(result.key, input=[str(result.key)], removed=removed)
    return report.exit_code
