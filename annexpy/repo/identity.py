"""Who commits: as git would choose it.

Source: git-commit(1) "Commit information", git-config(1) ``user.*``. Where git refuses because it cannot make
up an e-mail address, ``git annex init`` writes the login name into the repository's configuration (measured);
``Repository.init`` does the same, so that a later git-annex can commit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from annexpy.repo.config import GitConfig

__all__ = ["Identity", "can_be_guessed", "login_name"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Author and committer, each ``Name <address>``."""

    author: bytes
    committer: bytes

    @classmethod
    def of(cls, config: GitConfig, environ: Mapping[str, str] | None = None) -> Identity:
        """From the environment, then the configuration, then login and host name."""
        env = os.environ if environ is None else environ
        return cls(_one("author", config, env), _one("committer", config, env))


def _one(role: str, config: GitConfig, env: Mapping[str, str]) -> bytes:
    prefix = f"GIT_{role.upper()}_"
    name = env.get(prefix + "NAME") or config.get(f"{role}.name") or config.get("user.name") or _full_name()
    address = (
        env.get(prefix + "EMAIL")
        or config.get(f"{role}.email")
        or config.get("user.email")
        or env.get("EMAIL")
        or f"{login_name()}@{os.uname().nodename}"
    )
    return b"%b <%b>" % (_clean(name), _clean(address))


def _clean(text: str) -> bytes:
    """Without what would break a commit header."""
    raw = text.encode("utf-8", "surrogateescape")
    return bytes([byte for byte in raw if byte > 31 and byte not in b"<>"]).strip(b" .,:;\"\\'") or b"unknown"


def login_name() -> str:
    """The login name of the user of this process."""
    import pwd  # only when nothing is configured

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return os.environ.get("USER") or os.environ.get("LOGNAME") or f"uid{os.geteuid()}"


def _full_name() -> str:
    import pwd

    try:
        full = pwd.getpwuid(os.geteuid()).pw_gecos.partition(",")[0]
    except KeyError:
        full = ""
    return full or login_name()


def can_be_guessed(config: GitConfig, environ: Mapping[str, str] | None = None) -> bool:
    """Git finds an identity here without help, as far as can be told without asking the network."""
    env = os.environ if environ is None else environ
    if config.get("user.email") or env.get("EMAIL"):
        return True
    if all(env.get(f"GIT_{r}_EMAIL") or config.get(f"{r.lower()}.email") for r in ("AUTHOR", "COMMITTER")):
        return True
    if config.get_bool("user.useconfigonly"):
        return False
    return "." in os.uname().nodename or os.path.exists("/etc/mailname")
