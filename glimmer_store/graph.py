"""A Glimmer graph whose nodes are stored when they are created.

The layout is that of Glimmer's own example: node files below ``rokb/``, one folder per type, and
``_glimmer-index.json`` naming each of them. Any number of processes may emit into one graph at once
(``enter``): a node is in the dataset's history, and that history in every durable repository, when an emit returns.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import annexpy as annex
from glimmer_store.archive import Archive, Output, Progress
from glimmer_store.attest import Attestation, reader
from glimmer_store.bids import read_node
from glimmer_store.config import FORGE, Config
from glimmer_store.emission import Emission, Emitter, NodeType, node_part
from glimmer_store.enter import SECONDS, Entering, Outcome
from glimmer_store.entry import Entry, Part
from glimmer_store.errors import GraphError, SidecarError
from glimmer_store.node_files import NodeFiles, absolute
from glimmer_store.nodes import UNREADABLE, GlimmerNode, NodeFile, Unreadable, as_node, beside_of, where_of
from glimmer_store.policy import StorageClass
from glimmer_store.sidecar import Sidecar

__all__ = ["GlimmerGraph", "GlimmerNode", "NodeType"]

_CLOSING = 60.0
"""Seconds that closing a graph waits for others, to bring the index up to date."""


class GlimmerGraph:
    """The graph of one dataset; ``async with GlimmerGraph.open(".") as graph``."""

    def __init__(self, archive: Archive, *, seconds: float = SECONDS) -> None:
        self.archive = archive
        self.root = archive.root
        self.folder = archive.root / archive.config.graph
        remotes = [place.name for place in archive.config.durable]
        if FORGE in archive.repository.config.remotes():
            remotes.append(FORGE)
        self._entering = Entering(archive.repository, archive.config.graph, remotes, seconds=seconds)
        self._files = NodeFiles(self.root, self.folder)
        self._emitter = Emitter(archive, self._files, self._enter)
        self._emitted = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dataset: str | os.PathLike[str] = ".",
        *,
        numcopies: int | None = None,
        to: Collection[str] = (),
        seconds: float = SECONDS,
    ) -> AsyncIterator[GlimmerGraph]:
        """The graph of the dataset that *dataset* lies in.

        Args:
            dataset: Its top.
            numcopies: Copies that what is stored now needs, whatever its class.
            to: Names of those places that it is stored in; none: all of them. The history goes to all.
            seconds: How long an emit waits for others that have the dataset, or a durable repository, locked. Longer
                than a moment, and a warning says who has it.

        Raises:
            ConfigError: Not set up for glimmer_store, or it has no place of such a name.
        """
        async with Archive.open(_resolved(dataset), numcopies=numcopies, to=to) as archive:
            graph = cls(archive, seconds=seconds)
            yield graph
            if graph._emitted:
                try:
                    await graph._entering.complete(seconds=_CLOSING)
                except annex.LockHeld:
                    pass  # others are busy with it, and the last of them brings the index up to date

    async def derivative(
        self,
        path: str | os.PathLike[str] | Output,
        *,
        id: str | None = None,
        name: str | None = None,
        produced_by: str | None = None,
        derives_from: Sequence[str] = (),
        storage_class: StorageClass | str = StorageClass.GENERATED,
        provenance_mode: str = "deterministic",
        description: str = "",
        fields: Mapping[str, object] | None = None,
        body: str = "",
        progress: Progress | None = None,
    ) -> GlimmerNode:
        """Store an output of a method and create its node. Creating the node *is* storing it.

        Args:
            path: The output, inside the dataset and not in a temporary folder; or one that was looked at before.
            id: Of the node; default: ``derivative-`` and the file's name.
            name: For people; default: the file's name.
            produced_by, derives_from: Ids of nodes in the graph.
            storage_class: ``irreplaceable`` or ``generated``.
            provenance_mode: ``deterministic``, ``agent-inferred`` or ``stochastic``.
            description, body: Text.
            fields: Further front matter (fields of a domain profile).
            progress: Called while bytes move.

        Raises:
            SourceRefused, GraphError, HashMismatch: Before anything is stored.
            Shortfall: Fewer proven copies than the class needs; no node is written then.
        """
        edges = [{"type": "produced-by", "target": produced_by}] if produced_by else []
        edges += [{"type": "derives-from", "target": target} for target in derives_from]
        asked = Emission(
            "derivative",
            path,
            StorageClass(storage_class),
            id=id,
            name=name,
            edges=edges,
            fields={"provenance-mode": provenance_mode, **(fields or {})},
            description=description,
            body=body,
        )
        return await self._emitter.emit(asked, progress)

    async def dataset(
        self,
        path: str | os.PathLike[str] | Output,
        *,
        id: str | None = None,
        name: str | None = None,
        derives_from: Sequence[str] = (),
        storage_class: StorageClass | str = StorageClass.IRREPLACEABLE,
        description: str = "",
        fields: Mapping[str, object] | None = None,
        body: str = "",
        progress: Progress | None = None,
    ) -> GlimmerNode:
        """Store a file of acquired data and create its node; as ``derivative`` otherwise."""
        edges = [{"type": "derives-from", "target": target} for target in derives_from]
        asked = Emission(
            "dataset",
            path,
            StorageClass(storage_class),
            id=id,
            name=name,
            edges=edges,
            fields=fields or {},
            description=description,
            body=body,
        )
        return await self._emitter.emit(asked, progress)

    async def emit(self, node: str | os.PathLike[str], *, progress: Progress | None = None) -> GlimmerNode:
        """Store the output that an existing node file names, and fill in its storage fields.

        Args:
            node: The node file, in the graph's folder, or a BIDS sidecar: a ``derivative`` or ``dataset`` with
                ``output-path`` or ``datalad-relative-path``, relative to the dataset; a sidecar's output may also
                just stand beside it.
            progress: Called while bytes move.

        Raises:
            SidecarError, GraphError: It is no such node.
            SourceRefused, HashMismatch, Shortfall: As ``derivative``.
        """
        file = absolute(node)
        bids = self._files.is_sidecar(file)
        if not bids and not file.is_relative_to(self.folder):
            raise GraphError(f"{node}: is not in the graph's folder {self.folder}", remedy="move the node file there")
        fields = read_node(file).fields
        type_, id_, where = fields.get("type"), fields.get("id"), where_of(fields)
        if bids and where is None and (beside := beside_of(file)) is not None:
            where = beside.relative_to(self.root).as_posix()
        if type_ not in ("dataset", "derivative"):
            raise GraphError(f"{node}: type {type_!r} has no output", remedy="emit datasets and derivatives")
        if not isinstance(id_, str) or where is None:
            missing = "output-path" if isinstance(id_, str) else "id"
            raise GraphError(f"{node}: has no {missing}", remedy=f"add the field {missing}")
        usual = StorageClass.GENERATED if type_ == "derivative" else StorageClass.IRREPLACEABLE
        try:
            storage_class = StorageClass(fields.get("storage-class", usual))
        except ValueError as error:
            raise GraphError(f"{node}: storage-class: {error}", remedy="irreplaceable or generated") from error
        asked = Emission(type_, self.root / where, storage_class, id=id_, file=file)
        return await self._emitter.emit(asked, progress)

    def nodes(self) -> Iterator[GlimmerNode]:
        """Every dataset and derivative node: as the index has them, those it does not have yet, BIDS sidecars.

        Raises:
            SidecarError: A node file is malformed.
        """
        for one in self.scan():
            if isinstance(one, Unreadable):
                raise SidecarError(f"{self.root / one.file}: {one.reason}", remedy=UNREADABLE)
            yield one

    def scan(self) -> Iterator[GlimmerNode | Unreadable]:
        """As ``nodes``, with those that cannot be read in between."""
        return self._files.scan()

    def named(self, ids: Collection[str]) -> Iterator[GlimmerNode]:
        """The nodes of *ids* that are there and can be read; what all of them cost one by one is looked at once."""
        return self._files.named(ids)

    def node(self, name: str | os.PathLike[str]) -> GlimmerNode:
        """The node of an id, or of a node file: one of the graph, or a BIDS sidecar.

        Raises:
            GraphError: There is none.
            SidecarError: Its file is malformed.
        """
        return self._files.node(name)

    async def rewrite(
        self, title: str, nodes: Mapping[Path, tuple[NodeFile, NodeFile]], proofs: Sequence[Attestation]
    ) -> Outcome:
        """Enter changed nodes and attestations as one commit, and push it.

        Args:
            title: Of the commit.
            nodes: Node file → as it was read, and as it is to be.
            proofs: Signed.
        """
        parts = [node_part(self.root, file, before, after) for file, (before, after) in nodes.items()]
        return await self.enter(title, [*parts, *self.archive.signer.parts(proofs, reader(self.root))])

    async def enter(self, title: str, parts: Sequence[Part]) -> Outcome:
        """Enter files of the dataset as one commit, and push it."""
        return await self._enter(Entry(title, tuple(parts)))

    async def _enter(self, entry: Entry) -> Outcome:
        self._emitted = True
        return await self._entering.enter(entry)

    def archived_as_another(self, id_: str, path: Path) -> str:
        """The line that makes a node of its own of what is at *path* now, beside the node *id_*."""
        return self._files.archived_as_another(id_, path)

    def read(self, file: Path, raw: bytes) -> GlimmerNode:
        """The node that *file*, relative to the dataset, is with the content *raw*. Raises SidecarError."""
        return as_node(self.root, self.root / file, Sidecar.parse(raw, name=str(file)).fields)


def _resolved(dataset: str | os.PathLike[str]) -> Path:
    return Config.dataset_of(Path(dataset).resolve())
