"""A file outside of any repository as the far side of a put: what ``get`` writes to.

What has arrived stands beside the file under a name made from the key, so that the next attempt goes
on from there; the file itself appears whole and verified, or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio
from anyio import to_thread

from annexpy.errors import (
    AnnexError,
    ContentChanged,
    IncompleteTransfer,
    InvalidPath,
    LocalProtocolError,
    NoSpace,
    TransferInProgress,
    VerificationFailed,
)
from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.remote.base import Stored
from annexpy.repo.files import DiskFiles
from annexpy.repo.pipeline import PIECE, Pipeline
from annexpy.uuids import UUID

__all__ = ["FilePlace", "partial_name"]

_INLINE: Final = 256 * 1024
_LEAVE: Final = 2.0
_NOWHERE: Final = UUID("")
"""A file is no repository, so nothing is recorded for it."""


def partial_name(key: Key) -> bytes:
    """The name, beside the file, of what has arrived of *key*."""
    return b".annexpy-" + hashlib.sha256(key.raw).hexdigest()[:24].encode() + b".part"


class FilePlace:
    """One path, to which one key is written.

    Attributes:
        path: Where the content ends up. What stands there is replaced.
    """

    __slots__ = ("_durable", "_folder", "_name", "path")

    def __init__(self, path: str | bytes | os.PathLike[str], *, durable: bool = True) -> None:
        """Look at the folder only.

        Args:
            path: In a folder that exists.
            durable: The content is on disk when the put ends.

        Raises:
            InvalidPath: There is no such folder, or the name is none.
        """
        self.path = os.fsencode(path)
        self._durable = durable
        self._folder, self._name = os.path.split(self.path)
        if self._name in (b"", b".", b".."):
            raise InvalidPath("destination", self.path, "the path of a file")

    @asynccontextmanager
    async def put(self, key: Key) -> AsyncIterator[FileUpload]:
        """Start writing *key*.

        Raises:
            TransferInProgress: Another process writes the same key into the same folder.
            InvalidPath: It cannot be written there, or something else than a file is there.
            Refused: The hash of the key needs a package that is not there.
        """
        try:
            files = DiskFiles(self._folder or b".")
        except OSError as error:
            raise self._error(error) from error
        try:
            there = files.status(self._name)
            if there is not None and not (stat.S_ISREG(there.st_mode) or stat.S_ISLNK(there.st_mode)):
                raise InvalidPath("destination", self.path, "is there, and is no file that could be replaced")
            upload = FileUpload(self, key, files)
            try:
                yield upload
            finally:
                await upload.leave()
        finally:
            files.close()

    def _error(self, error: OSError) -> AnnexError:
        return InvalidPath("destination", self.path, error.strerror or "cannot be written")


class FileUpload:
    """``Upload`` into a file."""

    __slots__ = (
        "_fd",
        "_files",
        "_left",
        "_length",
        "_name",
        "_over",
        "_pipeline",
        "_place",
        "_total",
        "_verifier",
        "key",
        "offset",
    )

    already: None = None

    def __init__(self, place: FilePlace, key: Key, files: DiskFiles) -> None:
        self._place, self.key, self._files = place, key, files
        self._name = partial_name(key)
        self._verifier = verifier(key)
        self._pipeline: Pipeline | None = None
        self._length: int | None = None
        self._left = 0
        self._over = False  # the name is not ours any more
        try:
            self._fd = self._open()
            if self._verifier is None:
                # Nothing could tell whether what comes continues what is here: two versions would be mixed.
                files.truncate(self._fd, 0)
            self.offset = self._total = files.fstatus(self._fd).st_size
        except OSError as error:
            raise place._error(error) from error

    def _open(self) -> int:
        """The partial, which nobody else writes to."""
        files = self._files
        while True:
            fd = files.open_write(self._name, append=True, mode=0o666)
            if not files.try_lock(fd, exclusive=True):
                files.close_fd(fd)
                raise TransferInProgress(self.key, os.fsdecode(self._place.path))
            status, now = files.fstatus(fd), files.status(self._name)
            if now is not None and (status.st_ino, status.st_dev) == (now.st_ino, now.st_dev):
                return fd
            files.close_fd(fd)  # whoever had it has finished meanwhile, and it is no partial any more

    async def start(self, length: int) -> None:
        size = self.key.size
        if self._length is not None:
            raise LocalProtocolError("content was announced twice")
        if size is not None and length and self.offset + length > size:
            raise IncompleteTransfer(self.key, self.offset + length, size)
        self._length = self._left = length

    async def write(self, data: bytes) -> None:
        if self._length is None or len(data) > self._left:
            raise LocalProtocolError(f"{len(data)} bytes of content where {self._left} were announced")
        self._left -= len(data)
        self._total += len(data)
        try:
            if self._pipeline is None and max(self.offset + self._length, self.key.size or 0) <= _INLINE:
                self._take_prefix()
                if self._verifier is not None:
                    self._verifier.update(data)
                self._files.write(self._fd, data)
                return
            pipeline = self._running()
            pipeline.put(data)
            if pipeline.full:
                await to_thread.run_sync(pipeline.wait, abandon_on_cancel=True)
        except OSError as error:
            raise self._error(error) from error

    def _take_prefix(self) -> None:
        check = self._verifier
        while check is not None and check.received < self.offset:
            piece = self._files.pread(self._fd, min(PIECE, self.offset - check.received), check.received)
            if not piece:
                break  # somebody cut the partial: the hash will not match
            check.update(piece)

    def _running(self) -> Pipeline:
        if self._pipeline is None:
            self._pipeline = Pipeline(self._files, self._fd, self._verifier, prefix=self.offset)
        return self._pipeline

    async def finish(self, valid: bool = True) -> Stored:
        key, where = self.key, os.fsdecode(self._place.path)
        if not valid and self._total == self.offset:
            raise ContentChanged(key, where)
        if self._left or (key.size is not None and self._total != key.size):
            expected = key.size if key.size is not None else self.offset + (self._length or 0)
            self._discard()
            raise IncompleteTransfer(key, self._total, expected, where)
        check = self._verifier
        try:
            if self._pipeline is not None or (check is not None and self._total > _INLINE):
                await to_thread.run_sync(self._running().finish)
            else:
                self._take_prefix()
            if check is None and not valid:
                self._discard()
                raise ContentChanged(key, where)
            if check is not None and not check.matches():
                self._discard()
                raise VerificationFailed(key, where)
            files = self._files
            if self._place._durable:
                await to_thread.run_sync(files.sync, self._fd)
            files.rename(self._name, self._place._name)
            self._over = True
            if self._place._durable:
                await to_thread.run_sync(files.sync_folder, b"")
        except OSError as error:
            raise self._error(error) from error
        return Stored(uuids=frozenset((_NOWHERE,)))

    async def data_present(self) -> Stored:
        raise LocalProtocolError("a file has no other way to get its content")

    def _discard(self) -> None:
        self._files.unlink(self._name)
        self._over = True

    def _error(self, error: OSError) -> AnnexError:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            need = (self.key.size or self._total) - self._total
            return NoSpace(
                self.key, os.fsdecode(self._place.path), max(need, 0), self._files.free(), said=error.strerror or ""
            )
        return self._place._error(error)

    async def leave(self) -> None:
        """Give back the descriptor; what arrived is on file first."""
        fd, pipeline, files = self._fd, self._pipeline, self._files
        if pipeline is None:
            if not self._total and not self._over:
                self._discard()  # there is nothing to go on from
            files.close_fd(fd)
            return
        if not pipeline.ended:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(pipeline.stop, _LEAVE)
        pipeline.when_ended(lambda: files.close_fd(fd))
