"""Set a dataset up: its repository, its durable repositories and its forge, and what git-annex is to know of them.

Whatever exists is kept; the same again changes nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import anyio

import annexpy as annex
from glimmer_store.config import CONFIG_NAME, FORGE, Config, Durable
from glimmer_store.errors import ConfigError, shell_line
from glimmer_store.provision_adjunct import add_adjuncts

__all__ = ["Place", "add_remote", "identify", "plan", "provision"]

_GROUP: Final = "backup"
"""git-annex's standard group for repositories that want everything."""
_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Place:
    """A durable repository somewhere.

    Attributes:
        durable: Its name and UUID, and how annexpy reaches its contents.
        git_url: How git reaches its history.
        maxsize: Bytes of content that it may hold; None: no limit is known.
    """

    durable: Durable
    git_url: str
    maxsize: int | None = None


def plan(root: Path, durable: Sequence[str], *, adjuncts: Sequence[str] = (), forge: str | None = None) -> list[str]:
    """What ``provision`` would do, as phrases that follow "will"."""
    steps = [f"use the repository {root}" if _is_annex(root) else f"make {root} a git-annex repository"]
    for url in durable:
        verb = "use" if _is_remote(url) or _is_annex(Path(url)) else "make the bare repository"
        steps.append(f"{verb} {url}")
    steps += [f"use {url} for further copies, which do not count" for url in adjuncts]
    if forge is not None:
        steps.append(f"use {forge} for the history and pointers, and not for contents")
    return [*steps, f"write {root / CONFIG_NAME}"]


def provision(
    root: Path,
    durable: Sequence[str],
    *,
    places: Sequence[Place] = (),
    adjuncts: Sequence[str] = (),
    forge: str | None = None,
) -> Config:
    """Do it. Where *durable* or *adjuncts* has URLs, not inside of an event loop.

    Args:
        root: The dataset.
        durable: Paths, which are made when they are not there, or ``ssh://`` and ``annex+http(s)://`` URLs of
            repositories that are.
        places: More of them, as a server gave them.
        adjuncts: Stores for further copies, without history; see ``provision_adjunct``.
        forge: URL of a git repository that gets the history and no contents.

    Raises:
        ConfigError: A durable place is not a bare git-annex repository, or cannot be reached.
        RepositoryError: A repository cannot be made or opened.
    """
    config = Config.load(root) if (root / CONFIG_NAME).exists() else Config()
    with _opened(root, bare=False) as repository:
        identify(repository)
        known = list(config.durable)
        taken = {place.name for place in known}
        new: list[Place] = []
        for place in (*(_place(repository, root, url, taken) for url in durable), *places):
            if any(place.durable.uuid == one.uuid for one in known):
                continue
            if place.durable.name in taken:
                raise ConfigError(f"{place.durable.name}: there is a durable repository of that name already")
            there = repository.config.remotes().get(place.durable.name)
            if there is not None and there.uuid not in (None, place.durable.uuid):
                raise ConfigError(
                    f"{there.name}: there is a git remote of that name, which is another repository",
                    remedy=shell_line("git", "-C", root.resolve(), "remote", "rename", there.name, f"{there.name}-old"),
                )
            taken.add(place.durable.name)
            known.append(place.durable)
            new.append(place)
            add_remote(repository, place.durable.name, place.git_url, place.durable)
        if forge is not None:
            add_remote(repository, FORGE, forge, None)
        _tell_git_annex(repository, new)
        added = add_adjuncts(repository, config.adjuncts, adjuncts, taken | {one.name for one in config.adjuncts})
        repository.branch.commit_now(seconds=_SECONDS)
        config = replace(config, durable=tuple(known), adjuncts=(*config.adjuncts, *added))
        config.save(root)
        _commit(repository, root)
    return config


def _commit(repository: annex.Repository, root: Path) -> None:
    """Whoever clones the dataset finds how it is set up."""
    if root.resolve() != Path(os.fsdecode(repository.work_tree or b"")).resolve():
        return  # below the top of somebody's repository: theirs to commit
    content = (root / CONFIG_NAME).read_bytes()
    head = annex.Head(repository)
    try:
        head.commit({CONFIG_NAME.encode(): annex.FileChange(lambda _: content, content)}, "glimmer-store: set up")
    finally:
        head.close()


