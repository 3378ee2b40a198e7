"""``glimmer-store backfill worker``."""

from __future__ import annotations

import json

import click

from glimmer_store.cli.backfill.options import find_job, job_option

__all__ = ["command"]


@click.command("worker")
@job_option
@click.option("--shard", "shards", multiple=True, metavar="NAME", help="Only these shards.")
@click.option("--no-wait", is_flag=True, help="End when what is left is to be tried later, or is with others.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object in the end.")
def command(job: str | None, shards: tuple[str, ...], no_wait: bool, as_json: bool) -> int:
    """Claim shards of a job, copy what is in them and read it back, until nothing is left to be done.

    Start as many as you like, on any machine that sees the job's folder; each may be killed at any moment.
    """
    import anyio

    from glimmer_store.jobs.worker import run_worker

    folder = find_job(job)

    async def work() -> int:
        summary = await run_worker(folder, shards=shards or None, wait=not no_wait)
        if as_json:
            click.echo(json.dumps(summary.to_json()))
        else:
            said = summary.to_json()
            click.echo(", ".join(f"{name} {value}" for name, value in said.items()))
        return 0

    return anyio.run(work)
