"""One piece of work per item, several at a time, results as they come.

A result iterator may not hold a task group while its consumer has the control: a consumer that
leaves the loop early would leave tasks behind. So items are taken in windows. Inside a window the
work overlaps; results are handed out between windows, when nothing runs. For the same reason this
is a class and no async generator: there is nothing to close when it is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Container,
    Hashable,
    Iterable,
    Iterator,
    Sequence,
)
from typing import Final, Generic, TypeVar

import anyio
from anyio.lowlevel import checkpoint

__all__ = ["TOGETHER", "WINDOW", "Each"]

T = TypeVar("T")
R = TypeVar("R")

WINDOW: Final = 512
"""Items in a window: so many that the wait for the last one is lost in the noise, so few that they fit in memory."""
TOGETHER: Final = 64
"""Items that are done quickly between two looks at what else there is to do."""
_LOOK_UP: Final = 8
"""One of so many items begins with a look at what else there is to do, a cancellation among it."""


class Each(Generic[T, R]):
    """The results of ``work(item)``, in the order in which they were ready. An async iterator.

    Leave it at any point between two results: what was begun is done, the rest is not begun. A
    cancellation cancels the work under way.
    """

    __slots__ = ("_before", "_items", "_jobs", "_quickly", "_ready", "_same", "_together", "_window", "_work")

    def __init__(
        self,
        items: Iterable[T] | AsyncIterable[T],
        work: Callable[[T], Awaitable[R]],
        *,
        jobs: int,
        window: int = WINDOW,
        before: Callable[[Sequence[T]], Awaitable[None]] | None = None,
        same: Callable[[T], Hashable] | None = None,
        quickly: Callable[[Sequence[T]], Awaitable[Sequence[R | None]]] | None = None,
        together: int = TOGETHER,
    ) -> None:
        """Begin with nothing.

        Args:
            items: Taken a window at a time.
            work: Puts what goes wrong with one item into its result; whatever it raises ends everything.
            jobs: How many run at once. With 1 every result is handed out before the next item is begun.
            window: Items in flight or waiting to be handed out.
            before: Called with the items of a window before the first of them is begun.
            same: What two items must not share to be worked on at once; they go one after another then. (Two
                transfers of a key would be in each other's way, and the second would fail.)
            quickly: Asked before *work* for the results of a few items together, while none of those that were
                taken with them is begun: None for those that need *work*. For what takes less time than to switch
                between tasks.
            together: How many are done quickly at a time.
        """
        self._items: Iterator[T] | AsyncIterator[T]
        self._items = aiter(items) if isinstance(items, AsyncIterable) else iter(items)
        self._work, self._jobs, self._before, self._same, self._quickly = work, jobs, before, same, quickly
        self._together = together
        self._window = 1 if jobs <= 1 else window
        self._ready: deque[R] = deque()

    def __aiter__(self) -> Each[T, R]:
        return self

    async def __anext__(self) -> R:
        if not self._ready:
            items = await self._take()
            if not items:
                raise StopAsyncIteration
            if self._before is not None:
                await self._before(list(items))
            items = await self._done_quickly(items, (), self._ready.append)
            if len(items) == 1 and not self._ready:
                await checkpoint()  # work on a local repository may never have to wait
                return await self._work(items[0])
            if items:
                await self._do(items)
        return self._ready.popleft()

    async def tell(self, told: Callable[[R], object]) -> None:
        """Hand every result to *told* the moment it is there, to the end: for whoever need not decide in between.

        Nothing waits for a window to be full or to be done, so the first results of large transfers come first.
        What *told* raises ends everything.
        """
        while self._ready:
            told(self._ready.popleft())
        waiting: deque[list[T]] = deque()
        busy: dict[Hashable, anyio.Event] = {}
        failures: list[Exception] = []
        taking = anyio.Lock()
        ended = False
        # What the caller makes as it goes (keys that are computed) is better worked on at once than collected.
        size = 1 if self._before is None and isinstance(self._items, AsyncIterator) else self._window

        async def next_group() -> list[T] | None:
            nonlocal ended
            if waiting and len(waiting) % _LOOK_UP:  # a lock that is free costs a round of the event loop all the same
                return waiting.popleft()
            async with taking:
                while not waiting and not ended:
                    items = await self._take(size)
                    ended = not items
                    if items and self._before is not None:
                        await self._before(list(items))
                    waiting.extend(self._groups(await self._done_quickly(items, busy, told)))
                return waiting.popleft() if waiting else None

        async def worker() -> None:
            try:
                await work()
            except Exception as error:  # the first one is what the caller is told, and not a group of them
                failures.append(error)
                tasks.cancel_scope.cancel()

        async def work() -> None:
            while (group := await next_group()) is not None:
                name = object() if self._same is None else self._same(group[0])
                while name in busy:  # the same one, of an earlier window
                    await busy[name].wait()
                busy[name] = anyio.Event()
                try:
                    for item in group:
                        told(await self._work(item))
                finally:
                    busy.pop(name).set()

        async with anyio.create_task_group() as tasks:
            for _ in range(max(1, self._jobs)):
                tasks.start_soon(worker)
        if failures:
            raise failures[0]

    async def _take(self, window: int = 0) -> deque[T]:
        window = window or self._window
        taken: deque[T] = deque()
        if isinstance(self._items, AsyncIterator):
            async for item in self._items:
                taken.append(item)
                if len(taken) >= window:
                    break
        else:
            for item in self._items:
                taken.append(item)
                if len(taken) >= window:
                    break
        return taken

    async def _done_quickly(self, items: deque[T], busy: Container[Hashable], told: Callable[[R], object]) -> deque[T]:
        """Tell the results of those that can be had quickly; the rest."""
        quickly, same = self._quickly, self._same
        if quickly is None:
            return items
        left: deque[T] = deque()
        while items:
            some: dict[Hashable, T] = {}
            while items and len(some) < self._together:
                item = items.popleft()
                name = object() if same is None else same(item)
                if name in some or name in busy:
                    left.append(item)
                else:
                    some[name] = item
            for item, result in zip(some.values(), await quickly(list(some.values())), strict=True):
                if result is None:
                    left.append(item)
                else:
                    told(result)
            await checkpoint()
        return left

    async def _do(self, items: deque[T]) -> None:
        groups = self._groups(items)

        async def worker() -> None:
            while groups:
                for item in groups.popleft():
                    self._ready.append(await self._work(item))

        async with anyio.create_task_group() as tasks:
            for _ in range(min(self._jobs, len(groups))):
                tasks.start_soon(worker)

    def _groups(self, items: Iterable[T]) -> deque[list[T]]:
        """*items*, those together that go one after another."""
        if self._same is None:
            return deque([item] for item in items)
        groups: dict[Hashable, list[T]] = {}
        for item in items:
            groups.setdefault(self._same(item), []).append(item)
        return deque(groups.values())
