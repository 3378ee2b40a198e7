"""An S3 special remote (``type=S3``) as a Remote: one object for each key, called as git-annex calls it.

An object gets its name when all of it is there: small contents are verified and then sent at once, larger ones go
as a multipart upload that is completed only when the hash is right. It counts once the server gives its size. The
bucket says whose it is (``annex-uuid``); as long as that cannot be read, nothing is called absent. There are no
locks. A multipart upload that is cut off leaves parts that nobody sees; a lifecycle rule of the bucket removes them.

The library (obstore) is used from threads, so that any event loop will do.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

import obstore
from anyio import CapacityLimiter, create_task_group, move_on_after, to_thread
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from annexpy.clock import MAX_REMOVAL_AHEAD, Clock, Deadline
from annexpy.errors import (
    AnnexError,
    AuthFailed,
    ConnectFailed,
    ConnectionLost,
    ContentChanged,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    NotLocked,
    TimedOut,
    UnknownUUID,
    VerificationFailed,
)
from annexpy.keys.backend import Verifier, verifier
from annexpy.keys.key import Key
from annexpy.keys.storable import check_storable
from annexpy.remote.base import LockedCopy, Removed, Stored
from annexpy.remote.refusal import Refusal
from annexpy.remote.s3_settings import S3Credentials, S3Settings
from annexpy.system import CLOCK
from annexpy.uuids import UUID

__all__ = ["S3Download", "S3Remote", "S3Upload"]

PART: Final = 8 * 1024 * 1024
"""Contents up to this size are sent at once, larger ones in parts of it."""
_AHEAD: Final = 2
_PIECE: Final = 256 * 1024
_TOGETHER: Final = 8
_DEADLINE: Final = 60.0

_T = TypeVar("_T")


class S3Remote:
    """A bucket. Pickles with its credentials.

    Args:
        settings: Where it is.
        credentials: Who asks.
        uuid: Of the special remote.
        name: For messages.
        cost: As git-annex's ``annex-cost``.
        clock: Time.
        deadline: Seconds for one answer, or without a byte.
    """

    def __init__(
        self,
        settings: S3Settings,
        credentials: S3Credentials,
        *,
        uuid: UUID,
        name: str,
        cost: int = 200,
        clock: Clock = CLOCK,
        deadline: float = _DEADLINE,
    ) -> None:
        self.settings, self._credentials = settings, credentials
        self._uuid, self._name, self._cost, self._clock, self._deadline = uuid, name, cost, clock, deadline
        limits = {"timeout": "1d", "read_timeout": f"{deadline:g}s", "connect_timeout": f"{min(deadline, 10):g}s"}
        options: dict[str, Any] = {  # what obstore takes, by name
            "region": settings.region,
            "access_key_id": credentials.key_id,
            "secret_access_key": credentials.secret,
            "virtual_hosted_style_request": not settings.by_path,
            "client_options": {"allow_http": settings.endpoint.startswith("http:"), **limits},
            "retry_config": {"max_retries": 2},
        }
        if credentials.token:
            options["token"] = credentials.token
        if settings.endpoint:
            options["endpoint"] = settings.endpoint
        self._store = S3Store(settings.bucket, **options)

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (
            (self.settings, self._credentials, self._uuid, self._name, self._cost, self._clock, self._deadline),
        )

    def __repr__(self) -> str:
        return f"<S3Remote {self._name} {self.settings.bucket}>"

    @property
    def uuid(self) -> UUID:
        return self._uuid

    @property
    def name(self) -> str:
        return self._name

    @property
    def cost(self) -> int:
        return self._cost

    # -- asking -----------------------------------------------------------------------------------

    async def ask(self, what: str, work: Callable[..., _T], *arguments: object) -> _T:
        """Do *work* in a thread, within the deadline.

        Raises:
            FileNotFoundError: There is no such object, or no such bucket.
            AuthFailed: The server refused.
            ConnectionLost, TimedOut: No answer; the outcome is unknown.
        """
        try:
            with move_on_after(self._deadline):
                return await to_thread.run_sync(work, *arguments, abandon_on_cancel=True, limiter=CapacityLimiter(1))
        except FileNotFoundError:
            raise
        except (BaseError, OSError) as error:
            raise self.error(what, error) from error
        raise TimedOut(self._name, what, self._deadline)

    def error(self, what: str, error: BaseException) -> AnnexError:
        """*error* of the library, met while waiting for *what*."""
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, PermissionDeniedError | UnauthenticatedError):
            return AuthFailed(self._name, reason)
        return ConnectionLost(self._name, what, reason)

    async def connect(self) -> UUID:
        """See that the bucket is there and is the right one.

        Raises:
            ConnectFailed: It is not there, or nothing says whose it is.
            UnknownUUID: It is that of another special remote.
        """
        marker = self.settings.marker
        try:
            said = await self.ask("whose bucket it is", lambda: bytes(obstore.get(self._store, marker).bytes()))
        except FileNotFoundError as error:
            reason = f"bucket {self.settings.bucket} is not there, or has no {marker} that says whose it is"
            raise ConnectFailed(self._name, reason) from error
        found = said.decode("utf-8", "replace").strip()
        if found != self._uuid:
            raise UnknownUUID(f"{self._name}: expected the bucket of {self._uuid}, found that of {found}")
        return self._uuid

    async def provision(self) -> None:
        """Write into a bucket that is not in use whose it is, as ``git annex initremote`` does.

        Raises:
            UnknownUUID: It is that of another special remote.
        """
        try:
            await self.connect()
        except ConnectFailed:
            marker, said = self.settings.marker, self._uuid.encode()
            try:
                await self.ask("end of a put", lambda: obstore.put(self._store, marker, said, use_multipart=False))
            except FileNotFoundError as error:
                raise ConnectFailed(self._name, f"there is no bucket {self.settings.bucket}") from error

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Nothing to give back: the library closes idle connections itself."""

    # -- presence ---------------------------------------------------------------------------------

    async def size(self, key: Key) -> int | None:
        """Bytes of the object; None when the server says that there is none."""
        name = self.settings.object_name(key)
        try:
            return int((await self.ask("answer about a content", obstore.head, self._store, name))["size"])
        except FileNotFoundError:
            return None

    async def check_present(self, key: Key) -> bool:
        return (await self.check_present_many((key,)))[0]

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        found = [False] * len(keys)
        for start in range(0, len(keys), _TOGETHER):
            batch = keys[start : start + _TOGETHER]
            found[start : start + _TOGETHER] = await self._some(batch)
        if not all(found):
            await self.connect()  # or everything would be absent from a bucket that is gone
        return found

    async def _some(self, keys: Sequence[Key]) -> list[bool]:
        if len(keys) == 1:
            return [await self._is_there(keys[0])]
        found = [False] * len(keys)
        errors: list[AnnexError] = []

        async def one(number: int) -> None:
            try:
                found[number] = await self._is_there(keys[number])
            except AnnexError as error:
                errors.append(error)

        async with create_task_group() as group:
            for number in range(len(keys)):
                group.start_soon(one, number)
        if errors:
            raise errors[0]
        return found

    async def _is_there(self, key: Key) -> bool:
        size = await self.size(key)
        return size is not None and key.size in (None, size)

    # -- locks and removal ------------------------------------------------------------------------

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        """Refused on entering: nothing keeps others from removing objects of a bucket."""
        return Refusal(NotLocked(key, self._name, "an S3 special remote has no locks"))

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        """Remove the object, if the deadline has not passed when the request is sent; see that it is gone."""
        try:
            await self._remove(key, deadline)
        except AnnexError as error:
            return Removed(ok=False, failed={self._uuid: error})
        return Removed(ok=True, uuids=frozenset((self._uuid,)))

    async def _remove(self, key: Key, deadline: Deadline | None) -> None:
        now, name = self._clock.now(), self.settings.object_name(key)
        if deadline is not None and deadline.at > now + MAX_REMOVAL_AHEAD:
            raise InvalidInput("removal deadline", deadline.at, f"at most {MAX_REMOVAL_AHEAD} s ahead")
        await self.connect()

        def remove() -> None:
            if deadline is not None and self._clock.now() >= deadline.at:
                raise _TooLate
            obstore.delete(self._store, name)

        try:
            await self.ask("end of a removal", remove)
        except _TooLate as error:
            raise TimedOut(self._name, "removal before its deadline", 0) from error
        except FileNotFoundError:
            pass  # it was not there
        if await self.size(key) is not None:
            raise ConnectionLost(self._name, "end of a removal", "the object is still there")

    # -- contents ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def put(self, key: Key, *, associated_file: str = "") -> AsyncIterator[S3Upload]:
        """Start storing *key*, always from its first byte.

        Raises:
            InvalidKey: A key that annexpy does not write, or that cannot be the name of an object.
        """
        check_storable(key)
        upload = S3Upload(self, key, already=frozenset((self._uuid,)) if await self.check_present(key) else None)
        try:
            yield upload
        finally:
            upload.leave()

    def sending(self, key: Key, body: bytes | Iterator[bytes]) -> object:
        """Send an object. Blocks."""
        name, storage = self.settings.object_name(key), self.settings.storage_class
        attributes: Any = {"Storage-Class": storage} if storage else None  # the library's own dictionary type
        if isinstance(body, bytes):
            return obstore.put(self._store, name, body, attributes=attributes, use_multipart=False)
        return obstore.put(
            self._store, name, body, attributes=attributes, use_multipart=True, chunk_size=PART, max_concurrency=2
        )

    @asynccontextmanager
    async def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AsyncIterator[S3Download]:
        if offset < 0 or (end is not None and end < 0):
            raise InvalidInput("offset", min(offset, offset if end is None else end), "0 or more")
        size = await self.size(key)
        if size is None:
            await self.connect()
            raise KeyNotPresent(key, self._name)
        yield S3Download(self, key, size, offset, size if end is None else min(end, size))

    def reading(self, key: Key, start: int, end: int) -> Iterator[bytes]:
        """The bytes from *start* to *end*. Blocks."""
        name = self.settings.object_name(key)
        try:
            if start or end - start < self._whole(key):
                found = obstore.get(self._store, name, options={"range": (start, end)})
                return map(bytes, found.stream(min_chunk_size=_PIECE))
        except BaseError as error:
            if "NotPartial" not in str(error):
                raise
        # The server answers requests for a part with the whole.
        found = obstore.get(self._store, name)
        return _part(map(bytes, found.stream(min_chunk_size=_PIECE)), start, end)

    @staticmethod
    def _whole(key: Key) -> int:
        return 1 << 62 if key.size is None else key.size

    @property
    def ranges(self) -> bool:
        return True


