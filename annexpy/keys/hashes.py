"""The hash functions behind keys: by the name that a backend has without its ``E``.

Names are git-annex's. All but Skein and BLAKE2SP224 can be computed; BLAKE3 and XXH3 by packages of the
extra ``hashes``. hashlib cannot make BLAKE2SP224: its leaves are 32 bytes long although they are
announced as 28.

Source: fact sheet repository-format, section 1; vectors hash_backends.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol, TypeAlias

from annexpy.errors import Refused

__all__ = ["COMPUTABLE", "DIGESTS", "INSECURE", "Buffer", "Hash", "new_hash"]

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes to be hashed; a memoryview has items of one byte."""


class Hash(Protocol):
    """What we use of a hashlib object. ``update`` lets other threads run above 2 KiB."""

    def update(self, data: Buffer, /) -> object: ...

    def hexdigest(self) -> str: ...


class _Tree:
    """BLAKE2bp, BLAKE2sp: leaf *i* of *n* takes every *n*-th block, the root takes the digests of the leaves."""

    __slots__ = ("_block", "_leaves", "_pending", "_root")

    def __init__(self, function: Callable[..., Any], block: int, fanout: int, digest_size: int) -> None:
        tree = {"digest_size": digest_size, "fanout": fanout, "depth": 2, "inner_size": digest_size}
        self._leaves = [function(**tree, node_offset=i, last_node=i == fanout - 1) for i in range(fanout)]
        self._root = function(**tree, node_depth=1, last_node=True)
        self._block = block
        self._pending = b""  # less than one round of blocks

    def update(self, data: Buffer, /) -> None:
        whole = memoryview(self._pending + bytes(data) if self._pending else bytes(data))
        stride = self._block * len(self._leaves)
        end = len(whole) - len(whole) % stride
        self._spread(whole[:end])
        self._pending = bytes(whole[end:])

    def hexdigest(self) -> str:
        leaves = [leaf.copy() for leaf in self._leaves]
        for i, leaf in enumerate(leaves):
            leaf.update(self._pending[i * self._block : (i + 1) * self._block])
        root = self._root.copy()
        for leaf in leaves:
            root.update(leaf.digest())
        return str(root.hexdigest())

    def _spread(self, rounds: memoryview) -> None:
        stride = self._block * len(self._leaves)
        for i, leaf in enumerate(self._leaves):
            start = i * self._block
            leaf.update(b"".join([rounds[at : at + self._block] for at in range(start, len(rounds), stride)]))


def _blake3() -> Hash:
    try:
        from blake3 import blake3
    except ImportError:
        raise Refused("key backend", b"BLAKE3_256", "needs the package blake3: pip install 'annexpy[hashes]'") from None
    made: Hash = blake3()
    return made


def _xxh3() -> Hash:
    try:
        from xxhash import xxh3_64
    except ImportError:
        raise Refused("key backend", b"XXH3", "needs the package xxhash: pip install 'annexpy[hashes]'") from None
    made: Hash = xxh3_64()
    return made


COMPUTABLE: Final[Mapping[bytes, Callable[[], Hash]]] = {
    b"SHA256": hashlib.sha256,
    b"SHA512": hashlib.sha512,
    b"SHA224": hashlib.sha224,
    b"SHA384": hashlib.sha384,
    b"SHA3_256": hashlib.sha3_256,
    b"SHA3_512": hashlib.sha3_512,
    b"SHA3_224": hashlib.sha3_224,
    b"SHA3_384": hashlib.sha3_384,
    b"BLAKE2B256": partial(hashlib.blake2b, digest_size=32),
    b"BLAKE2B512": partial(hashlib.blake2b, digest_size=64),
    b"BLAKE2B160": partial(hashlib.blake2b, digest_size=20),
    b"BLAKE2B224": partial(hashlib.blake2b, digest_size=28),
    b"BLAKE2B384": partial(hashlib.blake2b, digest_size=48),
    b"BLAKE2BP512": partial(_Tree, hashlib.blake2b, 128, 4, 64),
    b"BLAKE2S256": partial(hashlib.blake2s, digest_size=32),
    b"BLAKE2S160": partial(hashlib.blake2s, digest_size=20),
    b"BLAKE2S224": partial(hashlib.blake2s, digest_size=28),
    b"BLAKE2SP256": partial(_Tree, hashlib.blake2s, 64, 8, 32),
    b"BLAKE3_256": _blake3,
    b"XXH3": _xxh3,
    b"SHA1": partial(hashlib.sha1, usedforsecurity=False),
    b"MD5": partial(hashlib.md5, usedforsecurity=False),
}
"""Name → a function that makes a fresh hash. Those of BLAKE3_256 and XXH3 raise ``Refused`` without their package."""

DIGESTS: Final[Mapping[bytes, int]] = {
    **{name: int(name[-3:]) // 4 for name in COMPUTABLE if name[-3:].isdigit()},
    b"XXH3": 16,
    b"SHA1": 40,
    b"MD5": 32,
    b"SKEIN256": 64,
    b"SKEIN512": 128,
    b"BLAKE2SP224": 56,
}
"""Name → hexadecimal digits of a digest, for every hash that git-annex knows."""

INSECURE: Final = frozenset((b"SHA1", b"MD5", b"XXH3"))
"""Hashes for which somebody can make two contents of one digest."""


def new_hash(name: bytes) -> Hash:
    """A fresh hash of that *name*.

    Raises:
        Refused: No such hash, one that cannot be computed here, or its package is not installed.
    """
    make = COMPUTABLE.get(name)
    if make is None:
        known = name in DIGESTS
        raise Refused("key backend", name, "carried but not computed by annexpy" if known else "not a hash backend")
    return make()
