"""``glimmer-store archive FILE…``: outputs become stored nodes."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glimmer_store.cli.emitting import Told, emit_all
from glimmer_store.errors import shell_line
from glimmer_store.policy import StorageClass

if TYPE_CHECKING:
    from glimmer_store.graph import GlimmerGraph, GlimmerNode

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
@click.option("--id", "id_", metavar="ID", help="Of the node, for one FILE. Default: from its name.")
@click.option("--produced-by", metavar="ID", help="The method node that made the files.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per file.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(
    files: tuple[str, ...],
    storage_class: str | None,
    type_: str,
    id_: str | None,
    produced_by: str | None,
    as_json: bool,
    dataset: str,
) -> int:
    """Store FILES on the durable remotes and create a node for each.

    A folder is one output. What is already archived is checked and completed; nothing is stored twice.
    FILES that are given together share a commit where they can.
    """
    import anyio

    if id_ and len(files) > 1:
        raise click.UsageError("--id is for one file")

    def emit(graph: GlimmerGraph, name: str) -> Awaitable[GlimmerNode]:
        if type_ == "dataset":
            return graph.dataset(name, id=id_, storage_class=storage_class or StorageClass.IRREPLACEABLE)
        usual = storage_class or StorageClass.GENERATED
        return graph.derivative(name, id=id_, storage_class=usual, produced_by=produced_by)

    def again(name: str) -> str:
        options = ["--type", type_] if type_ != "derivative" else []
        options += ["--class", storage_class] if storage_class else []
        options += ["--id", id_] if id_ else []
        options += ["--produced-by", produced_by] if produced_by else []
        root = Path(dataset).resolve()
        return shell_line("glimmer-store", "archive", *options, "-C", root, os.path.abspath(name))

    return anyio.run(emit_all, Path(dataset), files, emit, Told(as_json, again))
