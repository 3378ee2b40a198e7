"""Have remotes prove that they have a content, without sending it: what they answer is compared with a copy here."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

import anyio
from anyio import to_thread

from annexpy.actions.get import chunks_of
from annexpy.actions.results import Verified
from annexpy.actions.sources import Source, opened
from annexpy.errors import AnnexError, VerificationFailed
from annexpy.keys.backend import Verifier, verifier
from annexpy.keys.key import Key
from annexpy.remote.base import Remote
from annexpy.remote.possession import Proves, new_nonce, proves

__all__ = ["Proof", "prove"]

_INLINE: Final = 256 * 1024

Proof: TypeAlias = Verified | AnnexError | None
"""``Verified.HASH``: it has exactly the content. None: it cannot be asked, and nothing is known. An error: it has not
got it (KeyNotPresent), what it read is something else (VerificationFailed), or it did not answer."""


async def prove(remotes: Sequence[Remote], key: Key, copy: Remote | Source) -> list[Proof]:
    """Ask *remotes* for the SHA-256 of a nonce and the content of *key*, each for one of its own.

    Costs each of them, and us, reading the content once, and no transfer. Our own ends can be asked over pipes, ssh,
    sockets and HTTP; repositories on this machine, other peers and clusters cannot.

    Args:
        remotes: Whom to ask.
        key: One with a verifiable hash; of others nothing is proven.
        copy: What to compare with: a remote that has the content, best one on this machine, a file, or the content.
            It is verified itself while it is read, and only where somebody can be asked.

    Returns:
        What each has shown, in the order of *remotes*.

    Raises:
        VerificationFailed: *copy* is not the content of *key*.
        AnnexError: It cannot be read.
    """
    found: list[Proof] = [None] * len(remotes)
    check = verifier(key)
    if check is None:
        return found
    askable: dict[int, Proves] = {}
    for number, remote in enumerate(remotes):
        try:
            if await proves(remote) and isinstance(remote, Proves):
                askable[number] = remote
        except AnnexError as error:
            found[number] = error
    if not askable:
        return found
    nonces = {number: new_nonce() for number in askable}
    digests = {number: hashlib.sha256(nonce) for number, nonce in nonces.items()}
    await _read(key, copy, check, list(digests.values()))

    async def ask(number: int) -> None:
        try:
            same = await askable[number].prove(key, nonces[number]) == digests[number].digest()
        except AnnexError as error:
            found[number] = error
        else:
            wrong = VerificationFailed(key, remotes[number].name, "what it has read is something else")
            found[number] = Verified.HASH if same else wrong

    async with anyio.create_task_group() as group:
        for number in askable:
            group.start_soon(ask, number)
    return found


async def _read(key: Key, copy: Remote | Source, check: Verifier, digests: Sequence[hashlib._Hash]) -> None:
    """Feed the content to *check* and *digests*."""

    def feed(chunk: bytes) -> None:
        check.update(chunk)
        for digest in digests:
            digest.update(chunk)

    async with _chunks(key, copy) as chunks:
        async for chunk in chunks:
            if len(chunk) <= _INLINE:
                feed(chunk)
            else:
                await to_thread.run_sync(feed, chunk)
    if not check.matches():
        raise VerificationFailed(key, copy.name if isinstance(copy, Remote) else "the source")


@asynccontextmanager
async def _chunks(key: Key, copy: Remote | Source) -> AsyncIterator[AsyncIterator[bytes]]:
    if not isinstance(copy, Remote):
        with opened(copy, key) as content:

            async def read() -> AsyncIterator[bytes]:
                offset = 0
                while chunk := await content.read(offset):
                    offset += len(chunk)
                    yield chunk

            yield read()
        return
    async with copy.get(key) as download, chunks_of(download) as chunks:
        yield chunks
