"""Put back what a git-annex took out of the branch: lines that were committed, and are neither there nor replaced.

There are two ways in which it does. One that finds that the branch has moved since it looked commits its index all the
same, which lacks what the others have committed meanwhile, and then commits a second time ("recovery from race"); when
it dies in between, or its git does (``git gc`` beside it is enough), that is how the branch stays. And one whose
``git cat-file`` still tells of the branch as it was, beside ``git gc``, writes a log anew from that: no process dies
then, and nobody is told.

So every commit of ours notes what it made of the branch, and the next one goes through the commits since then. A line
of a location log (or another of that form) that one of them has and the next one lacks is put back unless a later line
has replaced it; of another log, only where nothing new was written beside it. A branch that began anew
(``git annex forget``) is left alone.

Source: fact sheet repository-format, section 0 rule 7; measured: ``git cat-file --batch`` beside ``git pack-refs`` in a
loop was behind the branch in 5 of 2,236 answers; ``tests/interop/test_recovery_beside_git_annex.py``.
"""

from __future__ import annotations

import logging
import os
from binascii import hexlify, unhexlify
from collections.abc import Iterable
from itertools import islice, pairwise
from math import inf
from typing import Final, NamedTuple, TypeAlias

from annexpy.errors import RepositoryError
from annexpy.logs.line import merge_lines, union_merge
from annexpy.logs.paths import FORMATS, Format, identify
from annexpy.logs.presence import format_presence, parse_presence
from annexpy.patterns import regex
from annexpy.repo.files import Files
from annexpy.repo.format import STATE, make_folders
from annexpy.repo.history import History
from annexpy.repo.settings import Lockdown
from annexpy.repo.trees import commit_parents

__all__ = ["Recovery", "TakenOut", "put_back", "put_back_all"]

log = logging.getLogger(__name__)

_Versions: TypeAlias = dict[bytes, list[tuple[bytes, Format]]]
"""Path → (what was in it, how it is read) of each commit that had what is lacking."""
_Lost: TypeAlias = dict[bytes, dict[bytes, Format]]
"""The same with ids."""

_NOTE: Final = STATE + b"/branch"
_TEMPORARY: Final = STATE + b"/tmp/branch"
_COMMIT: Final = regex(rb"[0-9a-f]{40}\n")
_WINDOW: Final = 8192
_COMMITS: Final = 200
_CHANGES: Final = 100_000
"""Of more commits, or of more that they change, only the ends are compared: they hold up everybody who records."""


class TakenOut(NamedTuple):
    """What logs lack.

    Attributes:
        logs: Path → what was in it, for ``put_back_all``.
        tip: The commit that lacks it.
    """

    logs: _Versions
    tip: bytes


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


def put_back_all(versions: Iterable[tuple[bytes, Format]], now: bytes) -> bytes:
    """The same for each of *versions*, all of them compared with *now*."""
    content = now
    for before, format_ in versions:
        if format_ is Format.PRESENCE:  # of two lines the later one counts, whatever the order
            content = put_back(before, content, format_)
        else:
            content = union_merge(content, put_back(before, now, format_))
    return content


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
        self._unsure = False

    def note(self) -> None:
        """All that ``taken_out`` told of is in the branch or the journal. Call it last, after ``taken_out``."""
        files, tip = self._files, self._history.tip()
        if tip is None or tip == self._noted or self._unsure:
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
        """Every log that lacks something; none where that cannot be found out, with a warning."""
        self._noted, self._unsure = None, False
        try:
            return self._taken_out()
        except (OSError, RepositoryError) as error:
            log.info("once more: %s", error)  # gc may have replaced something meanwhile, or a git have died
        try:
            return self._taken_out()
        except (OSError, RepositoryError) as error:
            log.warning("the git-annex branch cannot be compared with what it was: %s", error)
            self._unsure = isinstance(error, OSError)  # else an object is gone, and will be the next time
        return TakenOut({}, b"")

    def _taken_out(self) -> TakenOut:
        noted = self._files.read(_NOTE) or b""
        before = self._noted = noted[:-1] if _COMMIT.fullmatch(noted) else None
        tip = self._history.tip()
        if before is None or tip is None or before == tip or not self._history.has(before):
            return TakenOut({}, b"")
        return TakenOut(self._lacking(self._commits(before, tip)), tip)

    def _commits(self, before: bytes, tip: bytes) -> list[bytes]:
        """From *before* to *tip*, as the branch moved, or only these two; none when *tip* has another past."""
        commits = [tip]
        while len(commits) <= _COMMITS:
            try:
                parents = [
                    hexlify(parent) for parent in commit_parents(self._history.objects.get(unhexlify(commits[-1])))
                ]
            except RepositoryError:
                break
            if before in parents:  # not always the first: the branch may have become that of a remote
                return [before, *commits[::-1]]
            if not parents:
                break
            commits.append(parents[0])
        from annexpy.repo.ancestry import is_ancestor

        return [before, tip] if is_ancestor(self._history, before, tip) else []

    def _lacking(self, commits: list[bytes]) -> _Versions:
        from annexpy.repo.scan import read_many

        lost, lacking = self._lost_between(commits), _Versions()
        paths = iter(lost)
        while window := list(islice(paths, _WINDOW)):
            shas = list(dict.fromkeys(sha for path in window for sha in lost[path]))
            was = dict(zip(shas, self._history.objects.get_many(shas), strict=True))
            now = read_many(self._history, commits[-1], window)
            for path in window:
                there = now.get(path, b"")
                versions = [(was[sha], format_) for sha, format_ in lost[path].items()]
                if versions := [one for one in versions if put_back(one[0], there, one[1]) is not there]:
                    lacking[path] = versions
        if lacking:
            log.warning("a git-annex had taken lines out of %d logs: they are put back", len(lacking))
        return lacking

    def _lost_between(self, commits: list[bytes]) -> _Lost:
        ends = commits[:1] + commits[1:][-1:]
        if ends != commits:
            try:
                if (lost := self._lost(commits, _CHANGES)) is not None:
                    return lost
            except RepositoryError as error:  # what only a commit in between needs may be gone
                log.info("only the ends of %d commits of the git-annex branch are compared: %s", len(commits), error)
        return self._lost(ends) or {}

    def _lost(self, commits: list[bytes], most: float = inf) -> _Lost | None:
        """Each log of one of *commits* that lacks something in the next; None when more than *most* have changed."""
        from annexpy.repo.merge import changed_files

        changed = (
            (path, there, was, FORMATS[found[0]])
            for old, new in pairwise(commits)
            for path, there, was in changed_files(self._history, new, old)
            if (found := identify(path, levels=self._levels)) is not None
        )
        lost, looked = _Lost(), 0
        while window := list(islice(changed, _WINDOW)):
            looked += len(window)
            if looked > most:
                return None
            shas = list(dict.fromkeys(sha for _, there, was, _ in window for sha in (there, was) if sha is not None))
            contents: dict[bytes | None, bytes] = {None: b""}
            contents |= zip(shas, self._history.objects.get_many(shas), strict=True)
            for path, there, was, format_ in window:
                if put_back(contents[was], contents[there], format_) is not contents[there]:
                    lost.setdefault(path, {})[was] = format_
        return lost
