"""``glimmer-store backfill status``."""

from __future__ import annotations

import json

import click

from glimmer_store.cli.backfill.options import find_job, job_option
from glimmer_store.cli.options import dataset_option

__all__ = ["command"]


@click.command("status")
@job_option
@dataset_option
@click.option("--watch", is_flag=True, help="Draw it anew until the job ends or Ctrl-C.")
@click.option("--every", default=2.0, type=click.FloatRange(0.1), show_default=True, help="Seconds between two looks.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object (with --watch: one a line).")
def command(job: str | None, dataset: str, watch: bool, every: float, as_json: bool) -> int:
    """Show on one screen how a job stands: safety, progress, speed, time left, health.

    Exit code 1 when the job failed or was cancelled.
    """
    from glimmer_store.jobs.figures_text import screen
    from glimmer_store.jobs.ledger import Ledger
    from glimmer_store.jobs.live import follow
    from glimmer_store.jobs.states import JobState
    from glimmer_store.jobs.survey import Survey

    ledger = Ledger.open(find_job(job, dataset))
    survey = Survey(ledger, keep=watch)
    if watch:
        figures = follow(survey, every=every, as_json=as_json)
    else:
        figures = survey.look()
        click.echo(json.dumps(figures.to_json(), indent=2) if as_json else screen(figures))
    return 1 if figures.around.state in (JobState.FAILED, JobState.CANCELLED) else 0
