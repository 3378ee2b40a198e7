"""``glimmer-store init [DIR]``: a dataset with durable remotes."""

from __future__ import annotations

from pathlib import Path

import click

from glimmer_store.config import CONFIG_NAME
from glimmer_store.errors import ConfigError

__all__ = ["command"]


@click.command("init")
@click.argument("dataset", default=".", type=click.Path(file_okay=False))
@click.option(
    "--durable",
    "durable",
    multiple=True,
    metavar="PATH",
    help="A durable repository; made bare when it does not exist. Give three.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def command(dataset: str, durable: tuple[str, ...], yes: bool) -> int:
    """Set DATASET up: a git-annex repository, its durable remotes, and glimmer-store.toml.

    What exists is kept: an existing repository is used as it is, an existing durable repository is
    only registered.
    """
    from glimmer_store.provision import plan, provision

    root = Path(dataset)
    if not durable and not (root / CONFIG_NAME).exists():
        if yes:
            raise ConfigError(
                "no durable repository is named", remedy="add --durable PATH, three times for irreplaceable data"
            )
        answer = click.prompt("Durable repositories (paths, separated by blanks)")
        durable = tuple(answer.split())
    steps = plan(root, durable)
    if not yes:
        for step in steps:
            click.echo(f"will {step}")
        click.confirm("Go on?", default=True, abort=True)
    config = provision(root, durable)
    for place in config.durable:
        click.echo(f"durable  {place.name}  {place.uuid}  {place.url}")
    needed = max(config.numcopies.values())
    if len(config.durable) < needed:
        click.echo(f"note: {len(config.durable)} durable repositories; irreplaceable outputs need {needed}", err=True)
    return 0
