"""Verify contents by reading them again: one key at a remote, or many. Nothing is repaired; ``fsck`` does that."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from anyio import to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from annexpy.actions.get import chunks_of
from annexpy.actions.many import Each
from annexpy.actions.results import Progress, Verified
from annexpy.errors import AnnexError, ContentChanged, IncompleteTransfer, VerificationFailed
from annexpy.keys.backend import Verifier, verifier
from annexpy.keys.key import Key
from annexpy.remote.base import Remote
from annexpy.remote.kinds import bare_local, is_p2p
from annexpy.remote.local import Local

__all__ = ["Checked", "quickly_verified", "verify", "verify_local", "verify_many"]

_INLINE: Final = 256 * 1024
_HOP: Final = 8 * 1024 * 1024
_PIECE: Final = 1024 * 1024
_JOBS: Final = 8
_TOGETHER: Final = 256
"""Small contents that are read over wires between two looks at what else there is to do."""


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
        return await verify_local(local, key, progress, cached=cached)
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


def verify_many(
    remote: Remote,
    keys: Iterable[Key] | AsyncIterable[Key],
    *,
    jobs: int = _JOBS,
    progress: Progress | None = None,
    cached: bool = True,
) -> Each[Key, Checked]:
    """Verify the contents of *keys* at *remote*, as ``verify`` does one; what goes wrong with a key is in its result.

    Args:
        remote: Where.
        keys: Which.
        jobs: How many at once; small ones go one after the other over each connection, however many that are.
        progress: Told how much was read.
        cached: As for ``verify``.
    """

    async def one(key: Key) -> Checked:
        try:
            return Checked(key, True, await verify(remote, key, progress=progress, cached=cached))
        except AnnexError as error:
            return Checked(key, error=error)

    async def quickly(keys: Sequence[Key]) -> list[Checked | None]:
        if bare_local(remote) is not None:
            return [await one(key) if key.size is not None and key.size <= _INLINE else None for key in keys]
        right = await quickly_verified(remote, keys, progress)
        return [Checked(key, True, Verified.HASH) if so else None for key, so in zip(keys, right, strict=True)]

    return Each(keys, one, jobs=jobs, quickly=quickly, together=_TOGETHER)


async def quickly_verified(remote: Remote, keys: Sequence[Key], progress: Progress | None = None) -> list[bool]:
    """Which of *keys* were read and are right, where many can be read at once; the others are for ``verify``."""
    if is_p2p(remote):
        from annexpy.remote.p2p_small_get import compare  # not for those who never leave this machine

        right = await compare(remote, keys)
        if progress is not None:
            for key in (key for key, so in zip(keys, right, strict=True) if so):
                progress(key, key.size or 0, key.size)
        return right
    return [False] * len(keys)


async def _update(check: Verifier, chunk: bytes) -> None:
    if len(chunk) <= _INLINE:
        check.update(chunk)
    else:
        await to_thread.run_sync(check.update, chunk)


async def verify_local(local: Local, key: Key, progress: Progress | None, *, cached: bool = True) -> Verified:
    """As ``verify``, of a repository on this machine: read where it is."""
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


class _Object(Protocol):
    """An object that can be read at any place."""

    @property
    def size(self) -> int: ...

    def pread(self, size: int, offset: int) -> bytes: ...


def _hash(check: Verifier, stored: _Object, start: int, end: int) -> None:
    while start < end:
        piece = stored.pread(min(_PIECE, end - start), start)
        if not piece:
            return
        check.update(piece)
        start += len(piece)
