"""``glimmer-store archive FILE…``: outputs become stored nodes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from annexpy import AnnexError
from glimmer_store.cli.app import UNDER_REPLICATED, complain
from glimmer_store.errors import Shortfall
from glimmer_store.policy import StorageClass

__all__ = ["command"]


@click.command("archive")
@click.argument("files", nargs=-1, required=True, type=click.Path())
@click.option(
    "--class",
    "storage_class",
    type=click.Choice([c.value for c in StorageClass]),
    help="Default: irreplaceable for datasets, generated for derivatives.",
)
@click.option("--type", "type_", type=click.Choice(["derivative", "dataset"]), default="derivative", show_default=True)
@click.option("--produced-by", metavar="ID", help="The method node that made the files.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(
    files: tuple[str, ...], storage_class: str | None, type_: str, produced_by: str | None, as_json: bool, dataset: str
) -> int:
    """Store FILES on the durable remotes and create a node for each.

    A file that is already archived is checked and completed; nothing is stored twice.
    """
    import anyio

    return anyio.run(_archive, files, storage_class, type_, produced_by, as_json, Path(dataset))


async def _archive(
    files: tuple[str, ...], storage_class: str | None, type_: str, produced_by: str | None, as_json: bool, dataset: Path
) -> int:
    from glimmer_store.graph import GlimmerGraph

    worst = 0
    async with GlimmerGraph.open(dataset) as graph:
        for name in files:
            try:
                if type_ == "dataset":
                    node = await graph.dataset(name, storage_class=storage_class or StorageClass.IRREPLACEABLE)
                else:
                    node = await graph.derivative(
                        name, storage_class=storage_class or StorageClass.GENERATED, produced_by=produced_by
                    )
            except AnnexError as error:
                worst = max(worst, UNDER_REPLICATED if isinstance(error, Shortfall) else 1)
                if as_json:
                    fields = {"file": name, "success": False, "error-class": type(error).__name__, "error": str(error)}
                    click.echo(json.dumps(fields))
                complain(error)
                continue
            assert node.record is not None  # it was just written
            if as_json:
                fields = {"file": name, "success": True, "id": node.id, "key": str(node.key), **node.record.to_fields()}
                click.echo(json.dumps(fields))
            else:
                places = ", ".join(place.remote for place in node.stored_at)
                copies = f"{node.copies} copies proven, {node.numcopies_required} needed ({places})"
                click.echo(f"archived {name}: {copies}; node {node.id}")
    return worst
