"""Change many files of a tree in one go.

The paths come sorted, in windows that hold whole top-level directories, so memory does not grow with the
number of changes. In each window the trees are fetched level by level, then the old contents, both many at
a time; then blobs are written, then trees from the bottom up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from annexpy.errors import RepositoryError
from annexpy.repo.objects import GitReader, Objects
from annexpy.repo.pack import BLOB, TREE, ObjectWriter
from annexpy.repo.trees import EMPTY_TREE, FILE, FOLDER, Entries, format_tree, load_folders, parse_tree, remember

__all__ = ["Changed", "TreeEdit"]

Changed: TypeAlias = bytes | tuple[bytes, bytes]
"""The new content, or the (mode, id) of something that is stored already."""


class TreeEdit:
    """One new version of a tree.

    Args:
        objects: Where the old objects are.
        writer: Where the new ones go.
        tree: The root to start from.
        reader: Fetches many objects at once; None: one by one.
    """

    def __init__(self, objects: Objects, writer: ObjectWriter, tree: bytes, reader: GitReader | None = None) -> None:
        self._objects, self._writer, self._reader = objects, writer, reader
        self._tree = tree
        self._root: Entries = {} if tree == EMPTY_TREE else parse_tree(objects.get(tree))
        self._changed = False

    def apply(self, paths: Sequence[bytes], change: Callable[[int, bytes], Changed]) -> None:
        """Change the files at *paths*, which are sorted, each once, and share no top-level directory with another call.

        Args:
            paths: What to change.
            change: Gets the index of a path and the old content (empty when there is none); returning that
                very object leaves the file alone.

        Raises:
            RepositoryError: A file stands where a directory should, or the reverse.
        """
        homes, names = self._split(paths)
        folders = load_folders(self._objects, self._root, homes, self._reader)
        there = [folders[home].get(name) for home, name in zip(homes, names, strict=True)]
        shas = list(dict.fromkeys([entry[1] for entry in there if entry is not None and entry[0] != FOLDER]))
        contents = dict(zip(shas, self._objects.get_many(shas, self._reader), strict=True))
        dirty: dict[bytes, None] = {}
        add = self._writer.add
        for number, entry in enumerate(there):
            if entry is None:
                new = change(number, old := b"")
            elif entry[0] != FOLDER:
                new = change(number, old := contents[entry[1]])
            else:
                new = change(number, old := b"")
                if isinstance(new, bytes):
                    raise RepositoryError(f"{paths[number]!r} is a directory in the git-annex branch")
            if new is old or new == old:
                continue
            home = homes[number]
            if home not in dirty:
                dirty[home] = None
                folders[home] = self._root if not home else dict(folders[home])  # others look at them too
            folders[home][names[number]] = (FILE, add(BLOB, new)) if isinstance(new, bytes) else new
        self._store(folders, dirty)

    @staticmethod
    def _split(paths: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
        homes: list[bytes] = []
        names: list[bytes] = []
        for path in paths:
            home, _, name = path.rpartition(b"/")
            homes.append(home)
            names.append(name)
        return homes, names

    def _store(self, folders: dict[bytes, Entries], dirty: dict[bytes, None]) -> None:
        add = self._writer.add
        by_depth: dict[int, dict[bytes, None]] = {}
        for folder in dirty:
            by_depth.setdefault(folder.count(b"/") if folder else -1, {})[folder] = None
        for depth in range(max(by_depth, default=-1), -1, -1):
            above = by_depth.setdefault(depth - 1, {})
            for folder in by_depth.get(depth, ()):
                parent, _, name = folder.rpartition(b"/")
                raw = format_tree(folders[folder])
                sha = add(TREE, raw)
                remember(sha, folders[folder], len(raw))
                if parent and parent not in above:
                    folders[parent] = dict(folders[parent])
                above[parent] = None
                folders[parent][name] = (FOLDER, sha)
        self._changed = self._changed or bool(dirty)

    def finish(self) -> bytes:
        """The id of the new root tree; the old id when nothing changed."""
        if not self._changed:
            return self._tree
        return self._writer.add(TREE, format_tree(self._root))
