r"""What is stored under an address: one line for each content that an address ever had.

The lines of an address are a log, ``.glimmer-store/bundles/XX/HASH.log`` of the dataset, HASH being the SHA-256 of
the address and XX its first two digits. Lines are only ever added, and merged by taking those of both sides, so two
machines that archive at once lose nothing, and two contents for one address are both kept. The list of a folder's
files stands where those of other folders stand (``tree.list_path``). All of it travels with the history, so one bare
repository is enough to find and rebuild everything.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import annexpy as annex
from glimmer_store.attest import FOLDER
from glimmer_store.entry import Part
from glimmer_store.errors import GraphError, SidecarError
from glimmer_store.export.scope import out_of_scope
from glimmer_store.gates import git
from glimmer_store.manifest.digest import Measured
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.tree import Tree, TreeEntry, list_path

__all__ = ["Bundle", "History", "WorkTree", "bundle_parts", "checked_tree", "log_path", "refused_address"]

_ATTRIBUTES: Final = b"* annex.largefiles=nothing\n*.log merge=union -text\n"
_FOLDER: Final = f"{FOLDER}/bundles"


@dataclass(frozen=True, slots=True)
class Bundle:
    """One content of one address.

    Attributes:
        address: Of a dataset or an artefact, as ``library.Declared`` has it.
        name: What it was called when it was stored.
        key: Of the file; of the list, for a folder.
        tree: ``sha256:HEX``, the digest of the list; empty for a file.
        digest: ``sha256:HEX`` of the file, ``gt1:HEX`` of the folder: what is *stored*.
        content: The same without what says when and by whom an artefact was made.
        size: Bytes of all contents.
        storage_class: ``irreplaceable`` or ``generated``.
        expected: What the manifest asked for then; empty when it asked for nothing, so this was taken on trust.
        aliases: Other digests of the file, ``algorithm:hex``, checked once, when it was stored.
        format, ref: Of an artefact.
        time: When it was stored, UTC.
    """

    address: str
    name: str
    key: str
    tree: str
    digest: str
    content: str
    size: int
    storage_class: str
    expected: str = ""
    aliases: tuple[str, ...] = ()
    format: str = ""
    ref: str = ""
    time: str = ""

    @classmethod
    def of(cls, address: str, name: str, measured: Measured, storage_class: str, **more: str | tuple[str, ...]) -> Self:
        """That of a content that was just read."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        tree = "" if measured.tree is None else measured.tree.digest
        plain = (address, name, str(measured.key), tree, measured.digest, measured.content, measured.size)
        return cls(*plain, storage_class, **{"time": now, **more})  # type: ignore[arg-type]

    @property
    def kind(self) -> str:
        """``datasets`` or ``datacache``."""
        return self.address.partition("/")[0]

    def same(self, other: Bundle) -> bool:
        """The same content under the same address, whenever it was stored."""
        return (self.address, self.key) == (other.address, other.key)

    def to_line(self) -> bytes:
        """The line, with LF."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return json.dumps({"v": 1, **values}, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """None for a line that is no record of this version, or whose address would lead out of its folder."""
        try:
            values = json.loads(line)
            if values.pop("v") != 1 or type(values["size"]) is not int:
                return None
            values["aliases"] = tuple(map(str, values["aliases"]))
            if any(type(value) not in (str, int, tuple) for value in values.values()):
                return None
            bundle = cls(**values)
            annex.Key.parse(bundle.key)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, annex.AnnexError):
            return None
        return None if refused_address(bundle.address) else bundle


def refused_address(address: str) -> str:
    """Why nothing can be stored under *address*; empty when it can."""
    kind, _, place = address.partition("/")
    if kind not in ("datasets", "datacache"):
        return "is neither of a dataset nor of an artefact"
    return out_of_scope(place) or ("has an empty part" if "" in place.split("/") else "")


def log_path(address: str) -> str:
    """Where the log of an address is, from the top of the dataset."""
    name = hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{_FOLDER}/{name[:2]}/{name}.log"


def bundle_parts(stored: Iterable[tuple[Bundle, Tree | None]]) -> list[Part]:
    """What enters records, with the lists of their folders, into a dataset."""
    parts = []
    for bundle, tree in stored:
        parts.append(Part(log_path(bundle.address).encode(), "lines", bundle.to_line()))
        if tree is not None:
            parts.append(Part(list_path(tree.digest), "whole", tree.to_bytes()))
    return [Part(f"{_FOLDER}/.gitattributes".encode(), "once", _ATTRIBUTES), *parts] if parts else []


class WorkTree:
    """The records in the work tree of a dataset.

    Args:
        root: Its top.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str) -> bytes | None:
        """A file; None when there is none."""
        try:
            return (self._root / path).read_bytes()
        except FileNotFoundError:
            return None

    def logs(self) -> Iterator[str]:
        """Paths of all logs."""
        for file in sorted((self._root / _FOLDER).glob("??/*.log")):
            yield file.relative_to(self._root).as_posix()

    def all(self) -> Iterator[Bundle]:
        """Every record, those of an address together, the oldest first."""
        for path in self.logs():
            yield from self._in(path)

    def of(self, address: str) -> list[Bundle]:
        """The records of an address, the oldest first; each content once."""
        return [one for one in self._in(log_path(address)) if one.address == address]

    def current(self, address: str, expected: str = "") -> Bundle | None:
        """The content that counts: of a dataset what the manifest expects, else the newest; of an artefact the first.

        An artefact is what was computed once: a second run that came to something else does not replace it.
        """
        found = self.of(address)
        wanted = [one for one in found if expected and expected in (one.digest, one.expected, *one.aliases)]
        if wanted:
            return wanted[-1]
        if not found:
            return None
        return found[0] if found[0].kind == "datacache" else found[-1]

    def tree(self, bundle: Bundle) -> Tree | None:
        """What is in the folder; None for a file.

        Raises:
            ManifestError: The list is not there, or is another one.
        """
        if not bundle.tree:
            return None
        raw = self.read(os.fsdecode(list_path(bundle.tree)))
        tree = None if raw is None else checked_tree(raw, bundle.address)
        if tree is None or tree.digest != bundle.tree:
            raise ManifestError(f"{bundle.address}: the list {bundle.tree} of its files is missing or is another one")
        return tree

    def _in(self, path: str) -> list[Bundle]:
        lines = (self.read(path) or b"").split(b"\n")
        found = sorted(
            (one for one in map(Bundle.from_line, lines) if one is not None and log_path(one.address) == path),
            key=lambda one: (one.address, one.time, one.key),
        )
        first: dict[tuple[str, str], Bundle] = {}
        for one in found:
            first.setdefault((one.address, one.key), one)
        return list(first.values())


