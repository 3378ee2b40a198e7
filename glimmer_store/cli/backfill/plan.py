"""``glimmer-store backfill plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glimmer_store.cli.backfill.options import job_option, made_job, making_options

if TYPE_CHECKING:
    from glimmer_store.jobs.plan import Plan

__all__ = ["command"]


@click.command("plan")
@making_options
@job_option
@click.option("--freeze", is_flag=True, help="Write the job down, so that workers can begin.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(job: str | None, freeze: bool, as_json: bool, **given: Any) -> int:  # Any: what click read
    """Tell what a job amounts to; with --freeze, or a folder given by --job, write it down.

    Nothing is copied, and without those two nothing is written.
    """
    import anyio

    from glimmer_store.jobs.ledger import Ledger
    from glimmer_store.jobs.plan import job_folder, plan
    from glimmer_store.jobs.spec import JobSpec

    async def work() -> tuple[JobSpec, Plan, Ledger | None]:
        spec = await made_job(given)
        return spec, *await plan(spec, Path(job) if job else job_folder(spec) if freeze else None)

    spec, amount, ledger = anyio.run(work)
    told = {"job": spec.id if ledger else None, "folder": str(ledger.folder) if ledger else None, **amount.to_json()}
    if as_json:
        click.echo(json.dumps(told))
        return 0
    click.echo(f"{amount.keys} keys, {amount.size} bytes, in {amount.shards} shards")
    if spec.drains:
        rest = amount.keys - amount.proven
        click.echo(f"  proven elsewhere: {amount.proven}; to be read elsewhere first, or to stay: {rest}")
        if amount.required:
            click.echo(f"  required where they are: {amount.required} keys")
        if amount.sourceless:
            click.echo(f"  too few copies elsewhere: {amount.sourceless} keys")
    else:
        _tell_sources(amount)
    if ledger is not None:
        click.echo(f"frozen in {ledger.folder}")
    return 0


def _tell_sources(amount: Plan) -> None:
    click.echo(f"  claimed there without a proof: {amount.claimed}; proven there: {amount.proven}")
    for name in sorted(amount.sources):
        click.echo(f"  from {name}: {amount.sources[name]} keys, {amount.source_bytes[name]} bytes")
    if amount.sourceless:
        click.echo(f"  without a source: {amount.sourceless} keys")
