"""``glimmer-store import BAG``: the payload of a bag becomes stored outputs."""

from __future__ import annotations

from pathlib import Path

import click

from glimmer_store.policy import StorageClass

__all__ = ["command"]


@click.command("import")
@click.argument("bag", type=click.Path(exists=True, file_okay=False))
@click.option("--check", is_flag=True, help="Only say whether the bag is valid.")
@click.option("--to", metavar="FOLDER", help="Where in the dataset. Default: where it was, if the bag says so.")
@click.option("--type", "type_", type=click.Choice(["dataset", "derivative"]), default="dataset", show_default=True)
@click.option("--class", "storage_class", type=click.Choice([c.value for c in StorageClass]))
@click.option("--max-bytes", type=click.IntRange(min=0), help="Refuse a bag with more contents than this.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(
    bag: str,
    check: bool,
    to: str | None,
    type_: str,
    storage_class: str | None,
    max_bytes: int | None,
    dataset: str,
) -> int:
    """Check a BagIt BAG, copy its payload into the dataset and store it.

    Refused are bags that are not valid or not complete, that hold links, or whose paths lead out of the bag.
    Exit code 1 then, and nothing is written.
    """
    if check:
        return _check(Path(bag))
    import anyio

    from glimmer_store.export.importing import import_bag
    from glimmer_store.export.payload import Limits
    from glimmer_store.graph import GlimmerGraph

    chosen = StorageClass(storage_class) if storage_class else None

    async def run() -> None:
        async with GlimmerGraph.open(dataset) as graph:
            limits = Limits(max_bytes)
            async for node in import_bag(graph, Path(bag), to=to, type_=type_, storage_class=chosen, limits=limits):
                click.echo(f"imported {node.output}: {node.copies} copies proven; node {node.id}")

    anyio.run(run)
    return 0


def _check(folder: Path) -> int:
    from glimmer_store.export.bag import read_bag

    bag = read_bag(folder)
    for text in bag.errors:
        click.echo(f"error: {text}")
    for text in bag.missing:
        click.echo(f"to be fetched: {text}")
    for text in bag.warnings:
        click.echo(f"warning: {text}")
    verdict = "valid" if bag.valid else "not complete" if not bag.errors else "not valid"
    click.echo(f"{folder}: {verdict}, {len(bag.payload)} files")
    return 0 if bag.valid else 1
