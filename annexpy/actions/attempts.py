"""A transfer in two attempts where a partial that was resumed turns out to be wrong.

Whoever had it threw it away, so that the second attempt brings all of it. Of a put into several places, only those take
part in that; what the first attempt stored stands, whatever becomes of the second.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from annexpy.actions.results import Transfer, Verified
from annexpy.errors import AnnexError, IncompleteTransfer, VerificationFailed, WrongPartial
from annexpy.keys.key import Key
from annexpy.remote.base import Stored

__all__ = ["transferred"]


class Attempt(Protocol):
    """What is known of one attempt, however it ended.

    Attributes:
        moved: Bytes that were sent.
        offset: The first of them.
        verified: How the content was verified.
    """

    moved: int
    offset: int
    verified: Verified


A = TypeVar("A", bound=Attempt)


async def transferred(
    key: Key, attempt: Callable[[], A], act: Callable[[A], Awaitable[Stored]], *, again: bool = True
) -> Transfer:
    """Move one content. What goes wrong is in the result.

    Args:
        key: Of the content.
        attempt: Makes an attempt.
        act: Carries it out.
        again: There may be a second one.
    """
    moved, stored, verified = 0, Stored(), Verified.NOT
    while True:
        one = attempt()
        try:
            stored = stored.then(await act(one))
        except AnnexError as error:
            moved += one.moved
            if stored.ok:
                return Transfer(key, stored, None, moved, one.offset, verified)
            if not again or not one.offset or not isinstance(error, VerificationFailed | IncompleteTransfer):
                return Transfer(key, Stored(), error, moved, one.offset)
        else:
            moved, verified = moved + one.moved, one.verified
            if not again or not any(isinstance(error, WrongPartial) for error in stored.failed.values()):
                return Transfer(key, stored, None, moved, one.offset, verified)
        again = False
