r"""``gt1``: one digest for a folder that sees names, nesting, empty files and empty folders.

A folder's own digest is the SHA-256 of ``gt1\n`` and one line for each thing in it, sorted by the bytes of the names::

    TYPE SIZE HASH LENGTH:NAME

``f`` is a file, ``x`` one that its owner may execute (SHA-256 of the content), ``l`` a symbolic link (SHA-256 of its
target), ``d`` a folder (its own digest, and the size of all that is in it). SIZE and LENGTH, that of the name in bytes,
are decimal, HASH is lower-case hex. Names are bytes and no Unicode form is preferred. It is written ``gt1:HEX``.

Where the keys of the files are SHA-256 keys every size and hash is in the keys, so the digest of an archived folder
is computed without reading any content, and two folders are compared from the top: equal digests need no look below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import annexpy as annex
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.tree import Tree, TreeEntry, tree_of

__all__ = ["MARKS", "Measured", "changed", "measure", "sha256_of_key", "tree_digest"]

MARKS: Final = frozenset((b".complete", b".lock", b".tmp"))
"""At the top of a folder these belong to whoever published it, and are no part of it."""
_AUDIT: Final = b"metadata.toml"
"""When, where and by whom an artefact was made: two runs differ in it, whatever they computed."""


@dataclass(slots=True)
class _Folder:
    """A folder while its digest is computed."""

    files: list[TreeEntry] = field(default_factory=list)
    folders: dict[bytes, _Folder] = field(default_factory=dict)

    def digest(self) -> tuple[str, int]:
        lines, total = [], 0
        for entry in self.files:
            name = entry.path.rpartition(b"/")[2]
            kind, size, digest = _leaf(entry)
            lines.append((name, _line(kind, size, digest, name)))
            total += size
        for name, folder in self.folders.items():
            digest, size = folder.digest()
            lines.append((name, _line("d", size, digest, name)))
            total += size
        whole = b"gt1\n" + b"".join(line for _, line in sorted(lines))
        return hashlib.sha256(whole).hexdigest(), total


def tree_digest(tree: Tree) -> str:
    """``gt1:`` and the digest of *tree*.

    Raises:
        ManifestError: A key of it holds no SHA-256.
    """
    top = _Folder()
    for entry in tree.entries:
        *above, _ = entry.path.split(b"/")
        folder = top
        for name in above if entry.kind != "d" else entry.path.split(b"/"):
            folder = folder.folders.setdefault(name, _Folder())
        if entry.kind != "d":
            folder.files.append(entry)
    return "gt1:" + top.digest()[0]


def _leaf(entry: TreeEntry) -> tuple[str, int, str]:
    if entry.key is None:
        return "l", len(entry.target), hashlib.sha256(entry.target).hexdigest()
    digest = sha256_of_key(entry.key)
    if digest is None or entry.key.size is None:
        raise ManifestError(f"{entry.key}: holds no size and SHA-256", remedy="archive it with the backend SHA256E")
    return entry.kind, entry.key.size, digest


def _line(kind: str, size: int, digest: str, name: bytes) -> bytes:
    return b"%b %d %b %d:%b\n" % (kind.encode(), size, digest.encode(), len(name), name)


def sha256_of_key(key: annex.Key) -> str | None:
    """The hex digest in a SHA-256 key; None for others."""
    return key.name.split(b".")[0].decode() if key.backend in (b"SHA256", b"SHA256E") else None


def changed(stored: Tree, observed: Tree) -> list[bytes]:
    """Paths at which two folders differ, sorted."""

    def facts(tree: Tree) -> Mapping[bytes, tuple[str, int, str]]:
        return {entry.path: ("d", 0, "") if entry.kind == "d" else _leaf(entry) for entry in tree.entries}

    one, other = facts(stored), facts(observed)
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


@dataclass(frozen=True, slots=True)
class Measured:
    """What was read at a place.

    Attributes:
        path: The place.
        key: Of the file; of the list, for a folder.
        tree: What is in it, for a folder.
        digest: ``sha256:HEX`` of a file, ``gt1:HEX`` of a folder.
        size: Bytes of all contents.
    """

    path: Path
    key: annex.Key
    tree: Tree | None
    digest: str
    size: int

    @property
    def keys(self) -> list[annex.Key]:
        """Every key that a copy of it has to have."""
        return [self.key] if self.tree is None else [*self.tree.keys, self.key]

    @property
    def content(self) -> str:
        """The digest without what says when and by whom it was made: equal for runs that computed the same."""
        if self.tree is None:
            return self.digest
        return tree_digest(Tree(tuple(entry for entry in self.tree.entries if entry.path != _AUDIT)))


async def measure(path: Path, root: Path, backend: str = "SHA256E") -> Measured:
    """Read all of a file or folder once. Links to files are followed at *path* itself only.

    Args:
        path: Where.
        root: The dataset, whose annexed files in a folder count by their keys.
        backend: Of the keys; one without SHA-256 is replaced by SHA256E.

    Raises:
        SourceRefused, InvalidPath, ContentChanged: As ``tree.tree_of``.
    """
    named = backend if backend in ("SHA256", "SHA256E") else "SHA256E"
    if _is_folder(path):
        tree = await tree_of(path, root, named, without=MARKS)
        return Measured(path, tree.key(named), tree, tree_digest(tree), tree.size)
    key = await annex.key_of(path, backend=named)
    digest = sha256_of_key(key)
    assert digest is not None
    assert key.size is not None
    return Measured(path, key, None, f"sha256:{digest}", key.size)


def _is_folder(path: Path) -> bool:
    return path.is_dir()
