"""``annexpy init``: a repository that git-annex accepts as it stands."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("init")
@click.argument("path", type=click.Path(file_okay=False))
@click.option("--bare", is_flag=True, help="Without a work tree: for servers and archives.")
@click.option("--description", metavar="TEXT", help="Shown by whereis (user@host:path).")
@click.option("--uuid", metavar="UUID", help="Instead of a fresh one.")
@click.option("--private", is_flag=True, help="Other repositories never hear of this one.")
def command(options: Options, path: str, bare: bool, description: str | None, uuid: str | None, private: bool) -> int:
    """Make PATH a git-annex repository, or finish one that was begun. What is there already is kept."""
    from annexpy.repo.repository import Repository
    from annexpy.uuids import parse_uuid

    report = Report(options, "init")
    wanted = None if uuid is None else parse_uuid(uuid)
    with Repository.init(path, bare=bare, uuid=wanted, description=description, private=private) as made:
        report.done(
            file=path,
            input=[path],
            uuid=made.uuid,
            bare=made.bare,
            text=None if options.quiet else f"init {made.path} {made.uuid} ok",
        )
    return report.exit_code
