"""With which header ``Authorization`` a server is asked, and what happens when it says 401.

Sources, in this order: a callback, what stands in the URL, ``~/.netrc``, ``git credential``. All but the callback are
asked only when a server wants to know. A credential of git is rejected only on 401, never because of any other answer.
"""

from __future__ import annotations

import inspect
import os
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import anyio
from anyio import to_thread

from annexpy.errors import AuthFailed, InvalidInput
from annexpy.remote.http_url import HTTPPlace
from annexpy.transport.http_dial import authority

if TYPE_CHECKING:
    from annexpy.repo.gitcredential import Credential

__all__ = ["Authorization", "Authorize"]

Authorize: TypeAlias = Callable[[bool], str | Awaitable[str]]
"""Gives the value of the header ``Authorization`` ("Bearer …"). Called with False before the first request, and with
True when the server has refused what it gave before. A function that is no coroutine runs in a worker thread."""

_BAD: Final = frozenset("\r\n\0")


class Authorization:
    """What one server is told about who asks. Shared by all requests to it.

    Attributes:
        now: The header's value at the moment; None: none is sent.
    """

    def __init__(self, place: HTTPPlace, authorize: Authorize | None = None, *, folder: str | None = None) -> None:
        """Nothing is asked yet.

        Args:
            place: Which server; a user and a password in it are tried first.
            authorize: Gives the header.
            folder: Whose git configuration says how git finds credentials.
        """
        self._place, self._authorize, self._folder = place, authorize, folder
        self.now: bytes | None = None
        self._begun = authorize is None
        self._proven = False  # ``now`` was good at least once
        self._tried: set[bytes] = set()
        self._credential: Credential | None = None
        self._given_up = False
        self._turn = anyio.Lock()

    async def begin(self) -> None:
        """Get ready for the first request."""
        async with self._turn:
            if not self._begun:
                self.now = await self._ask_callback(False)
                self._begun = True

    async def accepted(self) -> None:
        """The server has listened to ``now``."""
        if self._proven or self.now is None:
            return
        self._proven = True
        if self._credential is not None:
            from annexpy.repo.gitcredential import approve

            credential = self._credential
            await to_thread.run_sync(lambda: approve(credential, folder=self._folder))

    async def refused(self, used: bytes | None, challenges: str) -> None:
        """The server answered 401 to a request that went out with *used*. Afterwards ask once more.

        Raises:
            AuthFailed: There is nothing else to offer.
        """
        async with self._turn:
            if self.now != used:
                return  # another request was refused before, and found something newer
            if used is not None:
                self._tried.add(used)
            proven, self._proven = self._proven, False
            found = await self._next(challenges, renewed=proven)
            if found is None or found in self._tried:
                self.now = None
                reason = "it wants to know who asks (401)" if used is None else "it wants other credentials (401)"
                raise AuthFailed(str(self._place), reason)
            self.now = found

    async def _next(self, challenges: str, *, renewed: bool) -> bytes | None:
        """Something else to offer. *renewed*: what was good no longer is, so whoever gave it may have a newer one."""
        if self._authorize is not None:
            return await self._ask_callback(True)
        refused = await self._reject()
        place = self._place
        if place.password is not None:
            found = _basic(place.user or "", place.password)
            if found not in self._tried:
                return found
        machine = await to_thread.run_sync(_netrc, place.host, place.user)
        if machine is not None and (found := _basic(*machine)) not in self._tried:
            return found
        if self._given_up or (refused and not renewed):
            self._given_up = True  # nobody wants to be asked for every key again
            return None
        return await self._fill(challenges)

    async def _ask_callback(self, again: bool) -> bytes:
        assert self._authorize is not None
        authorize = self._authorize
        answer: object
        if inspect.iscoroutinefunction(authorize):
            answer = await authorize(again)
        else:
            answer = await to_thread.run_sync(lambda: authorize(again))
            if inspect.isawaitable(answer):
                answer = await answer
        text = answer
        if not isinstance(text, str) or not text or _BAD & set(text):
            raise InvalidInput("authorization", "(hidden)", "a value of the header Authorization, such as Bearer TOKEN")
        return text.encode("utf-8", "surrogateescape")

    async def _reject(self) -> bool:
        """Tell git about a credential of its that was refused; was there one?"""
        credential, self._credential = self._credential, None
        if credential is None:
            return False
        from annexpy.repo.gitcredential import reject

        await to_thread.run_sync(lambda: reject(credential, folder=self._folder))
        return True

    async def _fill(self, challenges: str) -> bytes | None:
        from annexpy.repo.gitcredential import fill

        place = self._place
        protocol, host = "https" if place.tls else "http", authority(place.host, place.port, tls=place.tls)
        path, user, folder = place.path.lstrip("/"), place.user, self._folder
        credential = await to_thread.run_sync(
            lambda: fill(protocol, host, path=path, user=user, challenges=(challenges,), folder=folder),
            abandon_on_cancel=True,
        )
        if credential is None or credential.authorization is None:
            self._given_up = True
            return None
        self._credential = credential
        found = credential.authorization.encode("utf-8", "surrogateescape")
        if found in self._tried:
            await self._reject()  # a helper that gives the same again
            self._given_up = True
            return None
        return found


def _basic(user: str, password: str) -> bytes:
    return b"Basic " + b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape"))


def _netrc(host: str, user: str | None) -> tuple[str, str] | None:
    """Who we are at *host* by ``~/.netrc``, which curl and so git reads too."""
    path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
    if not os.path.exists(path):
        return None
    import netrc

    try:
        found = netrc.netrc(path).authenticators(host)
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return None
    if found is None or (user is not None and found[0] != user):
        return None
    return found[0], found[2] or ""