def checked_tree(raw: bytes, name: str) -> Tree:
    """A list that others wrote.

    Raises:
        ManifestError: It is none, or something in it leads out of the folder.
    """
    try:
        tree = Tree.from_bytes(raw)
    except SidecarError as error:
        raise ManifestError(f"{name}: {error}") from error
    for entry in tree.entries:
        if why := _leads_out(entry):
            raise ManifestError(f"{name}: {entry.path!r} in its list {why}")
    return tree


def _leads_out(entry: TreeEntry) -> str:
    """Why a line of a list that others wrote may not be followed; empty when it may."""
    path, target = entry.path, entry.target
    if not path or path.startswith(b"/") or b"\0" in path + target or b".." in path.split(b"/"):
        return "leads out of the folder"
    leads = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if target.startswith(b"/") or leads == b".." or leads.startswith(b"../"):
        return "leads out of the folder"
    return ""


class History(WorkTree):
    """The records in a commit.

    Args:
        repository: Any git repository that has the commit.
        commit: Which.
    """

    def __init__(self, repository: Path, commit: str) -> None:
        super().__init__(repository)
        self._commit = commit

    def read(self, path: str) -> bytes | None:
        """A file; None when there is none."""
        try:
            return git(self._root, "cat-file", "blob", f"{self._commit}:{path}")
        except GraphError:
            return None

    def logs(self) -> Iterator[str]:
        """Paths of all logs."""
        listed = git(self._root, "ls-tree", "-r", "--name-only", "-z", self._commit, "--", f"{_FOLDER}/")
        for name in listed.split(b"\0"):
            if name.endswith(b".log"):
                yield os.fsdecode(name)
