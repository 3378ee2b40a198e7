"""``glimmer-store hook``: the pre-push hook of a dataset."""

from __future__ import annotations

from pathlib import Path

import click

from glimmer_store.errors import shell_line

__all__ = ["command"]

_DATASET = click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)


@click.group("hook")
def command() -> None:
    """Install the hook that stops a push while an irreplaceable output has too few copies."""


@command.command("install")
@_DATASET
def install(dataset: str) -> int:
    """Install it where git looks for hooks, and write the script that belongs into the dataset.

    A hook that is there already is kept, and asked first. core.hooksPath is honoured.
    """
    from glimmer_store.hook import COMMITTED
    from glimmer_store.hook import install as put

    done = put(Path(dataset))
    click.echo(f"installed {done.path}")
    if done.kept is not None:
        click.echo(f"  asks {done.kept} first, the hook that was there before")
    click.echo(f"  commit {COMMITTED}, so that every clone can install it")
    return 0


@command.command("status")
@_DATASET
def status(dataset: str) -> int:
    """Tell whether it is installed. Exit code 1 when it is not, or is not the one of this version."""
    from glimmer_store.hook import COMMITTED, installed

    found = installed(Path(dataset))
    click.echo(f"{found.path}: {'installed' if found.active else 'not installed'}")
    click.echo(f"{COMMITTED}: {'the same' if found.committed else 'missing or different'}")
    if not (found.active and found.committed):
        click.echo(f"  remedy: {shell_line('glimmer-store', 'hook', 'install', '-C', Path(dataset).resolve())}")
        return 1
    return 0


@command.command("uninstall")
@_DATASET
def uninstall(dataset: str) -> int:
    """Take it away, and put back the one that was there before."""
    from glimmer_store.hook import uninstall as take_away

    take_away(Path(dataset))
    return 0
