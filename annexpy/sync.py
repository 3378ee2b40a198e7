"""annexpy without an event loop: the same functions, blocking, for scripts, notebooks and Dask workers.

::

    import annexpy.sync as annex

    with annex.connect("ssh://vault/srv/annex/lab.git") as vault:
        key = annex.key_of("bold.nii.gz")
        annex.put(vault, key, "bold.nii.gz")
        for result in annex.copy(vault, other, keys):
            print(result.key, result.ok)

Every process has one event loop of its own, in a thread, from the first call to its exit. Any number of threads
may call at once. It is there also while another event loop runs in the same program (a notebook's), but a call
from inside a coroutine blocks that loop. After a fork the child begins with a new loop, and what ``connect``
gave opens connections of its own there; it pickles as its address.

Ctrl-C cancels the call, waits until it has cleaned up, and raises KeyboardInterrupt.
"""

from __future__ import annotations

import asyncio
import atexit
import io
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Final, Generic, ParamSpec, Self, TypeVar

import anyio
from anyio import to_thread
from anyio.from_thread import BlockingPortal

from annexpy.actions import copy as _copy
from annexpy.actions import drop as _drop
from annexpy.actions import fsck as _fsck
from annexpy.actions import get as _get
from annexpy.actions import has as _has
from annexpy.actions import key as _key
from annexpy.actions import put as _put
from annexpy.actions import sync as _sync
from annexpy.actions import verify as _verify
from annexpy.actions.reader import KeyReader, open_key
from annexpy.actions.whereis import whereis, whereis_many
from annexpy.clock import Deadline
from annexpy.errors import AnnexError
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.remote import connect as _connect
from annexpy.remote.base import Download, LockedCopy, Ranged, Remote, Removed, Upload, check_present_many
from annexpy.remote.cluster import Cluster
from annexpy.remote.recording import Recording
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.uuids import UUID

__all__ = [
    "AnnexError",
    "Cluster",
    "Copies",
    "Handle",
    "Key",
    "KeyFile",
    "Recording",
    "Repository",
    "check_present",
    "connect",
    "copy",
    "drop",
    "drop_many",
    "fsck",
    "get",
    "has_many",
    "key_of",
    "lock",
    "move",
    "name_content",
    "open",
    "put",
    "put_many",
    "run",
    "sync_branch",
    "verify",
    "verify_many",
    "whereis",
    "whereis_many",
]

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)
_AT_ONCE: Final = 64
_LEAVE: Final = 5.0


# -- the event loop of this process ---------------------------------------------------------------


class _Loop:
    """An event loop in a thread, and the way into it."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._portal: BlockingPortal | None = None
        self._events: asyncio.AbstractEventLoop | None = None
        self._closing: list[Future[None]] = []
        # A daemon, because threads that are not are waited for before anybody could tell this one to stop.
        self._thread = threading.Thread(target=anyio.run, args=(self._main,), name="annexpy", daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _main(self) -> None:
        async with BlockingPortal() as portal:
            self._portal, self._events = portal, asyncio.get_running_loop()
            self._ready.set()
            await portal.sleep_until_stopped()

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        if threading.current_thread() is self._thread:
            raise RuntimeError("annexpy.sync was called from its own event loop, as by a progress callback")
        assert self._portal is not None
        done = threading.Event()

        async def finish() -> T:
            try:
                return await work()
            finally:
                done.set()

        future = self._portal.start_task_soon(finish)
        try:
            return future.result()
        except BaseException:
            if future.cancel():  # Ctrl-C while we waited
                done.wait(_LEAVE)
            raise

    def close_later(self, remote: Remote) -> None:
        """Close what nobody can use any more. Called by the garbage collector, so it may not wait."""
        assert self._events is not None
        self._closing = [future for future in self._closing if not future.done()]
        # Not by the portal, which refuses its own thread: garbage is collected in any.
        self._closing.append(asyncio.run_coroutine_threadsafe(_closed(remote), self._events))

    def stop(self) -> None:
        assert self._portal is not None
        wait(self._closing, _LEAVE)
        self._portal.start_task_soon(self._portal.stop, True)
        self._thread.join(_LEAVE)


async def _closed(remote: Remote) -> None:
    try:
        await remote.aclose()
    except AnnexError as error:
        _log.warning("%s: %s", remote.name, error)


_loop: _Loop | None = None
_making = threading.Lock()


def _our_loop() -> _Loop:
    global _loop
    if _loop is None:
        with _making:
            if _loop is None:
                _loop = _Loop()
    return _loop


def _forget() -> None:
    """In a forked child: the parent's thread is not here."""
    global _loop, _making
    _loop, _making = None, threading.Lock()


def _stop() -> None:
    if _loop is not None:
        _loop.stop()


os.register_at_fork(after_in_child=_forget)
atexit.register(_stop)


def run(function: Callable[..., Awaitable[T]], *args: object) -> T:
    """Await ``function(*args)`` in the event loop of this process: the way to anything that has no name here."""
    return _our_loop().call(lambda: function(*args))


