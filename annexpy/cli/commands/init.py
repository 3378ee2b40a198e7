"""``annexpy init``: make a git-annex repository."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.show import Report

__all__ = ["command"]


@as_command("init")
@click.argument("path", type=click.Path(file_okay=False))
@click.option("--bare", is_flag=True, help="Without a work tree, as stores are.")
@click.option("--uuid", metavar="UUID", help="Instead of a fresh one.")
@click.option("--description", metavar="TEXT", help="What `whereis` calls it (USER@HOST:PATH).")
@click.option("--private", is_flag=True, help="Other repositories never hear of it (annex.private).")
def command(options: Options, path: str, bare: bool, uuid: str | None, description: str | None, private: bool) -> int:
    """Make a git-annex repository at PATH that git-annex accepts as it stands.

    A git repository at PATH becomes an annex; what is there already is kept.
    """
    from annexpy.repo.repository import Repository
    from annexpy.uuids import parse_uuid

    report = Report(options, "init")
    wanted = None if uuid is None else parse_uuid(uuid)
    with Repository.init(path, bare=bare, uuid=wanted, description=description, private=private) as repository:
        note = f"{'bare ' if repository.bare else ''}repository {repository.uuid}"
        report.done(file=path, note=note, fields={"uuid": repository.uuid})
    return report.exit_code
