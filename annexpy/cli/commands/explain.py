"""``annexpy explain``: everything that decides about the copies of a key."""

from __future__ import annotations

import click

from annexpy.cli.copies import Wanted
from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("explain")
@click.argument("key")
@click.option("--from", "from_", metavar="REMOTE", type=REMOTE, default=".", help="Explain a drop from here (.).")
@click.option("--other", "others", multiple=True, metavar="REMOTE", type=REMOTE, help="Where another copy is.")
@click.option("-N", "--numcopies", type=click.IntRange(1), metavar="N", help="Copies that must stay.")
@click.option("--mincopies", type=click.IntRange(1), metavar="N", help="Copies that must be locked meanwhile.")
def command(
    options: Options, key: str, from_: str, others: tuple[str, ...], numcopies: int | None, mincopies: int | None
) -> int:
    """Say what is known about KEY, and whether it may be dropped: the rules, every copy, and how each was proven.

    Other repositories are really asked, and lock the content for a moment. Nothing is removed.
    """
    from annexpy.keys.key import Key

    report = Report(options, "explain")
    wanted = Key.parse(key)

    async def work() -> int:
        from annexpy.actions.explain import explain
        from annexpy.cli.evidence import evidence
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            place = await at.remote(from_)
            facts = at.facts(numcopies, mincopies) if at.repository is not None else None
            known = evidence(at, [place], Wanted(others, numcopies, mincopies))
            report.explained(
                await explain(wanted, from_=place, others=known.others, copies=known.copies(wanted), facts=facts)
            )
        return 0

    return in_event_loop(work)
