"""Give the nodes of an existing graph their storage fields, from where their contents are now.

A copy is counted when its durable repository was asked and has it; what only the location log says is
reported and not counted. Nothing but our fields is written (and the key, where the node names none): every
other byte stays, ``modified`` and ``provenance-hash`` among them, and ``Sidecar.without_fields`` gives the
file back as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

import annexpy as annex
from glimmer_store.archive import Archive
from glimmer_store.bids import BLOCK, JsonSidecar, bids_files, read_node
from glimmer_store.config import Config
from glimmer_store.entry import write_whole
from glimmer_store.errors import SidecarError
from glimmer_store.policy import StorageClass
from glimmer_store.record import FIELDS, Location, StorageRecord
from glimmer_store.rules import INDEX_NAME
from glimmer_store.schema.fields import NODE_TYPES
from glimmer_store.sidecar import Sidecar
from glimmer_store.validate import sha256_of

__all__ = ["Migrated", "Migration", "plan_migration"]

KEY_FIELD = "datalad-annex-key"
_DEFAULT = {"dataset": StorageClass.IRREPLACEABLE, "derivative": StorageClass.GENERATED}
_TREE = b".tree"
"""How the names of keys end that are lists of a folder: their copies are counted when they are archived."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """What becomes of one node.

    Attributes:
        file: Its file, relative to the dataset.
        node: Its id.
        key: The key of its output; None when none was found.
        source: Where the key was found.
        changes: Field → (before, after); empty when nothing changes.
        record: What the node says afterwards; None when it gets no fields.
        notes: What people should know: copies that were not counted, and why.
        skipped: Why the node is left alone; empty when it is not.
        before, after: The whole file.
    """

    file: Path
    node: str
    key: annex.Key | None = None
    source: str = ""
    changes: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    record: StorageRecord | None = None
    notes: tuple[str, ...] = ()
    skipped: str = ""
    before: bytes = b""
    after: bytes = b""

    def to_json(self) -> dict[str, object]:
        fields: Mapping[str, object] = self.record.to_fields() if self.record is not None else {}
        return {
            "file": str(self.file),
            "id": self.node,
            "key": None if self.key is None else str(self.key),
            "key-from": self.source,
            **fields,
            "changed": list(self.changes),
            "notes": list(self.notes),
            "skipped": self.skipped,
        }


@dataclass(frozen=True, slots=True)
class Migration:
    """What a migration does, one entry for each node with an output. ``apply`` does it."""

    dataset: Path
    nodes: tuple[Migrated, ...]
    unreachable: Mapping[str, str]

    @property
    def changing(self) -> tuple[Migrated, ...]:
        return tuple(entry for entry in self.nodes if entry.changes)

    def apply(self) -> None:
        """Write the files, each whole or not at all.

        Raises:
            SidecarError: A file is no longer what it was when the migration was planned; those before it are done.
        """
        for entry in self.changing:
            path = self.dataset / entry.file
            if path.is_symlink() or path.read_bytes() != entry.before:
                raise SidecarError(f"{path}: has changed meanwhile", remedy="run the same command again")
            write_whole(path, entry.after)


async def plan_migration(dataset: Path, *, refresh: bool = False, verify: bool = False) -> Migration:
    """Find out what the storage fields of every node should say. Nothing is written.

    Args:
        dataset: Set up for glimmer_store.
        refresh: Also for nodes that have all the fields.
        verify: Read every copy again and compare it with its key. Without, ``verified`` becomes false, unless
            the node says true already and its copies are the same.

    Raises:
        ConfigError, NotARepository: It is not set up.
        SidecarError: The graph has a node file that cannot be read.
    """
    root = _resolved(dataset)
    async with Archive.open(root) as archive:
        planned = [_Node(root, path, read_node(path)) for path in _files(root, root / archive.config.graph)]
        finder = _KeyFinder(archive)
        pending = [node for node in planned if node.relevant]
        for node in pending:
            await node.find_key(finder)
        keys = list(dict.fromkeys(node.key for node in pending if node.key is not None and not node.skipped))
        answers = await _ask(archive, keys, verify)
        logged = {found.key: found for found in annex.whereis_many(archive.repository, keys)}
        needed = archive.config.numcopies
        done = tuple(node.migrated(answers, logged, needed, refresh, verify) for node in pending)
    return Migration(root, done, answers.unreachable)


def _resolved(dataset: Path) -> Path:
    return Config.dataset_of(dataset.resolve())


def _files(root: Path, graph: Path) -> Iterator[Path]:
    if graph.is_dir():
        yield from sorted(p for p in graph.rglob("*") if p.suffix in (".md", ".json") and p.name != INDEX_NAME)
    yield from bids_files(root, graph)


# -- what is there --


@dataclass(slots=True)
class _Answers:
    """What the durable remotes said: place → key → it has it; and of those that were read: it is right."""

    places: tuple[Location, ...]
    present: dict[Location, set[annex.Key]] = field(default_factory=dict)
    proven: dict[Location, set[annex.Key]] = field(default_factory=dict)
    bad: dict[Location, dict[annex.Key, str]] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)


async def _ask(archive: Archive, keys: Sequence[annex.Key], verify: bool) -> _Answers:
    answers = _Answers(tuple(Location(place.name, place.uuid) for place, _ in archive.remotes))

    async def one(place: Location, remote: annex.Remote) -> None:
        try:
            there = {key for key, has in zip(keys, await annex.has_many(remote, keys), strict=True) if has}
        except annex.AnnexError as error:
            answers.unreachable[place.remote] = str(error)
            return
        answers.present[place], answers.proven[place], answers.bad[place] = there, set(), {}
        for key in [key for key in keys if key in there] if verify else ():
            try:
                if await annex.verify(remote, key) is annex.Verified.HASH:
                    answers.proven[place].add(key)
            except annex.TransportError as error:
                del answers.present[place]
                answers.unreachable[place.remote] = str(error)
                return
            except annex.AnnexError as error:
                there.discard(key)
                answers.bad[place][key] = str(error)

    async with anyio.create_task_group() as tasks:
        for place, (_, remote) in zip(answers.places, archive.remotes, strict=True):
            tasks.start_soon(one, place, remote)
    return answers


class _KeyFinder:
    """Finds the key of an output that its node does not name."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._by_digest: dict[str, annex.Key] | None = None

    async def of_file(self, path: Path) -> annex.Key | None:
        """From the link, the pointer or the content in the work tree."""
        try:
            key = annex.annexed_key(path)
            return key or await annex.key_of(path, backend=self._archive.config.backend)
        except annex.InvalidPath:  # nothing that could be read is there
            return None

    def of_digest(self, digest: str) -> annex.Key | None:
        """From the keys that the location log knows."""
        if self._by_digest is None:
            known = (found.key for found in annex.whereis_all(self._archive.repository))
            self._by_digest = {sha256_of(key): key for key in sorted(known, reverse=True) if sha256_of(key)}
        return self._by_digest.get(digest)


