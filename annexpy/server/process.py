"""What a process that serves many asks of the system, and how it is told to end."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Final, TypeVar

from annexpy.errors import AnnexError

if TYPE_CHECKING:
    import anyio
    import anyio.abc

__all__ = ["ORDERS", "Orders", "one_of", "prepare_process", "run_server"]

T = TypeVar("T")

_DESCRIPTORS: Final = 65536
_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def prepare_process() -> None:
    """Make this process fit to serve many: descriptors for every connection, and memory that does not pile up.

    A soft limit of 1,024 descriptors is usual, for the sake of programs that use ``select``. It becomes 65,536, or as
    many as the hard limit allows. glibc keeps what a thread has freed for that thread and its like, in up to eight
    places for each core: 16 transfers at once left 57 MiB there that are 41 with two places. Where the system has no
    such limits, nothing is done.
    """
    import ctypes
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    except (AttributeError, OSError):
        return  # no glibc


class Orders:
    """SIGINT, SIGTERM and SIGHUP of a process that serves: kept from the moment they are expected until they are heard.

    Their handler raises nothing and is never replaced on the way: what is imported or opened at the start, and what is
    closed at the end, is not torn apart, and no order meets a moment in which nobody has the signal.
    """

    def __init__(self) -> None:
        self._pipe: tuple[int, int] | None = None
        self._heard = False
        self._waiting = 0

    def expect(self) -> bool:
        """Keep what comes from now on; False where that is done already."""
        if self._pipe is not None:
            return False
        self._pipe, self._waiting = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC), 0
        for number in _SIGNALS:
            signal.signal(number, self._note)
        return True

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Keep what comes; inside of another such context this does nothing. In the main thread.

        While nobody hears, as before the event loop runs, a second SIGINT or SIGTERM raises KeyboardInterrupt.
        """
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        if not self.expect():
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            pipe, self._pipe = self._pipe, None
            for fd in pipe or ():
                os.close(fd)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            self._waiting += 1
            if self._waiting > 1 and not self._heard:
                raise KeyboardInterrupt
        if self._pipe is not None:
            with suppress(BlockingIOError):  # it is full of orders
                os.write(self._pipe[1], bytes((number,)))

    async def obey(
        self, stop: anyio.Event, group: anyio.abc.TaskGroup, reload: Callable[[], None] | None = None
    ) -> None:
        """SIGINT or SIGTERM says *stop*, and when it comes again everything in *group* is cancelled.

        SIGHUP reloads; where there is nothing to reload it is as good as the others.
        """
        import anyio

        assert self._pipe is not None, "nothing was expected"
        self._heard = True
        try:
            while True:
                await anyio.wait_readable(self._pipe[0])
                for number in os.read(self._pipe[0], 64):
                    if number == signal.SIGHUP and reload is not None:
                        reload()
                        continue
                    if stop.is_set():
                        group.cancel_scope.cancel()
                    stop.set()
        finally:
            self._heard, self._waiting = False, 0


ORDERS: Final = Orders()
"""Those of this process."""


def run_server(work: Callable[[anyio.Event], Awaitable[T]]) -> T | None:
    """Run *work* in an event loop; give what it gives.

    Its event is set by the first SIGINT or SIGTERM; the second cancels it, and None is given. Raises the one error that
    says most, and never a group.
    """
    import anyio

    async def obeying() -> T | None:
        done = None
        stop = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(ORDERS.obey, stop, group)
            done = await work(stop)
            group.cancel_scope.cancel()
        return done

    prepare_process()
    with ORDERS.expected():
        try:
            return anyio.run(obeying)
        except BaseExceptionGroup as group:
            raise one_of(group, KeyboardInterrupt, AnnexError) from None


def one_of(group: BaseExceptionGroup[BaseException], *kinds: type[BaseException]) -> BaseException:
    """The error inside *group* that says most: of the first of *kinds* that is there; else the first."""
    leaves: list[BaseException] = []
    rest: list[BaseException] = [group]
    while rest:
        error = rest.pop(0)
        if isinstance(error, BaseExceptionGroup):
            rest.extend(error.exceptions)
        else:
            leaves.append(error)
    return min(leaves, key=lambda e: next((at for at, kind in enumerate(kinds) if isinstance(e, kind)), len(kinds)))
