"""``glimmer-store view``: folders of links to stored contents, for datamanifest's read pools."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glimmer_store.cli.options import dataset_option

if TYPE_CHECKING:
    from glimmer_store.manifest.viewing import Link, View

__all__ = ["command"]


@click.group("view")
def command() -> None:
    """Show stored contents in a folder, without storing them again."""


@command.command("create")
@click.argument("folder", type=click.Path(file_okay=False))
@click.argument("names", nargs=-1)
@click.option("--manifest", type=click.Path(exists=True, dir_okay=False), help="Default: the dataset's.")
@click.option("--scope", default="", metavar="NAME", help="What the view is for; default: the name of the folder.")
@click.option("--cached", is_flag=True, help="Also what cached functions produced.")
@click.option("--link", type=click.Choice(["symlink", "reflink", "hardlink", "copy"]), help="Default: what works.")
@dataset_option
def create(
    folder: str, names: tuple[str, ...], manifest: str | None, scope: str, cached: bool, link: Link | None, dataset: str
) -> int:
    """Make FOLDER a view of the datasets NAMES, or of all.

    What is not on this machine is said, and can be had with `view fill`. To read from the view, let the manifest, or
    ~/.config/datamanifest/config.toml, say: datasets_pools = ["FOLDER"].
    """
    from glimmer_store.manifest.viewing import View

    root = Path(dataset).resolve()
    view = View.create(Path(folder), root, scope)
    return _filled(view, manifest, names, cached=cached, link=link, fetch=False)


@command.command("fill")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
@click.argument("names", nargs=-1)
@click.option("--manifest", type=click.Path(exists=True, dir_okay=False), help="Default: the dataset's.")
@click.option("--cached", is_flag=True, help="Also what cached functions produced.")
def fill(folder: str, names: tuple[str, ...], manifest: str | None, cached: bool) -> int:
    """Fetch what the view FOLDER lacks into the dataset's repository, and show it."""
    from glimmer_store.manifest.viewing import View

    return _filled(View.open(Path(folder)), manifest, names, cached=cached, link=None, fetch=True)


@command.command("show")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
def show(folder: str) -> None:
    """Tell what is in the view FOLDER, in bytes that can be read and in bytes that only it shows."""
    from annexpy import Repository
    from glimmer_store.manifest.viewing import View

    view = View.open(Path(folder))
    with Repository.open(view.dataset) as repository:
        every = list(View.registered(Path(os.fsdecode(repository.git_dir))))
    click.echo(json.dumps(view.to_json([one for one in every if one.folder != view.folder])))


@command.command("delete")
@click.argument("folder", type=click.Path(exists=True, file_okay=False))
def delete(folder: str) -> None:
    """Remove the view FOLDER: links only, the contents stay."""
    from glimmer_store.manifest.viewing import View

    View.open(Path(folder)).delete()


def _filled(
    view: View, manifest: str | None, names: Sequence[str], *, cached: bool, link: Link | None, fetch: bool
) -> int:
    import anyio

    from glimmer_store.archive import Archive
    from glimmer_store.manifest.filling import fill_view
    from glimmer_store.manifest.library import Project, find_manifest

    project = Project(Path(manifest) if manifest else find_manifest(view.dataset))

    async def run() -> int:
        failed = False
        async with Archive.open(view.dataset) as archive:
            async for one in fill_view(archive, project, view, names, cached=cached, link=link, fetch=fetch):
                failed |= one.failed
                said = "failed" if one.failed else one.link or "skipped"
                click.echo(f"{said} {one.declared.name}: {one.reason or view.folder / one.declared.place}")
        return int(failed)

    return anyio.run(run)
