"""Merge sibling refs: every other ref named ``git-annex`` that has something the branch lacks.

A merge is a union: files of one side are taken as they are, of a file of both sides every line is kept once.
Branches whose transitions or tuning differ are not merged: after ``git annex forget`` the one would bring back
what the other forgot, and differently tuned ones keep their logs in different places.

Source: fact sheet repository-format, sections 3 ("Union merge") and 4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Final, TypeAlias

from annexpy.errors import BranchConflict, RepositoryError
from annexpy.logs.line import union_merge
from annexpy.logs.paths import Log
from annexpy.logs.repos import DIFFERENCES
from annexpy.logs.transitions import parse_transitions
from annexpy.repo.ancestry import is_ancestor
from annexpy.repo.history import History
from annexpy.repo.objects import GitReader
from annexpy.repo.pack import ObjectWriter
from annexpy.repo.refs import GIT_ANNEX
from annexpy.repo.treeedit import Changed, TreeEdit
from annexpy.repo.trees import FOLDER, parse_tree, tree_entries

__all__ = ["changed_files", "changed_paths", "merge_siblings"]

_Entry: TypeAlias = tuple[bytes, bytes]
_Difference: TypeAlias = tuple[bytes, _Entry | None, _Entry]
"""(path of a file or directory, what we have there, what the other has)."""

_WINDOW: Final = 256  # top-level entries compared at a time: 6 % of a full branch
_MUCH: Final = 200  # top-level entries that differ: then there are many objects to read
_TRIES: Final = 50


def merge_siblings(
    history: History,
    ignored: frozenset[bytes],
    tuning: frozenset[str],
    before_publishing: Callable[[bytes], None],
    *,
    sync: bool = True,
) -> list[str]:
    """Merge every sibling that can be; the refs that were. Under the journal lock.

    Args:
        history: Of the branch.
        ignored: See ``ignored_commits``.
        tuning: How this repository is tuned, for a branch that does not exist yet.
        before_publishing: Told each commit before the branch points to it.
        sync: On disk when it returns.

    Raises:
        BranchConflict: Some ref cannot be merged. The others have been.
    """
    merged: list[str] = []
    refused: list[str] = []
    for ref, sibling in history.siblings().items():
        if sibling in ignored:
            continue
        reason = _obstacle(history, sibling, tuning)
        if reason is not None:
            refused.append(f"{ref.decode('utf-8', 'backslashreplace')}: {reason}")
        elif _merge(history, ref, sibling, before_publishing, sync):
            merged.append(ref.decode("utf-8", "surrogateescape"))
    if refused:
        raise BranchConflict("not merged into the git-annex branch: " + "; ".join(refused))
    return merged


def _obstacle(history: History, sibling: bytes, tuning: frozenset[str]) -> str | None:
    tip = history.tip()
    if tip == sibling:
        return None
    path = Log.TRANSITIONS.value
    if tip is not None and parse_transitions(history.read(tip, path)) != parse_transitions(history.read(sibling, path)):
        return None if is_ancestor(history, sibling, tip) else "its transitions differ; run git annex merge"
    path = Log.DIFFERENCE.value
    theirs = set(DIFFERENCES.parse(history.read(sibling, path)).values())
    ours = {tuning} - {frozenset()} if tip is None else set(DIFFERENCES.parse(history.read(tip, path)).values())
    return None if ours == theirs else "its repository is tuned differently"


def _merge(history: History, ref: bytes, sibling: bytes, before: Callable[[bytes], None], sync: bool) -> bool:
    for _ in range(_TRIES):
        tip = history.tip()
        if tip is not None and is_ancestor(history, sibling, tip):
            return False
        if tip is not None and not is_ancestor(history, tip, sibling):
            break
        if sync:
            history.on_disk.ensure((sibling,))
        if history.move(tip, sibling, before, sync=sync):
            return True
    else:
        raise BranchConflict(f"{GIT_ANNEX.decode()} moved {_TRIES} times while we tried to merge into it")
    other = history.tree(sibling)
    theirs = tree_entries(history.objects, other)

    def build(tip: bytes | None, tree: bytes, writer: ObjectWriter) -> tuple[bytes, Sequence[bytes]] | None:
        if tip is not None and is_ancestor(history, sibling, tip):
            return None
        root = tree_entries(history.objects, tree)
        much = sum(root.get(name) != entry for name, entry in theirs.items()) > _MUCH
        with (history.objects.reader() if much else None) or nullcontext() as reader:
            edit = TreeEdit(history.objects, writer, tree, reader)
            for window in _differences(history, tree, other, reader):
                _apply(history, edit, window, reader)
            return edit.finish(), (sibling,)

    short = re.sub(rb"\Arefs/(heads|remotes)/", b"", ref).decode("utf-8", "surrogateescape")
    return history.publish(build, f"merging {short} into git-annex", before, sync=sync) is not None


def _apply(history: History, edit: TreeEdit, window: list[_Difference], reader: GitReader | None) -> None:
    window = sorted(window, key=lambda found: found[0] + b"\t")
    both = [theirs[1] for _, ours, theirs in window if ours is not None]
    contents = iter(list(history.objects.get_many(both, reader)))

    def change(at: int, old: bytes) -> Changed:
        _, ours, theirs = window[at]
        if ours is None:
            return theirs
        content = next(contents)
        union = union_merge(old, content)
        return theirs if union == content and union != old else union

    edit.apply([path for path, _, _ in window], change)


def _differences(
    history: History, ours: bytes, theirs: bytes, reader: GitReader | None = None
) -> Iterator[list[_Difference]]:
    """Where *theirs* has something else than *ours*, in windows of whole top-level entries.

    A directory that we do not have at all is one difference.
    """
    root, other = tree_entries(history.objects, ours), tree_entries(history.objects, theirs)
    top = ((name, root.get(name), entry) for name, entry in sorted(other.items()) if root.get(name) != entry)
    while window := list(islice(top, _WINDOW)):
        found: list[_Difference] = []
        while window:
            below: list[tuple[bytes, bytes, bytes]] = []
            for path, mine, entry in window:
                if mine is None or (mine[0] != FOLDER and entry[0] != FOLDER):
                    found.append((path, mine, entry))
                elif mine[0] == entry[0]:
                    below.append((path, mine[1], entry[1]))
                else:
                    raise RepositoryError(f"{path!r} is a file in one git-annex branch and a directory in another")
            raw = list(history.objects.get_many([sha for _, a, b in below for sha in (a, b)], reader))
            window = []
            for at, (path, _, _) in enumerate(below):
                mine_below, theirs_below = parse_tree(raw[2 * at]), parse_tree(raw[2 * at + 1])
                for name, entry in theirs_below.items():
                    if mine_below.get(name) != entry:
                        window.append((path + b"/" + name, mine_below.get(name), entry))
        yield found


def changed_paths(history: History, ours: bytes, theirs: bytes) -> Iterator[bytes]:
    """The files of commit *theirs* that commit *ours* lacks, or has with other content."""
    return (path for path, _, _ in changed_files(history, ours, theirs))


def changed_files(history: History, ours: bytes, theirs: bytes) -> Iterator[tuple[bytes, bytes | None, bytes]]:
    """``changed_paths`` with the ids of what *ours* has there (None: nothing) and of what *theirs* has."""
    for window in _differences(history, history.tree(ours), history.tree(theirs)):
        for path, mine, (mode, sha) in window:
            if mode == FOLDER:
                yield from ((file, None, blob) for file, blob in _files(history, sha, path + b"/"))
            else:
                yield path, None if mine is None else mine[1], sha


def _files(history: History, tree: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    for name, (mode, sha) in parse_tree(history.objects.get(tree)).items():
        if mode == FOLDER:
            yield from _files(history, sha, prefix + name + b"/")
        else:
            yield prefix + name, sha
