"""One content on its way into the store.

What happens to the partial file in ``annex/tmp`` follows the PUT table of the fact sheet p2p-protocol,
section 4: it is kept when the sender goes away and when it sent nothing but INVALID, and thrown away when
what arrived is too short, too long or wrong. INVALID content with a verifiable hash is stored when the hash is
right; other INVALID content never is (architecture, rule of the road 4).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Protocol

import anyio
from anyio import to_thread

from annexpy.errors import (
    AnnexError,
    ContentChanged,
    ContentError,
    IncompleteTransfer,
    InvalidInput,
    LocalProtocolError,
    VerificationFailed,
)
from annexpy.keys.backend import Verifier, verifier
from annexpy.keys.key import MAX_SIZE, Key
from annexpy.repo.door import Files
from annexpy.repo.durability import Change
from annexpy.repo.partial import Arrivals, Partial
from annexpy.repo.pipeline import PIECE, Pipeline
from annexpy.uuids import UUID

__all__ = ["Readable", "Receiving"]

log = logging.getLogger(__name__)

_LEAVE: Final = 2.0
_HOP: Final = 64 * 1024 * 1024


class Readable(Protocol):
    """A content to copy from."""

    @property
    def size(self) -> int: ...

    def pread(self, size: int, offset: int) -> bytes: ...


class Receiving:
    """An async context in which one content arrives: look at ``offset``, then ``write``* and ``finish``.

    Leaving without ``finish`` keeps what arrived, for the next time. Small contents are handled where they
    are, larger ones by threads of their own.

    Attributes:
        key: What arrives.
        offset: The first byte that is wanted. May exceed the size of the key.
        there: The content was there when it was our turn to receive it.
    """

    __slots__ = (
        "_arrivals",
        "_associated_file",
        "_length",
        "_new",
        "_partial",
        "_paths",
        "_pipeline",
        "_published",
        "_received",
        "_recorded",
        "_source",
        "_verifier",
        "_where",
        "key",
        "offset",
        "there",
    )

    def __init__(
        self,
        arrivals: Arrivals,
        key: Key,
        source: UUID | None,
        associated_file: str,
        recorded: Callable[[Key], None] | None,
    ) -> None:
        self.key, self.offset = key, 0
        self._arrivals, self._source, self._associated_file = arrivals, source, associated_file
        self._recorded = recorded
        self._where = arrivals.folders.where
        self._paths = arrivals.folders.paths(key)
        self._partial = Partial(arrivals, key)
        self._received = 0
        self._length: int | None = None
        self._pipeline: Pipeline | None = None
        self._verifier: Verifier | None = None
        self._published = False
        self._new = self.there = False

    async def __aenter__(self) -> Receiving:
        """Find out what is there.

        Raises:
            TransferInProgress: Somebody else receives the same key.
            NoSpace: It would leave less free than ``annex.diskreserve``. Only for keys that tell their size;
                for others see ``expect``.
            NotRegularFile: Something odd stands where the partial should be.
            Refused: The hash of the key needs a package that is not there.
        """
        self._verifier = verifier(self.key)
        try:
            self._partial.open(self._source, self._associated_file)
            if self._verifier is None and self._partial.size:
                # Nothing could tell whether what comes continues what is here: two versions would be joined.
                self._partial.empty()
            with suppress(AnnexError):  # nobody can tell: putting it in place will meet the same
                self.there = self._arrivals.present(self.key)
        except BaseException as error:
            self._close()
            if isinstance(error, OSError):
                raise self._arrivals.folders.error(self.key, error) from error
            raise
        self.offset = self._partial.size
        return self

    # -- bytes --

    def expect(self, length: int) -> None:
        """Say that *length* bytes will come from ``offset``. Optional; at most once, before the first.

        Raises:
            InvalidInput: More than the key can have.
            NoSpace: There is no room for them.
        """
        size = self.key.size
        if length < 0 or (size is not None and length and self.offset + length > size):
            raise InvalidInput("length of content", length, f"0 to {max(0, (size or 0) - self.offset)} bytes")
        self._length = length
        if size is None:
            self._partial.promise(length)

    def verify_with(self, check: Verifier) -> None:
        """Have *check*, which others feed the same content, tell whether it is the right one.

        Before the first byte; of no effect where a part of the content is here, or nothing can verify it.
        """
        if self._verifier is not None and not self.offset and not self._received:
            self._verifier = check

    async def write(self, data: bytes) -> None:
        """Take the next bytes. Waits while too many are not written (4 MiB) or not hashed (8 MiB); see ``Pipeline``.

        Raises:
            IncompleteTransfer: More bytes than the key has, or than were announced. All is thrown away.
            NoSpace, ContentError: They could not be written. What arrived is kept, this reception is over.
        """
        self._in_use()
        total = self.offset + self._received + len(data)
        if total > self._most():
            await self._discard()
            raise IncompleteTransfer(self.key, total, self._most(), self._where)
        try:
            if self._pipeline is None and self._small(total):
                if self._verifier is not None:
                    self._take_prefix(self._verifier)
                    self._verifier.update(data)
                self._partial.files.write(self._partial.fd, data)
                self._took(len(data))
                return
            pipeline = self._running_pipeline()
            pipeline.put(data)
            self._took(len(data))
            if pipeline.full:
                await to_thread.run_sync(pipeline.wait, abandon_on_cancel=True)
        except OSError as error:
            raise await self._failed(error) from error

    async def copy(self, source: Readable, progress: Callable[[int], None] | None = None) -> None:
        """Take everything that is missing from *source*, an object on this machine.

        Reading, hashing and writing overlap for large contents. Raises as ``write``, and for a source that
        cannot be read.

        Args:
            source: What to copy. May not be closed before this ends.
            progress: Called with the number of bytes that have been read, now and then.
        """
        self._in_use()
        start = self.offset + self._received
        if max(source.size, self._most(0)) <= self._arrivals.folders.settings.inline:
            if start < source.size:
                await self.write(source.pread(source.size - start, start))
                if progress is not None:
                    progress(source.size - start)
            return
        if source.size > self._most():
            await self._discard()
            raise IncompleteTransfer(self.key, source.size, self._most(), self._where)
        try:
            pipeline = self._running_pipeline()
            while start < source.size:
                end = min(start + _HOP, source.size)
                copied = await to_thread.run_sync(pipeline.copy, source.pread, start, end)
                self._took(copied)
                start += copied
                if progress is not None:
                    progress(copied)
                if start < end:
                    break  # the source became shorter: finish tells
        except OSError as error:
            raise await self._failed(error) from error

    def _took(self, size: int) -> None:
        self._received += size
        self._partial.took(size)

    def _in_use(self) -> None:
        if self._partial.fd < 0 or self._published:
            raise LocalProtocolError("this reception is over")

    def _most(self, unknown: int = MAX_SIZE) -> int:
        """The size that the content may have at most."""
        if self.key.size is not None:
            return self.key.size
        return unknown if self._length is None else self.offset + self._length

    def _small(self, total: int) -> bool:
        return max(total, self._most(0)) <= self._arrivals.folders.settings.inline

    def _take_prefix(self, check: Verifier) -> None:
        """Feed what was in the partial before this reception, unless that was done."""
        while check.received < self.offset:
            size = min(PIECE, self.offset - check.received)
            piece = self._partial.files.pread(self._partial.fd, size, check.received)
            if not piece:
                break  # somebody cut the partial: the hash will not match
            check.update(piece)

    def _running_pipeline(self) -> Pipeline:
        if self._pipeline is None:
            on_file = self.offset + self._received
            self._pipeline = Pipeline(self._partial.files, self._partial.fd, self._verifier, prefix=on_file)
        return self._pipeline

    # -- the end --

    async def finish(self, valid: bool = True) -> bool:
        """Verify what arrived and put it in place; on disk when this returns, unless the store is "fast".

        Args:
            valid: False when the sender saw its source change.

        Returns:
            False when the content was there already; it stays and the new copy is thrown away.

        Raises:
            ContentError: Something that is not the content stands in its place.
            ContentChanged: Not valid, and not stored.
            IncompleteTransfer: Too few or too many bytes. All is thrown away.
            VerificationFailed: Not the content of the key. All is thrown away.
            NoSpace, AccessDenied, ContentError: It could not be written or put in place; it is kept.
        """
        change = await self.prepare(valid)
        if change is not None:
            assert self._arrivals.group is not None
            try:
                await self._arrivals.group.commit(change)
            except OSError as error:
                raise self._arrivals.folders.error(self.key, error) from error
        return self._new

    async def prepare(self, valid: bool = True) -> Change | None:
        """As ``finish``, but let the caller sync this content with others, with ``ContentStore.commit``.

        Returns:
            What to commit before this context is left; None when all is done, because nothing is synced.
        """
        self._in_use()
        where = self._where
        if not valid and not self._received:
            raise ContentChanged(self.key, where)
        total = self.offset + self._received
        expected = self._most(total)
        if total != expected:
            await self._discard()
            raise IncompleteTransfer(self.key, total, expected, where)
        check = self._verifier
        try:
            if self._pipeline is not None or (check is not None and not self._small(total)):
                await to_thread.run_sync(self._running_pipeline().finish)
            elif check is not None:
                self._take_prefix(check)
        except OSError as error:
            raise await self._failed(error) from error
        if check is None:
            if not valid:
                await self._discard()
                raise ContentChanged(self.key, where)
        elif not check.matches():
            await self._discard()
            raise VerificationFailed(self.key, where)
        try:
            return await self._publish()
        except OSError as error:
            raise self._arrivals.folders.error(self.key, error) from error

    async def _publish(self) -> Change | None:
        arrivals, partial, key = self._arrivals, self._partial, self.key
        recorded = self._recorded
        partial.files.fchmod(partial.fd, arrivals.folders.settings.lockdown.object(partial.mode))
        if arrivals.group is None:
            partial.close(begun=True)  # some file systems tell only now that a write failed
            self._place()
            if recorded is not None:
                recorded(key)
            return None
        large = self._pipeline is not None
        if large:  # a sync of its own, or it would hold up every small one of its group
            await to_thread.run_sync(partial.files.sync, partial.fd)
        return Change(
            self._place,
            fd=None if large else partial.fd,
            recorded=None if recorded is None else lambda: recorded(key),
        )

    def _place(self) -> Sequence[bytes]:
        """Give the object its name; the folders to sync on the way to it. Called in a worker thread when syncing."""
        try:
            self._new = self._place_once()
        except FileNotFoundError:
            self._arrivals.folders.forget()  # annex/objects itself was replaced
            self._new = self._place_once()
        if not self._new and not self._arrivals.present(self.key):
            # Cut, or modified through a hard link: to say that it is stored would be wrong.
            raise ContentError(self.key, self._where, "an object that is not the content is in its place: run fsck")
        self._published = True
        if self._arrivals.group is None:
            return ()
        # All of them: another process may have made one a moment ago, without syncing.
        folders = self._arrivals.folders
        return folders.above(folders.below(self._paths[0]))

    def _place_once(self) -> bool:
        folders = self._arrivals.folders
        lockdown, objects = folders.settings.lockdown, folders.needed(folders.layout.objects)
        path, *others = self._paths
        for other in others:
            if not objects.absent(other):
                self._partial.files.unlink(self._partial.name)
                self._sync_existing(objects, other)
                return False
        partial = self._partial
        if objects.place(partial.files, partial.name, path, folder_mode=lockdown.folder, freeze=lockdown.freeze):
            return True
        self._sync_existing(objects, path)
        return False

    def _sync_existing(self, objects: Files, path: bytes) -> None:
        """What somebody else stored is about to be promised by us."""
        if self._arrivals.group is not None:
            fd = objects.open_read(path)
            try:
                objects.sync(fd)
            finally:
                objects.close_fd(fd)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._stop()
        except OSError as problem:
            if error is None and not self._published:
                raise self._arrivals.folders.error(self.key, problem) from problem
            # What matters has been said: it is stored, or why it is not.
            log.warning("%s: %s, after the reception of %s", self._where, problem, self.key)

    async def _failed(self, error: OSError) -> AnnexError:
        """End, and keep what arrived; *error* as our own."""
        try:
            await self._stop()
        except OSError as problem:
            log.warning("%s: %s, after %s", self._where, problem, error)
        return self._arrivals.folders.error(self.key, error)

    async def _discard(self) -> None:
        """Throw away what arrived."""
        await self._end_pipeline()
        if self._partial.fd >= 0:
            self._partial.files.unlink(self._partial.name)
            self._partial.close(begun=True)

    async def _stop(self) -> None:
        """End, and keep what arrived. Idempotent."""
        try:
            await self._end_pipeline()
        finally:
            self._close()

    async def _end_pipeline(self) -> None:
        pipeline, self._pipeline = self._pipeline, None
        if pipeline is None or pipeline.ended:
            return
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(pipeline.stop, _LEAVE)
        if not pipeline.ended:
            self._partial.leave_to(pipeline)

    def _close(self) -> None:
        try:
            self._partial.close(begun=bool(self.offset or self._received or self._published))
        finally:
            self._partial.let_go()
