"""``annex.trashbin``: the remote to which content is moved before it is removed here.

What the real git-annex does (10.20261026, by running it): every removal of local content, by ``drop``,
``dropkey``, ``move`` or a client's REMOVE, first stores the content on that remote and records it there; the
removal fails when the name is unknown ("annex.trashbin is set to the name of an unknown remote") or the
remote cannot be reached. annexpy does the same for a remote that is a repository on this machine, and
refuses to remove anything where it is another one.
"""

from __future__ import annotations

import os
from urllib.parse import unquote

from annexpy.errors import Refused
from annexpy.repo.config import GitConfig

__all__ = ["trash_bin"]


def trash_bin(config: GitConfig, path: str) -> tuple[str, str | None]:
    """Where the trash bin of a repository is: its path, and its UUID when that is configured.

    Args:
        config: Of the repository.
        path: The repository, which relative paths of remotes start from.

    Raises:
        Refused: It is no remote of this repository, or none on this machine.
    """
    name = config.get("annex.trashbin") or ""
    remote = config.remotes().get(name)
    if remote is None or remote.url is None:
        raise Refused("annex.trashbin", name, "the name of a git remote of this repository")
    url = remote.url
    if url.startswith("file://"):
        host, slash, rest = url.removeprefix("file://").partition("/")
        if host in ("", "localhost"):
            return slash + unquote(rest), remote.uuid
    elif "://" not in url and ":" not in url.split("/", 1)[0]:
        return os.path.join(path, os.path.expanduser(url)), remote.uuid
    raise Refused("annex.trashbin", f"{name} ({url})", "a repository on this machine; other remotes are not supported")
