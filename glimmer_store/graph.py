"""A Glimmer graph whose nodes are stored when they are created.

The layout is that of Glimmer's own example: node files below ``rokb/``, one folder per type, and
``_glimmer-index.json`` naming each of them. Any number of processes may emit into one graph at once
(``enter``): a node is in the dataset's history, and that history in every durable repository, when an emit returns.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import annexpy as annex
from glimmer_store.archive import Archive, Archived, Output, Progress
from glimmer_store.attest import Attestation, Attestations, Verdict
from glimmer_store.config import FORGE
from glimmer_store.enter import INDEX, Entering, Outcome, read_index
from glimmer_store.entry import Entry, Part, Row
from glimmer_store.errors import GraphError, HashMismatch, Shortfall
from glimmer_store.policy import StorageClass
from glimmer_store.record import Location, StorageRecord
from glimmer_store.sidecar import Sidecar, provenance_hash
from glimmer_store.tree import list_path

__all__ = ["GlimmerGraph", "GlimmerNode", "NodeType"]

log = logging.getLogger(__name__)

NodeType: TypeAlias = Literal["dataset", "derivative"]

_ID = re.compile(r"[a-zA-Z0-9]+([-.][a-zA-Z0-9]+)*\Z")
_CLOSING = 60.0
"""Seconds that closing a graph waits for others, to bring the index up to date."""


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


class GlimmerGraph:
    """The graph of one dataset; ``async with GlimmerGraph.open(".") as graph``."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.root = archive.root
        self.folder = archive.root / archive.config.graph
        remotes = [place.name for place in archive.config.durable]
        if FORGE in archive.repository.config.remotes():
            remotes.append(FORGE)
        self._entering = Entering(archive.repository, archive.config.graph, remotes)
        self._emitted = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls, dataset: str | os.PathLike[str] = ".", *, numcopies: int | None = None
    ) -> AsyncIterator[GlimmerGraph]:
        """The graph of the dataset that *dataset* lies in.

        Args:
            dataset: Its top.
            numcopies: Copies that what is stored now needs, whatever its class.

        Raises:
            ConfigError: Not set up for glimmer_store.
        """
        async with Archive.open(_resolved(dataset), numcopies=numcopies) as archive:
            graph = cls(archive)
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
            node: The node file, in the graph's folder: a ``derivative`` or ``dataset`` with ``output-path`` or
                ``datalad-relative-path``, relative to the dataset.
            progress: Called while bytes move.

        Raises:
            SidecarError, GraphError: It is no such node.
            SourceRefused, HashMismatch, Shortfall: As ``derivative``.
        """
        file = _absolute(node)
        if not file.is_relative_to(self.folder):
            raise GraphError(f"{node}: is not in the graph's folder {self.folder}", remedy="move the node file there")
        fields = Sidecar.read(file).fields
        type_, id_, where = fields.get("type"), fields.get("id"), _where(fields)
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
        """Every dataset and derivative node: those of the index, in its order, then those it does not have yet.

        Raises:
            SidecarError: A node file is malformed.
        """
        listed = self._index()["nodes"]
        for entry in listed:
            if entry.get("type") in ("dataset", "derivative"):
                yield self._node(self.folder / str(entry["path"]))
        known = {str(entry.get("path")) for entry in listed}
        for type_ in ("dataset", "derivative"):
            for file in sorted((self.folder / f"{type_}s").glob("*.md")):
                if file.relative_to(self.folder).as_posix() not in known:
                    yield self._node(file)

    def node(self, name: str | os.PathLike[str]) -> GlimmerNode:
        """The node of an id, or of a node file.

        Raises:
            GraphError: There is none.
            SidecarError: Its file is malformed.
        """
        file = _absolute(name)
        if file.suffix == ".md" and file.is_relative_to(self.folder) and file.exists():
            return self._node(file)
        found = self._file(str(name))
        if found is None:
            raise GraphError(f"{name}: no such node", remedy="name the id of a node, or a node file")
        return self._node(found)

    async def rewrite(
        self, title: str, nodes: Mapping[Path, tuple[Sidecar, Sidecar]], proofs: Sequence[Attestation]
    ) -> Outcome:
        """Enter changed nodes and attestations as one commit, and push it.

        Args:
            title: Of the commit.
            nodes: Node file → as it was read, and as it is to be.
            proofs: Signed.
        """
        parts = [self._part(file, before, after) for file, (before, after) in nodes.items()]
        return await self.enter(title, [*parts, *self.archive.signer.parts(proofs)])

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
        before = Sidecar.read(file) if file.exists() else None
        self._check_same(before, file, output)
        archived = await self.archive.store(output, wanted, progress=progress)
        await self._void(archived)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        changes = {**_named(type_, output), **archived.record.to_fields()}
        if before is not None:
            changed = before.with_fields(changes)
            after = before if changed.raw == before.raw else changed.with_fields({"modified": now})
        else:
            fields: dict[str, object] = {"id": node_id, "type": type_, "name": name or output.path.name}
            fields |= {"created": now, "modified": now, **extra, **changes, "edges": edges}
            if description:
                fields["description"] = description
            fields["provenance-hash"] = provenance_hash(body)
            after = Sidecar.create(fields, body)
        await self._enter(file, before, after, archived, Row(node_id, type_, file.relative_to(self.folder).as_posix()))
        return self._as_node(file, after.fields)

    async def _enter(self, file: Path, before: Sidecar | None, after: Sidecar, archived: Archived, row: Row) -> None:
        parts = [self._part(file, before, after)]
        if archived.output.tree is not None:
            parts.append(Part(list_path(archived.output.tree.digest), "whole", archived.output.tree.to_bytes()))
        if before is None or after.raw != before.raw or not self._proven(archived.proofs):
            parts += self.archive.signer.parts(archived.proofs)
        self._emitted = True
        outcome = await self._entering.enter(Entry(f"glimmer-store: {row.id}", tuple(parts), row))
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

    def _part(self, file: Path, before: Sidecar | None, after: Sidecar) -> Part:
        path = os.fsencode(file.relative_to(self.root))
        return Part(path, "whole", after.raw, None if before is None else before.raw)

    async def _void(self, archived: Archived) -> None:
        """With too few copies there is no node, but what was found wrong is to be known."""
        try:
            archived.check()
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

    def _check_same(self, before: Sidecar | None, file: Path, output: Output) -> None:
        if before is None:
            return
        where = _where(before.fields)
        if where is not None and where != output.path.as_posix():
            raise GraphError(
                f"{file.relative_to(self.root)}: the node already describes {where}",
                remedy="give this output another id",
            )
        recorded, now = before.fields.get("output-hash"), _output_hash(output).get("output-hash")
        if recorded and now and recorded != now:
            raise HashMismatch(
                f"{output.path}: the node says {recorded}, the file is {now}",
                remedy="give the new output another id, or remove output-hash from the node if the change was meant",
            )

    def read(self, file: Path, raw: bytes) -> GlimmerNode:
        """The node that *file*, relative to the dataset, is with the content *raw*. Raises SidecarError."""
        return self._as_node(self.root / file, Sidecar.parse(raw, name=str(file)).fields)

    def _node(self, file: Path) -> GlimmerNode:
        return self._as_node(file, Sidecar.read(file).fields)

    def _as_node(self, file: Path, fields: Mapping[str, Any]) -> GlimmerNode:  # Any: values of a YAML mapping
        where = _where(fields)
        key = fields.get("datalad-annex-key")
        return GlimmerNode(
            str(fields.get("id", file.stem)),
            str(fields.get("type", "")),
            file.relative_to(self.root),
            Path(where) if where else None,
            annex.Key.parse(str(key)) if key else None,
            StorageRecord.from_fields(fields, node=str(file)),
        )

    # -- the index --

    def _index(self) -> dict[str, Any]:  # Any: parsed JSON
        path = self.folder / INDEX
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = None
        return read_index(data, self.root.name, str(path))

    def _file(self, node_id: str) -> Path | None:
        """The file of a node; looks for its name first, which costs the same however many nodes there are."""
        if _ID.match(node_id):
            folders = (
                [entry.path for entry in os.scandir(self.folder) if entry.is_dir()] if self.folder.exists() else []
            )
            for folder in (self.folder, *map(Path, folders)):
                if (folder / f"{node_id}.md").exists():
                    return folder / f"{node_id}.md"
        for entry in self._index()["nodes"]:
            if entry.get("id") == node_id:
                return self.folder / str(entry["path"])
        return None


def _where(fields: Mapping[str, Any]) -> str | None:  # Any: values of a YAML mapping
    """The output that a node names, relative to the dataset."""
    where = fields.get("output-path") or fields.get("datalad-relative-path")
    return None if where is None else str(where)


def _named(type_: str, output: Output) -> dict[str, object]:
    """The fields that say which output it is."""
    where, key = output.path.as_posix(), {"datalad-annex-key": str(output.key)}
    if type_ == "derivative":
        return {"output-path": where, **_output_hash(output), **key}
    return {"datalad-relative-path": where, **key}


def _resolved(dataset: str | os.PathLike[str]) -> Path:
    return Path(dataset).resolve()


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
