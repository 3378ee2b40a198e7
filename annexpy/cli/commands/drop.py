"""``annexpy drop``: remove keys from a remote when enough other copies are proven."""

from __future__ import annotations

import click

from annexpy.cli.copies import Wanted, copies_options
from annexpy.cli.keys import key_batches
from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("drop")
@click.argument("remote", type=REMOTE)
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--batch", is_flag=True, help="Read keys from standard input, one a line.")
@copies_options
def command(options: Options, remote: str, keys: tuple[str, ...], batch: bool, wanted: Wanted) -> int:
    """Remove each KEY from REMOTE, if enough copies elsewhere are locked or seen. `.` is the repository you work in.

    Inside a repository its own rules hold (numcopies, mincopies, trust), and its git remotes are asked for copies
    besides what --other names. A refusal says which copies were counted, which were not, and why.
    """
    report = Report(options, "drop")

    async def work() -> int:
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            place = await at.remote(remote)

            from annexpy.actions.drop import drop_many  # while a server far away does the same
            from annexpy.cli.evidence import evidence

            known = evidence(at, [place], wanted)
            async for some in key_batches(keys, batch, report):
                dropping = drop_many(
                    some,
                    from_=place,
                    others=known.others,
                    copies=known.copies,
                    trust=known.trust,
                    recorded=known.recorded,
                    nodes=known.nodes,
                    force=wanted.force,
                )
                await dropping.tell(lambda result: report.dropped(result, note=f"from {place.name}..."))
        return report.exit_code

    return in_event_loop(work)
