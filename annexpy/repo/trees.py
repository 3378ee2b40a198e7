"""Raw git trees: parse, format, look up a path.

Plain functions over bytes: the branch of 100,000 logs has 100,000 trees, and tree objects with methods
would cost five times as much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from annexpy.errors import RepositoryError
from annexpy.patterns import regex
from annexpy.repo.objects import GitReader, Objects

__all__ = [
    "EMPTY_TREE",
    "FILE",
    "FOLDER",
    "Entries",
    "TreeCache",
    "commit_parents",
    "commit_tree",
    "format_tree",
    "load_folders",
    "parse_tree",
    "remember",
    "tree_entries",
]

FILE: Final = b"100644"
FOLDER: Final = b"40000"
EMPTY_TREE: Final = bytes.fromhex("4b825dc642cb6eb9a060e54bf8d69288fbee4904")

Entries: TypeAlias = dict[bytes, tuple[bytes, bytes]]
"""Name → (mode, id)."""

_LARGE: Final = 16 * 1024  # bytes of a tree that is worth remembering
_REMEMBERED: Final = 6
_MOST: Final = 8 << 20  # and of one that is not any more
_parsed_trees: dict[bytes, Entries] = {}  # id → entries of large trees, newest last; replaced, never changed

_KEPT: Final = 4200  # directories of the first level: a full branch has 4,096

# What is no entry is matched whole, and so looked at once.
_ENTRY: Final = regex(rb"([0-7]+) ([^\0]+)\0(.{20})|.+", re.DOTALL)
_COMMIT: Final = regex(rb"tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)")


def parse_tree(raw: bytes) -> Entries:
    """The entries of a tree.

    Raises:
        RepositoryError: It is none.
    """
    if raw.find(b"\0") == len(raw) - 21 > 0:  # one entry, as nearly every log has its own tree
        mode, _, name = raw[:-21].partition(b" ")
        return {name: (mode, raw[-20:])}
    entries = {name: (mode, sha) for mode, name, sha in _ENTRY.findall(raw)}
    if b"" in entries:
        raise RepositoryError(f"not a tree: {raw[:60]!r}")
    return entries


def remember(sha: bytes, entries: Entries, size: int) -> None:
    """Keep the entries of a large tree: the next commit changes one of thousands. Nobody may change them any more."""
    global _parsed_trees
    if _LARGE <= size <= _MOST:
        kept = list(_parsed_trees.items())[1 - _REMEMBERED :]
        _parsed_trees = {**dict(kept), sha: entries}


def tree_entries(objects: Objects, sha: bytes) -> Entries:
    """The entries of the tree *sha*. Do not change them.

    Raises:
        RepositoryError: It is missing, or none.
    """
    if sha == EMPTY_TREE:
        return {}
    known = _parsed_trees.get(sha)
    if known is None:
        raw = objects.get(sha)
        known = parse_tree(raw)
        remember(sha, known, len(raw))
    return known


def format_tree(entries: Mapping[bytes, tuple[bytes, bytes]]) -> bytes:
    """The tree object, in git's order: a directory sorts as if its name ended in a slash."""
    if len(entries) == 1:
        for name, (mode, sha) in entries.items():
            return b"%b %b\0%b" % (mode, name, sha)
    rows = [(name + b"/" if mode == FOLDER else name, mode, name, sha) for name, (mode, sha) in entries.items()]
    rows.sort()
    return b"".join([b"%b %b\0%b" % row[1:] for row in rows])


def commit_tree(commit: bytes) -> bytes:
    """The id of the tree of a raw commit."""
    return _parsed(commit)[0]


def commit_parents(commit: bytes) -> list[bytes]:
    """The ids of the parents of a raw commit."""
    return _parsed(commit)[1]


def _parsed(commit: bytes) -> tuple[bytes, list[bytes]]:
    match = _COMMIT.match(commit)
    if match is None:
        raise RepositoryError(f"not a commit: {commit[:60]!r}")
    return bytes.fromhex(match[1].decode()), [bytes.fromhex(line[7:].decode()) for line in match[2].splitlines()]


def _folder(raw: bytes, name: bytes) -> bytes | None:
    """The id of the directory *name* in a tree."""
    head = b"%b %b\0" % (FOLDER, name)
    size = len(head) + 20
    at = raw.find(head)
    if at < 0:
        return None
    if (
        at % size == 0 == len(raw) % size
    ):  # as where all names are hash directories: not by chance inside something else
        return raw[at + size - 20 : at + size]
    entry = parse_tree(raw).get(name)
    return entry[1] if entry is not None and entry[0] == FOLDER else None


