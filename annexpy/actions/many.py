"""One piece of work per item, several at a time, results as they come.

An async generator may not hold a task group while its consumer has the control: a consumer that
leaves the loop early would leave tasks behind. So items are taken in windows. Inside a window the
work overlaps; results are handed out between windows, when nothing runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, TypeVar

import anyio
from anyio.lowlevel import checkpoint

__all__ = ["WINDOW", "each", "windows"]

T = TypeVar("T")
R = TypeVar("R")

WINDOW: Final = 512
"""Items in a window: so many that the wait for the last one is lost in the noise, so few that they fit in memory."""
_INLINE: Final = 32


async def windows(items: Iterable[T] | AsyncIterable[T], size: int = WINDOW) -> AsyncIterator[list[T]]:
    """*items* in lists of at most *size*. Takes no more items than the list it gives out."""
    window: list[T] = []
    if isinstance(items, AsyncIterable):
        async for item in items:
            window.append(item)
            if len(window) >= size:
                yield window
                window = []
    else:
        for item in items:
            window.append(item)
            if len(window) >= size:
                yield window
                window = []
    if window:
        yield window


async def each(
    items: Iterable[T] | AsyncIterable[T], work: Callable[[T], Awaitable[R]], *, jobs: int, window: int = WINDOW
) -> AsyncIterator[R]:
    """The results of ``work(item)`` in the order in which they were ready.

    Args:
        items: Taken a window at a time.
        work: Puts what goes wrong with one item into its result; whatever it raises ends everything.
        jobs: How many run at once. With 1 every result is handed out before the next item is begun.
        window: Items in flight or waiting to be handed out.
    """
    async for waiting in windows(items, window):
        if jobs <= 1:
            for number, item in enumerate(waiting):
                if number % _INLINE == 0:
                    await checkpoint()  # work on a local repository may never have to wait
                yield await work(item)
            continue
        for result in await _all(waiting, work, jobs):
            yield result


async def _all(items: list[T], work: Callable[[T], Awaitable[R]], jobs: int) -> list[R]:
    waiting, results = deque(items), []

    async def worker() -> None:
        while waiting:
            results.append(await work(waiting.popleft()))

    async with anyio.create_task_group() as tasks:
        for _ in range(min(jobs, len(items))):
            tasks.start_soon(worker)
    return results
