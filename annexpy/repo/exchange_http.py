"""git over HTTP: what ``Exchange`` speaks with, and who it is (``git credential``, as git asks it).

Calls block. Source: gitprotocol-http(5), git-credential(1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from annexpy.errors import AuthFailed
from annexpy.repo.gitcredential import approve, fill, reject

if TYPE_CHECKING:
    from dulwich.client import GitClient

__all__ = ["over_http"]

_SECONDS: Final = 600.0
"""Without a byte; the server may have to look through a whole history."""

R = TypeVar("R")


def over_http(url: str, name: str, folder: str, request: Callable[[GitClient, bytes], R]) -> R:
    """*request*, with a client for the server and the path of the repository there; twice when it asks who we are.

    Args:
        url: ``http://`` or ``https://``, of the git repository.
        name: Of the remote, for messages.
        folder: Whose git configuration says how to know a password.
        request: Must let ``HTTPUnauthorized`` pass.

    Raises:
        AuthFailed: There is no password, or a wrong one.
    """
    from dulwich.client import HTTPUnauthorized

    parts = urlsplit(url)
    path = (parts.path.rstrip("/") or "/").encode()
    host = parts.netloc.rpartition("@")[2]
    base = f"{parts.scheme}://{host}/"
    user, password = (None if one is None else unquote(one) for one in (parts.username, parts.password))
    try:
        return _requested(base, user if password is not None else None, password, request, path)
    except HTTPUnauthorized as error:
        if password is not None:
            raise AuthFailed(name) from error
        challenges = [error.www_authenticate] if error.www_authenticate else []
    credential = fill(
        parts.scheme, host, path=path.decode().lstrip("/"), user=user, challenges=challenges, folder=folder
    )
    if credential is None or credential.get("password") is None:
        raise AuthFailed(name, "it wants to know who you are, and git credential has no password for it")
    try:
        result = _requested(base, credential.get("username") or "", credential.get("password"), request, path)
    except HTTPUnauthorized as error:
        reject(credential, folder=folder)
        raise AuthFailed(name) from error
    approve(credential, folder=folder)
    return result


def _requested(
    base: str, user: str | None, password: str | None, request: Callable[[GitClient, bytes], R], path: bytes
) -> R:
    from dulwich.client import HttpGitClient
    from dulwich.config import StackedConfig

    client = HttpGitClient(
        base,
        config=StackedConfig.default(),
        username=user,
        password=password,
        timeout=_SECONDS,
        thin_packs=False,
        quiet=True,
    )
    ask, answers = client.pool_manager.request, []

    def remembered(*words: Any, **more: Any) -> Any:
        answers.append(ask(*words, **more))
        return answers[-1]

    setattr(client.pool_manager, "request", remembered)  # noqa: B010
    try:
        return request(client, path)
    finally:
        for answer in answers:
            answer.close()  # what the server refused is not read to its end, and not closed
        pools = client.pool_manager.pools
        for key in pools.keys():  # noqa: SIM118  (it cannot be iterated over)
            pools[key].close()  # which clear() leaves to the garbage collector
        client.pool_manager.clear()
