"""A Glimmer graph whose nodes are stored when they are created.

The layout is that of Glimmer's own example: node files below ``rokb/``, one folder per type, and
``_glimmer-index.json`` naming each of them. Any number of processes may emit into one graph at once
(``enter``): a node is in the dataset's history, and that history in every durable repository, when an emit returns.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeAlias

import annexpy as annex
from glimmer_store.archive import Archive, Archived, Output, Progress
from glimmer_store.attest import Attestation, Attestations, Verdict, reader
from glimmer_store.bids import read_node
from glimmer_store.config import FORGE, Config
from glimmer_store.enter import INDEX, SECONDS, Entering, Outcome, read_index
from glimmer_store.entry import Entry, Part, Row
from glimmer_store.errors import GraphError, HashMismatch, Shortfall, SidecarError, shell_line
from glimmer_store.nodes import (
    UNREADABLE,
    GlimmerNode,
    NodeFile,
    Unreadable,
    as_node,
    beside_of,
    bids_nodes,
    is_sidecar,
    node_of,
    scan,
    where_of,
)
from glimmer_store.policy import StorageClass
from glimmer_store.sidecar import Sidecar, provenance_hash
from glimmer_store.tree import list_path

__all__ = ["GlimmerGraph", "GlimmerNode", "NodeType"]

log = logging.getLogger(__name__)

NodeType: TypeAlias = Literal["dataset", "derivative"]

_ID = re.compile(r"[a-zA-Z0-9]+([-.][a-zA-Z0-9]+)*\Z")
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
        extra = {"provenance-mode": provenance_mode, **(fields or {})}
        return await self._emit("derivative", path, id, name, edges, storage_class, description, extra, body, progress)

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
        return await self._emit(
            "dataset", path, id, name, edges, storage_class, description, dict(fields or {}), body, progress
        )

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
        file = _absolute(node)
        bids = is_sidecar(self.root, self.folder, file)
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
        return await self._emit(type_, self.root / where, id_, None, [], storage_class, "", {}, "", progress, file=file)

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
        return scan(self.root, self.folder)

    def named(self, ids: Collection[str]) -> Iterator[GlimmerNode]:
        """The nodes of *ids* that are there and can be read; what all of them cost one by one is looked at once."""
        left = set(ids)
        for node_id in ids:
            path = self._beside(node_id)
            if path is None:
                continue
            left.discard(node_id)
            try:
                yield node_of(self.root, path)
            except SidecarError as error:
                log.warning("%s", error)
        for one in self.scan() if left else ():
            if isinstance(one, GlimmerNode) and one.id in left:
                yield one

    def node(self, name: str | os.PathLike[str]) -> GlimmerNode:
        """The node of an id, or of a node file: one of the graph, or a BIDS sidecar.

        Raises:
            GraphError: There is none.
            SidecarError: Its file is malformed.
        """
        file = _absolute(name)
        if file.exists() and (
            (file.suffix == ".md" and file.is_relative_to(self.folder)) or is_sidecar(self.root, self.folder, file)
        ):
            return node_of(self.root, file)
        found = self._file(str(name))
        if found is None:
            for one in bids_nodes(self.root, self.folder):
                if isinstance(one, GlimmerNode) and one.id == str(name):
                    return one
            raise GraphError(f"{name}: no such node", remedy="name the id of a node, or a node file")
        return node_of(self.root, found)

    async def rewrite(
        self, title: str, nodes: Mapping[Path, tuple[NodeFile, NodeFile]], proofs: Sequence[Attestation]
    ) -> Outcome:
        """Enter changed nodes and attestations as one commit, and push it.

        Args:
            title: Of the commit.
            nodes: Node file → as it was read, and as it is to be.
            proofs: Signed.
        """
        parts = [self._part(file, before, after) for file, (before, after) in nodes.items()]
        return await self.enter(title, [*parts, *self.archive.signer.parts(proofs, reader(self.root))])

    async def enter(self, title: str, parts: Sequence[Part]) -> Outcome:
        """Enter files of the dataset as one commit, and push it."""
        self._emitted = True
        return await self._entering.enter(Entry(title, tuple(parts)))

    # -- one emit --

    async def _emit(
        self,
        type_: NodeType,
        path: str | os.PathLike[str] | Output,
        id_: str | None,
        name: str | None,
        edges: list[dict[str, str]],
        storage_class: StorageClass | str,
        description: str,
        extra: Mapping[str, object],
        body: str,
        progress: Progress | None,
        *,
        file: Path | None = None,
    ) -> GlimmerNode:
        wanted = StorageClass(storage_class)
        for edge in edges:
            if self._file(edge["target"]) is None:
                raise GraphError(
                    f"edge {edge['type']} → {edge['target']}: no such node in the graph",
                    remedy="create that node first, or leave the edge out",
                )
        output = path if isinstance(path, Output) else await self.archive.look(Path(path))
        node_id = id_ if id_ is not None else _default_id(type_, output.path)
        if not _ID.match(node_id):
            raise GraphError(f"id {node_id!r}: letters and digits, joined by single '-' or '.'")
        if file is None:
            file = self.folder / f"{type_}s" / f"{node_id}.md"
        before = read_node(file) if file.exists() else None
        self._check_same(before, file, output)
        archived = await self.archive.store(output, wanted, progress=progress)
        await self._void(archived)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        changes = {**_named(type_, output), **archived.record.to_fields()}
        if before is not None:
            changed = before.with_fields(changes)
            after: NodeFile = before if changed.raw == before.raw else changed.with_fields({"modified": now})
        else:
            fields: dict[str, object] = {"id": node_id, "type": type_, "name": name or output.path.name}
            fields |= {"created": now, "modified": now, **extra, **changes, "edges": edges}
            if description:
                fields["description"] = description
            fields["provenance-hash"] = provenance_hash(body)
            after = Sidecar.create(fields, body)
        parts, rows = self._nodes_named(_targets(edges if before is None else before.fields.get("edges")))
        if file.suffix == ".md":  # the index is of Glimmer's own node files
            rows.append(Row(node_id, type_, file.relative_to(self.folder).as_posix()))
        await self._enter(file, before, after, archived, Entry(f"glimmer-store: {node_id}", tuple(parts), tuple(rows)))
        return as_node(self.root, file, after.fields)

    async def _enter(
        self, file: Path, before: NodeFile | None, after: NodeFile, archived: Archived, entry: Entry
    ) -> None:
        """Enter *entry*, with the node itself and its proofs."""
        parts = [*entry.parts, self._part(file, before, after)]
        if archived.output.tree is not None:
            parts.append(Part(list_path(archived.output.tree.digest), "whole", archived.output.tree.to_bytes()))
        if before is None or after.raw != before.raw or not self._proven(archived.proofs):
            parts += self.archive.signer.parts(archived.proofs, reader(self.root))
        self._emitted = True
        outcome = await self._entering.enter(replace(entry, parts=tuple(parts)))
        if FORGE in outcome.behind:  # it has no copies, so nothing depends on it
            log.warning("%s: %s", FORGE, outcome.behind[FORGE])
        complete = [place for place in archived.record.stored_at if place.remote not in outcome.behind]
        if len(complete) < archived.record.numcopies_required:
            behind = {name: f"does not have the history: {why}" for name, why in outcome.behind.items()}
            raise Shortfall(
                str(archived.output.key),
                len(complete),
                archived.record.numcopies_required,
                {**archived.failed, **behind},
            )

    def _nodes_named(self, ids: Iterable[str]) -> tuple[list[Part], list[Row]]:
        """What else has to be in the history and the index, so that no edge leads to nothing: nodes written by hand."""
        parts, rows = list[Part](), list[Row]()
        for node_id in dict.fromkeys(ids):
            path = self._beside(node_id)
            if path is None:
                continue
            node = read_node(path)
            parts.append(Part(os.fsencode(path.relative_to(self.root)), "once", node.raw))
            rows.append(Row(node_id, str(node.fields.get("type", "")), path.relative_to(self.folder).as_posix()))
        return parts, rows

    def _part(self, file: Path, before: NodeFile | None, after: NodeFile) -> Part:
        path = os.fsencode(file.relative_to(self.root))
        return Part(path, "whole", after.raw, None if before is None else before.raw)

    async def _void(self, archived: Archived) -> None:
        """With too few copies there is no node, but what was found wrong is to be known."""
        try:
            archived.check(self.root, len(self.archive.remotes))
        except Shortfall:
            wrong = [proof for proof in archived.proofs if proof.verdict is not Verdict.GOOD]
            if wrong:
                await self.rewrite(f"glimmer-store: {archived.output.path.as_posix()} verified", {}, wrong)
            raise

    def _proven(self, proofs: Sequence[Attestation]) -> bool:
        """The dataset has an attestation for each of them that says the same."""
        known = Attestations(self.root)
        keys = {proof.key: annex.Key.parse(proof.key) for proof in proofs}
        newest = {text: known.newest(key) for text, key in keys.items()}
        return all(
            (there := newest[proof.key].get(proof.uuid)) is not None and there.verdict is proof.verdict
            for proof in proofs
        )

    def _check_same(self, before: NodeFile | None, file: Path, output: Output) -> None:
        if before is None:
            return
        where = where_of(before.fields)
        if where is not None and where != output.path.as_posix():
            raise GraphError(
                f"{file.relative_to(self.root)}: the node already describes {where}",
                remedy=self.archived_as_another(str(before.fields.get("id", "")), self.root / output.path),
            )
        recorded, now = before.fields.get("output-hash"), _output_hash(output).get("output-hash")
        if recorded and now and recorded != now:
            raise HashMismatch(
                f"{output.path}: the node says {recorded}, the file is {now}",
                remedy=self.archived_as_another(str(before.fields.get("id", "")), self.root / output.path),
            )

    def archived_as_another(self, id_: str, path: Path) -> str:
        """The line that makes a node of its own of what is at *path* now, beside the node *id_*."""
        stem = re.sub(r"-\d+\Z", "", id_)
        free = next(new for new in (f"{stem}-{number}" for number in count(2)) if self._file(new) is None)
        type_ = ["--type", "dataset"] if stem.startswith("dataset-") else []
        return shell_line("glimmer-store", "archive", *type_, "--id", free, "-C", self.root, path)

    def read(self, file: Path, raw: bytes) -> GlimmerNode:
        """The node that *file*, relative to the dataset, is with the content *raw*. Raises SidecarError."""
        return as_node(self.root, self.root / file, Sidecar.parse(raw, name=str(file)).fields)

    # -- the index --

    def _index(self) -> dict[str, Any]:  # Any: parsed JSON
        path = self.folder / INDEX
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = None
        return read_index(data, self.root.name, str(path))

    def _beside(self, node_id: str) -> Path | None:
        """The file that is called like a node; costs the same however many there are."""
        if _ID.match(node_id):
            folders = (
                [entry.path for entry in os.scandir(self.folder) if entry.is_dir()] if self.folder.exists() else []
            )
            for folder in (self.folder, *map(Path, folders)):
                if (folder / f"{node_id}.md").exists():
                    return folder / f"{node_id}.md"
        return None

    def _file(self, node_id: str) -> Path | None:
        """The file of a node."""
        if (path := self._beside(node_id)) is not None:
            return path
        for entry in self._index()["nodes"]:
            if entry.get("id") == node_id:
                return self.folder / str(entry["path"])
        return None


def _named(type_: str, output: Output) -> dict[str, object]:
    """The fields that say which output it is."""
    where, key = output.path.as_posix(), {"datalad-annex-key": str(output.key)}
    if type_ == "derivative":
        return {"output-path": where, **_output_hash(output), **key}
    return {"datalad-relative-path": where, **key}


def _targets(edges: object) -> list[str]:
    """The ids that edges lead to, as far as they are any."""
    found = edges if isinstance(edges, list) else []
    return [str(edge["target"]) for edge in found if isinstance(edge, dict) and "target" in edge]


def _resolved(dataset: str | os.PathLike[str]) -> Path:
    return Config.dataset_of(Path(dataset).resolve())


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))


def _default_id(type_: str, relative: Path) -> str:
    stem = relative.name.split(".")[0] or relative.name
    return f"{type_}-" + (re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-") or "output")


def _output_hash(output: Output) -> dict[str, str]:
    """``output-hash`` where it is known: of a folder, or of a key whose name is a SHA-256."""
    if output.tree is not None:
        return {"output-hash": output.tree.digest}
    if output.key.backend in (b"SHA256", b"SHA256E"):
        return {"output-hash": "sha256:" + output.key.name.split(b".")[0].decode()}
    return {}
