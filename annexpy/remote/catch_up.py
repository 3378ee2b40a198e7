"""Content from one node to another: for one that was late or had a wrong partial, or stands in for one that failed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

from anyio import CancelScope, current_time

from annexpy.errors import (
    AnnexError,
    ConnectionLost,
    ContentChanged,
    IncompleteTransfer,
    KeyNotPresent,
    TimedOut,
    VerificationFailed,
    WrongPartial,
)
from annexpy.keys.key import Key
from annexpy.remote.base import Stored, Upload
from annexpy.remote.failover import Stream
from annexpy.remote.health import Node
from annexpy.remote.put_lane import SETTLING_RATE, give_up_partial, real_places

__all__ = ["catch_up"]

log = logging.getLogger(__name__)

_PERHAPS_OF_THE_SOURCE: Final = (ConnectionLost, VerificationFailed, ContentChanged, IncompleteTransfer)
"""What the target says that may be about what it was given."""


async def catch_up(key: Key, associated_file: str, sources: Sequence[Node], target: Node) -> Stored:
    """Have *target* store *key*, which each of *sources* has: the next one gives it where one cannot.

    A wrong partial of *target* costs a second attempt.

    Raises:
        AnnexError: Why it is not stored.
    """
    left = list(sources)
    why: AnnexError = KeyNotPresent(key, "any node that could give it")
    again = True
    while left:
        attempt = _Attempt(key, associated_file, left[0], target)
        try:
            return await attempt.run()
        except WrongPartial:
            if not again:
                raise
            again = False
        except AnnexError as error:
            if attempt.awaited is target and not isinstance(error, _PERHAPS_OF_THE_SOURCE):
                raise
            why = error
            del left[0]
    raise why


class _Attempt:
    """From one source.

    Attributes:
        awaited: The node that it waits for: an error is about it, and so is silence.
    """

    def __init__(self, key: Key, associated_file: str, source: Node, target: Node) -> None:
        self._key, self._file, self._source, self._target = key, associated_file, source, target
        self._scope = CancelScope()
        self._stored: Stored | None = None
        self.awaited = target

    async def run(self) -> Stored:
        target = self._target
        began = target.begin()
        try:
            with self._scope:
                self._await(target)
                async with target.remote.put(self._key, associated_file=self._file) as upload:
                    target.heard(began)
                    if upload.already is not None:
                        self._stored = real_places(target, self._key, Stored(already=upload.already))
                    else:
                        await self._fill(upload)
            if self._stored is None:
                raise TimedOut(self.awaited.remote.name, "copy of a content", self.awaited.deadline)
        except AnnexError as error:
            if self._stored is None:
                self.awaited.failed(error, began if self.awaited is target else None)
                raise
            log.info("%s: %s is stored, and then: %s", target.remote.name, self._key, error)
        finally:
            target.end(began)
        return self._stored

    def _await(self, node: Node) -> None:
        self.awaited = node
        self._scope.deadline = current_time() + node.deadline

    async def _fill(self, upload: Upload) -> None:
        """Give *upload* what it lacks."""
        key, source, target = self._key, self._source, self._target
        if key.size is not None and upload.offset > key.size:
            await give_up_partial(upload)
            raise WrongPartial(key, target.remote.name)
        self._await(source)
        async with source.remote.get(key, offset=upload.offset, associated_file=self._file) as download:
            self._await(target)
            await upload.start(download.length)
            async with aclosing(Stream(key, source, download)) as stream:
                self._await(source)
                while (chunk := await stream.next()) is not None:
                    self._await(target)
                    await upload.write(chunk)
                    target.moves()
                    self._await(source)
            self._await(target)
            # It has been sent everything, so it may store it whether we wait or not: whoever ends this waits.
            self._scope.deadline += (upload.offset + download.length) / SETTLING_RATE
            with CancelScope(shield=True, deadline=self._scope.deadline):
                try:
                    stored = await upload.finish(download.valid)
                except VerificationFailed as error:
                    if not upload.offset:
                        raise
                    raise WrongPartial(key, target.remote.name) from error
                target.moves()
                self._stored = real_places(target, key, stored)
                self._await(source)  # which is left first
