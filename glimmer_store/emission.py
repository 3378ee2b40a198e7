"""One emit: an output becomes proven copies, and its node and their proofs become history."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import annexpy as annex
from glimmer_store.archive import Archive, Archived, Output, Progress
from glimmer_store.attest import Attestation, Attestations, Verdict, reader
from glimmer_store.bids import read_node
from glimmer_store.config import FORGE
from glimmer_store.enter import Outcome
from glimmer_store.entry import Entry, Part, Row
from glimmer_store.errors import GraphError, HashMismatch, Shortfall
from glimmer_store.node_files import NodeFiles, is_id
from glimmer_store.nodes import GlimmerNode, NodeFile, as_node, where_of
from glimmer_store.policy import StorageClass
from glimmer_store.sidecar import Sidecar, provenance_hash
from glimmer_store.tree import list_path

__all__ = ["Emission", "Emitter", "NodeType", "node_part"]

log = logging.getLogger(__name__)

NodeType: TypeAlias = Literal["dataset", "derivative"]


@dataclass(frozen=True, slots=True)
class Emission:
    """What is to be emitted.

    Attributes:
        type: Of the node.
        path: The output, or what was found when it was looked at.
        storage_class: Decides how many copies it needs.
        id, name: Of a new node; None: made from the name of the file.
        edges: To nodes of the graph, as they stand in a new node.
        fields, description, body: Of a new node.
        file: The node file, where it is not the one that goes with the id.
    """

    type: NodeType
    path: str | os.PathLike[str] | Output
    storage_class: StorageClass
    id: str | None = None
    name: str | None = None
    edges: Sequence[Mapping[str, str]] = ()
    fields: Mapping[str, object] = field(default_factory=dict)
    description: str = ""
    body: str = ""
    file: Path | None = None


class Emitter:
    """Emits into one graph."""

    def __init__(self, archive: Archive, files: NodeFiles, enter: Callable[[Entry], Awaitable[Outcome]]) -> None:
        """What it takes.

        Args:
            archive: Where contents go.
            files: The graph.
            enter: Makes history of what was emitted.
        """
        self._archive, self._files, self._enter = archive, files, enter
        self._root = files.root

    async def emit(self, asked: Emission, progress: Progress | None = None) -> GlimmerNode:
        """Store the output and enter its node; what goes wrong is raised as ``GlimmerGraph.derivative`` says.

        Args:
            asked: What.
            progress: Called while bytes move.
        """
        for edge in asked.edges:
            if self._files.file(edge["target"]) is None:
                raise GraphError(
                    f"edge {edge['type']} → {edge['target']}: no such node in the graph",
                    remedy="create that node first, or leave the edge out",
                )
        output = asked.path if isinstance(asked.path, Output) else await self._archive.look(Path(asked.path))
        node_id = asked.id if asked.id is not None else _default_id(asked.type, output.path)
        if not is_id(node_id):
            raise GraphError(f"id {node_id!r}: letters and digits, joined by single '-' or '.'")
        file = asked.file or self._files.folder / f"{asked.type}s" / f"{node_id}.md"
        before = read_node(file) if file.exists() else None
        self._check_same(before, file, output)
        archived = await self._archive.store(output, asked.storage_class, progress=progress)
        await self._void(archived)
        after = _updated(before, asked, archived) if before is not None else _created(node_id, asked, archived)
        edges = asked.edges if before is None else before.fields.get("edges")
        parts, rows = self._nodes_named(_targets(edges))
        if file.suffix == ".md":  # the index is of Glimmer's own node files
            rows.append(Row(node_id, asked.type, file.relative_to(self._files.folder).as_posix()))
        await self._enter_node(
            file, before, after, archived, Entry(f"glimmer-store: {node_id}", tuple(parts), tuple(rows))
        )
        return as_node(self._root, file, after.fields)

    async def _enter_node(
        self, file: Path, before: NodeFile | None, after: NodeFile, archived: Archived, entry: Entry
    ) -> None:
        """Enter *entry*, with the node itself and its proofs."""
        parts = [*entry.parts, node_part(self._root, file, before, after)]
        if archived.output.tree is not None:
            parts.append(Part(list_path(archived.output.tree.digest), "whole", archived.output.tree.to_bytes()))
        if before is None or after.raw != before.raw or not self._proven(archived.proofs):
            parts += self._archive.signer.parts(archived.proofs, reader(self._root))
        outcome = await self._enter(replace(entry, parts=tuple(parts)))
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
            path = self._files.called(node_id)
            if path is None:
                continue
            node = read_node(path)
            parts.append(Part(os.fsencode(path.relative_to(self._root)), "once", node.raw))
            rows.append(Row(node_id, str(node.fields.get("type", "")), path.relative_to(self._files.folder).as_posix()))
        return parts, rows

    async def _void(self, archived: Archived) -> None:
        """With too few copies there is no node, but what was found wrong is to be known."""
        try:
            archived.check(self._root, len(self._archive.remotes))
        except Shortfall:
            wrong = [proof for proof in archived.proofs if proof.verdict is not Verdict.GOOD]
            if wrong:
                title = f"glimmer-store: {archived.output.path.as_posix()} verified"
                await self._enter(Entry(title, tuple(self._archive.signer.parts(wrong, reader(self._root)))))
            raise

    def _proven(self, proofs: Sequence[Attestation]) -> bool:
        """The dataset has an attestation for each of them that says the same."""
        known = Attestations(self._root)
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
                f"{file.relative_to(self._root)}: the node already describes {where}",
                remedy=self._files.archived_as_another(str(before.fields.get("id", "")), self._root / output.path),
            )
        recorded, now = before.fields.get("output-hash"), _output_hash(output).get("output-hash")
        if recorded and now and recorded != now:
            raise HashMismatch(
                f"{output.path}: the node says {recorded}, the file is {now}",
                remedy=self._files.archived_as_another(str(before.fields.get("id", "")), self._root / output.path),
            )


def node_part(root: Path, file: Path, before: NodeFile | None, after: NodeFile) -> Part:
    """The node in *file* of the dataset *root*, as it was read and as it is to be, for an ``Entry``."""
    path = os.fsencode(file.relative_to(root))
    return Part(path, "whole", after.raw, None if before is None else before.raw)


def _created(node_id: str, asked: Emission, archived: Archived) -> NodeFile:
    now = _now()
    fields: dict[str, object] = {"id": node_id, "type": asked.type, "name": asked.name or archived.output.path.name}
    fields |= {"created": now, "modified": now, **asked.fields, **_stored(asked.type, archived)}
    fields["edges"] = [dict(edge) for edge in asked.edges]
    if asked.description:
        fields["description"] = asked.description
    fields["provenance-hash"] = provenance_hash(asked.body)
    return Sidecar.create(fields, asked.body)


def _updated(before: NodeFile, asked: Emission, archived: Archived) -> NodeFile:
    changed = before.with_fields(_stored(asked.type, archived))
    return before if changed.raw == before.raw else changed.with_fields({"modified": _now()})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _stored(type_: NodeType, archived: Archived) -> dict[str, object]:
    """The fields that say which output it is, and where."""
    return {**_named(type_, archived.output), **archived.record.to_fields()}


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
