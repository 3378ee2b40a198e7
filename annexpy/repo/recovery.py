"""Put back what a git-annex took out of the branch when it died before its own recovery.

A git-annex that finds that the branch has moved since it looked commits its index all the same, which lacks what the
others have committed meanwhile, and then commits a second time ("recovery from race"). One that dies in between, or
whose git does (``git gc`` beside it is enough), leaves the branch without those lines for good. So every commit of ours
notes what it made of the branch, and the next one compares what has become of that with it: a line that is neither
there nor replaced by a later one is put back. Histories that were rewritten (``git annex forget``) are left alone.

Source: fact sheet repository-format, section 0 rule 7; ``tests/interop/test_recovery_beside_git_annex.py``.
"""

from __future__ import annotations

import logging
import os
from itertools import islice
from typing import Final, TypeAlias

from annexpy.errors import RepositoryError
from annexpy.logs.line import merge_lines, union_merge
from annexpy.logs.paths import FORMATS, Format, identify
from annexpy.logs.presence import format_presence, parse_presence
from annexpy.patterns import regex
from annexpy.repo.files import Files
from annexpy.repo.format import STATE, make_folders
from annexpy.repo.history import History
from annexpy.repo.settings import Lockdown

__all__ = ["Recovery", "TakenOut", "put_back"]

log = logging.getLogger(__name__)

TakenOut: TypeAlias = dict[bytes, tuple[bytes, Format]]
"""Path → (what was in it, how it is read)."""

_NOTE: Final = STATE + b"/branch"
_TEMPORARY: Final = STATE + b"/tmp/branch"
_COMMIT: Final = regex(rb"[0-9a-f]{40}\n")
_WINDOW: Final = 8192


def put_back(before: bytes, now: bytes, format_: Format) -> bytes:
    """*now* with the lines of *before* that it has neither kept nor replaced by later ones; *now* itself if none."""
    if format_ is Format.PRESENCE:
        there = parse_presence(now)
        lost = {
            info: line for info, line in parse_presence(before).items() if info not in there or there[info][0] < line[0]
        }
        return format_presence(there | lost) if lost else now
    # Whoever replaces a line writes another one. Where nothing but old ones is left, nobody did.
    return union_merge(before, now) if set(merge_lines(now)) < set(merge_lines(before)) else now


class Recovery:
    """What the branch was when one of us last had the journal lock, and what of that is gone. Needs the journal lock.

    Args:
        files: The git directory.
        lockdown: Permissions.
        history: The branch.
        levels: Of hash directories in the branch.
    """

    def __init__(self, files: Files, lockdown: Lockdown, history: History, levels: int) -> None:
        self._files, self._lockdown, self._history, self._levels = files, lockdown, history, levels
        self._noted: bytes | None = None

    def note(self) -> None:
        """All that ``taken_out`` told of is in the branch again. Call it last, after ``taken_out``."""
        files, tip = self._files, self._history.tip()
        if tip is None or tip == self._noted:
            return
        try:
            try:
                files.replace(_NOTE, tip + b"\n", sync=False, temporary=_TEMPORARY)
            except FileNotFoundError:
                make_folders(files, os.path.dirname(_TEMPORARY), self._lockdown)
                files.replace(_NOTE, tip + b"\n", sync=False, temporary=_TEMPORARY)
        except OSError as error:  # the commit stands; the next one compares with an older one
            log.warning("%s cannot be written: %s", _NOTE.decode(), error.strerror)

    def taken_out(self) -> TakenOut:
        """Every log that lacks something, for ``put_back``."""
        noted = self._files.read(_NOTE) or b""
        before = self._noted = noted[:-1] if _COMMIT.fullmatch(noted) else None
        tip = self._history.tip()
        if before is None or tip is None or before == tip:
            return {}
        from annexpy.repo.ancestry import is_ancestor

        try:
            if self._history.has(before) and is_ancestor(self._history, before, tip):
                return self._lacking(before, tip)
        except RepositoryError as error:  # of objects that only an old commit needs
            log.warning("the git-annex branch cannot be compared with what it was: %s", error)
        return {}

    def _lacking(self, before: bytes, tip: bytes) -> TakenOut:
        from annexpy.repo.merge import changed_paths
        from annexpy.repo.scan import read_many

        lacking: TakenOut = {}
        paths = changed_paths(self._history, tip, before)
        while window := list(islice(paths, _WINDOW)):
            was, now = (read_many(self._history, commit, window) for commit in (before, tip))
            for path, content in was.items():
                there = now.get(path, b"")
                found = identify(path, levels=self._levels)
                if found is not None and put_back(content, there, format_ := FORMATS[found[0]]) is not there:
                    lacking[path] = content, format_
        if lacking:
            log.warning("a git-annex that died had taken lines out of %d logs: they are put back", len(lacking))
        return lacking
