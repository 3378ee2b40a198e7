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
@click.option("--receipts", is_flag=True, help="The signed receipts of its copies alone, to be checked elsewhere.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(name: str, as_json: bool, receipts: bool, dataset: str) -> int:
    """Tell which copies of an output count and why, which do not, what is missing, and what to run.

    Exit codes are those of `status`; with --receipts it is 3 when there is none.
    """
    import anyio

    async def work() -> list[Explained]:
        from glimmer_store.explain import explain
        from glimmer_store.graph import GlimmerGraph

        async with GlimmerGraph.open(Path(dataset)) as graph:
            return await explain(graph, name)

    if receipts:
        lines = anyio.run(_receipts, name, Path(dataset))
        click.echo(b"".join(lines), nl=False)
        return 0 if lines else 3
    told = anyio.run(work)
    for one in told:
        click.echo(json.dumps(one.entry.to_json()) if as_json else "\n".join(one.lines()))
    codes = {one.report.exit_code for one in told}
    return 3 if 3 in codes else max(codes)


async def _receipts(name: str, dataset: Path) -> list[bytes]:
    from glimmer_store.explain import receipts
    from glimmer_store.graph import GlimmerGraph

    async with GlimmerGraph.open(dataset) as graph:
        return receipts(graph, name)
