"""What a Remote gives in place of a context when it has to refuse, so that the refusal comes on entering."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from annexpy.errors import AnnexError
from annexpy.remote.base import LockedCopy

__all__ = ["Refusal"]


class Refusal(AbstractAsyncContextManager[LockedCopy]):
    """A context that cannot be entered."""

    def __init__(self, error: AnnexError) -> None:
        self._error = error

    async def __aenter__(self) -> LockedCopy:
        raise self._error

    async def __aexit__(self, *_: object) -> None:
        """Never entered, never left."""
