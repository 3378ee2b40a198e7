"""``glimmer-store backfill set-limit``."""

from __future__ import annotations

import click

from glimmer_store.cli.backfill.options import find_job, job_option, show_control
from glimmer_store.cli.options import dataset_option

__all__ = ["command"]


@click.command("set-limit")
@click.argument("limits", nargs=-1, required=True, metavar="NAME=VALUE…")
@job_option
@dataset_option
@click.option("--at", "place", default="", metavar="NAME", help="Only for this repository: bandwidth, requests.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(limits: tuple[str, ...], job: str | None, dataset: str, place: str, as_json: bool) -> int:
    """Change limits of a job while it runs, from the next chunk on; NAME=none takes a limit away.

    bandwidth, source-bandwidth, dest-bandwidth (200MB/s); requests, source-requests, dest-requests (50/s); window
    (20:00-06:00, or "mon-fri 20:00-06:00, sat-sun 00:00-24:00"); per-source, per-dest (transfers at once).
    """
    from glimmer_store.jobs.ledger import Ledger
    from glimmer_store.jobs.operate import set_limits

    ledger = Ledger.open(find_job(job, dataset))
    table: dict[str, object] = {}
    for one in limits:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.UsageError(f"{one}: give NAME=VALUE.")
        table[name] = value
    show_control(ledger, set_limits(ledger, table, place=place), as_json=as_json)
    return 0