class _TooLate(Exception):
    """The deadline of a removal had passed."""


def _part(chunks: Iterator[bytes], start: int, end: int) -> Iterator[bytes]:
    at = 0
    for chunk in chunks:
        piece = chunk[max(0, start - at) : max(0, end - at)]
        at += len(chunk)
        if piece:
            yield piece
        if at >= end:
            return


def _again(arguments: tuple[Any, ...]) -> S3Remote:
    settings, credentials, uuid, name, cost, clock, deadline = arguments
    return S3Remote(settings, credentials, uuid=uuid, name=name, cost=cost, clock=clock, deadline=deadline)


class S3Download:
    """``Download`` of an object. Iterate it once."""

    def __init__(self, remote: S3Remote, key: Key, size: int, start: int, end: int) -> None:
        self._remote, self._key, self._start, self._end = remote, key, start, max(start, end)
        self._end = min(self._end, max(size, start))

    @property
    def length(self) -> int:
        return self._end - self._start

    @property
    def source(self) -> UUID:
        return self._remote.uuid

    @property
    def valid(self) -> bool:
        return True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left, remote = self.length, self._remote
        if not left:
            return
        try:
            chunks = await remote.ask("content", remote.reading, self._key, self._start, self._end)
            while left and (chunk := await remote.ask("content", next, chunks, b"")):
                if len(chunk) > left:
                    break
                left -= len(chunk)
                yield chunk
        except FileNotFoundError as error:
            raise KeyNotPresent(self._key, remote.name) from error
        if left:
            raise IncompleteTransfer(self._key, self.length - left, self.length, remote.name)


