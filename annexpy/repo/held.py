"""How much each repository holds by the location logs: bytes, counted in sizes of keys, kept up to date.

All logs are read once. From then on only what a new commit of the branch changed is looked at, and what lies over
the branch: journal, spools, queue. What is on its way to a repository counts as well, whichever process of this
gateway has it under way. Memory is one number for each repository, however many keys there are. The
sums, and the commit they are of, are kept in ``annex/annexpy/sizes``, so that the next process begins there; a
file that is lost or wrong costs one reading of all logs.

git-annex counts the same: every line of a log that says present, of keys that tell their size, the dead too.

Source: fact sheet repository-format, section 6 (balanced, reposize); performance, section 3 item 9.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from annexpy.errors import RepositoryError
from annexpy.keys.key import Key
from annexpy.logs.location import LocationLog
from annexpy.logs.paths import log_key
from annexpy.patterns import regex
from annexpy.repo.coming import Coming
from annexpy.repo.format import STATE, apply_mode, make_folders
from annexpy.repo.history import History
from annexpy.repo.settings import Lockdown
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from annexpy.repo.repository import Repository

__all__ = ["HeldSizes"]

_FILE: Final = STATE + b"/sizes"
_COMMIT: Final = regex(rb"[0-9a-f]{40}")
_WINDOW: Final = 8192
_FRESH: Final = 1.0
_RARELY: Final = 20
_REMEMBERED: Final = 1024


class HeldSizes:
    """The sizes of the repositories that *repository* knows of.

    Not for several threads at once.

    Args:
        repository: Open.
        fresh: Seconds for which what was read is not looked at again; longer where looking takes long. 0: always
            look.
    """

    def __init__(self, repository: Repository, *, fresh: float = _FRESH) -> None:
        self._repository, self._fresh = repository, fresh
        self._lockdown = Lockdown.of(repository.config.get("core.sharedrepository"))
        self._levels = repository.tuning.branch_levels
        self._tip: bytes | None = None
        self._known = False
        self._committed: Counter[UUID] = Counter()
        self._now: dict[UUID, int] = {}
        self._next = float("-inf")
        self._arriving: Counter[UUID] = Counter()
        self._coming = Coming(repository.files, self._lockdown)
        self._elsewhere: Counter[UUID] = Counter()
        self._holders: dict[bytes, tuple[UUID, ...]] = {}

    def sizes(self) -> Mapping[UUID, int]:
        """What each repository holds, with what is on its way there; nobody is in it who never held a thing.

        Raises:
            RepositoryError: Objects are missing or corrupt.
        """
        clock = self._repository.clock
        begun = clock.now()
        if begun >= self._next:
            self._look()
            ended = clock.now()
            # what takes long is done rarely
            self._next = ended + max(self._fresh, (ended - begun) * _RARELY if self._fresh else 0.0)
        return self._now

    @contextmanager
    def arriving(self, uuid: UUID, key: Key) -> Iterator[None]:
        """While *uuid* receives *key*, its size counts there, and then until the logs are looked at again.

        Record it before you leave; leave with an exception when the content did not come to stay.
        """
        self.begin(uuid, key)
        try:
            yield
        except BaseException:
            self.end(uuid, key, stays=False)
            raise
        self.end(uuid, key, stays=True)

    def begin(self, uuid: UUID, key: Key) -> None:
        """*uuid* is about to receive *key*; as entering ``arriving``."""
        size = key.size or 0
        self._arriving[uuid] += size
        self._add({uuid: size})
        self._tell()

    def end(self, uuid: UUID, key: Key, *, stays: bool) -> None:
        """It is over; as leaving ``arriving``."""
        size = key.size or 0
        self._arriving[uuid] -= size
        if not stays:
            self._add({uuid: -size})
        self._tell()

    def look_elsewhere(self) -> None:
        """Count what is on its way by way of other processes at this moment; else that is as old as the rest."""
        before, self._elsewhere = self._elsewhere, self._coming.others()
        before.subtract(self._elsewhere)
        self._add({uuid: -size for uuid, size in before.items()})

    def close(self) -> None:
        """Other processes need not count what is on its way here any more."""
        self._coming.close()

    def _tell(self) -> None:
        if self._repository.writable:
            self._coming.tell(self._arriving)

    # -- looking ---------------------------------------------------------------------------------

    def _look(self) -> None:
        repository = self._repository
        history = History(repository.files, repository.config, repository.clock, self._lockdown)
        try:
            tip = history.tip()
            if not self._known:
                self._load(history)
            if not self._known or tip is None or self._tip is None:
                self._read_all(history, tip)
            elif tip != self._tip:
                try:
                    self._follow(history, self._tip, tip)
                except RepositoryError:
                    self._read_all(history, tip)  # gc took some of what was counted last
            sizes = Counter(self._committed)
            for path, content in repository.branch.read_many(sorted(repository.branch.overlaid())):
                self._count(sizes, path, content, 1)
                self._count(sizes, path, history.read(tip, path), -1)
        finally:
            history.close()
        self._elsewhere = self._coming.others()
        sizes.update(self._arriving)
        sizes.update(self._elsewhere)
        self._now.clear()
        self._add(sizes)

    def _read_all(self, history: History, tip: bytes | None) -> None:
        from annexpy.repo.scan import read_all

        sizes: Counter[UUID] = Counter()
        for path, content in read_all(history, tip, only=_may_be_location, without=()):
            self._count(sizes, path, content, 1)
        self._keep(tip, sizes)

    def _follow(self, history: History, before: bytes, tip: bytes) -> None:
        """Count what differs between the commit that was counted last, *before*, and *tip*."""
        from annexpy.repo.merge import changed_paths
        from annexpy.repo.scan import read_many

        sizes = Counter(self._committed)
        paths = {*changed_paths(history, before, tip), *changed_paths(history, tip, before)}
        changed = sorted(filter(_may_be_location, paths))
        for at in range(0, len(changed), _WINDOW):
            for commit, sign in ((before, -1), (tip, 1)):
                for path, content in read_many(history, commit, changed[at : at + _WINDOW]).items():
                    self._count(sizes, path, content, sign)
        self._keep(tip, sizes)

    def _count(self, sizes: Counter[UUID], path: bytes, content: bytes, sign: int) -> None:
        if not content or not _may_be_location(path):
            return
        key = log_key(path, levels=self._levels)
        if key is None or not key.size:
            return
        holders = self._holders.get(content)
        if holders is None:
            if len(self._holders) >= _REMEMBERED:
                self._holders.clear()
            holders = self._holders[content] = tuple(LocationLog.parse(content).present)
        for uuid in holders:
            sizes[uuid] += sign * key.size

    def _add(self, sizes: Mapping[UUID, int]) -> None:
        for uuid, size in sizes.items():
            total = self._now.get(uuid, 0) + size
            if total:
                self._now[uuid] = total
            else:
                self._now.pop(uuid, None)

    # -- what was counted before -----------------------------------------------------------------

    def _keep(self, tip: bytes | None, sizes: Counter[UUID]) -> None:
        self._tip, self._committed, self._known = tip, sizes, True
        if tip is None or not self._repository.writable:
            return
        files = self._repository.files
        new = _FILE + b".%d" % os.getpid()
        try:
            make_folders(files, STATE, self._lockdown)
            fd = files.open_write(new, truncate=True)
            try:
                apply_mode(files, fd, self._lockdown)
                files.write(fd, json.dumps({"tip": tip.decode(), "sizes": sizes}).encode())
            finally:
                files.close_fd(fd)
            files.rename(new, _FILE)
        except OSError:
            return  # the next process has to read all logs

    def _load(self, history: History) -> None:
        try:
            kept = json.loads(self._repository.files.read(_FILE) or b"{}")
            tip = kept["tip"].encode()
            sizes = Counter({UUID(uuid): int(size) for uuid, size in kept["sizes"].items()})
        except (OSError, ValueError, KeyError, AttributeError, TypeError):
            return
        # git gc may have taken what is no longer in the branch
        if _COMMIT.fullmatch(tip) and history.has(tip):
            self._tip, self._committed, self._known = tip, sizes, True


def _may_be_location(path: bytes) -> bool:
    return path.endswith(b".log") and b"/" in path
