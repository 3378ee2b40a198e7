"""The options that say where workers run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from glimmer_store.jobs.launch.base import Launcher

__all__ = ["launcher_of", "launching_options", "script_of"]

F = TypeVar("F", bound=Callable[..., Any])  # Any: a click command

_OPTIONS = (
    click.option(
        "--launch",
        type=click.Choice(("local", "dask", "slurm")),
        default="local",
        show_default=True,
        help="Where workers run: processes here, a Dask cluster, or a Slurm job array.",
    ),
    click.option(
        "--workers", type=click.IntRange(1), help="Processes here, or at most so many tasks of the array at once."
    ),
    click.option(
        "--scheduler", default="", metavar="ADDRESS", help="Dask: tcp://HOST:PORT or file:PATH (default: one here)."
    ),
    click.option("--sbatch", "options", multiple=True, metavar="OPTION", help="Slurm: such as --time=12:00:00."),
    click.option("--max-array", type=click.IntRange(1), help="Slurm: tasks of an array (default: what Slurm says)."),
    click.option("--script-only", is_flag=True, help="Slurm: write and print the script, and do not hand it in."),
)


def launching_options(function: F) -> F:
    """The options; ``launcher_of`` takes what they yield."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


# Any: what click read
def launcher_of(given: dict[str, Any]) -> Launcher | None:
    """The launcher that was asked for; None for processes here, as many as the job says or ``--workers``.

    Raises:
        UsageError: Options that do not go together.
    """
    kind = given["launch"]
    if given["scheduler"] and kind != "dask":
        raise click.UsageError("--scheduler goes with --launch dask")
    if kind != "slurm" and (given["options"] or given["max_array"] or given["script_only"]):
        raise click.UsageError("--sbatch, --max-array and --script-only go with --launch slurm")
    match kind:
        case "dask":
            from glimmer_store.jobs.launch.dask import DaskLauncher

            return DaskLauncher(given["scheduler"], workers=given["workers"] or 2)
        case "slurm":
            from glimmer_store.jobs.launch.slurm import SlurmLauncher

            return SlurmLauncher(given["workers"] or 0, tuple(given["options"]), given["max_array"] or 0)
        case _:
            return None


# Any: what click read
def script_of(folder: Path, given: dict[str, Any]) -> str:
    """The script of an array over what is left of a job, and where it was written."""
    from glimmer_store.jobs.launch.base import open_shards
    from glimmer_store.jobs.launch.slurm import SlurmLauncher
    from glimmer_store.jobs.ledger import Ledger

    launcher = SlurmLauncher(given["workers"] or 0, tuple(given["options"]), given["max_array"] or 0)
    return launcher.prepare(folder.resolve(), open_shards(Ledger.open(folder))).read_text()
