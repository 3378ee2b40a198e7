"""What stands in the journal, or waits in the spool, when a record is queued.

git-annex dates a line one second after the line it replaces, so what it wrote a moment ago may lie ahead of
the clock. A record queued now is later all the same. Of lines in the branch the commit that goes with a record
tells that (records.py); of lines that are in the journal only, this does, and of those in the spool ``Ahead``.
"""

from __future__ import annotations

from typing import Final

from annexpy.errors import RepositoryError
from annexpy.logs.line import SECOND
from annexpy.logs.presence import parse_presence
from annexpy.repo.ahead import Ahead
from annexpy.repo.journal import Journal

__all__ = ["Journaled"]

_FRESH: Final = 0.1  # seconds for which a look at the directory is good
_LAST: Final = 9_999_999_998 * SECOND  # the times of records have ten digits of seconds


class Journaled:
    """Which logs have a journal file, looked up now and then. For any number of threads."""

    __slots__ = ("_ahead", "_journal", "_seen")

    def __init__(self, journal: Journal, ahead: Ahead) -> None:
        self._journal, self._ahead = journal, ahead
        # in one, because threads replace it: when it was looked, what the directory was like then, what was in it
        self._seen: tuple[float, object, frozenset[bytes]] = float("-inf"), None, frozenset()

    def look(self, wall: float) -> bool:
        """Whether there is anything that ``second`` could find."""
        ahead = self._ahead.look(wall)
        try:
            return bool(self._paths(wall)) or ahead
        except (OSError, RepositoryError):
            return ahead

    def second(self, wall: float, path: bytes, info: bytes, status: bytes) -> int:
        """The second of what says something else of *info* in *path*, and is not in the branch; 0 without it.

        And where the journal cannot be read: a record without it is a little weaker, and still a record.
        """
        ahead = self._ahead.second(wall, path, info, status)
        try:
            return max(ahead, self._second(wall, path, info, status))
        except (OSError, RepositoryError):
            return ahead

    def _paths(self, wall: float) -> frozenset[bytes]:
        looked, state, paths = self._seen
        if not looked <= wall < looked + _FRESH:
            now = self._journal.state()
            if now != state:
                paths = frozenset(self._journal.paths())
            self._seen = wall, now, paths
        return paths

    def _second(self, wall: float, path: bytes, info: bytes, status: bytes) -> int:
        if path not in self._paths(wall):
            return 0
        line = parse_presence(self._journal.read(path) or b"").get(info)
        if line is None or line[1] == status or line[0] >= _LAST:
            return 0
        return line[0] // SECOND
