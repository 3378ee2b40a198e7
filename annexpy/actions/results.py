"""How operations on one key ended: values, for people and programs alike."""

from __future__ import annotations

from dataclasses import dataclass

from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.policy.numcopies import DropProof
from annexpy.remote.base import Removed

__all__ = ["DropResult"]


@dataclass(frozen=True, slots=True)
class DropResult:
    """How the drop of one key ended.

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

    @property
    def ok(self) -> bool:
        """Everybody who was asked gave it up."""
        return self.error is None
