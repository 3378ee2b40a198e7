"""Many small requests over one wire, sent without waiting for an answer in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from annexpy.p2p.connection import MAX_UNANSWERED
from annexpy.p2p.messages import CheckPresent, Message, Remove, RemoveBefore
from annexpy.remote.wire import Wire

__all__ = ["pipeline"]

_WORDS: Final = 48  # bytes of a request line around its key, at most


async def pipeline(
    wire: Wire, requests: Sequence[CheckPresent | Remove | RemoveBefore], answers: list[Message]
) -> None:
    """Ask all of *requests* without waiting in between; *answers* grows in the same order."""
    asked = 0
    while len(answers) < len(requests):
        if wire.room > MAX_UNANSWERED // 2:
            while asked < len(requests) and wire.room >= min(MAX_UNANSWERED, len(requests[asked].key.raw) + _WORDS):
                wire.put(requests[asked])
                asked += 1
        answers.append(await wire.answer())
        wire.answers(answers)
