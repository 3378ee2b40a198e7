"""``glimmer-store manifest``: archive what a manifest declares, and restore it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glimmer_store.cli.options import dataset_option, entries_json_option, manifest_option
from glimmer_store.policy import StorageClass

if TYPE_CHECKING:
    from glimmer_store.manifest.archiving import ArchivedEntry

__all__ = ["command"]


@click.group("manifest")
def command() -> None:
    """Make what a datamanifest.toml declares durable, and bring it back."""


@command.command("archive")
@click.argument("names", nargs=-1)
@manifest_option
@click.option("--cached", is_flag=True, help="Also what cached functions produced.")
@click.option("--to", multiple=True, metavar="NAME", help="Store it there only; default: all durable remotes.")
@click.option("--class", "storage_class", type=click.Choice([c.value for c in StorageClass]))
@click.option("--numcopies", type=click.IntRange(min=1), help="Copies that are needed now, if not those of the class.")
@click.option("--annotate", is_flag=True, help="Write the keys into the manifest, as tables [NAME._GLIMMER].")
@click.option("--allow-volatile", is_flag=True, help="Archive from temporary folders as well.")
@click.option("--dry-run", is_flag=True, help="Only say what would be archived.")
@entries_json_option
@dataset_option
def archive(
    names: tuple[str, ...],
    manifest: str | None,
    cached: bool,
    to: tuple[str, ...],
    storage_class: str | None,
    numcopies: int | None,
    annotate: bool,
    allow_volatile: bool,
    dry_run: bool,
    as_json: bool,
    dataset: str,
) -> int:
    """Store the datasets NAMES, or all that are here, on the durable remotes; prove every copy.

    With --to only those named get something; what the others had before counts too, once it is proven. What differs
    from its declared checksum is refused. The user's own files are read and never touched. Exit code 1 when something
    failed, 3 when something has too few copies.
    """
    import anyio

    from glimmer_store.cli.app import complain
    from glimmer_store.graph import GlimmerGraph
    from glimmer_store.manifest.annotating import annotate_manifest
    from glimmer_store.manifest.archiving import archive_manifest, chosen, worst
    from glimmer_store.manifest.library import Project, find_manifest

    root = Path(dataset).resolve()
    project = Project(Path(manifest) if manifest else find_manifest(root))
    entries = chosen(project, names, cached=cached)
    if dry_run:
        for one in entries:
            why = "is opened where it is" if one.lazy else "archive" if one.present else "is not here"
            click.echo(f"{one.address}: {why}")
        return 0

    async def run() -> int:
        done: list[ArchivedEntry] = []
        async with GlimmerGraph.open(root, numcopies=numcopies, to=to) as graph:
            wanted = StorageClass(storage_class) if storage_class else None
            async for one in archive_manifest(
                graph, project, entries, storage_class=wanted, allow_volatile=allow_volatile
            ):
                done.append(one)
                click.echo(json.dumps(one.to_json()) if as_json else _told(one))
                if one.error is not None:
                    complain(one.error)
            if annotate:
                await annotate_manifest(graph, project, [(o.declared, o.record, o.node) for o in done])
        if not any(one.status != "skipped" for one in done):
            click.echo("nothing to archive", err=True)
        return worst(done)

    return anyio.run(run)


def _told(one: ArchivedEntry) -> str:
    if one.node is None or one.node.record is None:
        return f"{one.status} {one.declared.name}: {one.reason}"
    places = ", ".join(place.remote for place in one.node.stored_at)
    needed = one.node.numcopies_required
    return f"archived {one.declared.name}: {one.node.copies} copies proven, {needed} needed ({places})"


@command.command("restore")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--from", "remote", required=True, metavar="REMOTE", help="The one repository to restore from.")
@click.option("--commit", default="", metavar="C", help="As the project was then; default: as it is now.")
@click.option("--outside", is_flag=True, help="Also write outside of the project, where the manifest says so.")
@click.option("--replace", is_flag=True, help="Replace what is there and is something else.")
@entries_json_option
def restore(folder: str, remote: str, commit: str, outside: bool, replace: bool, as_json: bool) -> int:
    """Make FOLDER the project again, from one repository alone: no source URL is asked.

    Contents go where the manifest says on this machine, each verified as it comes and measured where it lies. A
    FOLDER that was restored before is completed. Exit code 1 when something could not be restored.
    """
    import anyio

    from glimmer_store.manifest.restoring import clone, restore

    root = Path(folder).resolve()
    if not (root / ".git").exists():
        clone(remote, root, commit=commit)

    async def run() -> int:
        failed = 0
        async for one in restore(root, remote, outside=outside, replace=replace):
            failed |= one.status == "failed"
            if as_json:
                click.echo(json.dumps(one.to_json()))
            else:
                click.echo(f"{one.status} {one.address}: {one.reason or one.path}")
        return int(failed)

    return anyio.run(run)


@command.command("verify")
@click.argument("names", nargs=-1)
@manifest_option
@click.option("--all", "every", is_flag=True, help="Whether it is due or not.")
@click.option("--repair", is_flag=True, help="Replace copies that are bad or missing from a good one.")
@entries_json_option
@dataset_option
def verify(names: tuple[str, ...], manifest: str | None, every: bool, repair: bool, as_json: bool, dataset: str) -> int:
    """Read the copies of NAMES, or of all, again where that is due, at every durable remote.

    Due is what has a copy without a good proof, what was proven more than 90 days ago (a year for what can be
    generated), and one in a hundred of the rest by lot, others each day. Exit code 3 when something has too few good
    copies.
    """
    import anyio

    from glimmer_store.cli.app import UNDER_REPLICATED
    from glimmer_store.graph import GlimmerGraph
    from glimmer_store.manifest.inspecting import Inspection
    from glimmer_store.manifest.library import Project, find_manifest
    from glimmer_store.verify import verify

    root = Path(dataset).resolve()
    project = Project(Path(manifest) if manifest else find_manifest(root))

    async def run() -> int:
        worst = 0
        async with GlimmerGraph.open(root) as graph:
            inspection = Inspection(graph, project)
            due = [row for row in inspection.rows(names) if row.node and (every or inspection.due(row))]
            nodes = {row.node: row for row in due}
            async for one in verify(graph, [graph.node(name) for name in nodes], repair=repair):
                found = ", ".join(f"{name} {said}" for name, said in one.found.items())
                name = nodes[one.node.id].declared.name
                click.echo(json.dumps({"name": name, **one.to_json()}) if as_json else f"{name}: {found}")
                worst = worst if one.enough else UNDER_REPLICATED
        if not due:
            click.echo("nothing is due", err=True)
        return worst

    return anyio.run(run)
