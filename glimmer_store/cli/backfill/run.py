"""``glimmer-store backfill run``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from glimmer_store.cli.backfill.launching import launcher_of, launching_options, script_of
from glimmer_store.cli.backfill.options import find_job, job_option, made_job, making_options

__all__ = ["command"]


@click.command("run")
@making_options
@job_option
@launching_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object in the end.")
def command(job: str | None, as_json: bool, **given: Any) -> int:  # Any: what click read
    """Plan a job, or go on with one, and work on it from here until nothing is left to be done.

    With --to (to empty a repository: --type drain --from) a job is planned, in the folder that --job names or among
    those of the dataset; without it the one that --job names, or the newest, goes on where it was.
    """
    import anyio

    from glimmer_store.jobs.plan import job_folder, plan
    from glimmer_store.jobs.run import run_job
    from glimmer_store.jobs.states import JobState

    launcher = launcher_of(given)

    async def work() -> int:
        if (given["dests"] or given["type_"] == "drain") and not (job and (Path(job) / "job.toml").exists()):
            spec = await made_job(given)
            folder = Path(job) if job else job_folder(spec)
            await plan(spec, folder)
        else:
            folder = find_job(job, given["dataset"])
        if given["script_only"]:
            click.echo(script_of(folder, given), nl=False)
            return 0
        ran = await run_job(folder, workers=given["workers"], launcher=launcher)
        if as_json:
            click.echo(json.dumps(ran.to_json()))
        else:
            states = ", ".join(f"{number} {state}" for state, number in sorted(ran.states.items()))
            word = "left" if ran.drains else "missing"
            click.echo(f"{ran.job}: {ran.state}: {states or 'nothing to do'}; {word}: {ran.missing}")
            for uuid, why in ran.held.items():
                click.echo(f"  held: {uuid}: {why}")
            for name, why in ran.registered.behind.items():
                click.echo(f"  {name} does not have the history: {why}")
        return 0 if ran.state is JobState.SUCCEEDED else 1

    return anyio.run(work)