def load_folders(
    objects: Objects, root: Entries, homes: Iterable[bytes], reader: GitReader | None = None
) -> dict[bytes, Entries]:
    """The entries of every directory in *homes* and of those above, ``b""`` being *root*; none for one not there.

    Do not change them. They are fetched level by level, so *reader* can fetch many at once.

    Raises:
        RepositoryError: A file stands where one of the directories should.
    """
    by_depth: dict[int, dict[bytes, bytes]] = {}  # depth → directory → the one above
    for home in homes:
        depth = home.count(b"/")
        while home:
            level = by_depth.setdefault(depth, {})
            if home in level:
                break
            level[home] = home = home.rpartition(b"/")[0]
            depth -= 1
    folders: dict[bytes, Entries] = {b"": root}
    for depth in sorted(by_depth):
        wanted: list[bytes] = []
        shas: list[bytes] = []
        for folder, parent in by_depth[depth].items():
            above = folders[parent]
            entry = above.get(folder[len(parent) + 1 :] if parent else folder) if above else None
            if entry is None:
                folders[folder] = {}
                continue
            if entry[0] != FOLDER:
                raise RepositoryError(f"{folder!r} is a file in the git-annex branch")
            wanted.append(folder)
            shas.append(entry[1])
        known = _parsed_trees
        unknown = list(dict.fromkeys([sha for sha in shas if sha not in known]))
        fetched = dict(zip(unknown, objects.get_many(unknown, reader), strict=True))
        for folder, sha in zip(wanted, shas, strict=True):
            if sha in known:
                folders[folder] = known[sha]
            else:
                folders[folder] = entries = parse_tree(raw := fetched[sha])
                remember(sha, entries, len(raw))
    return folders


class TreeCache:
    """Looks paths up in trees, and keeps the trees of the two upper levels.

    They are kept as raw bytes by id (so a new commit only brings the few that changed), the root parsed.
    At most about 4,096 + 1 trees are kept, 5 MB.
    """

    __slots__ = ("_objects", "_raw", "_root")

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._raw: dict[bytes, bytes] = {}
        self._root: tuple[bytes, Entries] = b"", {}  # in one, because threads may read different trees

    def root(self, tree: bytes) -> Entries:
        """The entries of the root tree *tree*. Do not change them."""
        known = self._root
        if known[0] != tree:
            known = self._root = tree, parse_tree(self._objects.get(tree)) if tree != EMPTY_TREE else {}
        return known[1]

    def find(self, tree: bytes, path: bytes) -> bytes | None:
        """The id of the file at *path* below the root *tree*, or None."""
        return next(iter(self.find_many(tree, (path,)).values()), None)

    def find_many(self, tree: bytes, paths: Iterable[bytes], reader: GitReader | None = None) -> dict[bytes, bytes]:
        """Path → id of those of *paths* that are files below the root *tree*, fetched level by level."""
        found: dict[bytes, bytes] = {}
        root = self.root(tree)
        inside: list[tuple[bytes, int, bytes]] = []  # path, up to where it led, to which tree
        for path in paths:
            end = path.find(b"/")
            entry = root.get(path if end < 0 else path[:end])
            if entry is None or (entry[0] == FOLDER) == (end < 0):
                continue
            if end < 0:
                found[path] = entry[1]
            else:
                inside.append((path, end + 1, entry[1]))
        first = True
        while inside:
            raws = self._first_level([sha for _, _, sha in inside], reader) if first else self._fetched(inside, reader)
            below: list[tuple[bytes, int, bytes]] = []
            for (path, start, _), raw in zip(inside, raws, strict=True):
                end = path.find(b"/", start)
                if end < 0:
                    entry = parse_tree(raw).get(path[start:])
                    if entry is not None and entry[0] != FOLDER:
                        found[path] = entry[1]
                else:
                    sha = _folder(raw, path[start:end])
                    if sha is not None:
                        below.append((path, end + 1, sha))
            inside, first = below, False
        return found

    def _fetched(self, inside: list[tuple[bytes, int, bytes]], reader: GitReader | None) -> Iterator[bytes]:
        return self._objects.get_many([sha for _, _, sha in inside], reader)

    def _first_level(self, shas: list[bytes], reader: GitReader | None) -> list[bytes]:
        kept = self._raw
        missing = [sha for sha in dict.fromkeys(shas) if sha not in kept]
        if len(kept) + len(missing) > _KEPT:
            kept = self._raw = {sha: kept[sha] for sha in dict.fromkeys(shas) if sha in kept}
        kept.update(zip(missing, self._objects.get_many(missing, reader), strict=True))
        return [kept[sha] for sha in shas]

    def read(self, tree: bytes, path: bytes) -> bytes:
        """The content of the file at *path*; empty when there is none."""
        sha = self.find(tree, path)
        return b"" if sha is None else self._objects.get(sha)
