"""Set adjuncts up: special remotes that the real git-annex uses as they are.

``directory:PATH`` is a folder, which is made; ``s3://BUCKET/PREFIX?host=…&port=…&protocol=…`` a bucket that is there,
with credentials where git-annex looks for them (``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``). PREFIX is
git-annex's ``fileprefix``: it stands before the names as it is, so that of a folder ends with ``/``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import uuid4

import anyio

import annexpy as annex
from glimmer_store.config import Adjunct
from glimmer_store.errors import ConfigError

__all__ = ["add_adjuncts"]

_OPTIONS: Final = ("host", "port", "protocol", "signature", "requeststyle", "datacenter", "storageclass")
_BUCKET: Final = re.compile("[A-Za-z0-9._-]+")
_USUAL: Final = {"host": "s3.amazonaws.com", "datacenter": "US", "storageclass": "STANDARD"}


def add_adjuncts(
    repository: annex.Repository, known: Sequence[Adjunct], urls: Sequence[str], taken: set[str]
) -> list[Adjunct]:
    """Those of *urls* that are not *known* yet, set up; their names join *taken*. Not inside of an event loop.

    Raises:
        ConfigError: No URL of an adjunct, or it cannot be set up.
    """
    new: list[Adjunct] = []
    taken |= repository.config.remotes().keys()
    for url in urls:
        kind, stem, settings = _parsed(url)
        if any((one.kind, dict(one.settings)) == (kind, settings) for one in (*known, *new)):
            continue
        if (there := _there_already(repository, url, kind, settings)) is not None:
            new.append(there)
            continue
        name = stem
        while name in taken:
            name += "-2"
        taken.add(name)
        adjunct = Adjunct(name, annex.UUID(str(uuid4())), kind, settings)
        try:
            _set_up(repository, adjunct)
        except (annex.AnnexError, OSError) as error:
            raise ConfigError(
                f"{url}: {error}", remedy="see that the place is there and lets us in, then run the same again"
            ) from error
        new.append(adjunct)
    return new


def _there_already(repository: annex.Repository, url: str, kind: str, settings: Mapping[str, str]) -> Adjunct | None:
    """The folder of a special remote that git-annex has set up here, which is used as what it is.

    Raises:
        ConfigError: It is encrypted, in chunks, or else something that annexpy does not reach.
    """
    path = os.path.realpath(settings.get("directory", ""))
    for remote in repository.config.remotes().values() if kind == "directory" else ():
        folder = remote.get("annex-directory")
        if folder and os.path.realpath(os.path.join(repository.path, folder)) == path:
            try:
                uuid = annex.connect(remote.name, repository=repository).uuid
            except annex.AnnexError as error:
                raise ConfigError(f"{url}: {error}", remedy="name another folder, for a store of its own") from error
            return Adjunct(remote.name, uuid, kind, settings)
    return None


def _parsed(url: str) -> tuple[str, str, dict[str, str]]:
    """Kind, a name for it, settings."""
    if url.startswith("s3://"):
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query))
        unknown = ", ".join(sorted(options.keys() - set(_OPTIONS)))
        if not _BUCKET.fullmatch(parts.netloc) or parts.fragment or unknown:
            shown = f"s3://{parts.netloc.rpartition('@')[2]}{parts.path}"  # without the secret that somebody put there
            raise ConfigError(
                f"{shown}: {unknown and f'{unknown} not offered; '}give s3://BUCKET/PREFIX, "
                f"with any of {', '.join(_OPTIONS)} behind a ?"
            )
        prefix = unquote(parts.path.removeprefix("/"))
        settings = {**_USUAL, **options, "bucket": parts.netloc}
        return "s3", parts.netloc.replace(".", "-"), settings | ({"fileprefix": prefix} if prefix else {})
    path = os.path.abspath(url.removeprefix("directory:"))
    if re.match("[A-Za-z0-9+.-]+:", url) and not url.startswith("directory:"):
        raise ConfigError(f"{url}: an adjunct is directory:PATH or s3://BUCKET")
    return "directory", os.path.basename(path) or "directory", {"directory": path}


def _set_up(repository: annex.Repository, adjunct: Adjunct) -> None:
    entry = {"name": adjunct.name, "encryption": "none"}
    git: Mapping[str, str]
    if adjunct.kind == "directory":
        Path(adjunct.settings["directory"]).mkdir(parents=True, exist_ok=True)
        entry |= {"type": "directory"}
        git = {"annex-directory": adjunct.settings["directory"]}
    else:
        anyio.run(annex.connect_s3(adjunct.settings, adjunct.uuid, adjunct.name, repository).provision)
        _keep_credentials(repository, adjunct)
        entry |= {"type": "S3", **adjunct.settings}
        git = {"annex-s3": "true"}
    annex.configure(repository, special_remotes={adjunct.uuid: entry}, descriptions={adjunct.uuid: adjunct.name})
    settings = {**git, "annex-uuid": str(adjunct.uuid)}
    repository.config.change({f"remote.{adjunct.name}.{field}": value for field, value in settings.items()})


def _keep_credentials(repository: annex.Repository, adjunct: Adjunct) -> None:
    """Where ``git annex initremote`` keeps those of the environment, for itself and for us."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if not all(os.environ.get(name) for name in names):
        return
    folder = Path(os.fsdecode(repository.git_dir)) / "annex" / "creds"
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / adjunct.uuid, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        file.writelines(f"{os.environ[name]}\n" for name in names)
