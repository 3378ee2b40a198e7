"""``glimmer-store export DIR [NODE…]``: outputs in a form that outlives us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from glimmer_store.export.write import Exported

__all__ = ["command"]


@click.command("export")
@click.argument("target", type=click.Path())
@click.argument("nodes", nargs=-1)
@click.option(
    "--format", "form", type=click.Choice(["ro-crate", "bagit", "frictionless"]), default="bagit", show_default=True
)
@click.option("--holey", is_flag=True, help="Bags: leave out what the web has, and name its URL in fetch.txt.")
@click.option("--max-bytes", type=click.IntRange(min=0), help="Refuse to write more contents than this.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(
    target: str, nodes: tuple[str, ...], form: str, holey: bool, max_bytes: int | None, as_json: bool, dataset: str
) -> int:
    """Write the outputs of NODES (ids; default: all) to the new folder TARGET, and what describes them.

    The contents come from the durable remotes and are compared with their keys while they come in. TARGET
    appears whole or not at all.
    """
    import anyio

    from glimmer_store.export.payload import Limits
    from glimmer_store.export.write import Format, export

    async def run() -> Exported:
        limits = Limits(max_bytes)
        return await export(Path(dataset), Path(target), Format(form), nodes, holey=holey, limits=limits)

    done = anyio.run(run)
    if as_json:
        for item in [*done.items, *done.absent]:
            fields = {"path": f"data/{item.path}", "id": item.node.id, "key": str(item.key), "size": item.size,
                      "sha256": item.sha256, "fetched": item in done.items}  # fmt: skip
            click.echo(json.dumps(fields))
        return 0
    size = sum(item.size for item in done.items)
    click.echo(f"exported {len(done.items)} files, {size} bytes, to {target} ({form})")
    if done.absent:
        click.echo(f"{len(done.absent)} files are named in fetch.txt only")
    return 0
