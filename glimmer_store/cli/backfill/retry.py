"""``glimmer-store backfill retry``."""

from __future__ import annotations

import json

import click

from glimmer_store.cli.backfill.options import find_job, job_option
from glimmer_store.cli.options import dataset_option
from glimmer_store.jobs.states import FailureKind

__all__ = ["command"]


@click.command("retry")
@job_option
@dataset_option
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice([kind.value for kind in FailureKind]),
    help="What failed like that.",
)
@click.option("--all", "every", is_flag=True, help="Whatever failed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(job: str | None, dataset: str, kinds: tuple[str, ...], every: bool, as_json: bool) -> int:
    """Plan tasks anew that failed, or that wait for another try; `backfill run` then takes them up."""
    from glimmer_store.jobs.ledger import Ledger
    from glimmer_store.jobs.operate import retry

    if bool(kinds) == every:
        raise click.UsageError("Give --kind KIND, or --all.")
    done = retry(Ledger.open(find_job(job, dataset)), [FailureKind(kind) for kind in kinds])
    if as_json:
        click.echo(json.dumps({"retried": done}))
    else:
        click.echo(", ".join(f"{kind}: {count:,}" for kind, count in sorted(done.items())) or "nothing to try again")
    return 0
