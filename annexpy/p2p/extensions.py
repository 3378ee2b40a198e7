"""What two of our own ends say to each other beyond version 4 of the protocol: proofs of possession, parts of contents.

Each is agreed on with a number of VERSION that no git-annex has. Source: docs/deviations.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from annexpy.keys.key import Key

__all__ = ["PROOFS", "RANGES", "GetRange", "Possessed", "Possession", "agreed"]

PROOFS: Final = 1004
"""Version 4 and POSSESSION. Between our own ends only: git-annex answers 4 to it, and never asks for it."""
RANGES: Final = 2004
"""Version 4 and GET-RANGE, likewise; a cluster agrees to it as well."""
_VERSION: Final = 4


@dataclass(frozen=True, slots=True)
class Possession:
    """What is the SHA-256 of *nonce* (bytes) and the content behind it? Only where ``PROOFS`` was agreed on."""

    verb: ClassVar = b"POSSESSION"
    nonce: bytes
    key: Key

    def line(self) -> bytes:
        return b"POSSESSION %b %b" % (self.nonce.hex().encode(), self.key.raw)


@dataclass(frozen=True, slots=True)
class Possessed:
    """The content was read now, and this is the digest. Absent content is FAILURE."""

    verb: ClassVar = b"POSSESSED"
    digest: bytes

    def line(self) -> bytes:
        return b"POSSESSED " + self.digest.hex().encode()


@dataclass(frozen=True, slots=True)
class GetRange:
    """Send the content from byte *offset* up to but without byte *end*. Only where ``RANGES`` was agreed on."""

    verb: ClassVar = b"GET-RANGE"
    key: Key
    offset: int
    end: int
    associated_file: bytes = b""

    def line(self) -> bytes:
        return b"GET-RANGE %d %d %b %b" % (self.offset, self.end, self.associated_file, self.key.raw)


def agreed(asked: int, most: int, *, proofs: bool = True) -> int:
    """The version to speak with a client that asked for *asked*; ``PROOFS``, ``RANGES`` where it asked for that."""
    ours = (PROOFS, RANGES) if proofs else (RANGES,)
    return asked if asked in ours and most >= _VERSION else min(asked, most)
