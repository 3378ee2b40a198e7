"""Fill views: which contents they are to show, and where those come from."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

import annexpy as annex
from glimmer_store.archive import Archive
from glimmer_store.manifest.archiving import chosen
from glimmer_store.manifest.bundle import WorkTree
from glimmer_store.manifest.library import Declared, Project
from glimmer_store.manifest.local_contents import Objects, sources_of
from glimmer_store.manifest.viewing import Link, View

__all__ = ["Shown", "fill_view"]


@dataclass(frozen=True, slots=True)
class Shown:
    """What became of one address.

    Attributes:
        declared: Which.
        link: How it is shown; None when it is not.
        reason: Why not.
        failed: It should have been.
    """

    declared: Declared
    link: Link | None = None
    reason: str = ""
    failed: bool = False


async def fill_view(
    archive: Archive,
    project: Project,
    view: View,
    names: Collection[str] = (),
    *,
    cached: bool = False,
    link: Link | None = None,
    fetch: bool = False,
) -> AsyncIterator[Shown]:
    """Show what is stored of the datasets *names*, or of all, in *view*.

    Args:
        archive: Of the dataset.
        project: Its manifest.
        view: Where.
        names: As people name datasets and artefacts.
        cached: Also every stored artefact.
        link: How; by default whatever can be made first.
        fetch: Bring what is not on this machine into the dataset's own repository.

    Raises:
        ManifestError: A name means nothing, or more than one thing.
    """
    records = WorkTree(archive.root)
    entries = {one.address: one for one in chosen(project, names, cached=False)}
    if cached:
        produced = dict.fromkeys(record.address for record in records.all() if record.kind == "datacache")
        entries |= {address: one for address in produced if (one := project.named(address)) is not None}
    with Objects.of(archive) as objects:
        for declared in entries.values():
            record = records.current(declared.address, declared.expected)
            if declared.lazy or record is None:
                yield Shown(declared, reason="is opened where it is" if declared.lazy else "was never archived")
                continue
            try:
                tree = records.tree(record)
                keys = [annex.Key.parse(record.key)] if tree is None else tree.keys
                if fetch:
                    await _fetch(archive, [key for key in keys if objects.find(key) is None])
                if declared.kind == "artefact":  # no tool will ever compare these with anything
                    for key in keys:
                        await to_thread.run_sync(objects.check, key)
                yield Shown(declared, view.add(record, declared.place, tree, objects, link=link))
            except annex.AnnexError as error:
                yield Shown(declared, reason=str(error), failed=True)
    view.register(Path(os.fsdecode(archive.repository.git_dir)))


async def _fetch(archive: Archive, keys: Sequence[annex.Key]) -> None:
    if not keys:
        return
    async with annex.connect(str(archive.root)) as here:
        for key in keys:
            await annex.get(sources_of(archive), key, here)
    await archive.repository.branch.commit()
