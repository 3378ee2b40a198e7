"""The node files of a graph: by id, by name, or all of them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from glimmer_store.enter import INDEX, read_index
from glimmer_store.errors import GraphError, SidecarError, shell_line
from glimmer_store.nodes import GlimmerNode, Unreadable, bids_nodes, is_sidecar, node_of, scan

__all__ = ["NodeFiles", "absolute", "is_id"]

log = logging.getLogger(__name__)

_ID = re.compile(r"[a-zA-Z0-9]+([-.][a-zA-Z0-9]+)*\Z")


def is_id(text: str) -> bool:
    """*text* may be the id of a node, and so the name of its file."""
    return _ID.match(text) is not None


def absolute(path: str | os.PathLike[str]) -> Path:
    """*path* from the root of the file system; symbolic links stay as they are."""
    return Path(os.path.abspath(path))


class NodeFiles:
    """Those of the dataset *root*: Glimmer's own in the graph's *folder*, and BIDS sidecars elsewhere."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder

    def is_sidecar(self, file: Path) -> bool:
        """*file* may be a BIDS sidecar."""
        return is_sidecar(self.root, self.folder, file)

    def scan(self) -> Iterator[GlimmerNode | Unreadable]:
        """Every dataset and derivative node, and in between those that cannot be read."""
        return scan(self.root, self.folder)

    def named(self, ids: Collection[str]) -> Iterator[GlimmerNode]:
        """The nodes of *ids* that are there and can be read; what all of them cost one by one is looked at once."""
        left = set(ids)
        for node_id in ids:
            path = self.called(node_id)
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
        file = absolute(name)
        if file.exists() and (self.is_sidecar(file) or (file.suffix == ".md" and file.is_relative_to(self.folder))):
            return node_of(self.root, file)
        found = self.file(str(name))
        if found is None:
            for one in bids_nodes(self.root, self.folder):
                if isinstance(one, GlimmerNode) and one.id == str(name):
                    return one
            raise GraphError(f"{name}: no such node", remedy="name the id of a node, or a node file")
        return node_of(self.root, found)

    def called(self, node_id: str) -> Path | None:
        """The file that is called like a node; costs the same however many there are."""
        if is_id(node_id):
            folders = (
                [entry.path for entry in os.scandir(self.folder) if entry.is_dir()] if self.folder.exists() else []
            )
            for folder in (self.folder, *map(Path, folders)):
                if (folder / f"{node_id}.md").exists():
                    return folder / f"{node_id}.md"
        return None

    def file(self, node_id: str) -> Path | None:
        """The file of a node."""
        if (path := self.called(node_id)) is not None:
            return path
        for entry in self._index()["nodes"]:
            if entry.get("id") == node_id:
                return self.folder / str(entry["path"])
        return None

    def archived_as_another(self, id_: str, path: Path) -> str:
        """The line that makes a node of its own of what is at *path* now, beside the node *id_*."""
        stem = re.sub(r"-\d+\Z", "", id_)
        free = next(new for new in (f"{stem}-{number}" for number in count(2)) if self.file(new) is None)
        type_ = ["--type", "dataset"] if stem.startswith("dataset-") else []
        return shell_line("glimmer-store", "archive", *type_, "--id", free, "-C", self.root, path)

    def _index(self) -> dict[str, Any]:  # Any: parsed JSON
        path = self.folder / INDEX
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = None
        return read_index(data, self.root.name, str(path))