class S3Upload:
    """``Upload`` of an object."""

    def __init__(self, remote: S3Remote, key: Key, already: frozenset[UUID] | None) -> None:
        self._remote, self._key, self.already = remote, key, already
        self.offset = 0
        self._check: Verifier | None = None
        self._length: int | None = None
        self._received = self._pending_size = 0
        self._pending: list[bytes] = []
        self._sender: _Sender | None = None

    async def start(self, length: int) -> None:
        size = self._key.size
        if self.already is not None or self._length is not None:
            raise LocalProtocolError("content was announced twice, or is already there")
        if length < 0 or (length and size is not None and length > size):
            raise InvalidInput("length of content", length, f"0 to {size} bytes")
        self._check = verifier(self._key)
        self._length = length

    async def write(self, data: bytes) -> None:
        if self._length is None or self._received + len(data) > self._length:
            raise LocalProtocolError(f"{len(data)} bytes of content that were not announced")
        self._received += len(data)
        self._pending.append(data)
        self._pending_size += len(data)
        if self._length > PART and self._pending_size >= _PIECE * 4:
            await self._hand_over()

    async def _hand_over(self) -> None:
        if self._sender is None:
            self._sender = _Sender(self._remote, self._key, self._check)
        block, self._pending, self._pending_size = b"".join(self._pending), [], 0
        sender = self._sender
        while not sender.offer(block):
            await self._remote.ask("progress of a put", sender.wait_for_room)

    async def finish(self, valid: bool = True) -> Stored:
        key, remote = self._key, self._remote
        if self._length is None:
            raise LocalProtocolError("the end of content that was never announced")
        if not self._length and not valid:
            raise ContentChanged(key, remote.name)
        expected = self._length if key.size is None else key.size
        if self._received != expected or self._received != self._length:
            self.leave()
            raise IncompleteTransfer(key, self._received, expected, remote.name)
        if self._check is None and not valid:
            self.leave()
            raise ContentChanged(key, remote.name)
        try:
            if self._sender is None:
                await self._send_at_once(b"".join(self._pending))
            else:
                await self._hand_over()
                await remote.ask("end of a put", self._sender.finish)
        except FileNotFoundError as error:
            raise ConnectFailed(remote.name, f"there is no bucket {remote.settings.bucket}") from error
        found = await remote.size(key)
        if found != expected:
            raise IncompleteTransfer(key, found or 0, expected, remote.name)
        return Stored(uuids=frozenset((remote.uuid,)))

    async def _send_at_once(self, content: bytes) -> None:
        remote = self._remote

        def send() -> object:
            if self._check is not None:
                self._check.update(content)
                if not self._check.matches():
                    raise VerificationFailed(self._key, remote.name)
            return remote.sending(self._key, content)

        said: Any = await remote.ask("end of a put", send)  # a dictionary of the library
        tag = (said.get("e_tag") or "").strip('"')
        is_md5 = len(tag) == 32 and not set(tag) - set("0123456789abcdef")
        if is_md5 and tag != hashlib.md5(content, usedforsecurity=False).hexdigest():
            await self._reread()  # encrypted there, or not what was sent

    async def _reread(self) -> None:
        key, remote = self._key, self._remote
        check = verifier(key)
        async with remote.get(key) as download:
            async for chunk in download:
                if check is not None:
                    check.update(chunk)
        if check is not None and not check.matches():
            raise VerificationFailed(key, remote.name)

    async def data_present(self) -> Stored:
        if not await self._remote.check_present(self._key):
            raise KeyNotPresent(self._key, self._remote.name)
        await self._reread()
        return Stored(uuids=frozenset((self._remote.uuid,)))

    def leave(self) -> None:
        """Nothing more will come. What was not finished never becomes an object."""
        sender, self._sender = self._sender, None
        if sender is not None:
            sender.abort()


