"""``glimmer-store policy``: storage classes as git-annex knows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from glimmer_store.class_policy import ClassPolicy

__all__ = ["command"]


@click.command("policy")
@click.option("--apply", "do", is_flag=True, help="Set it, commit it, and push it to the durable remotes.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(do: bool, as_json: bool, dataset: str) -> int:
    """Hold annex.numcopies in .gitattributes, numcopies, mincopies and required against the storage classes.

    So that git-annex itself does not drop what a class still needs. Exit code 1 when something differs.
    """
    import anyio

    async def work() -> ClassPolicy:
        from glimmer_store.class_policy import apply, examine
        from glimmer_store.graph import GlimmerGraph

        async with GlimmerGraph.open(Path(dataset)) as graph:
            if do:
                await apply(graph)
            return examine(graph)

    found = anyio.run(work)
    if as_json:
        drift = [{"subject": m.subject, "text": m.text, "command": m.command} for m in found.drift]
        click.echo(json.dumps({"numcopies": found.numcopies, "mincopies": found.mincopies, "drift": drift}, indent=2))
    else:
        click.echo(f"numcopies {found.numcopies}, mincopies {found.mincopies}")
        for matter in found.drift:
            click.echo(f"{matter.subject}: {matter.text}")
            if matter.command:
                click.echo(f"  remedy: {matter.command}")
    return 1 if found.drift else 0
