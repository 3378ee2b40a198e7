"""``glimmer-store backfill resume``."""

from __future__ import annotations

import click

from glimmer_store.cli.backfill.options import find_job, job_option, place_option, show_control
from glimmer_store.cli.options import dataset_option

__all__ = ["command"]


@click.command("resume")
@job_option
@dataset_option
@place_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(job: str | None, dataset: str, places: tuple[str, ...], as_json: bool) -> int:
    """Let the workers of a paused job go on; with --at, only to or from that repository.

    A destination that was full is freed by this, too.
    """
    from glimmer_store.jobs.ledger import Ledger
    from glimmer_store.jobs.operate import resume

    ledger = Ledger.open(find_job(job, dataset))
    show_control(ledger, resume(ledger, places=places), as_json=as_json)
    return 0
