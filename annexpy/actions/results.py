"""How operations on one key ended: values, for people and programs alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

from annexpy.errors import AnnexError
from annexpy.keys.backend import is_verifiable
from annexpy.keys.key import Key
from annexpy.remote.base import Removed, Stored

if TYPE_CHECKING:
    from annexpy.policy.numcopies import DropProof

__all__ = ["DropResult", "Moved", "Progress", "Transfer", "Verified", "verified_by"]

Progress: TypeAlias = Callable[[Key, int, int | None], None]
"""Called with the key, how many of its bytes are where they should be, and how many there are (None:
the key does not tell). Never goes back while one transfer runs; the first call tells what was there
already, the last one that all is there. Must not block."""


class Verified(Enum):
    """How far the content was compared with its key."""

    HASH = "hash"
    SIZE = "size"
    NOT = "not verified"


@dataclass(frozen=True, slots=True)
class Transfer:
    """How the transfer of one key ended.

    Attributes:
        key: The key.
        stored: Who received it now, who was found to have it, who failed and why.
        error: Why nobody has it, or None.
        bytes: Bytes of content that were moved for it, in vain or not.
        offset: Where a partial was resumed.
        verified: What the receiver compared. Of a copy that was there already nothing but its presence
            is known now.
    """

    key: Key
    stored: Stored = field(default_factory=Stored)
    error: AnnexError | None = None
    bytes: int = 0
    offset: int = 0
    verified: Verified = Verified.NOT

    @property
    def ok(self) -> bool:
        """Somebody has it now who was to have it."""
        return self.error is None and self.stored.ok


@dataclass(frozen=True, slots=True)
class DropResult:
    """How the drop of one key ended.

    It pickles without its proof, which is valid only here and now.

    Attributes:
        key: The key.
        removed: Who no longer has it; None when nobody was asked to give it up, or nobody answered.
        proof: What allowed it; None when it was refused, or forced.
        error: Why it was refused or did not succeed everywhere.
    """

    key: Key
    removed: Removed | None = None
    proof: DropProof | None = None
    error: AnnexError | None = None

    def __reduce__(self) -> tuple[type[DropResult], tuple[object, ...]]:
        return DropResult, (self.key, self.removed, None, self.error)

    @property
    def ok(self) -> bool:
        """Everybody who was asked gave it up."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Moved:
    """How the move of one key ended: first the transfer, then the drop.

    Attributes:
        transfer: How it got to the destination.
        dropped: How the source gave it up; None when the transfer failed, so that nobody was asked.
    """

    transfer: Transfer
    dropped: DropResult | None = None

    @property
    def key(self) -> Key:
        return self.transfer.key

    @property
    def error(self) -> AnnexError | None:
        """What went wrong first."""
        return self.transfer.error or (None if self.dropped is None else self.dropped.error)

    @property
    def ok(self) -> bool:
        """The destination has it and the source no longer does."""
        return self.transfer.ok and self.dropped is not None and self.dropped.ok


def verified_by(key: Key) -> Verified:
    """What a receiver that accepts content for *key* has compared."""
    if is_verifiable(key):
        return Verified.HASH
    return Verified.NOT if key.size is None else Verified.SIZE
