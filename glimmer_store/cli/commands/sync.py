"""``glimmer-store sync push|pull``: datasets and artefacts through annex remotes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glimmer_store.cli.app import UNDER_REPLICATED
from glimmer_store.cli.options import dataset_option, entries_json_option, manifest_option

if TYPE_CHECKING:
    from glimmer_store.manifest.syncing import Moved, Strength

__all__ = ["command"]


@click.group("sync")
def command() -> None:
    """Move datasets and cached results between machines, through repositories that are bare or not."""


@command.command("push")
@click.argument("ids", nargs=-1, required=True)
@click.option("--to", "remote", metavar="REMOTE", help="A git remote; default: the durable ones.")
@click.option("--copies", type=click.IntRange(min=1), help="How many of the durable remotes; default: all.")
@click.option("--verify", "strength", type=click.Choice(["stream", "reread"]), default="reread", show_default=True)
@click.option("--register/--no-register", default=False, help="Sign the proofs, so that they count here at once.")
@click.option("--dry-run", is_flag=True, help="Only say what would be pushed.")
@entries_json_option
@manifest_option
@dataset_option
def push(
    ids: tuple[str, ...],
    remote: str | None,
    copies: int | None,
    strength: Strength,
    register: bool,
    dry_run: bool,
    as_json: bool,
    manifest: str | None,
    dataset: str,
) -> int:
    """Store the datasets and artefacts IDS on remotes, proven there; what they are made of travels with the history.

    What is here is compared with the manifest first, so a bad copy is not sent. Exit code 3 when a remote did not
    get it.
    """
    import anyio

    from glimmer_store.graph import GlimmerGraph
    from glimmer_store.manifest.archiving import chosen
    from glimmer_store.manifest.library import Project, find_manifest
    from glimmer_store.manifest.syncing import push, targets

    root = Path(dataset).resolve()
    project = Project(Path(manifest) if manifest else find_manifest(root))
    entries = chosen(project, ids, cached=False)

    async def run() -> list[Moved]:
        async with GlimmerGraph.open(root) as graph:
            remotes = targets(graph, remote, copies)
            if dry_run:
                for one in entries:
                    click.echo(f"would push {one.name} to {', '.join(remotes)}")
                return []
            return await push(graph, project, entries, remotes, strength=strength, register=register)

    return _tell(anyio.run(run), as_json, "to")


@command.command("pull")
@click.argument("ids", nargs=-1, required=True)
@click.option("--from", "remote", required=True, metavar="REMOTE", help="A git remote, or an address.")
@click.option("--batch", is_flag=True, help="A prefix may mean several artefacts.")
@click.option("--register/--no-register", default=True, help="Write what arrived into the project's state.")
@click.option("--replace", is_flag=True, help="Replace what is here and is something else.")
@entries_json_option
@manifest_option
@dataset_option
def pull(
    ids: tuple[str, ...],
    remote: str,
    batch: bool,
    register: bool,
    replace: bool,
    as_json: bool,
    manifest: str | None,
    dataset: str,
) -> int:
    """Bring the datasets and artefacts IDS from REMOTE to where they belong here, and measure them there."""
    import anyio

    from glimmer_store.manifest.library import Project, find_manifest
    from glimmer_store.manifest.syncing import pull

    root = Path(dataset).resolve()
    project = Project(Path(manifest) if manifest else find_manifest(root))

    async def run() -> list[Moved]:
        moving = pull(project, root, remote, ids, batch=batch, register=register, overwrite=replace)
        return [one async for one in moving]

    return min(1, _tell(anyio.run(run), as_json, "from"))


def _tell(moved: Sequence[Moved], as_json: bool, word: str) -> int:
    for one in moved:
        if as_json:
            click.echo(json.dumps(one.to_json()))
            continue
        if one.remotes:
            click.echo(f"{one.name} {word} {', '.join(one.remotes)}{f': {one.path}' if one.path else ''} {one.digest}")
        for name, why in one.failed.items():
            click.echo(f"failed {one.name} ({name}): {why}")
        if one.conflict:
            click.echo(f"note: {one.name} has had other contents, which are kept: {', '.join(one.conflict)}", err=True)
    if all(one.ok for one in moved):
        return 0
    return 1 if any(one.record is None for one in moved) else UNDER_REPLICATED
