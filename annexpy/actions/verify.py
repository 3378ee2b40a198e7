"""Verify contents by reading them again: one key at a remote, or fsck of many with the location log.

fsck does what git-annex's does: a location line that does not fit what is there is set right, content
that is not its key's is moved out of the way into ``annex/bad`` (of a repository on this machine; from
others nothing is taken), and too few copies are a problem of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from anyio import to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from annexpy.actions.facts import Facts
from annexpy.actions.get import chunks_of
from annexpy.actions.many import Each
from annexpy.actions.results import Progress, Verified
from annexpy.errors import (
    AnnexError,
    ContentChanged,
    IncompleteTransfer,
    KeyNotPresent,
    NotEnoughCopies,
    VerificationFailed,
)
from annexpy.keys.backend import Verifier, verifier
from annexpy.keys.key import Key
from annexpy.keys.layout import key_file
from annexpy.logs.location import LocationLog
from annexpy.policy.numcopies import not_a_copy
from annexpy.remote.base import Remote
from annexpy.remote.kinds import bare_local
from annexpy.remote.local import Local
from annexpy.remote.local_place import LocalPlace
from annexpy.remote.wrappers import Records, Wrapper, record
from annexpy.repo.files import WRITE
from annexpy.repo.repository import Repository

__all__ = ["Checked", "fsck", "verify"]

_BAD: Final = b"annex/bad"
_INLINE: Final = 256 * 1024
_HOP: Final = 8 * 1024 * 1024
_PIECE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Checked:
    """What fsck found of one key.

    Attributes:
        key: Which.
        present: The content is there and is the right one, as far as can be told.
        verified: What was compared.
        repaired: What was set right, in git-annex's words.
        error: What is wrong, before anything was repaired; None when all is well.
    """

    key: Key
    present: bool = False
    verified: Verified = Verified.NOT
    repaired: tuple[str, ...] = ()
    error: AnnexError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


async def verify(remote: Remote, key: Key, *, progress: Progress | None = None, cached: bool = True) -> Verified:
    """Read the content of *key* at *remote*, all of it, and compare it with the key.

    Args:
        remote: Where.
        key: Which.
        progress: Told how much was read.
        cached: What this machine still has in memory may be read. False: of a repository on this machine the disk is
            asked, as far as the system does that; of any other its own memory may answer.

    Returns:
        What could be compared.

    Raises:
        KeyNotPresent: It is not there.
        VerificationFailed: It is not the content of the key.
        ContentChanged: It changed while it was read, and no hash says whether that matters.
        AnnexError: It could not be read.
    """
    local = bare_local(remote)
    if local is not None:
        await checkpoint_if_cancelled()
        return await _read_local(local, key, progress, cached=cached)
    check, done = verifier(key), 0
    async with remote.get(key) as download:
        length = download.length
        async with chunks_of(download) as chunks:
            async for chunk in chunks:
                if check is not None:
                    await _update(check, chunk)
                done += len(chunk)
                if progress is not None:
                    progress(key, done, length)
        if done != length:
            raise IncompleteTransfer(key, done, length, remote.name)
        return _verdict(key, check, done, download.valid, remote.name)


async def _update(check: Verifier, chunk: bytes) -> None:
    if len(chunk) <= _INLINE:
        check.update(chunk)
    else:
        await to_thread.run_sync(check.update, chunk)


async def _read_local(local: Local, key: Key, progress: Progress | None, *, cached: bool = True) -> Verified:
    """Read where it is."""
    store, check, done = local.store, verifier(key), 0
    try:
        with store.open(key) as stored:
            if key.size is not None and stored.size != key.size:
                raise VerificationFailed(key, local.name, f"it has {stored.size} bytes")
            if not cached:
                stored.drop_cached()
            while check is not None and done < stored.size:
                end = min(done + _HOP, stored.size)
                if stored.size <= _INLINE:
                    _hash(check, stored, done, end)
                else:
                    await to_thread.run_sync(_hash, check, stored, done, end)
                if check.received < end:
                    break  # it became shorter
                done = end
                if progress is not None:
                    progress(key, done, stored.size)
            return _verdict(key, check, stored.size, stored.unchanged(), local.name)
    except OSError as error:
        raise store.folders.error(key, error) from error


def _verdict(key: Key, check: Verifier | None, size: int, unchanged: bool, where: str) -> Verified:
    if check is not None:
        if check.matches():
            return Verified.HASH
        raise VerificationFailed(key, where)
    if key.size is not None and key.size != size:
        raise VerificationFailed(key, where, f"it has {size} bytes")
    if not unchanged:
        raise ContentChanged(key, where)
    return Verified.NOT if key.size is None else Verified.SIZE


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
    return Each(keys, _Check(place, facts, progress).one, jobs=jobs)


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
            repaired += self._log(key, present=True)
            too_few = self._too_few(key)
            return Checked(key, True, verified, tuple(repaired), too_few)
        except AnnexError as error:
            return Checked(key, repaired=tuple(repaired), error=error)

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


class _Object(Protocol):
    """An object that can be read at any place."""

    @property
    def size(self) -> int: ...

    def pread(self, size: int, offset: int) -> bytes: ...


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
        verified = await _read_local(self._local, key, self._progress)
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


def _hash(check: Verifier, stored: _Object, start: int, end: int) -> None:
    while start < end:
        piece = stored.pread(min(_PIECE, end - start), start)
        if not piece:
            return
        check.update(piece)
        start += len(piece)
