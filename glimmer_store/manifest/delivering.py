"""Bring what is stored back to a place: every content verified while it comes, the whole measured again in the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from anyio import from_thread, to_thread

import annexpy as annex
from glimmer_store.errors import HashMismatch
from glimmer_store.fetching import get_good
from glimmer_store.manifest.bundle import Bundle
from glimmer_store.manifest.digest import Measured, changed, measure
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.library import Declared, Project
from glimmer_store.manifest.observing import Observations
from glimmer_store.tree import Tree

__all__ = ["deliver", "fill"]


async def fill(sources: Sequence[annex.Remote], key: annex.Key, tree: Tree | None, target: Path) -> None:
    """Write the content of *key*, or the folder *tree*, to *target*, which is not there yet.

    Raises:
        AnnexError: No source has a good copy of some content.
    """
    if tree is None:
        await get_good(sources, key, target)
        return
    first: dict[annex.Key, Path] = {}
    for entry in tree.entries:
        whole = _room(target, entry.path, folder=entry.kind == "d")
        if entry.key is None:
            continue
        if entry.key in first:
            await to_thread.run_sync(shutil.copyfile, first[entry.key], whole)
        else:
            await get_good(sources, entry.key, whole)
        first.setdefault(entry.key, whole)
        _set_executable(whole, entry.kind == "x")
    for entry in tree.entries:  # last: nothing is written through a link
        if entry.kind == "l":
            os.symlink(entry.target, os.path.join(os.fsencode(target), entry.path))


def _where(stored: Tree | None, there: Tree | None) -> str:
    """At which paths two folders differ, in few words."""
    if stored is None or there is None:
        return ""
    paths = [os.fsdecode(path) for path in changed(stored, there)]
    return f" (they differ in {', '.join(paths[:3])}{f' and {len(paths) - 3} more' if len(paths) > 3 else ''})"


def _room(top: Path, path: bytes, *, folder: bool) -> Path:
    """The place of *path* below *top*, with the folders that it needs."""
    whole = Path(os.fsdecode(os.path.join(os.fsencode(top), path)))
    (whole if folder else whole.parent).mkdir(parents=True, exist_ok=True)
    return whole


def _set_executable(path: Path, executable: bool) -> None:
    mode = path.stat().st_mode
    path.chmod(mode | 0o100 if executable else mode & ~0o111)


async def deliver(
    project: Project,
    declared: Declared,
    record: Bundle,
    tree: Tree | None,
    sources: Sequence[annex.Remote],
    *,
    register: bool = True,
    replace: bool = False,
) -> Measured:
    """Put a stored content where *declared* belongs on this machine, and read it there again.

    What is there already and is the same counts. The state gets the digest that was measured, never the expected one.

    Args:
        project, declared: Where it belongs.
        record, tree: What is stored.
        sources: Where it may be had.
        register: Write it into the project's state.
        replace: Replace what is there and is something else.

    Raises:
        ManifestError: Something else is there.
        HashMismatch: What was published is not what is stored.
        AnnexError: No source has a good copy.
    """
    observations = Observations(project.root)
    target, same = declared.target, False
    if target.exists():
        there = await measure(target, project.root)
        same = there.digest == record.digest
        if not same:
            observations.note(target, there.digest)
            if not replace or not declared.managed:
                own = "" if declared.managed else ", and is your own file"
                raise ManifestError(
                    f"{target}: is {there.digest}, stored is {record.digest}{_where(tree, there.tree)}{own}",
                    remedy="move it away, or replace it with --replace",
                )
    if not same:
        key = annex.Key.parse(record.key)

        def write(aside: Path) -> None:
            from_thread.run(fill, sources, key, tree, aside)

        await to_thread.run_sync(lambda: project.publish(target, write, replace=replace))
    measured = await observations.measure(target)
    if measured.digest != record.digest:
        raise HashMismatch(f"{target}: arrived as {measured.digest}, stored is {record.digest}",
                           remedy="run the same again with --replace")  # fmt: skip
    if declared.managed:
        project.mark(target)  # what was here before may have lacked that, and is whole as we know now
    if register:
        digest = project.concatenated(target) if measured.tree is not None else measured.digest.partition(":")[2]
        project.record(declared, target, digest)
    return measured
