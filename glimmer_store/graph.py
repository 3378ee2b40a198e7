"""A Glimmer graph whose nodes are stored when they are created.

The layout is that of Glimmer's own example: node files below ``rokb/``, one folder per type, and
``_glimmer-index.json`` naming each of them.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import annexpy as annex
from glimmer_store.archive import Archive, Progress
from glimmer_store.errors import GraphError, HashMismatch, SidecarError
from glimmer_store.policy import StorageClass, check_source
from glimmer_store.record import Location, StorageRecord
from glimmer_store.sidecar import Sidecar, provenance_hash

__all__ = ["GlimmerGraph", "GlimmerNode", "NodeType"]

NodeType: TypeAlias = Literal["dataset", "derivative"]

INDEX = "_glimmer-index.json"
_PROFILE = """profile: general
standard: none
version: "0.1"
status: local
description: Outputs of any kind; adds no fields to the core types.
augments: {}
"""
_ID = re.compile(r"[a-zA-Z0-9]+([-.][a-zA-Z0-9]+)*\Z")
_INDEX_WAIT = 30.0
"""Seconds to wait for another process that is writing the index."""


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

    @classmethod
    @asynccontextmanager
    async def open(cls, dataset: str | os.PathLike[str] = ".") -> AsyncIterator[GlimmerGraph]:
        """The graph of the dataset that *dataset* lies in.

        Raises:
            ConfigError: Not set up for glimmer_store.
        """
        async with Archive.open(_resolved(dataset)) as archive:
            yield cls(archive)

    async def derivative(
        self,
        path: str | os.PathLike[str],
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
            path: The output, inside the dataset and not in a temporary folder.
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
        path: str | os.PathLike[str],
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

    def nodes(self) -> Iterator[GlimmerNode]:
        """Every dataset and derivative node of the index, in its order.

        Raises:
            SidecarError: A node file is malformed.
        """
        for entry in self._index()["nodes"]:
            if entry.get("type") in ("dataset", "derivative"):
                yield self._node(self.folder / str(entry["path"]))

    # -- one emit --

    async def _emit(
        self,
        type_: NodeType,
        path: str | os.PathLike[str],
        id_: str | None,
        name: str | None,
        edges: list[dict[str, str]],
        storage_class: StorageClass | str,
        description: str,
        extra: Mapping[str, object],
        body: str,
        progress: Progress | None,
    ) -> GlimmerNode:
        wanted = StorageClass(storage_class)
        relative = check_source(path, self.root)
        node_id = id_ if id_ is not None else _default_id(type_, relative)
        if not _ID.match(node_id):
            raise GraphError(f"id {node_id!r}: letters and digits, joined by single '-' or '.'")
        known = {str(entry["id"]) for entry in self._index()["nodes"]}
        for edge in edges:
            if edge["target"] not in known:
                raise GraphError(
                    f"edge {edge['type']} → {edge['target']}: no such node in the graph",
                    remedy="create that node first, or leave the edge out",
                )
        file = self.folder / f"{type_}s" / f"{node_id}.md"
        before = Sidecar.read(file) if file.exists() else None

        def expect(key: annex.Key) -> None:
            self._check_same(before, file, relative, key)

        archived = await self.archive.emit(
            path if isinstance(path, Path) else Path(path), wanted, expect=expect, progress=progress
        )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        named = {"datalad-annex-key": str(archived.key)}
        if type_ == "derivative":
            named = {"output-path": relative.as_posix(), **_output_hash(archived.key), **named}
        else:
            named = {"datalad-relative-path": relative.as_posix(), **named}
        storage = archived.record.to_fields()
        if before is not None:
            changed = before.with_fields({**named, **storage})
            after = before if changed.raw == before.raw else changed.with_fields({"modified": now})
        else:
            fields: dict[str, object] = {"id": node_id, "type": type_, "name": name or relative.name}
            fields |= {"created": now, "modified": now, **extra, **named, **storage, "edges": edges}
            if description:
                fields["description"] = description
            fields["provenance-hash"] = provenance_hash(body)
            after = Sidecar.create(fields, body)
        if before is None or after.raw != before.raw:
            _write(file, after.raw)
        self._add_to_index(node_id, type_, file)
        return self._node(file)

    def _check_same(self, before: Sidecar | None, file: Path, relative: Path, key: annex.Key) -> None:
        if before is None:
            return
        where = before.fields.get("output-path") or before.fields.get("datalad-relative-path")
        if where is not None and where != relative.as_posix():
            raise GraphError(
                f"{file.relative_to(self.root)}: the node already describes {where}",
                remedy="give this output another id",
            )
        recorded, now = before.fields.get("output-hash"), _output_hash(key).get("output-hash")
        if recorded and now and recorded != now:
            raise HashMismatch(
                f"{relative}: the node says {recorded}, the file is {now}",
                remedy="give the new output another id, or remove output-hash from the node if the change was meant",
            )

    def _node(self, file: Path) -> GlimmerNode:
        fields = Sidecar.read(file).fields
        where = fields.get("output-path") or fields.get("datalad-relative-path")
        key = fields.get("datalad-annex-key")
        return GlimmerNode(
            str(fields.get("id", file.stem)),
            str(fields.get("type", "")),
            file.relative_to(self.root),
            Path(str(where)) if where else None,
            annex.Key.parse(str(key)) if key else None,
            StorageRecord.from_fields(fields, node=str(file)),
        )

    # -- the index --

    def _index(self) -> dict[str, Any]:  # Any: parsed JSON
        path = self.folder / INDEX
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {"schema": "glimmer/v0.4.0", "dataset-name": self.root.name, "node-count": 0,
                    "default-domain": "general", "nodes": []}  # fmt: skip
        except (OSError, ValueError) as error:
            raise SidecarError(f"{path}: {error}") from error
        if not isinstance(index, dict) or not isinstance(index.get("nodes"), list):
            raise SidecarError(f"{path}: no list `nodes`")
        return index

    def _add_to_index(self, node_id: str, type_: str, file: Path) -> None:
        with _locked(self.folder / f".{INDEX}.lock"):
            index = self._index()
            if any(entry.get("id") == node_id for entry in index["nodes"]):
                return
            if index.get("default-domain") == "general":
                profile = self.folder / "_glimmer-profiles" / "general.yaml"
                if not profile.exists():
                    _write(profile, _PROFILE.encode())
            index["nodes"].append({"id": node_id, "type": type_, "path": file.relative_to(self.folder).as_posix()})
            index["node-count"] = len(index["nodes"])
            _write(self.folder / INDEX, (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode())


def _resolved(dataset: str | os.PathLike[str]) -> Path:
    return Path(dataset).resolve()


def _default_id(type_: str, relative: Path) -> str:
    stem = relative.name.split(".")[0] or relative.name
    return f"{type_}-" + (re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-") or "output")


def _output_hash(key: annex.Key) -> dict[str, str]:
    """``output-hash`` of a key whose name is a SHA-256."""
    if key.backend in (b"SHA256", b"SHA256E"):
        return {"output-hash": "sha256:" + key.name.split(b".")[0].decode()}
    return {}


def _write(path: Path, data: bytes) -> None:
    """Whole, synced, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time; gives up after ``_INDEX_WAIT`` seconds with the lock's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        give_up = time.monotonic() + _INDEX_WAIT
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > give_up:
                    raise annex.LockHeld(str(path), "another process", _INDEX_WAIT) from None
                time.sleep(0.02)
        yield
