"""Which commits of the branch came from which, and so which refs have something that it lacks."""

from __future__ import annotations

import heapq
import re
from binascii import unhexlify
from typing import Final

from annexpy.patterns import regex
from annexpy.repo.files import Files
from annexpy.repo.history import History
from annexpy.repo.trees import commit_parents

__all__ = ["ignored_commits", "is_ancestor", "unmerged"]

_DATE: Final = regex(rb"^committer .*> (-?\d+) ", re.MULTILINE)
_OURS: Final = 1
_OTHERS: Final = 2


def is_ancestor(history: History, old: bytes, new: bytes) -> bool:
    """*old* is *new* or one of the commits it was made from. Looks only as far down as the two have parted."""
    if old == new:
        return True
    seen: dict[bytes, int] = {old: _OURS, new: _OTHERS}
    queue: list[tuple[int, bytes]] = []
    parents: dict[bytes, list[bytes]] = {}

    def push(commit: bytes) -> None:
        raw = history.objects.get(unhexlify(commit))
        parents[commit] = [parent.hex().encode() for parent in commit_parents(raw)]
        date = _DATE.search(raw)
        heapq.heappush(queue, (-int(date[1]) if date else 0, commit))

    push(old)
    push(new)
    while any(seen[commit] != _OURS | _OTHERS for _, commit in queue):
        _, commit = heapq.heappop(queue)
        for parent in parents[commit]:
            reached = seen.get(parent, 0) | seen[commit]
            if parent == old and reached & _OTHERS:
                return True
            if seen.get(parent) != reached:
                seen[parent] = reached
                push(parent)
    return False


def ignored_commits(files: Files) -> frozenset[bytes]:
    """Commits that shall not be merged (``annex/ignoredrefs``)."""
    return frozenset((files.read(b"annex/ignoredrefs") or b"").split())


def unmerged(history: History, ignored: frozenset[bytes]) -> list[str]:
    """Siblings that have something the branch lacks, as far as a look without the lock can tell."""
    tip = history.tip()
    return [
        ref.decode("utf-8", "surrogateescape")
        for ref, sibling in history.siblings().items()
        if sibling not in ignored and (tip is None or not is_ancestor(history, sibling, tip))
    ]
