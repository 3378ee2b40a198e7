"""``glimmer-store verify [NODE…]``: every copy is read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glimmer_store.cli.app import UNDER_REPLICATED, UNREACHABLE
from glimmer_store.errors import shell_line

if TYPE_CHECKING:
    from glimmer_store.verify import Verified

__all__ = ["command"]


@click.command("verify")
@click.argument("nodes", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every node of the graph.")
@click.option("--repair", is_flag=True, help="Replace copies that are bad or missing from a good one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per node.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(nodes: tuple[str, ...], every: bool, repair: bool, as_json: bool, dataset: str) -> int:
    """Read all copies of NODES (ids or node files) again, sign what is found, and correct the nodes.

    Ends with 3 when a node has too few copies that were proven now, with 4 when that may be because a remote cannot
    be asked, and with 1 when a node cannot be read.
    """
    import anyio

    if bool(nodes) == every:
        raise click.UsageError("name nodes, or say --all")
    return anyio.run(_verify, nodes, every, repair, as_json, Path(dataset))


async def _verify(nodes: tuple[str, ...], every: bool, repair: bool, as_json: bool, dataset: Path) -> int:
    from glimmer_store.graph import GlimmerGraph
    from glimmer_store.nodes import UNREADABLE, Unreadable
    from glimmer_store.verify import verify

    worst = 0
    async with GlimmerGraph.open(dataset) as graph:
        scanned = list(graph.scan()) if every else [graph.node(name) for name in nodes]
        chosen = [one for one in scanned if not isinstance(one, Unreadable)]
        async for one in verify(graph, chosen, repair=repair):
            click.echo(json.dumps(one.to_json()) if as_json else _line(one, graph.root))
            if not one.enough:
                lost = all(said != "unreachable" for said in one.found.values())
                worst = max(worst, UNDER_REPLICATED) if lost else UNREACHABLE
        for unreadable in (one for one in scanned if isinstance(one, Unreadable)):
            click.echo(f"{unreadable.file}: cannot be read: {unreadable.reason}\n  remedy: {UNREADABLE}", err=True)
            worst = worst or 1
    return worst


def _line(one: Verified, root: Path) -> str:
    why = {name: f" ({reason})" for name, reason in one.reasons.items() if reason}
    every = {**one.found, **{f"adjunct {name}": said for name, said in one.adjuncts.items()}}
    found = ", ".join(f"{name} {said}{why.get(name.removeprefix('adjunct '), '')}" for name, said in every.items())
    copies = f"{one.node.copies} copies recorded, {one.node.numcopies_required} needed"
    repair = shell_line("glimmer-store", "verify", "--repair", "-C", root, one.node.id)
    advice = "" if one.enough else f"\n  remedy: {repair}"
    return f"{one.node.id}: {found}; {copies}{advice}"
