"""The options that make a job, and how a command finds one."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from glimmer_store.jobs.spec import JobError, JobSpec, JobType, Retry, Select, Strength, Warm, seconds

__all__ = [
    "find_job",
    "job_option",
    "made_job",
    "making_options",
    "place_option",
    "show_control",
]

if TYPE_CHECKING:
    from glimmer_store.jobs.control import Control
    from glimmer_store.jobs.ledger import Ledger

F = TypeVar("F", bound=Callable[..., Any])  # Any: a click command

_OPTIONS = (
    click.option("--to", "dests", multiple=True, metavar="NAME", help="Destination: a git remote, or uuid:UUID."),
    click.option(
        "--from",
        "sources",
        multiple=True,
        metavar="NAME",
        help="Source (default: every other). drain: what is emptied.",
    ),
    click.option("--type", "type_", type=click.Choice(get_args(JobType)), default="backfill", show_default=True),
    click.option("--class", "storage_class", default="", help="Only objects of this storage class."),
    click.option("--node", "nodes", multiple=True, metavar="ID", help="Only objects of this Glimmer node."),
    click.option("--not-only-wanted", "unwanted", is_flag=True, help="Also what the destination does not want."),
    click.option(
        "--older-than",
        "max_age",
        default="0",
        metavar="AGE",
        help="verify, repair: not proven since (90d). drain: proofs that old do not count (default: by class).",
    ),
    click.option("--verify", "strength", type=click.Choice(get_args(Strength)), default="reread", show_default=True),
    click.option("--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Such as bandwidth=200MB/s."),
    click.option("--warm", "warm", multiple=True, metavar="NAME=VALUE", help="Cold sources: such as max-cost=50."),
    click.option("--tries", type=click.IntRange(1), default=5, show_default=True, help="Before a task fails."),
    click.option("--retry-after", default="30s", show_default=True, help="First pause before a try; doubles."),
    click.option("--heartbeat", default="6s", help="Sign of life of a worker; after five without one it is lost."),
    click.option("--callback", default="", metavar="URL", help="Told by a POST when the job ends."),
    click.option("-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset."),
)


def making_options(function: F) -> F:
    """The options of a command that makes a job; ``made_job`` takes what they yield."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def job_option(function: F) -> F:
    """``--job DIR``."""
    return click.option("--job", "job", type=click.Path(file_okay=False), help="Folder of the job, or its id.")(
        function
    )


def place_option(function: F) -> F:
    """``--at NAME``, as often as wanted."""
    return click.option("--at", "places", multiple=True, metavar="NAME", help="Only this source or destination.")(
        function
    )


def show_control(ledger: Ledger, control: Control, *, as_json: bool) -> None:
    """Show what holds for a job now."""
    from glimmer_store.jobs.figures_text import told_limits

    limits = ledger.spec.planned_limits.changed(control.limits).to_json()
    told = {"job": ledger.spec.id, "paused": control.paused, "cancelled": control.cancelled, "reason": control.reason}
    told |= {"held": dict(control.held), "limits": limits}
    if as_json:
        click.echo(json.dumps(told))
        return
    state = "cancelled" if control.cancelled else "paused" if control.paused else "may run"
    click.echo(f"{ledger.spec.id}: {state}" + (f" ({control.reason})" if control.reason else ""))
    names = {str(place.uuid): place.name for place in (*ledger.spec.sources, *ledger.spec.dests)}
    for uuid, why in control.held.items():
        click.echo(f"  held: {names.get(uuid, uuid)}: {why}")
    for name, value in told_limits(limits, lambda uuid: names.get(uuid, uuid)).items():
        click.echo(f"  limit: {name} = {value}")


# Any: what click read
async def made_job(given: dict[str, Any]) -> JobSpec:
    """The job that the options describe.

    Raises:
        JobError: A name is not known.
        AnnexError: A repository that is named for the first time cannot be reached.
        UsageError: An option is malformed.
    """
    try:
        max_age, base, heartbeat = (seconds(given[name]) for name in ("max_age", "retry_after", "heartbeat"))
        limits = dict(one.split("=", 1) for one in given["limits"])
        warm = _warm(given["warm"])
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    dataset, dests, sources = Path(given["dataset"]), given["dests"], given["sources"]
    if given["type_"] == "drain":
        if dests or len(sources) != 1:
            raise click.UsageError("--type drain empties one repository: name it with --from, and none with --to.")
        dests, sources = sources, ()
    from glimmer_store.jobs.places import get_to_know
    from glimmer_store.jobs.plan import new_job

    callback = given["callback"]
    if callback:
        from glimmer_store.jobs.callback import check_url  # HTTP takes time to import

        callback = check_url(callback)
    await get_to_know(dataset, [*dests, *sources])
    return new_job(
        dataset,
        given["type_"],
        dests,
        sources=sources,
        select=Select(given["storage_class"], given["nodes"], not given["unwanted"], max_age),
        verify=given["strength"],
        limits=limits,
        retry=Retry(given["tries"], base),
        warm=warm,
        heartbeat=heartbeat,
        callback=callback,
    )


def find_job(job: str | None, dataset: str = ".") -> Path:
    """The folder of a job: as named, or of the dataset; without a name the newest.

    Raises:
        JobError: There is none.
    """
    if job is not None and (Path(job) / "job.toml").exists():
        return Path(job)
    from glimmer_store.jobs.plan import jobs_folder

    folder = jobs_folder(Path(dataset))
    if job is not None:
        if "/" not in job and (folder / job / "job.toml").exists():
            return folder / job
        raise JobError(f"{job}: no job", remedy=f"name a folder, or an id in {folder}")
    found = sorted(folder.glob("*/job.toml"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise JobError(f"{folder}: no job", remedy="plan one: glimmer-store backfill plan --to NAME --freeze")
    return found[-1].parent


def _warm(words: Sequence[str]) -> Warm:
    """``NAME=VALUE`` each. Raises ValueError."""
    kinds: dict[str, type[str] | type[int] | type[float]] = {"tier": str, "days": int, "ahead": str, "max-cost": float}
    given = dict(word.split("=", 1) for word in words)
    if unknown := set(given) - set(kinds):
        raise ValueError(f"--warm {', '.join(unknown)}: what there is: {', '.join(kinds)}")
    return Warm(**{name.replace("-", "_"): kinds[name](value) for name, value in given.items()})  # type: ignore[arg-type]
