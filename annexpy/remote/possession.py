"""Proof that somebody has a content now, without sending it: the SHA-256 of a nonce and the content behind it.

The nonce comes first and is new each time, so nobody can answer who does not read all of the content after it was
asked: neither the name of the key nor a digest that was kept is of any use. That the bytes come from the disk of
whoever answers is not shown by it (a page cache may answer, or a copy elsewhere), as little as by reading them back.

``PROOFS`` (docs/deviations.md, "Proofs") is how two of our own ends agree on it over a wire, and the header ``Server``
over HTTP; other peers are not asked. A cluster is nobody who could have a content, so it proves nothing.
"""

from __future__ import annotations

import hashlib
from typing import Final, Protocol, runtime_checkable

from anyio import to_thread

from annexpy.abilities import Ability
from annexpy.errors import ContentChanged, Refused
from annexpy.keys.key import Key
from annexpy.remote.base import HasNodes, Remote
from annexpy.system import RANDOM
from annexpy.uuids import is_cluster

__all__ = ["Proves", "new_nonce", "patience", "possession", "proves"]

_INLINE: Final = 256 * 1024
_SLOWEST: Final = 4 << 20
"""Bytes a second that whoever is asked reads at least."""
_UNKNOWN_SIZE: Final = 1 << 34


@runtime_checkable
class Proves(Protocol, metaclass=Ability):
    """A Remote that may be able to prove that it has a content."""

    async def proves(self) -> bool:
        """Whether it can be asked. Connects to find out."""
        ...

    async def prove(self, key: Key, nonce: bytes) -> bytes:
        """SHA-256 of *nonce*, 32 bytes, and the content of *key*, as it was read now; only where it ``proves``.

        Raises:
            KeyNotPresent: It is not there.
        """
        ...


def new_nonce() -> bytes:
    """32 bytes that nobody could know before."""
    return RANDOM.randbytes(32)


def patience(key: Key, deadline: float) -> float:
    """Seconds after which nobody reads *key* any more who begins to answer within *deadline*."""
    return deadline + (_UNKNOWN_SIZE if key.size is None else key.size) / _SLOWEST


async def proves(remote: Remote) -> bool:
    """Whether *remote* can be asked for a proof without sending the content."""
    return isinstance(remote, Proves) and await remote.proves()


async def possession(remote: Remote, key: Key, nonce: bytes) -> bytes:
    """What a server answers for *remote*: its own proof where it has one, else what reading it gives.

    Raises:
        Refused: A cluster.
        KeyNotPresent: It is not there.
        ContentChanged: It changed while it was read.
    """
    if is_cluster(remote.uuid) or isinstance(remote, HasNodes):
        raise Refused("remote", remote.name, "a cluster has no content; ask its nodes")
    if isinstance(remote, Proves) and await remote.proves():
        return await remote.prove(key, nonce)
    digest = hashlib.sha256(nonce)
    async with remote.get(key) as download:
        async for chunk in download:
            if len(chunk) <= _INLINE:
                digest.update(chunk)
            else:
                await to_thread.run_sync(digest.update, chunk)
        if not download.valid:
            raise ContentChanged(key, remote.name)
    return digest.digest()
