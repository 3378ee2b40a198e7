"""``annexpy info``: what a repository is and holds."""

from __future__ import annotations

import click

from annexpy.cli.options import Options, as_command
from annexpy.cli.show import human_size, printable, write_json, write_line

__all__ = ["command"]


@as_command("info")
@click.argument("path", metavar="[REPOSITORY]", required=False, type=click.Path())
@click.option("--fast", is_flag=True, help="Do not count keys and sizes.")
def command(options: Options, path: str | None, fast: bool) -> int:
    """Describe REPOSITORY (the one you work in): who it is, what it knows of others, what it holds.

    With the names that `git annex info` uses.
    """
    from annexpy.actions.info import info
    from annexpy.repo.repository import Repository

    with Repository.open(path or options.repository or ".") as opened:
        found = info(opened, count=not fast)
    if options.json:
        groups: dict[str, object] = {
            f"{level} repositories": [
                {"uuid": one.uuid, "description": one.description, "here": one.here} for one in places
            ]
            for level, places in found.by_trust.items()
        }
        fields: dict[str, object] = {
            "command": "info",
            "error-messages": [],
            "input": [] if path is None else [path],
            "success": True,
            "uuid": found.uuid,
            "path": found.path,
            "bare": found.bare,
            "repository version": found.version,
            "numcopies": found.copies.num,
            "mincopies": found.copies.min,
            "available local disk space": _space(found.free, found.reserve),
        }
        if found.here is not None:
            fields |= {"local annex keys": found.here.keys, "local annex size": human_size(found.here.size)}
            fields["annex sizes of repositories"] = [
                {"uuid": one.uuid, "description": one.description, "here": one.here, "size": human_size(held.size)}
                for one, held in found.sizes
            ]
        write_json(fields | groups)
        return 0
    kind = "bare repository" if found.bare else "repository"
    write_line(f"{kind} {printable(found.path)}, version {found.version}")
    write_line(f"uuid: {found.uuid}")
    write_line(str(found.copies))
    for level, places in found.by_trust.items():
        write_line(f"{level} repositories: {len(places)}")
        for place in places:
            write_line(f"\t{printable(str(place))}")
    write_line(f"available local disk space: {_space(found.free, found.reserve)}")
    if found.here is not None:
        write_line(f"local annex keys: {found.here.keys}")
        write_line(f"local annex size: {human_size(found.here.size)}")
        write_line("annex sizes of repositories:")
        for place, held in found.sizes:
            write_line(f"\t{human_size(held.size):>10}: {printable(str(place))}")
    return 0


def _space(free: int, reserve: int) -> str:
    return f"{human_size(max(0, free - reserve))} (+{human_size(reserve)} reserved)"
