"""Content from one node to another: for one that was late, had a wrong partial, or stands in for one that failed."""

from __future__ import annotations

from contextlib import aclosing

from anyio import CancelScope, current_time

from annexpy.errors import AnnexError, TimedOut, VerificationFailed
from annexpy.keys.key import Key
from annexpy.remote.base import Stored, Upload
from annexpy.remote.failover import Stream
from annexpy.remote.health import Node
from annexpy.remote.put_lane import SETTLING_RATE, real

__all__ = ["catch_up"]


async def catch_up(key: Key, associated_file: str, source: Node, target: Node) -> Stored:
    """Have *target* store *key*, which *source* has. A wrong partial costs a second attempt.

    Raises:
        ConnectionLost: To one or the other.
        AnnexError: Why it is not stored.
    """
    began = target.begin()
    try:
        for attempt in ("first", "last"):
            with CancelScope(deadline=current_time() + target.deadline) as scope:
                async with target.remote.put(key, associated_file=associated_file) as upload:
                    target.heard(began)
                    if upload.already is not None:
                        return Stored(already=real(upload.already))
                    try:
                        stored = await _filled(key, associated_file, source, target, upload, scope)
                    except VerificationFailed:
                        if attempt == "last" or not upload.offset:
                            raise
                        continue  # it threw the partial away that spoilt the content
                    if stored is not None:
                        return stored
            break
        raise TimedOut(target.remote.name, "late copy", target.deadline)
    except AnnexError as error:
        target.failed(error, began)
        raise
    finally:
        target.end(began)


async def _filled(
    key: Key, associated_file: str, source: Node, target: Node, upload: Upload, scope: CancelScope
) -> Stored | None:
    """What becomes of *upload* to *target*, None if it never says; *scope* ends it when nothing moves any more."""

    def moves() -> None:
        target.moves()
        scope.deadline = current_time() + target.deadline

    moves()
    async with source.remote.get(key, offset=upload.offset, associated_file=associated_file) as download:
        moves()
        await upload.start(download.length)
        moves()
        async with aclosing(Stream(key, source, download)) as stream:
            while (chunk := await stream.next()) is not None:
                await upload.write(chunk)
                moves()
        scope.deadline += (upload.offset + download.length) / SETTLING_RATE
        # It has been sent everything, so it may store it whether we wait or not: whoever ends this waits.
        with CancelScope(shield=True, deadline=scope.deadline):
            stored = await upload.finish(download.valid)
            moves()
            return Stored(real(stored.uuids), real(stored.already))
    return None
