"""``git credential``: what git knows, or asks for, about a user at a server.

git runs the helpers that are configured, and asks on the terminal where that is allowed (``GIT_TERMINAL_PROMPT``,
``GIT_ASKPASS``); nothing of that is done here again.

Source: git-credential(1).
"""

from __future__ import annotations

import os
import subprocess
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from annexpy.errors import InvalidInput

__all__ = ["Credential", "approve", "fill", "reject"]

_SECONDS: Final = 600.0
"""Somebody may have to look for a password."""
_TOLD: Final = ("protocol", "host", "path", "username", "password", "password_expiry_utc", "oauth_refresh_token")
_TOLD_TOO: Final = ("authtype", "credential", "ephemeral")


@dataclass(frozen=True, slots=True)
class Credential:
    """What goes with requests to a server.

    Attributes:
        fields: As git gave them, to be told to it again.
    """

    fields: tuple[tuple[str, str], ...] = field(repr=False)

    def get(self, name: str) -> str | None:
        """The value of one field."""
        return next((value for field_name, value in self.fields if field_name == name), None)

    @property
    def authorization(self) -> str | None:
        """The header ``Authorization``; None when there is neither a password nor anything else to make it of."""
        kind, secret = self.get("authtype"), self.get("credential")
        if kind and secret:
            return f"{kind} {secret}"
        password = self.get("password")
        if password is None:
            return None
        pair = f"{self.get('username') or ''}:{password}"
        return "Basic " + b64encode(pair.encode("utf-8", "surrogateescape")).decode()


def fill(
    protocol: str,
    host: str,
    *,
    path: str = "",
    user: str | None = None,
    challenges: Iterable[str] = (),
    folder: str | None = None,
) -> Credential | None:
    """Ask git for a credential. May wait for somebody to type it, so call it in a thread.

    Args:
        protocol, host: "https", "example.org:8443".
        path: Of the repository; git leaves it out unless ``credential.useHttpPath`` is set.
        user: Whose.
        challenges: Values of the header ``WWW-Authenticate``.
        folder: Whose git configuration counts.

    Returns:
        None when git has none to give.
    """
    lines = [("capability[]", "authtype"), ("protocol", protocol), ("host", host)]
    lines += [("path", path)] if path else []
    lines += [("username", user)] if user is not None else []
    lines += [("wwwauth[]", challenge) for challenge in challenges]
    said = _git("fill", lines, folder)
    if said is None:
        return None
    found = Credential(said)
    return found if found.authorization else None


def approve(credential: Credential, *, folder: str | None = None) -> None:
    """Tell git that *credential* is good, so that helpers may keep it."""
    _tell("approve", credential, folder)


def reject(credential: Credential, *, folder: str | None = None) -> None:
    """Tell git that the server refused *credential*, so that helpers forget it."""
    _tell("reject", credential, folder)


def _tell(verb: Literal["approve", "reject"], credential: Credential, folder: str | None) -> None:
    known = (*_TOLD, *_TOLD_TOO)
    lines = [(name, value) for name, value in credential.fields if name in known or name == "state[]"]
    _git(verb, [("capability[]", "authtype"), ("capability[]", "state"), *lines], folder)


def _git(verb: str, lines: Iterable[tuple[str, str]], folder: str | None) -> tuple[tuple[str, str], ...] | None:
    text = []
    for name, value in lines:
        if "\n" in value or "\0" in value:
            raise InvalidInput(f"credential {name}", "(hidden)", "no line feed and no NUL")
        text.append(f"{name}={value}\n")
    try:
        done = subprocess.run(
            ["git", "credential", verb],
            input="".join(text).encode("utf-8", "surrogateescape") + b"\n",
            stdout=subprocess.PIPE,
            cwd=folder,
            env=os.environ,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git, or nobody at the terminal
    if done.returncode:
        return None
    said = done.stdout.decode("utf-8", "surrogateescape")
    return tuple((name, value) for name, equals, value in (line.partition("=") for line in said.splitlines()) if equals)
