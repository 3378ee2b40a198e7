"""``glimmer-store backfill cancel``."""

from __future__ import annotations

import click

from glimmer_store.cli.backfill.options import find_job, job_option, show_control
from glimmer_store.cli.options import dataset_option

__all__ = ["command"]


@click.command("cancel")
@job_option
@dataset_option
@click.option("--reason", default="", metavar="TEXT", help="For people.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(job: str | None, dataset: str, reason: str, as_json: bool) -> int:
    """End a job for good, from the next chunk on.

    What is stored and proven stays. A new job for the rest costs no second copy.
    """
    from glimmer_store.jobs.ledger import Ledger
    from glimmer_store.jobs.operate import cancel

    ledger = Ledger.open(find_job(job, dataset))
    show_control(ledger, cancel(ledger, reason=reason), as_json=as_json)
    return 0
