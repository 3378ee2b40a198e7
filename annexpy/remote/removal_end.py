"""How the asking for a removal can end other than with done or not done, over lines and over HTTP alike."""

from __future__ import annotations

from typing import Final

from annexpy.errors import AnnexError, OutcomeUnknown
from annexpy.remote.base import Removed, may_happen_yet

__all__ = ["NO_DEADLINE", "open_end", "unknown"]

NO_DEADLINE: Final = "no-deadline"
"""``ContentError.reason`` begins with this when the peer cannot honour a removal deadline, so was not asked."""


def unknown(peer: str, error: AnnexError) -> AnnexError:
    """*error* as one that leaves open whether *peer* has removed it, or will."""
    return error if may_happen_yet(error) else OutcomeUnknown(peer, "a removal", str(error))


def open_end(removed: Removed, name: str) -> Removed:
    """As *removed*, where the same was asked for before, over a wire that was lost: a failure is none that is known."""
    failed = {uuid: unknown(name, error) for uuid, error in removed.failed.items()}
    return Removed(removed.ok, removed.uuids, failed)
