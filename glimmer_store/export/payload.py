"""What is exported: the outputs of a set of nodes, and their bytes from a copy that is verified while it is read."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from anyio import to_thread

import annexpy as annex
from glimmer_store.archive import Archive
from glimmer_store.bids import bids_files, read_node
from glimmer_store.errors import GraphError, StoreError, shell_line
from glimmer_store.export.scope import out_of_scope
from glimmer_store.export.stage import keep_only
from glimmer_store.fetching import get_good, is_content
from glimmer_store.record import StorageRecord
from glimmer_store.rules import INDEX_NAME
from glimmer_store.schema.fields import NODE_TYPES
from glimmer_store.tree import Tree
from glimmer_store.validate import sha256_of

__all__ = ["ExportNode", "Item", "Limits", "OverLimit", "collect", "deliver"]


class OverLimit(StoreError):
    """The export would be larger than was allowed, or than the disk is."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an export may take.

    Attributes:
        max_bytes: Of contents; None for no limit but the disk.
        reserve: Bytes that stay free on the disk.
    """

    max_bytes: int | None = None
    reserve: int = 64 << 20

    def check(self, size: int, folder: Path) -> None:
        """Refuse *size* more bytes of contents in *folder*.

        Raises:
            OverLimit: It is too much.
        """
        if self.max_bytes is not None and size > self.max_bytes:
            raise OverLimit(f"{size} bytes of contents, at most {self.max_bytes} are allowed",
                            remedy="export fewer nodes, or allow more with --max-bytes")  # fmt: skip
        free = shutil.disk_usage(folder).free
        if size + self.reserve > free:
            raise OverLimit(f"{folder}: {size} bytes of contents, {free} are free and {self.reserve} are to stay so",
                            remedy="export to another disk, or fewer nodes")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExportNode:
    """A node that is exported.

    Attributes:
        file: Its file, relative to the dataset.
        raw: The file's content.
        fields: Its front matter.
        record: Its storage; None when it says nothing of it.
    """

    file: Path
    raw: bytes
    fields: Mapping[str, Any]  # Any: values of YAML or JSON
    record: StorageRecord | None

    @property
    def id(self) -> str:
        return str(self.fields.get("id", ""))

    def text(self, name: str) -> str:
        """A field as text; empty when it is not there."""
        value = self.fields.get(name)
        return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Item:
    """One file of an export.

    Attributes:
        path: In the dataset and below ``data/``, with ``/``.
        key: Its key.
        node: The node that it belongs to.
        urls: Where the web has it.
        size, sha256: Of the content; known from the key, or once it is there.
    """

    path: str
    key: annex.Key
    node: ExportNode
    urls: tuple[str, ...] = ()
    size: int = -1
    sha256: str = ""


async def collect(archive: Archive, ids: Collection[str], scratch: Path) -> list[Item]:
    """The files of these nodes, or of all that have an output; sorted by path.

    Args:
        archive: The dataset.
        ids: Ids of nodes; none for all.
        scratch: A folder for the lists of outputs that are folders.

    Raises:
        GraphError: There is no such node, one has no key, or two outputs would be the same file.
        SidecarError: A node file cannot be read.
        AnnexError: The list of an output that is a folder cannot be had.
    """
    found = {node.id: node for node in _nodes(archive)}
    if unknown := sorted(set(ids) - set(found)):
        raise GraphError(
            f"no dataset or derivative node {', '.join(unknown)}",
            remedy=shell_line("glimmer-store", "status", "-C", archive.root),
        )
    items: dict[str, Item] = {}
    for node in [found[name] for name in dict.fromkeys(ids)] or list(found.values()):
        for item in await _items(archive, node, scratch):
            other = items.setdefault(item.path, item)
            if other.key != item.key:
                raise GraphError(f"{item.path}: {other.node.id} and {item.node.id} name different contents for it",
                                 remedy="export them apart")  # fmt: skip
    ordered = [items[path] for path in sorted(items)]
    where = annex.whereis_many(archive.repository, [item.key for item in ordered])
    return [replace(item, urls=_urls(known)) for item, known in zip(ordered, where, strict=True)]


def _nodes(archive: Archive) -> Iterator[ExportNode]:
    graph = archive.root / archive.config.graph
    inside = sorted(p for p in graph.rglob("*") if p.suffix in (".md", ".json") and p.name != INDEX_NAME)
    for path in [*inside, *bids_files(archive.root, graph)]:
        sidecar = read_node(path)
        if sidecar.fields.get("type") in NODE_TYPES:
            record = StorageRecord.from_fields(sidecar.fields, node=str(path))
            yield ExportNode(path.relative_to(archive.root), sidecar.raw, sidecar.fields, record)


async def _items(archive: Archive, node: ExportNode, scratch: Path) -> list[Item]:
    if not node.text("datalad-annex-key"):
        emit = shell_line("glimmer-store", "emit", "-C", archive.root, archive.root / node.file)
        raise GraphError(f"{node.id}: names no key, so there is nothing to export", remedy=emit)
    key = annex.Key.parse(node.text("datalad-annex-key"))
    path = node.text("output-path") or node.text("datalad-relative-path") or f"{node.id}/{key}"
    if why := out_of_scope(path):
        raise GraphError(f"{node.id}: its output {path!r} {why}", remedy="name it relative to the dataset")
    if not key.name.endswith(b".tree"):
        return [_item(path, key, node)]
    listed = scratch / "list.tree"
    await annex.get([remote for _, remote in archive.remotes], key, listed, durable=False)
    entries = Tree.from_bytes(listed.read_bytes()).entries
    listed.unlink()
    names = [(f"{path}/{entry.path.decode()}", entry.key) for entry in entries if entry.key is not None]
    for name, _ in names:
        if why := out_of_scope(name):
            raise GraphError(f"{node.id}: {name!r} in its output {why}", remedy="rename it and archive it again")
    return [_item(name, member, node) for name, member in names]


def _item(path: str, key: annex.Key, node: ExportNode) -> Item:
    if not annex.is_verifiable(key):
        raise GraphError(f"{node.id}: {key} holds no hash that its content could be compared with",
                         remedy="archive the output again: it gets a key with a hash")  # fmt: skip
    return Item(path, key, node, (), -1 if key.size is None else key.size, sha256_of(key))


def _urls(where: annex.Whereis) -> tuple[str, ...]:
    found = (url for place in where.locations + where.untrusted for url in place.urls)
    return tuple(dict.fromkeys(url for url in found if url.startswith(("https://", "http://", "ftp://"))))


async def deliver(
    archive: Archive,
    items: Sequence[Item],
    folder: Path,
    limits: Limits,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> list[Item]:
    """Write the contents below *folder*, each compared with its key while it comes in; the items with size and hash.

    What is there already and is the right content stays; what is none of them is taken away.

    Raises:
        OverLimit: Before anything is written, as far as the keys tell sizes.
        AnnexError: No durable remote has a good copy of one.
    """
    keep_only(folder, {item.path for item in items}, partials=True)
    here = [item.path for item in items if await to_thread.run_sync(is_content, folder / item.path, item.key)]
    limits.check(sum(max(item.size, 0) for item in items if item.path not in here), folder)
    sources = [remote for _, remote in archive.remotes]
    done: list[Item] = []
    written = 0
    for item in items:
        target = folder / item.path
        target.parent.mkdir(parents=True, exist_ok=True)
        report = None if progress is None else (lambda _key, have, total, name=item.path: progress(name, have, total))
        if item.path not in here:
            target.unlink(missing_ok=True)  # torn
            await get_good(sources, item.key, target, associated_file=item.path, progress=report)
        size = target.stat().st_size
        written += size
        if limits.max_bytes is not None and written > limits.max_bytes:  # keys may have no size
            limits.check(written, folder)
        digest = item.sha256 or (await annex.key_of(target, backend="SHA256")).name.decode()
        done.append(replace(item, size=size, sha256=digest))
    keep_only(folder, {item.path for item in items}, partials=False)
    return done
