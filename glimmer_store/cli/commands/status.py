"""``glimmer-store status``: one screen on where everything is."""

from __future__ import annotations

import json
from pathlib import Path

import click

from glimmer_store.status import Report

__all__ = ["command", "survey"]


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(as_json: bool, dataset: str) -> int:
    """Ask every remote where each output is now, compare with what the nodes record, and show one screen.

    Exit code 3 when something has fewer copies than it needs, 1 when a node cannot be read (it is named, and the
    others are told of), 4 when copies may only be missing because a remote could not be asked.
    """
    from glimmer_store.report_text import screen

    report = survey(Path(dataset), full=False)
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else screen(report))
    return report.exit_code


def survey(dataset: Path, *, full: bool) -> Report:
    """The report on *dataset*."""
    import anyio

    async def look_at_it() -> Report:
        from glimmer_store.graph import GlimmerGraph
        from glimmer_store.report import look

        async with GlimmerGraph.open(dataset) as graph:
            return await look(graph, full=full)

    return anyio.run(look_at_it)
