"""What a session of ``annexpy-shell`` needs beyond its greeting, imported while the client thinks."""

from __future__ import annotations

import _thread  # what threading is made of, without importing threading
import sys

__all__ = ["Importing"]

_SWITCH_SECONDS = 0.0005  # how often the importing thread lets the answer to VERSION through


class Importing:
    """Imports what a session needs in a thread, while the client thinks: first what needs no event loop.

    The rest follows at once, unless the client is quick to say that it is for later.
    """

    def __init__(self) -> None:
        self._failed: BaseException | None = None
        self._direct, self._all = _thread.allocate_lock(), _thread.allocate_lock()
        self._said, self._wanted = _thread.allocate_lock(), _thread.allocate_lock()
        for lock in (self._direct, self._all, self._said, self._wanted):
            lock.acquire()
        self._later = False
        self._usual = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_SECONDS)
        _thread.start_new_thread(self._work, ())

    def _work(self) -> None:
        try:
            try:
                import annexpy.server.direct
            finally:
                self._direct.release()
            self._said.acquire()
            if self._later:
                self._wanted.acquire()
            import annexpy.repo.branch
            import annexpy.server.stdio  # noqa: F401
        except BaseException as error:
            self._failed = error
        finally:
            self._all.release()

    def begin(self, *, later: bool) -> None:
        """The client has said what it wants first: the rest is needed now, or *later*, when somebody waits for it."""
        self._later = later
        self._said.release()

    @property
    def rests(self) -> bool:
        """Nothing is imported before ``wait``."""
        return self._later

    def done(self) -> bool:
        """Everything is there."""
        return not self._all.locked()

    def wait_for_direct(self) -> None:
        """Until ``direct`` is there; it raises what is wrong when it is imported again."""
        self._direct.acquire()

    def wait(self) -> None:
        """Until everything is there."""
        self._wanted.release()
        self._all.acquire()
        sys.setswitchinterval(self._usual)
        if self._failed is not None:
            raise self._failed
