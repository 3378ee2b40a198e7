"""``glimmer-store explain``: the proof of one output in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from glimmer_store.explain import Explained

__all__ = ["command"]


@click.command("explain")
@click.argument("name", metavar="NODE|FILE|KEY")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object per node.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(name: str, as_json: bool, dataset: str) -> int:
    """Tell which copies of an output count and why, which do not, what is missing, and what to run.

    Exit codes are those of `status`.
    """
    import anyio

    async def work() -> list[Explained]:
        from glimmer_store.explain import explain
        from glimmer_store.graph import GlimmerGraph

        async with GlimmerGraph.open(Path(dataset)) as graph:
            return await explain(graph, name)

    told = anyio.run(work)
    for one in told:
        click.echo(json.dumps(one.entry.to_json()) if as_json else "\n".join(one.lines()))
    codes = {one.report.exit_code for one in told}
    return 3 if 3 in codes else max(codes)
