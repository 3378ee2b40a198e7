"""``glimmer-store emit NODE.md…``: the outputs that existing nodes name become stored."""

from __future__ import annotations

import os
from pathlib import Path

import click

from glimmer_store.cli.emitting import Told, emit_all
from glimmer_store.errors import shell_line

__all__ = ["command"]


@click.command("emit")
@click.argument("nodes", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object per node.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(nodes: tuple[str, ...], as_json: bool, dataset: str) -> int:
    """Store the outputs that node files name, fill in their storage fields, commit and push them.

    A node says which output it has in its field output-path (or datalad-relative-path), relative to the
    dataset. Nodes that are given together share a commit where they can. A second run changes nothing.
    """
    import anyio

    def again(name: str) -> str:
        return shell_line("glimmer-store", "emit", "-C", Path(dataset).resolve(), os.path.abspath(name))

    return anyio.run(emit_all, Path(dataset), nodes, lambda graph, name: graph.emit(name), Told(as_json, again))
