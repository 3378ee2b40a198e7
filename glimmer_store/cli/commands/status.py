"""``glimmer-store status``: where everything is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from glimmer_store.cli.app import UNDER_REPLICATED
from glimmer_store.report import Status

__all__ = ["command", "table"]

UNREACHABLE = 4


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(as_json: bool, dataset: str) -> int:
    """Ask every durable remote where each output is now, and compare with what the nodes record.

    Exit code 3 when something has fewer copies than its class needs, 4 when that may only be because
    a remote could not be asked.
    """
    import anyio

    status = anyio.run(_look, Path(dataset))
    click.echo(json.dumps(status.to_json(), indent=2) if as_json else table(status))
    if not status.under_replicated:
        return 0
    possible = all(len(o.live) + len(o.unreachable) >= o.node.numcopies_required for o in status.under_replicated)
    return UNREACHABLE if status.unreachable and possible else UNDER_REPLICATED


async def _look(dataset: Path) -> Status:
    from glimmer_store.graph import GlimmerGraph
    from glimmer_store.report import look

    async with GlimmerGraph.open(dataset) as graph:
        return await look(graph)


def table(status: Status) -> str:
    """One line per object: copies, class, where."""
    if not status.objects:
        return "no outputs are archived here yet (glimmer-store archive FILE…)"
    names = status.remotes
    rows = [("output", "class", "copies", *names, "")]
    for entry in status.objects:
        record = entry.node.record
        cells = ["there" if n in entry.live else "no answer" if n in entry.unreachable else "-" for n in names]
        rows.append(
            (
                entry.node.output.as_posix() if entry.node.output else entry.node.id,
                record.storage_class.value if record else "?",
                f"{len(entry.live)}/{entry.node.numcopies_required}",
                *cells,
                "; ".join((*(() if entry.safe else ("too few copies",)), *entry.drift)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    safe = len(status.objects) - len(status.under_replicated)
    return "\n".join([*lines, "", f"{safe} of {len(status.objects)} outputs have all the copies they need"])