class _Aborted(Exception):
    """Raised inside of the library, so that it does not complete an upload."""


class _Sender:
    """A thread in which the library takes a content from a queue, hashes it on the way, and sends it in parts."""

    def __init__(self, remote: S3Remote, key: Key, check: Verifier | None) -> None:
        self._remote, self._key, self._check = remote, key, check
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_AHEAD * PART // (_PIECE * 4))
        self._aborted, self._done = False, threading.Event()
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="annexpy-s3", daemon=True).start()

    def offer(self, block: bytes) -> bool:
        """Take *block*; False when too many wait.

        Raises:
            Exception: Sending failed.
        """
        if self._done.is_set():
            self._raise()
        if not self._room.acquire(blocking=False):
            return False
        self._queue.put(block)
        return True

    def wait_for_room(self) -> None:
        """Block until ``offer`` may take another one."""
        while not self._done.is_set():
            if self._room.acquire(timeout=1):
                self._room.release()
                return

    def finish(self) -> None:
        """That was all. Block until the object is there."""
        self._queue.put(None)
        self._done.wait()
        if self._error is not None:
            self._raise()

    def _raise(self) -> NoReturn:
        error = self._error
        if isinstance(error, AnnexError | FileNotFoundError):
            raise error
        raise self._remote.error("end of a put", error or _Aborted())

    def abort(self) -> None:
        """Do not complete it, unless it is. Idempotent."""
        self._aborted = True
        self._queue.put(None)

    def _run(self) -> None:
        try:
            self._remote.sending(self._key, self._blocks())
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def _blocks(self) -> Iterator[bytes]:
        while (block := self._queue.get()) is not None and not self._aborted:
            self._room.release()
            if self._check is not None:
                self._check.update(block)
            yield block
        if self._aborted:
            raise _Aborted
        if self._check is not None and not self._check.matches():
            raise VerificationFailed(self._key, self._remote.name)
