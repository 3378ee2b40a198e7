"""An S3 special remote (``type=S3``) as a Remote: one object for each key, called as git-annex calls it.

An object gets its name when all of it is there: small contents are verified and then sent at once, larger ones go
as a multipart upload that is completed only when the hash is right. It counts once the server gives its size. The
bucket says whose it is (``annex-uuid``); as long as that cannot be read, nothing is called absent. There are no
locks. A multipart upload that is cut off leaves parts that nobody sees; a lifecycle rule of the bucket removes them.

The library (obstore) is used from threads, so that any event loop will do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar

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
    InvalidInput,
    KeyNotPresent,
    NotLocked,
    TimedOut,
    UnknownUUID,
)
from annexpy.keys.key import Key
from annexpy.keys.storable import check_storable
from annexpy.remote.base import LockedCopy, Removed
from annexpy.remote.refusal import Refusal
from annexpy.remote.s3_content import S3Download, S3Upload
from annexpy.remote.s3_sender import PART
from annexpy.remote.s3_settings import S3Credentials, S3Settings
from annexpy.system import CLOCK
from annexpy.uuids import UUID

__all__ = ["S3Remote"]

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
        self.settings, self.credentials = settings, credentials
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
            (self.settings, self.credentials, self._uuid, self._name, self._cost, self._clock, self._deadline),
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
