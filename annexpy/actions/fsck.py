"""fsck: verify many contents, and set the location log right.

It does what git-annex's does: a location line that does not fit what is there is set right, content
that is not its key's is moved out of the way into ``annex/bad`` (of a repository on this machine; from
others nothing is taken), and too few copies are a problem of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from typing import Final, Protocol

from annexpy.actions.facts import Facts
from annexpy.actions.many import Each
from annexpy.actions.results import Progress, Verified
from annexpy.actions.verify import Checked, quickly_verified, verify, verify_local
from annexpy.errors import AnnexError, KeyNotPresent, NotEnoughCopies, VerificationFailed
from annexpy.keys.key import Key
from annexpy.keys.layout import key_file
from annexpy.logs.location import LocationLog
from annexpy.policy.numcopies import not_a_copy
from annexpy.remote.base import Remote
from annexpy.remote.local import Local
from annexpy.remote.local_place import LocalPlace
from annexpy.remote.recording import Records, record
from annexpy.remote.wrappers import Wrapper
from annexpy.repo.files import WRITE
from annexpy.repo.repository import Repository

__all__ = ["fsck"]

_BAD: Final = b"annex/bad"


def fsck(
    place: Remote,
    keys: Iterable[Key] | AsyncIterable[Key],
    *,
    facts: Facts | None = None,
    jobs: int = 4,
    progress: Progress | None = None,
) -> Each[Key, Checked]:
    """Check the contents of *keys* at *place* and the location lines about it.

    Args:
        place: A repository on this machine, where bad content is moved to ``annex/bad``; or any other remote.
        keys: Which. For all that a repository should have, its location logs know them.
        facts: Whose location log is compared and set right; that of *place* itself when it is on this machine
            and nothing is given. Without any, only contents are checked.
        jobs: How many at once.
        progress: Told how much of a content was read.
    """
    inner = place
    while isinstance(inner, Wrapper):
        inner = inner.remote
    if isinstance(inner, LocalPlace):
        inner = inner.local
    if isinstance(inner, Local):
        return Each(keys, _LocalCheck(inner, facts, progress).one, jobs=jobs)
    check = _Check(place, facts, progress)
    return Each(keys, check.one, jobs=jobs, quickly=check.quickly)


class _Check:
    """Checks keys at any remote."""

    def __init__(self, place: Remote, facts: Facts | None, progress: Progress | None) -> None:
        self._place, self._facts, self._progress = place, facts, progress
        self._branches: list[_Branch] = [] if facts is None else [facts.repository.branch]

    async def one(self, key: Key) -> Checked:
        repaired: list[str] = []
        try:
            try:
                verified = await self._read(key)
            except KeyNotPresent:
                return self._missing(key)
            except VerificationFailed:
                repaired += await self._put_aside(key)
                raise
            return self._right(key, verified)
        except AnnexError as error:
            return Checked(key, repaired=tuple(repaired), error=error)

    async def quickly(self, keys: Sequence[Key]) -> list[Checked | None]:
        right = await quickly_verified(self._place, keys, self._progress)
        return [self._right(key, Verified.HASH) if so else None for key, so in zip(keys, right, strict=True)]

    def _right(self, key: Key, verified: Verified) -> Checked:
        repaired: tuple[str, ...] = ()
        try:
            repaired = tuple(self._log(key, present=True))
            return Checked(key, True, verified, repaired, self._too_few(key))
        except AnnexError as error:
            return Checked(key, repaired=repaired, error=error)

    async def _read(self, key: Key) -> Verified:
        return await verify(self._place, key, progress=self._progress)

    async def _put_aside(self, key: Key) -> list[str]:
        return []

    def _missing(self, key: Key) -> Checked:
        repaired = tuple(self._log(key, present=False))
        if repaired:
            reason = "based on the location log, it was expected to be present"
            return Checked(key, repaired=repaired, error=KeyNotPresent(key, self._place.name, reason))
        return Checked(key, error=self._too_few(key))

    def _log(self, key: Key, *, present: bool) -> list[str]:
        """Make the location logs say so; what was done."""
        uuid, done = self._place.uuid, []
        for branch in self._branches:
            if (uuid in branch.locations(key).present) is not present:
                record(branch, key, (uuid,), present=present)
                done = ["fixing location log"]
        return done

    def _too_few(self, key: Key) -> AnnexError | None:
        if self._facts is None:
            return None
        return _copies_missing(self._facts, key, self._facts.repository.branch.locations(key))


def _copies_missing(facts: Facts, key: Key, log: LocationLog) -> NotEnoughCopies | None:
    needed = facts.copies(key).num
    places = {uuid: not_a_copy(uuid, (), facts.trust) for uuid in log.present}
    counted = [uuid for uuid, why in places.items() if why is None]
    if len(counted) >= needed:
        return None
    return NotEnoughCopies(
        key,
        len(counted),
        needed,
        counted={facts.name(uuid): "recorded" for uuid in counted},
        missing={facts.name(uuid): why for uuid, why in places.items() if why is not None},
    )


class _Branch(Records, Protocol):
    """A location log, to read and to set right."""

    def locations(self, key: Key) -> LocationLog: ...


class _LocalCheck(_Check):
    """Checks keys of a repository on this machine: reads them where they are."""

    def __init__(self, local: Local, facts: Facts | None, progress: Progress | None) -> None:
        if facts is None and isinstance(local.repository, Repository):
            facts = Facts(local.repository)
        super().__init__(local, facts, progress)
        self._local = local
        if facts is None or facts.repository.uuid != local.uuid:
            self._branches.append(local.repository.branch)  # what it knows of itself

    async def _read(self, key: Key) -> Verified:
        verified = await verify_local(self._local, key, self._progress)
        self._repair_permissions(key)
        return verified

    def _repair_permissions(self, key: Key) -> None:
        """Take write permissions away from the object; silently, as git-annex does."""
        store = self._local.store
        found = None if store.settings.thin else store.folders.find_regular(key)
        if found is not None and found[1].st_mode & WRITE and found[1].st_nlink == 1:
            path = store.path(key)
            assert path is not None
            store.folders.files.chmod(path, store.settings.lockdown.object(found[1].st_mode))

    async def _put_aside(self, key: Key) -> list[str]:
        """Move bad content to ``annex/bad`` and log that it is gone.

        Raises:
            ContentLocked: Somebody relies on it: then it stays, and so does what the log says.
        """
        store, bad = self._local.store, _BAD + b"/" + key_file(key)
        try:
            async with store.exclusion():
                with store.removal(key) as removal:
                    path, files = store.path(key), store.folders.files
                    assert path is not None
                    files.make_folders(_BAD)
                    files.unlink(bad)
                    files.link(path, bad)
                    removal.unlink(only=path)  # in its other hash directory it may be good
        except OSError as error:
            raise store.folders.error(key, error) from error
        moved = f"moved to {self._local.name}/{bad.decode('utf-8', 'backslashreplace')}"
        return [moved] if store.path(key) is not None else [moved, *self._log(key, present=False)]