def identify(repository: annex.Repository) -> None:
    """Commits need an author: where git knows of none, the user of this machine is one."""
    config = repository.config
    if config.get("user.email") is None and not os.environ.get("GIT_AUTHOR_EMAIL"):
        user = os.environ.get("USER") or "glimmer-store"
        config.change({"user.name": config.get("user.name") or user, "user.email": f"{user}@{os.uname().nodename}"})


def add_remote(repository: annex.Repository, name: str, url: str, place: Durable | None) -> None:
    """Make *name* a git remote at *url*, for the contents of *place*; without one git-annex leaves it alone."""
    settings = {"url": url, "fetch": f"+refs/heads/*:refs/remotes/{name}/*"}
    if place is None:
        settings |= {"annex-ignore": "true"}
    else:
        settings |= {"annex-uuid": str(place.uuid)}
        if place.url.startswith(
            "annex+"
        ):  # git-annex asks the server for it only of a repository that it does not know
            settings |= {"annexurl": place.url.removesuffix(f"git-annex/{place.uuid}").rstrip("/") + "/"}
    wanted = {f"remote.{name}.{field}": value for field, value in settings.items()}
    if any(repository.config.get(field) != value for field, value in wanted.items()):
        repository.config.change(wanted)


def _tell_git_annex(repository: annex.Repository, new: Sequence[Place]) -> None:
    """They want everything, and have so much room."""
    if not new:
        return
    uuids = [place.durable.uuid for place in new]
    annex.configure(
        repository,
        groups={uuid: [_GROUP] for uuid in uuids},
        wanted=dict.fromkeys(uuids, "standard"),
        maxsizes={place.durable.uuid: place.maxsize for place in new if place.maxsize is not None},
    )


# -- one durable repository -----------------------------------------------------------------------


def _opened(path: Path, *, bare: bool, description: str | None = None) -> annex.Repository:
    """The repository at *path*, made when there is none."""
    if _is_annex(path):
        return annex.Repository.open(path)
    try:
        return annex.Repository.init(path, bare=bare, description=description)
    except (annex.AnnexError, OSError) as error:
        shown = str(error) if isinstance(error, annex.AnnexError) else f"{path}: {error.strerror}"
        raise ConfigError(
            shown, remedy="name a folder, or a path that does not exist yet, where you may write"
        ) from error


def _place(repository: annex.Repository, root: Path, url: str, taken: set[str]) -> Place:
    if _is_remote(url):
        return _reached(repository, url, taken)
    path = Path(os.path.abspath(url))  # not resolved: a link may be how the disk is meant to be found
    if path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            f"{path}: lies in the dataset, and would go when that goes",
            remedy="name a path outside of it, and better one on another disk",
        )
    name = _free_name(repository, path.name, taken, str(path))
    with _opened(path, bare=True, description=name) as bare:
        if not bare.bare:
            raise ConfigError(
                f"{path}: has a work tree; a durable copy is a bare repository",
                remedy="name a bare repository, or a path that does not exist yet",
            )
        return Place(Durable(name, bare.uuid, str(path)), str(path))


def _reached(repository: annex.Repository, url: str, taken: set[str]) -> Place:
    """What answers at *url*: which repository it is, it has to say itself."""

    async def ask() -> annex.UUID:
        with anyio.fail_after(_SECONDS):
            async with annex.connect(url, repository=repository) as remote:
                return await remote.connect()

    try:
        uuid = anyio.run(ask)
    except (annex.AnnexError, TimeoutError) as error:
        raise ConfigError(
            f"{url}: {error or 'no answer'}",
            remedy="make the repository there first: git init --bare DIR && git -C DIR annex init",
        ) from error
    git_url = url.removeprefix("annex+")
    name = _free_name(repository, urlsplit(url).path.rstrip("/").rpartition("/")[2], taken, git_url)
    return Place(Durable(name, uuid, url), git_url)


def _free_name(repository: annex.Repository, text: str, taken: set[str], url: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", text.removesuffix(".git")).strip("-") or "durable"
    others = {
        one.name
        for one in repository.config.remotes().values()
        if one.url != url and os.path.realpath(os.path.join(repository.path, one.url or "")) != os.path.realpath(url)
    }
    while name in taken | others:  # what is somebody's own stays as it is
        name += "-2"
    return name


def _is_remote(url: str) -> bool:
    return re.match(r"[A-Za-z0-9+.-]+:", url) is not None


def _is_annex(path: Path) -> bool:
    try:
        annex.Repository.open(path).close()
    except annex.RepositoryError:
        return False
    return True
