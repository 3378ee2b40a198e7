"""``glimmer-store backfill report``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from glimmer_store.cli.backfill.options import find_job, job_option
from glimmer_store.cli.options import dataset_option

__all__ = ["command"]


@click.command("report")
@job_option
@dataset_option
@click.option("--missing", "only_missing", is_flag=True, help="What is not there, or not proven, by class and node.")
@click.option("--html", metavar="FILE", type=click.Path(dir_okay=False), help="One HTML file that needs no network.")
@click.option("--metrics", metavar="FILE", type=click.Path(dir_okay=False), help="OpenMetrics text, for a collector.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
def command(
    job: str | None, dataset: str, only_missing: bool, html: str | None, metrics: str | None, as_json: bool
) -> int:
    """Write report.json and report.md into the job's folder, and show the latter.

    Besides what status shows, every node is looked at: how many proven copies each object has. With --missing, what the
    destinations want and lack now, planned or not; exit code 3 when that is something.
    """
    import anyio

    from glimmer_store.cli.app import UNDER_REPLICATED
    from glimmer_store.jobs.ledger import Ledger
    from glimmer_store.jobs.missing import missing, missing_text
    from glimmer_store.jobs.reporting import report

    ledger = Ledger.open(find_job(job, dataset))
    if only_missing:
        lacking = anyio.run(missing, ledger.spec)
        click.echo(json.dumps(lacking.to_json(), indent=2) if as_json else missing_text(lacking))
        return UNDER_REPLICATED if lacking.whole.missing or lacking.whole.unproven else 0

    async def write() -> tuple[object, str]:
        return await report(
            ledger, html=None if html is None else Path(html), metrics=None if metrics is None else Path(metrics)
        )

    told, text = anyio.run(write)
    click.echo(json.dumps(told, indent=2) if as_json else text)
    return 0
