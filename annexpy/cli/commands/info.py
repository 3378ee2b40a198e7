"""``annexpy info``: what a repository is and holds."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command

__all__ = ["command"]


@as_command("info")
@click.argument("path", metavar="[REPOSITORY]", required=False, type=click.Path(readable=False))
@click.option("--fast", is_flag=True, help="Do not count keys and sizes.")
def command(options: Options, path: str | None, fast: bool) -> int:
    """Describe REPOSITORY (the one you work in): who it is, what it knows of others, what it holds.

    With the names that `git annex info` uses.
    """
    from annexpy.actions.info import info
    from annexpy.cli.listing import show_info
    from annexpy.cli.work import merge_fetched
    from annexpy.repo.repository import Repository

    with Repository.open(path or options.place) as opened:
        merge_fetched(opened)
        found = info(opened, count=not fast)
    show_info(options, found, asked=[] if path is None else [path])
    return 0