def _blocking(function: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return _our_loop().call(lambda: function(*args, **kwargs))

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call


def _iterating(function: Callable[P, AsyncIterator[T]]) -> Callable[P, Iterator[T]]:
    def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        fed = [_Feed(arg) if isinstance(arg, Iterator) else arg for arg in args]
        return _Results(function(*fed, **kwargs))  # type: ignore[arg-type]  # a feed for an iterator

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    return call


class _Results(Generic[T]):
    """An async iterator, seen from a thread. It may be left at any point."""

    def __init__(self, results: AsyncIterator[T]) -> None:
        self._results = results

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        async def following() -> tuple[T] | None:
            try:
                return (await anext(self._results),)
            except StopAsyncIteration:
                return None

        got = _our_loop().call(following)
        if got is None:
            raise StopIteration
        return got[0]


class _Feed(Generic[T]):
    """A generator of the caller, seen from the event loop: it runs in a worker thread and may call us."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._ready: deque[T] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._ready:
            self._ready.extend(await to_thread.run_sync(self._take))
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    def _take(self) -> list[T]:
        return [item for _, item in zip(range(_AT_ONCE), self._items, strict=False)]


# -- remotes --------------------------------------------------------------------------------------


class Handle:
    """A remote for blocking code: give it to the functions of this module, or to ``annexpy.Cluster``.

    It pickles as its address, and works in a forked child. ``with`` opens it at once and closes it at the end;
    without ``with`` it opens when it is first used, and ``close`` or the end of the process closes it.
    """

    def __init__(
        self, address: str, uuid: str | None, name: str | None, repository: Repository | None, durability: Durability
    ) -> None:
        self._arguments = address, uuid, name, repository, durability
        self._remote: _connect.Connected = _connect.connect(
            address, uuid=uuid, name=name, repository=repository, durability=durability
        )
        weakref.finalize(self, _let_go, self._remote)

    def __reduce__(self) -> tuple[object, ...]:
        return Handle, self._arguments

    def __repr__(self) -> str:
        return f"<Handle {self._remote!r}>"

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> UUID:
        return run(self._remote.connect)

    def close(self) -> None:
        """Give back connections, commit what was recorded in a repository on this machine. Use opens it again."""
        run(self._remote.aclose)

    @property
    def uuid(self) -> UUID:
        """Of the repository; asks for it where it is not known yet."""
        from annexpy.errors import UnknownUUID

        try:
            return self._remote.uuid
        except UnknownUUID:
            return self._open()

    @property
    def name(self) -> str:
        return self._remote.name

    @property
    def cost(self) -> int:
        return self._remote.cost

    @property
    def ranges(self) -> bool:
        """As in ``annexpy.remote.base.Ranged``."""
        return isinstance(self._remote, Ranged) and self._remote.ranges

    # -- Remote, for the event loop -------------------------------------------------------------------

    async def connect(self) -> UUID:
        return await self._remote.connect()

    async def check_present(self, key: Key) -> bool:
        return await self._remote.check_present(key)

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        return await check_present_many(self._remote, keys)

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        return self._remote.lock_content(key)

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        return self._remote.put(key, associated_file=associated_file)

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        return self._remote.get(key, offset=offset, end=end, associated_file=associated_file)

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        return await self._remote.remove_content(key, deadline=deadline)

    async def aclose(self) -> None:
        await self._remote.aclose()


def _let_go(remote: Remote) -> None:
    if _loop is not None:  # else nothing of it was ever opened in this process
        _loop.close_later(remote)


def connect(
    address: str | os.PathLike[str],
    *,
    uuid: UUID | str | None = None,
    name: str | None = None,
    repository: Repository | None = None,
    durability: Durability = "full",
) -> Handle:
    """A remote by its address: as ``annexpy.connect``, for blocking code."""
    return Handle(os.fspath(address), uuid, name, repository, durability)


def check_present(remote: Remote, key: Key) -> bool:
    """True only when the content was looked for and found."""
    return run(remote.check_present, key)


def has_many(remote: Remote, keys: Iterable[Key]) -> list[bool]:
    """Whether *remote* has each of *keys*, in their order. It looked; no log was believed."""
    return run(_has.has_many, remote, list(keys))


@contextmanager
def lock(remote: Remote, key: Key) -> Iterator[LockedCopy]:
    """Keep the content of *key* from being removed while the block runs.

    Raises:
        NotLocked: Absent, being removed, or this kind of remote cannot lock.
    """
    loop = _our_loop()
    assert loop._portal is not None
    with loop._portal.wrap_async_context_manager(remote.lock_content(key)) as locked:
        yield locked


class KeyFile(io.RawIOBase):
    """The content of a key as a binary file, read from its remote as it is needed. Nothing is verified."""

    def __init__(self, remote: Remote, key: Key) -> None:
        super().__init__()
        self._loop = _our_loop()
        assert self._loop._portal is not None
        self._context = self._loop._portal.wrap_async_context_manager(open_key(remote, key))
        self._reader: KeyReader = self._context.__enter__()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        with memoryview(buffer) as view:  # type: ignore[arg-type]  # io says Buffer, which typing has from 3.12 on
            data = self._loop.call(lambda: self._reader.read(len(view)))
            view.cast("B")[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._context.__exit__(None, None, None)


def open(remote: Remote, key: Key, *, buffer: int = 256 * 1024) -> io.BufferedReader:
    """The content of *key* at *remote* as a binary file, without fetching all of it.

    Raises:
        KeyNotPresent: With the first read.
    """
    return io.BufferedReader(KeyFile(remote, key), buffer)


key_of = _blocking(_key.key_of)
put = _blocking(_put.put)
put_many = _iterating(_put.put_many)
get = _blocking(_get.get)
copy = _iterating(_copy.copy)
move = _iterating(_copy.move)
drop = _blocking(_drop.drop)
drop_many = _iterating(_drop.drop_many)
verify = _blocking(_verify.verify)
verify_many = _iterating(_verify.verify_many)
fsck = _iterating(_fsck.fsck)
sync_branch = _blocking(_sync.sync)
