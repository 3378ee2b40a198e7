"""The nodes of a graph as they are in its files: Glimmer's own, and BIDS sidecars with an ``_x-glimmer`` block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import annexpy as annex
from glimmer_store.bids import BLOCK, JsonSidecar, bids_files, read_node
from glimmer_store.enter import INDEX, read_index
from glimmer_store.errors import StoreError
from glimmer_store.record import Location, StorageRecord
from glimmer_store.sidecar import Sidecar

__all__ = [
    "UNREADABLE",
    "GlimmerNode",
    "NodeFile",
    "Unreadable",
    "as_node",
    "beside_of",
    "bids_nodes",
    "is_sidecar",
    "node_of",
    "scan",
    "where_of",
]

NodeFile: TypeAlias = Sidecar | JsonSidecar
_TYPES: Final = ("dataset", "derivative")
UNREADABLE: Final = "mend the file, or take the node out of the graph; glimmer-store validate names what is wrong"
"""What to do about an ``Unreadable``."""


@dataclass(frozen=True, slots=True)
class GlimmerNode:
    """A node of the graph with its storage.

    Attributes:
        id, type: As in the node file.
        file: The node file, relative to the dataset.
        output: The output, relative to the dataset; None when the node names none.
        key: The output's key; None when it was never archived.
        record: Where the content is; None when it was never archived.
    """

    id: str
    type: str
    file: Path
    output: Path | None
    key: annex.Key | None
    record: StorageRecord | None

    @property
    def copies(self) -> int:
        """Proven copies, as recorded."""
        return self.record.copies if self.record else 0

    @property
    def numcopies_required(self) -> int:
        """Copies that the storage class needs; 0 for a node without storage fields."""
        return self.record.numcopies_required if self.record else 0

    @property
    def stored_at(self) -> tuple[Location, ...]:
        """The proven copies, as recorded."""
        return self.record.stored_at if self.record else ()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A node file, or an index, that cannot be read.

    Attributes:
        file: Relative to the dataset.
        reason: What is wrong with it.
    """

    file: Path
    reason: str


def scan(root: Path, folder: Path) -> Iterator[GlimmerNode | Unreadable]:
    """Every dataset and derivative node: those of the index, in its order, those it does not have yet, BIDS sidecars.

    Args:
        root: The dataset.
        folder: Of the graph.
    """
    index = folder / INDEX
    try:
        listed = read_index(index.read_bytes() if index.exists() else None, root.name, str(index))["nodes"]
    except (StoreError, OSError) as error:
        yield Unreadable(index.relative_to(root), str(error))
        listed = []
    known: set[Path] = set()
    for entry in listed:
        path = entry.get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str):
            yield Unreadable(index.relative_to(root), f"an entry without a path: {str(entry)[:80]}")
            continue
        known.add(folder / path)
        if entry.get("type") in _TYPES:
            yield _tried(root, folder / path)
    for type_ in _TYPES:
        for file in sorted((folder / f"{type_}s").glob("*.md")):
            if file not in known:
                yield _tried(root, file)
    yield from bids_nodes(root, folder)


def bids_nodes(root: Path, folder: Path) -> Iterator[GlimmerNode | Unreadable]:
    """The dataset and derivative nodes in BIDS sidecars of *root*, outside of the graph's *folder*."""
    for file in bids_files(root, folder):
        one = _tried(root, file)
        if isinstance(one, Unreadable) or one.type in _TYPES:
            yield one


def is_sidecar(root: Path, folder: Path, file: Path) -> bool:
    """*file* may be a BIDS sidecar of *root*, outside of the graph's *folder*."""
    return file.suffix == ".json" and file.is_relative_to(root) and not file.is_relative_to(folder)


def _tried(root: Path, file: Path) -> GlimmerNode | Unreadable:
    try:
        return node_of(root, file)
    except annex.AnnexError as error:
        return Unreadable(file.relative_to(root), str(error).removeprefix(f"{file}: "))


def node_of(root: Path, file: Path) -> GlimmerNode:
    """The node in *file*.

    Raises:
        SidecarError, InvalidKey: It is malformed.
    """
    sidecar = read_node(file)
    node = as_node(root, file, sidecar.fields)
    if node.output is None and isinstance(sidecar, JsonSidecar) and sidecar.block == BLOCK:
        beside = beside_of(file)
        if beside is not None:
            return GlimmerNode(node.id, node.type, node.file, beside.relative_to(root), node.key, node.record)
    return node


def as_node(root: Path, file: Path, fields: Mapping[str, Any]) -> GlimmerNode:  # Any: values of YAML or JSON
    """The node that *fields*, of *file*, say."""
    where, key = where_of(fields), fields.get("datalad-annex-key")
    return GlimmerNode(
        str(fields.get("id", file.name.partition(".")[0])),
        str(fields.get("type", "")),
        file.relative_to(root),
        Path(where) if where else None,
        annex.Key.parse(str(key)) if key else None,
        StorageRecord.from_fields(fields, node=str(file)),
    )


def where_of(fields: Mapping[str, Any]) -> str | None:  # Any: values of YAML or JSON
    """The output that a node names, relative to the dataset."""
    where = fields.get("output-path") or fields.get("datalad-relative-path")
    return None if where is None else str(where)


def beside_of(file: Path) -> Path | None:
    """The one file beside a BIDS sidecar that has its name and another extension; None where that is not clear."""
    stem = file.name.removesuffix(".json") + "."
    beside = [path for path in sorted(file.parent.iterdir()) if path.name.startswith(stem) and path != file]
    return beside[0] if len(beside) == 1 else None
