"""Archive what a manifest declares: each dataset and artefact becomes proven copies, a node, and a record.

Order: measure → compare with what is expected → store and prove (``archive``) → node → record, with the manifest
itself. Every dataset is read once; what is here and cannot be fetched again (the user's own files) is archived too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import anyio

import annexpy as annex
from glimmer_store.archive import Output
from glimmer_store.entry import Part
from glimmer_store.errors import HashMismatch, Shortfall, SourceRefused
from glimmer_store.graph import GlimmerGraph, GlimmerNode
from glimmer_store.manifest.bundle import Bundle, WorkTree, bundle_parts, refused_address
from glimmer_store.manifest.digest import Measured
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.library import Declared, Project
from glimmer_store.manifest.observing import Observations
from glimmer_store.policy import StorageClass, temporary_folders

__all__ = [
    "ArchivedEntry",
    "archive_manifest",
    "check_expected",
    "chosen",
    "manifest_part",
    "new_records",
    "record_of",
    "usual_class",
    "worst",
]

_TOGETHER: Final = 8
Status: TypeAlias = Literal["archived", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class ArchivedEntry:
    """What became of one dataset or artefact.

    Attributes:
        declared: Which.
        status: Whether it is stored and proven.
        reason: Why it is not.
        record: Of what is stored.
        node: Its node.
        error: What failed.
    """

    declared: Declared
    status: Status
    reason: str = ""
    record: Bundle | None = None
    node: GlimmerNode | None = None
    error: annex.AnnexError | None = None

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        found: dict[str, object] = {"name": self.declared.name, "address": self.declared.address, "status": self.status}
        if self.reason:
            found["reason"] = self.reason
        if self.record is not None:
            found |= {"key": self.record.key, "digest": self.record.digest, "size": self.record.size}
        if self.node is not None and self.node.record is not None:
            found |= {"node": self.node.id, **self.node.record.to_fields()}
        if self.error is not None:
            found["error-class"] = type(self.error).__name__
        return found


def chosen(project: Project, names: Collection[str], *, cached: bool) -> list[Declared]:
    """What *names* mean; without any, every dataset, and with *cached* every artefact.

    Raises:
        ManifestError: One means nothing, or more than one thing.
    """
    if names:
        return [project.find(name) for name in dict.fromkeys(names)]
    return [*project.datasets(), *(project.artefacts() if cached else ())]


def usual_class(declared: Declared) -> StorageClass:
    """An artefact can be computed again, and acquired data cannot."""
    return StorageClass.GENERATED if declared.kind == "artefact" else StorageClass.IRREPLACEABLE


async def archive_manifest(
    graph: GlimmerGraph,
    project: Project,
    entries: Sequence[Declared],
    *,
    storage_class: StorageClass | None = None,
    allow_volatile: bool = False,
) -> AsyncIterator[ArchivedEntry]:
    """Archive *entries*, some at a time so that they share commits; their records are entered together at the end.

    Args:
        graph: Of the dataset that has the manifest.
        project: The manifest.
        entries: Of it.
        storage_class: For all of them; else what is usual for each.
        allow_volatile: Archive from temporary folders as well.

    Raises:
        ManifestError: The manifest is not in the dataset.
        AnnexError: The records could not be committed.
    """
    manifest = manifest_part(graph, project)
    work = _Archiving(graph, project, storage_class, allow_volatile)
    done: list[ArchivedEntry] = []
    for start in range(0, len(entries), _TOGETHER):
        for entry in await work.some(entries[start : start + _TOGETHER]):
            done.append(entry)
            yield entry
    stored = [(one.record, work.trees[one.record.key].tree) for one in done if one.record is not None]
    if stored:
        new = new_records(graph.root, [record for record, _ in stored])
        parts = bundle_parts([(record, tree) for record, tree in stored if record in new])
        await graph.enter(
            f"glimmer-store: {len(stored)} entries of {manifest.path.decode()} archived", [manifest, *parts]
        )


def manifest_part(graph: GlimmerGraph, project: Project) -> Part:
    """The manifest as it is now.

    Raises:
        ManifestError: It is not in the dataset, so no history would have it.
    """
    if not project.manifest.is_relative_to(graph.root):
        raise ManifestError(f"{project.manifest}: is not in the dataset {graph.root}",
                            remedy="move the manifest there, or name its dataset with -C")  # fmt: skip
    return Part(str(project.manifest.relative_to(graph.root)).encode(), "whole", project.raw, project.raw)


class _Archiving:
    """What is the same for all entries."""

    def __init__(
        self, graph: GlimmerGraph, project: Project, storage_class: StorageClass | None, allow_volatile: bool
    ) -> None:
        self._graph, self._project = graph, project
        self._class, self._allow_volatile = storage_class, allow_volatile
        self._observations = Observations(project.root)
        self.trees: dict[str, Measured] = {}

    async def some(self, entries: Sequence[Declared]) -> list[ArchivedEntry]:
        """All of them at once; in their order."""
        done: dict[int, ArchivedEntry] = {}

        async def one(number: int, declared: Declared) -> None:
            done[number] = await self.one(declared)

        async with anyio.create_task_group() as group:
            for number, declared in enumerate(entries):
                group.start_soon(one, number, declared)
        return [done[number] for number in sorted(done)]

    async def one(self, declared: Declared) -> ArchivedEntry:
        if declared.lazy:
            return ArchivedEntry(declared, "skipped", "is opened where it is, and never fetched")
        if not declared.present:
            return ArchivedEntry(declared, "skipped", "is not here")
        try:
            self._check_place(declared.path)
            measured = await self._observations.measure(declared.path, self._graph.archive.config.backend)
            aliases = check_expected(self._project, declared, measured)
            record, node = await self._store(declared, measured, aliases)
        except annex.AnnexError as error:
            return ArchivedEntry(declared, "failed", str(error), error=error)
        self.trees[record.key] = measured
        return ArchivedEntry(declared, "archived", "", record, node)

    def _check_place(self, path: Path) -> None:
        real = path.resolve()
        for folder in temporary_folders():
            inside = real.is_relative_to(folder) and not self._graph.root.is_relative_to(folder)
            if inside and not self._allow_volatile:
                raise SourceRefused(f"{path}: lies in {folder}, which nobody promises to keep",
                                    remedy="keep it elsewhere, or allow it with --allow-volatile")  # fmt: skip

    async def _store(
        self, declared: Declared, measured: Measured, aliases: tuple[str, ...]
    ) -> tuple[Bundle, GlimmerNode]:
        wanted = self._class or usual_class(declared)
        record = record_of(declared, measured, wanted, aliases)
        short = hashlib.sha256(measured.digest.encode()).hexdigest()[:12]
        output = Output(
            Path("datamanifest", short, *declared.place.split("/")), measured.key, measured.tree, measured.path
        )
        kind = "derivative" if declared.kind == "artefact" else "dataset"
        slug = re.sub(r"[^A-Za-z0-9]+", "-", declared.name).strip("-")[:60].strip("-") or "data"
        emit = self._graph.derivative if kind == "derivative" else self._graph.dataset
        node = await emit(
            output,
            id=f"{kind}-{slug}-{short}",
            name=declared.name,
            storage_class=wanted,
            description=f"{declared.address} of {self._project.manifest.name}",
        )
        return record, node


def new_records(root: Path, records: Sequence[Bundle]) -> list[Bundle]:
    """Those that the dataset does not have yet."""
    known = WorkTree(root)
    return [one for one in records if not any(one.same(other) for other in known.of(one.address))]


def check_expected(project: Project, declared: Declared, measured: Measured) -> tuple[str, ...]:
    """Other digests of it than ours, which were compared now.

    Raises:
        HashMismatch: It is not what the manifest declares.
    """
    if not declared.expected or declared.expected == measured.digest:
        return ()
    algorithm, _, wanted = declared.expected.partition(":")
    found = f"{algorithm}:{project.concatenated(measured.path, algorithm)}"
    if found != f"{algorithm}:{wanted.lower()}":
        raise HashMismatch(
            f"{declared.name}: the manifest expects {declared.expected}, {measured.path} is {found}",
            remedy="fetch it again, or correct the checksum if the change was meant",
        )
    return (declared.expected,)


def record_of(declared: Declared, measured: Measured, storage_class: StorageClass, aliases: tuple[str, ...]) -> Bundle:
    """The record of what was measured.

    Raises:
        ManifestError: Nothing can be stored under its address.
    """
    if why := refused_address(declared.address):
        raise ManifestError(
            f"{declared.name}: its address {declared.address!r} {why}", remedy="give it another key in the manifest"
        )
    return Bundle.of(
        declared.address,
        declared.name,
        measured,
        storage_class.value,
        expected=declared.expected,
        aliases=aliases,
        format=declared.format,
        ref=declared.ref,
    )


def worst(entries: Sequence[ArchivedEntry]) -> int:
    """The exit code: 0 all stored, 3 one has too few copies, 1 another failure."""
    failed = [one.error for one in entries if one.status == "failed"]
    if not failed:
        return 0
    return 3 if all(isinstance(error, Shortfall) for error in failed) else 1
