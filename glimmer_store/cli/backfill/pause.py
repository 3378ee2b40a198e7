"""``glimmer-store backfill pause``."""

from __future__ import annotations

import click

from glimmer_store.cli.backfill.options import find_job, job_option, place_option, show_control
from glimmer_store.cli.options import dataset_option

__all__ = ["command"]


@click.command("pause")
@job_option
@dataset_option
@place_option
@click.option("--reason", default="", metavar="TEXT", help="For people.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(job: str | None, dataset: str, places: tuple[str, ...], reason: str, as_json: bool) -> int:
    """Move nothing from the next chunk on, wherever the job's workers are; with --at, only to or from that repository.

    What arrived so far is kept, and nothing is counted as failed.
    """
    from glimmer_store.jobs.ledger import Ledger
    from glimmer_store.jobs.operate import pause

    ledger = Ledger.open(find_job(job, dataset))
    show_control(ledger, pause(ledger, reason=reason, places=places), as_json=as_json)
    return 0
