"""``glimmer-store report``: the whole report as text, JSON, result records or one HTML file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from glimmer_store.cli.commands.status import survey

__all__ = ["command"]


@click.command("report")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option("--json-records", is_flag=True, help="A result record per object, one a line, as DataLad has them.")
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="One HTML file that needs no network.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(as_json: bool, json_records: bool, html: str | None, dataset: str) -> int:
    """Tell of every output: who has it, since when, what was proven, and how to mend what is not as it should be.

    Exit code 3 when something has fewer copies than it needs, 1 when a node cannot be read (it is named, and the
    others are told of), 4 when copies may only be missing because a remote could not be asked.
    """
    from glimmer_store.report_text import records, table

    report = survey(Path(dataset), full=True)
    if html is not None:
        from glimmer_store.report_html import page

        Path(html).write_text(page(report), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    elif json_records:
        for record in records(report):
            click.echo(json.dumps(record))
    elif html is None:
        click.echo(table(report))
        for found in report.findings:
            click.echo(f"\n{found.subject}: {found.text}" + (f"\n  remedy: {found.command}" if found.command else ""))
    return report.exit_code
