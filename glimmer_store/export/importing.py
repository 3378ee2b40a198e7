"""A bag into a dataset: its payload is copied, compared with its manifests once more, and stored like any output.

A bag that this package made brings its nodes along, and they are put back where they were. Nothing that is in the
dataset already is written over, and nothing is written outside of it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyio import to_thread

from glimmer_store.config import CONFIG_NAME
from glimmer_store.entry import write_whole
from glimmer_store.errors import StoreError
from glimmer_store.export.bag import Bag, digests_of, read_bag
from glimmer_store.export.bagit import NODES_FILE
from glimmer_store.export.payload import Limits
from glimmer_store.export.scope import out_of_scope
from glimmer_store.graph import GlimmerGraph, GlimmerNode
from glimmer_store.policy import StorageClass
from glimmer_store.strict_json import parse_json

__all__ = ["BagRefused", "Incoming", "import_bag", "plan_import"]

_PIECE = 1 << 20


class BagRefused(StoreError):
    """The bag is not valid, not complete, or would write where it may not."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One file of a bag and where it goes.

    Attributes:
        source: From the top of the bag.
        target: From the top of the dataset.
        digests: Algorithm → hex digest, as the manifests say.
        node: The node file that the bag has for it, from the top of the dataset; None when it gets a new node.
        node_source: That file, from the top of the bag.
    """

    source: str
    target: Path
    digests: Mapping[str, str]
    node: Path | None = None
    node_source: str = ""


def plan_import(bag: Bag, graph: str, to: str | None) -> list[Incoming]:
    """Where everything in *bag* goes.

    Args:
        bag: As it was read.
        graph: Folder of the node files in the dataset.
        to: Folder for the payload, and new nodes for it; None to put it back where it was, with its nodes, if the
            bag says so, and else into a folder named like the bag.

    Raises:
        BagRefused: It is not valid or not complete, or a file would go where it may not.
    """
    if bag.errors:
        raise BagRefused(f"{bag.folder}: {bag.errors[0]}" + _more(bag.errors), remedy="ask for the bag again")
    if bag.missing:
        raise BagRefused(
            f"{bag.folder}: {bag.missing[0]} is still to be fetched" + _more(bag.missing),
            remedy="fetch what fetch.txt names into the bag, then run the same command again",
        )
    nodes = _nodes(bag, graph) if to is None else {}
    folder = Path(to) if to is not None else Path(bag.folder.resolve().name)
    plan = []
    for source, digests in sorted(bag.payload.items()):
        if not (bag.folder / source).is_file():
            continue  # of two names that differ in case only, and of files of the system: noted as a warning
        inner, node = source.removeprefix("data/"), nodes.get(source)
        if nodes and node is None:
            raise BagRefused(f"{bag.folder}: {source} belongs to no node", remedy="import it with --to FOLDER")
        target = Path(inner) if node is not None else folder / inner
        _check_target(bag, target, graph)
        file = Path(node.removeprefix("glimmer/nodes/")) if node is not None else None
        plan.append(Incoming(source, target, digests, file, node or ""))
    return plan


def _more(found: list[str]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""


def _nodes(bag: Bag, graph: str) -> dict[str, str]:
    """Payload path → node file in the bag; empty when the bag was not made here."""
    if NODES_FILE not in bag.tags:
        return {}
    try:
        table = parse_json((bag.folder / NODES_FILE).read_bytes())
        found = {str(entry["path"]): str(entry["node"]) for entry in table}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise BagRefused(f"{bag.folder}: {NODES_FILE}: {error}", remedy="import it with --to FOLDER") from error
    for node in found.values():
        if out_of_scope(node) or not node.startswith(f"glimmer/nodes/{graph}/") or not node.endswith(".md"):
            raise BagRefused(f"{node}: is no node file of the graph {graph}", remedy="import it with --to FOLDER")
        if node not in bag.tags:
            raise BagRefused(f"{node}: no tag manifest lists it", remedy="import it with --to FOLDER")
    return found


def _check_target(bag: Bag, target: Path, graph: str) -> None:
    text = target.as_posix()
    why = out_of_scope(text)
    if not why and (target.parts[0].startswith(".") or any(part.lower() == ".git" for part in target.parts)):
        why = "would be hidden, or git's own"
    if not why and (text == CONFIG_NAME or target.is_relative_to(graph)):
        why = "belongs to the set-up of the dataset"
    if why:
        raise BagRefused(f"{bag.folder}: {text} {why}", remedy="import it with --to FOLDER")


async def import_bag(
    graph: GlimmerGraph,
    folder: Path,
    *,
    to: str | None = None,
    type_: str = "dataset",
    storage_class: StorageClass | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[GlimmerNode]:
    """Copy the payload of the bag in *folder* into the dataset and store it; the nodes, one after the other.

    A second run completes what the first one left: files that are there and are right are kept.

    Args:
        graph: The dataset's.
        folder: The bag.
        to: See ``plan_import``.
        type_, storage_class: Of new nodes; the class of the node's type is the default.
        limits: What it may take.

    Raises:
        BagRefused: See ``plan_import``; or a file of the dataset is in the way.
        OverLimit: Before anything is written.
        StoreError: As ``GlimmerGraph.dataset``.
    """
    bag = await to_thread.run_sync(read_bag, folder)
    plan = plan_import(bag, graph.archive.config.graph, to)
    size = sum((bag.folder / entry.source).stat().st_size for entry in plan)
    (limits or Limits()).check(size, graph.root)
    for entry in plan:
        await to_thread.run_sync(_copy, bag, entry, graph.root)
    for node in {entry.node: entry for entry in plan if entry.node is not None}.values():
        yield await graph.emit(await to_thread.run_sync(_restore, bag, node, graph.root))
    chosen: dict[str, Any] = {} if storage_class is None else {"storage_class": storage_class}
    make = graph.derivative if type_ == "derivative" else graph.dataset
    ids = _ids([entry for entry in plan if entry.node is None], type_)
    for entry, id_ in ids:
        yield await make(graph.root / entry.target, id=id_, name=entry.target.name, **chosen)


def _ids(plan: list[Incoming], type_: str) -> Iterator[tuple[Incoming, str]]:
    """An id for each, from its whole path: files in different folders may have one name."""
    taken: set[str] = set()
    for entry in plan:
        slug = re.sub(r"[^A-Za-z0-9]+", "-", entry.target.as_posix()).strip("-") or "file"
        digest = hashlib.sha256(os.fsencode(entry.target)).hexdigest()[:8]
        id_ = f"{type_}-{slug}" if slug not in taken else f"{type_}-{slug}-{digest}"
        taken.add(slug)
        yield entry, id_


def _copy(bag: Bag, entry: Incoming, root: Path) -> None:
    """Copy one file, and compare what was copied with the manifests."""
    target = root / entry.target
    _make_folder(root, target.parent)
    if target.is_symlink() or target.exists():
        if target.is_symlink() or digests_of(target, entry.digests) != entry.digests:
            raise BagRefused(f"{entry.target}: something else is there already",
                             remedy="move it away, or import with --to FOLDER")  # fmt: skip
        return
    hashers = {name: hashlib.new(name, usedforsecurity=False) for name in entry.digests}
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    source = os.open(bag.folder / entry.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with os.fdopen(source, "rb", buffering=0) as reading, aside.open("xb") as writing:
            while piece := reading.read(_PIECE):
                writing.write(piece)
                for hasher in hashers.values():
                    hasher.update(piece)
            writing.flush()
            os.fsync(writing.fileno())
        if {name: hasher.hexdigest() for name, hasher in hashers.items()} != entry.digests:
            raise BagRefused(f"{entry.source}: changed while it was copied", remedy="run the same command again")
        os.link(aside, target)  # never over what somebody else put there meanwhile
    finally:
        aside.unlink(missing_ok=True)


def _make_folder(root: Path, folder: Path) -> None:
    """Make *folder*, unless a link on the way leads out of the dataset: then nothing is made."""
    there = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
    if not there.resolve().is_relative_to(root.resolve()) or not there.is_dir():
        raise BagRefused(f"{there}: is no folder of the dataset", remedy="import with --to FOLDER")
    folder.mkdir(parents=True, exist_ok=True)


def _restore(bag: Bag, entry: Incoming, root: Path) -> Path:
    """Put a node file back where it was, unless one is there."""
    assert entry.node is not None
    target = root / entry.node
    _make_folder(root, target.parent)
    if not target.exists():
        write_whole(target, (bag.folder / entry.node_source).read_bytes())
    return target
