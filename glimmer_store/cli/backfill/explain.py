"""``glimmer-store backfill explain``."""

from __future__ import annotations

import json

import click

from glimmer_store.cli.backfill.options import find_job, job_option
from glimmer_store.cli.options import dataset_option

__all__ = ["command"]


@click.command("explain")
@click.argument("what", metavar="KEY|NODE")
@job_option
@dataset_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per task, one a line.")
def command(what: str, job: str | None, dataset: str, as_json: bool) -> int:
    """Tell everything a job knows of one key: state, history, proofs, what happens next, and what you can do."""
    from glimmer_store.jobs.explain import explain, explained_text
    from glimmer_store.jobs.ledger import Ledger

    for one in explain(Ledger.open(find_job(job, dataset)), what):
        click.echo(json.dumps(one.to_json()) if as_json else explained_text(one))
    return 0
