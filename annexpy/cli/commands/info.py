"""``annexpy info``: what a repository is and holds, and what is known of a remote."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.places import REMOTE
from annexpy.cli.run import in_event_loop

__all__ = ["command"]


@as_command("info")
@click.argument("place", metavar="[REPOSITORY | REMOTE]", required=False, type=REMOTE)
@click.option("--fast", is_flag=True, help="Do not count keys and sizes.")
def command(options: Options, place: str | None, fast: bool) -> int:
    """Describe REPOSITORY (the one you work in): who it is, what it knows of others, what it holds.

    Or REMOTE: who it is, whether it answers, and what it holds according to the location log here. A path is a
    REPOSITORY, all else a REMOTE; the exit code is 1 when that does not answer. With the names that
    `git annex info` uses.
    """
    if place is not None and _is_remote(options, place):
        return _remote(options, place, count=not fast)
    from annexpy.actions.info import info
    from annexpy.cli.around import merge_fetched
    from annexpy.cli.show_info import show_info
    from annexpy.repo.repository import Repository

    with Repository.open(place or options.place) as opened:
        merge_fetched(opened)
        found = info(opened, count=not fast)
    show_info(options, found, asked=[] if place is None else [place])
    return 0


def _is_remote(options: Options, place: str) -> bool:
    """*place* is the name of a remote, or an address that is no path."""
    from annexpy.errors import NotARepository
    from annexpy.remote.connect import connect
    from annexpy.remote.local_place import LocalPlace
    from annexpy.repo.repository import Repository

    try:
        with Repository.open(options.place) as here:
            return place in here.config.remotes() or not isinstance(connect(place, repository=here), LocalPlace)
    except NotARepository:
        return not isinstance(connect(place), LocalPlace)


def _remote(options: Options, place: str, *, count: bool) -> int:
    from annexpy.cli.show import Report

    report = Report(options, "info")

    async def work() -> int:
        from annexpy.actions.info import info_of_remote
        from annexpy.cli.show_info import show_remote
        from annexpy.cli.work import at_work

        async with at_work(options) as at:
            facts = at.facts() if at.repository is not None else None
            show_remote(report, await info_of_remote(at.other(place), facts=facts, count=count))
        return report.exit_code

    return in_event_loop(work)