# -- one node --


class _Node:
    """One node on its way to its storage fields."""

    def __init__(self, root: Path, path: Path, sidecar: Sidecar | JsonSidecar) -> None:
        self._root, self._path, self._sidecar = root, path, sidecar
        self.key: annex.Key | None = None
        self.source = self.skipped = ""

    @property
    def _fields(self) -> Mapping[str, Any]:  # Any: values of YAML or JSON
        return self._sidecar.fields

    @property
    def relevant(self) -> bool:
        return self._fields.get("type") in NODE_TYPES

    async def find_key(self, finder: _KeyFinder) -> None:
        """Set ``key`` and ``source``, or ``skipped``."""
        named, digest = self._fields.get(KEY_FIELD), _digest(self._fields.get("output-hash"))
        if self._path.is_symlink():
            self.skipped = "the node file is a link; keep node files in git itself (git annex unlock, git add)"
        elif named:
            try:
                self.key, self.source = annex.Key.parse(str(named)), KEY_FIELD
            except annex.InvalidKey as error:
                self.skipped = f"{KEY_FIELD}: {error}"
        else:
            for path in self._outputs():
                self.key = self.key or await finder.of_file(path)
                self.source = path.relative_to(self._root).as_posix() if self.key else ""
            if self.key is None and digest:
                self.key, self.source = finder.of_digest(digest), "output-hash"
            if self.key is None:
                self.skipped = "its content was not found: neither a key, nor a file, nor a known output-hash"
        if self.key is not None and digest and (known := sha256_of(self.key)) and known != digest:
            self.skipped = f"output-hash says sha256:{digest}, {self.source} has sha256:{known}"
        if self.key is not None and self.key.name.endswith(_TREE):
            self.skipped = "its output is a folder, whose copies are counted by: glimmer-store archive"

    def _outputs(self) -> Iterator[Path]:
        """Where the output may be in the work tree."""
        for name in ("output-path", "datalad-relative-path"):
            where = self._fields.get(name)
            if isinstance(where, str) and where:
                path = self._root / where
                if ".." not in path.parts and path.is_relative_to(self._root):
                    yield path
        if isinstance(self._sidecar, JsonSidecar) and self._sidecar.block == BLOCK:
            stem = self._path.name.removesuffix(".json") + "."
            beside = [p for p in sorted(self._path.parent.iterdir()) if p.name.startswith(stem) and p != self._path]
            if len(beside) == 1:
                yield beside[0]

    def migrated(
        self,
        answers: _Answers,
        logged: Mapping[annex.Key, annex.Whereis],
        needed: Mapping[StorageClass, int],
        refresh: bool,
        verify: bool,
    ) -> Migrated:
        """What becomes of it."""
        file, node = self._path.relative_to(self._root), str(self._fields.get("id", ""))
        if self.key is None or self.skipped:
            return Migrated(file, node, self.key, self.source, skipped=self.skipped)
        complete = all(name in self._fields for name in FIELDS)
        if complete and not refresh:
            return Migrated(file, node, self.key, self.source, skipped="has its fields (--refresh writes them anew)")
        before = self._recorded()
        notes = tuple(self._notes(answers, logged[self.key]))
        if before and any(place.remote in answers.unreachable for place in before.stored_at):
            return Migrated(
                file, node, self.key, self.source, notes=notes, skipped="recorded copies cannot be asked for"
            )
        record = self._record(self.key, answers, needed, before, verify)
        wanted = {**({} if self._fields.get(KEY_FIELD) else {KEY_FIELD: str(self.key)}), **record.to_fields()}
        after = self._sidecar.with_fields(wanted)
        changes = {
            n: (self._fields.get(n), v) for n, v in wanted.items() if self._fields.get(n) != v or n not in self._fields
        }
        return Migrated(
            file, node, self.key, self.source, changes, record, notes, "", self._sidecar.raw, after.raw
        )  # fmt: skip

    def _recorded(self) -> StorageRecord | None:
        try:
            return StorageRecord.from_fields(self._fields)
        except SidecarError:
            return None  # malformed fields are written anew

    def _record(
        self,
        key: annex.Key,
        answers: _Answers,
        needed: Mapping[StorageClass, int],
        before: StorageRecord | None,
        verify: bool,
    ) -> StorageRecord:
        named = self._fields.get("storage-class")
        known = {c.value: c for c in StorageClass}
        storage_class = known.get(str(named)) or _DEFAULT[self._fields["type"]]
        places = tuple(sorted(place for place in answers.places if key in answers.present.get(place, ())))
        proven = verify and all(key in answers.proven[place] for place in places)
        kept = not verify and before is not None and before.verified and before.stored_at == places
        return StorageRecord(places, needed[storage_class], bool(places) and (proven or kept), storage_class)

    def _notes(self, answers: _Answers, logged: annex.Whereis) -> Iterator[str]:
        assert self.key is not None
        durable = {place.uuid: place for place in answers.places}
        claimed = {found.uuid: found for found in logged.locations if not found.cluster}
        for uuid, place in durable.items():
            if why := answers.bad.get(place, {}).get(self.key):
                yield f"{place.remote}: not counted, its copy is bad: {why}"
            elif place.remote in answers.unreachable:
                if uuid in claimed:
                    yield f"{place.remote}: not counted, it cannot be asked: {answers.unreachable[place.remote]}"
            elif self.key in answers.present[place]:
                if uuid not in claimed:
                    yield f"{place.remote}: has it, though the location log does not say so"
            elif uuid in claimed:
                yield f"{place.remote}: does not have it, though the location log says so"
        others = [_name(found) for uuid, found in claimed.items() if uuid not in durable and not found.here]
        if others:
            yield f"not counted, since they are no durable remotes: {', '.join(others)}"


def _digest(value: object) -> str:
    return value.removeprefix("sha256:") if isinstance(value, str) and value.startswith("sha256:") else ""


def _name(found: annex.Location) -> str:
    return found.description or str(found.uuid)
