"""Views: folders of links to stored contents, laid out as datamanifest's read pools are.

A view has no bytes of its own where links can be made: symbolic links first, else reflinks, hard links, copies, and the
view says which. Its folders are 0555 and its files 0444, and everything in it can be made again: removing a view, or
whatever a tool removes in it, leaves the contents alone. Several views, one for each scope, share every byte.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import annexpy as annex
from glimmer_store.entry import write_whole
from glimmer_store.manifest.bundle import Bundle
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.library import MARKER
from glimmer_store.manifest.local_contents import Objects
from glimmer_store.tree import Tree

__all__ = ["LINKS", "Entry", "Link", "View"]

Link: TypeAlias = Literal["symlink", "reflink", "hardlink", "copy"]
LINKS: Final[tuple[Link, ...]] = get_args(Link)
"""In the order in which they are tried."""
_NAME: Final = ".glimmer-view.json"
_FICLONE: Final = 0x40049409


@dataclass(frozen=True, slots=True)
class Entry:
    """One address in a view.

    Attributes:
        place: Below the view.
        digest: Of what it leads to.
        link: How.
        sizes: Key → bytes, of every content in it.
    """

    place: str
    digest: str
    link: Link
    sizes: Mapping[str, int]


@dataclass(slots=True)
class View:
    """One view.

    Attributes:
        folder: Where it is.
        scope: What it is for.
        dataset: Whose contents it shows.
        entries: By address.
    """

    folder: Path
    scope: str
    dataset: Path
    entries: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> View:
        """The view in *folder*.

        Raises:
            ManifestError: There is none.
        """
        try:
            said = json.loads((folder / _NAME).read_bytes())
            entries = {address: Entry(**fields) for address, fields in said["entries"].items()}
            return cls(folder.resolve(), said["scope"], Path(said["dataset"]), entries)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"{folder}: is no view", remedy="make one with: glimmer-store view create") from error

    @classmethod
    def create(cls, folder: Path, dataset: Path, scope: str = "") -> View:
        """A new view in *folder*, or the one that is there.

        Raises:
            ManifestError: Something else is there, or a view of another dataset or scope.
        """
        if (folder / _NAME).exists():
            view = cls.open(folder)
            if (view.dataset, view.scope) != (dataset, scope or view.scope):
                raise ManifestError(f"{folder}: is a view of {view.dataset}, scope {view.scope!r}",
                                    remedy="name another folder, or delete that view first")  # fmt: skip
            return view
        if folder.exists() and any(folder.iterdir()):
            raise ManifestError(f"{folder}: is not empty, and no view", remedy="name a folder that does not exist")
        folder.mkdir(parents=True, exist_ok=True)
        view = cls(folder.resolve(), scope or folder.name, dataset)
        view._save()
        _lock(view.folder)
        return view

    def add(self, record: Bundle, place: str, tree: Tree | None, objects: Objects, *, link: Link | None = None) -> Link:
        """Show a stored content at *place*; what is there already and leads to the same stays.

        Args:
            record, tree: What is stored.
            place: Below the view.
            objects: Where the contents are.
            link: How; by default the first way that the file system has.

        Raises:
            KeyNotPresent: A content is not on this machine.
            ManifestError: That kind of link cannot be made here.
        """
        known = self.entries.get(record.address)
        keys = [annex.Key.parse(record.key)] if tree is None else tree.keys
        same = known is not None and (known.digest, known.place) == (record.digest, place)
        if known is not None and same and link in (None, known.link) and _is_whole(self.folder / place, tree):
            return known.link
        found: dict[annex.Key, Path] = {}
        for key in keys:
            path = objects.find(key)
            if path is None:
                raise annex.KeyNotPresent(key, str(self.dataset))
            found[key] = path
        for kind in (link,) if link is not None else LINKS:
            try:
                self._publish(record, place, tree, found, kind)
            except OSError as error:
                problem = error
                continue
            self.entries[record.address] = Entry(place, record.digest, kind, {str(key): key.size or 0 for key in keys})
            self._save()
            return kind
        raise ManifestError(f"{self.folder}: no {link or 'link'} to {found[keys[0]]}: {problem}")

    def delete(self) -> None:
        """Remove the view: links only, the contents stay."""
        _unlock(self.folder)
        shutil.rmtree(self.folder)

    # -- sizes --

    @property
    def apparent_size(self) -> int:
        """Bytes that can be read in it."""
        return sum(sum(entry.sizes.values()) for entry in self.entries.values())

    def exclusive_size(self, others: list[View]) -> int:
        """Bytes of contents that none of *others* shows: what nobody would miss without this view."""
        elsewhere = {key for view in others for entry in view.entries.values() for key in entry.sizes}
        mine = {key: size for entry in self.entries.values() for key, size in entry.sizes.items()}
        return sum(size for key, size in mine.items() if key not in elsewhere)

    def to_json(self, others: list[View]) -> dict[str, Any]:  # Any: JSON
        """As plain values, with its sizes."""
        kinds = sorted({entry.link for entry in self.entries.values()})
        return {"folder": str(self.folder), "scope": self.scope, "entries": len(self.entries), "links": kinds,
                "apparent-size": self.apparent_size, "exclusive-size": self.exclusive_size(others)}  # fmt: skip

    # -- the register of a dataset's views --

    def register(self, git_dir: Path) -> None:
        """Let the dataset know of it."""
        folder = git_dir / "glimmer-store" / "views"
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:32]
        write_whole(folder / f"{name}.json", json.dumps({"folder": str(self.folder)}).encode())

    @classmethod
    def registered(cls, git_dir: Path) -> Iterator[View]:
        """Every view of the dataset that still is there."""
        for file in sorted((git_dir / "glimmer-store" / "views").glob("*.json")):
            try:
                yield cls.open(Path(json.loads(file.read_bytes())["folder"]))
            except (ManifestError, ValueError, KeyError):
                file.unlink(missing_ok=True)

    # -- writing --

    def _publish(
        self, record: Bundle, place: str, tree: Tree | None, found: Mapping[annex.Key, Path], kind: Link
    ) -> None:
        """Make it aside, and rename it into place."""
        aside, target = self.folder / f".{os.getpid()}.tmp", self.folder / place
        with _writable(self.folder):
            _remove(aside)
            try:
                if tree is None:
                    _MAKE[kind](found[annex.Key.parse(record.key)], aside)
                else:
                    _show(tree, found, kind, aside)
                    if record.kind == "datacache":
                        (aside / MARKER).touch()
                target.parent.mkdir(parents=True, exist_ok=True)
                _remove(target)
                aside.rename(target)
            finally:
                _remove(aside)

    def _save(self) -> None:
        entries = {
            address: {"place": one.place, "digest": one.digest, "link": one.link, "sizes": dict(one.sizes)}
            for address, one in self.entries.items()
        }
        said = {"v": 1, "scope": self.scope, "dataset": str(self.dataset), "entries": entries}
        with _writable(self.folder):
            write_whole(self.folder / _NAME, json.dumps(said, indent=1).encode())


def _show(tree: Tree, found: Mapping[annex.Key, Path], kind: Link, folder: Path) -> None:
    folder.mkdir()
    for entry in tree.entries:
        path = Path(os.fsdecode(os.path.join(os.fsencode(folder), entry.path)))
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "d":
            path.mkdir(exist_ok=True)
        elif entry.key is None:
            path.symlink_to(os.fsdecode(entry.target))
        elif entry.kind == "x":  # the object cannot be executed, so a link to it could not either
            _copy(found[entry.key], path)
            path.chmod(0o555)
        else:
            _MAKE[kind](found[entry.key], path)


def _symlink(source: Path, target: Path) -> None:
    target.symlink_to(source)


def _reflink(source: Path, target: Path) -> None:
    with source.open("rb") as here, target.open("xb") as there:
        fcntl.ioctl(there.fileno(), _FICLONE, here.fileno())
    target.chmod(0o444)


def _hardlink(source: Path, target: Path) -> None:
    if source.stat().st_mode & 0o222:
        raise PermissionError(f"{source}: may be written, so a hard link to it could change what is stored")
    os.link(source, target)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    target.chmod(0o444)


_MAKE: Final[Mapping[Link, Callable[[Path, Path], None]]] = {
    "symlink": _symlink, "reflink": _reflink, "hardlink": _hardlink, "copy": _copy,
}  # fmt: skip


class _writable:
    """A context: the folders of a view can be written to, and cannot be when it ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        _unlock(self._folder)

    def __exit__(self, *_: object) -> None:
        _lock(self._folder)


def _folders(top: Path) -> Iterator[Path]:
    yield top
    for where, names, _ in os.walk(top):
        for name in names:
            if not Path(where, name).is_symlink():
                yield Path(where, name)


def _lock(top: Path) -> None:
    for folder in list(_folders(top)):
        folder.chmod(0o555)


def _unlock(top: Path) -> None:
    for folder in _folders(top):
        folder.chmod(0o755)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_whole(path: Path, tree: Tree | None) -> bool:
    """Everything is there, and leads to something."""
    if tree is None:
        return path.exists()
    below = (os.path.join(os.fsencode(path), entry.path) for entry in tree.entries if entry.kind != "l")
    return path.is_dir() and all(map(os.path.exists, below))
