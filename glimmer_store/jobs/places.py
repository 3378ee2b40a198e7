"""The repositories that take part in a job: finding them when it is planned, connecting to them when it runs."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import annexpy as annex
from glimmer_store.config import CONFIG_NAME, Config
from glimmer_store.jobs.cold_place import check_cold, cold_remote
from glimmer_store.jobs.spec import JobError, JobSpec, Place

__all__ = ["HERE", "Places", "connected", "get_to_know", "known_places", "named"]

HERE = "here"
"""What the dataset's own repository is called."""


def known_places(repository: annex.Repository) -> list[Place]:
    """The dataset itself, its git remotes and its durable repositories: single repositories, never a cluster."""
    found: dict[str, Place] = {}
    root = Path(repository.path)
    if (root / CONFIG_NAME).exists():
        for durable in Config.load(root).durable:
            found.setdefault(durable.uuid, Place(durable.name, durable.uuid, _absolute(durable.url, root)))
    for remote in repository.config.remotes().values():
        if remote.uuid and not annex.is_cluster(annex.UUID(remote.uuid)):
            url = remote.name if remote.url is None else _absolute(remote.url, root)
            cold = remote.get("glimmer-cold") or ""
            check_cold(remote.name, cold)
            place = Place(remote.name, annex.UUID(remote.uuid), url, cold)
            found[remote.uuid] = place if cold else found.get(remote.uuid, place)
    found.setdefault(repository.uuid, Place(HERE, repository.uuid, str(root.resolve())))
    return list(found.values())


async def get_to_know(dataset: Path, names: Iterable[str]) -> None:
    """Ask those git remotes among *names* for their UUID whom nobody has asked yet, and keep it, as git-annex does.

    Raises:
        AnnexError: One cannot be asked, or is a special remote that is not offered.
    """
    asked = {name.removeprefix("uuid:") for name in names}
    with annex.Repository.open(dataset) as repository:
        for remote in repository.config.remotes().values():
            if remote.url is None and asked & {remote.name, remote.uuid}:
                await annex.connect(remote.name, repository=repository).aclose()  # refused before anything is planned
            elif remote.name in asked and not remote.uuid:
                connected = annex.connect(remote.name, repository=repository)
                try:
                    repository.config.set(f"remote.{remote.name}.annex-uuid", await connected.connect())
                finally:
                    await connected.aclose()


def _absolute(url: str, root: Path) -> str:
    return str((root / url).resolve()) if (root / url).is_dir() else url


def named(places: Iterable[Place], name: str) -> Place:
    """The one that is called *name*, or ``uuid:…``.

    Raises:
        JobError: There is none.
    """
    known = list(places)
    for place in known:
        if name in (place.name, place.uuid, f"uuid:{place.uuid}"):
            return place
    names = ", ".join(place.name for place in known)
    if annex.is_cluster(annex.UUID(name.removeprefix("uuid:"))):
        raise JobError(f"{name}: is a cluster, and a job addresses nodes", remedy=f"name one of {names}")
    raise JobError(f"{name}: no repository of that name", remedy=f"name one of {names}, or add it as a git remote")


class Places:
    """Connections of one process, made when they are first needed. Made by ``connected``."""

    def __init__(self, spec: JobSpec, stack: AsyncExitStack, repository: annex.Repository | None) -> None:
        self._spec, self._stack, self._repository = spec, stack, repository
        self._open: dict[str, annex.Connected] = {}
        self._broken: dict[str, annex.AnnexError] = {}

    def remote(self, uuid: str) -> annex.Connected | None:
        """The repository of that UUID; None when it takes no part or has no usable address here."""
        found = self._open.get(uuid)
        if found is None and uuid not in self._broken:
            place = self._spec.place(uuid)
            if place is None:
                return None
            try:
                found = self._connect(place)
            except annex.AnnexError as error:
                self._broken[uuid] = error
                return None
            self._stack.push_async_callback(found.aclose)
            self._open[uuid] = found
        return found

    def name(self, uuid: str) -> str:
        """What people call it."""
        place = self._spec.place(uuid)
        return uuid if place is None else place.name

    def is_here(self, uuid: str) -> bool:
        """It is a folder on this machine."""
        place = self._spec.place(uuid)
        return place is not None and os.path.isdir(place.url)

    def is_cold(self, uuid: str) -> bool:
        """What it has must be brought up before it can be read."""
        place = self._spec.place(uuid)
        return place is not None and bool(place.cold)

    def _connect(self, place: Place) -> annex.Connected:
        remote = self._found(place)
        return cold_remote(place, remote, self._repository) if place.cold else remote

    def _found(self, place: Place) -> annex.Connected:
        repository = self._repository
        if repository is not None:
            known = repository.config.remotes().get(place.name)
            if known is not None and known.uuid == place.uuid:  # with what git's configuration says about it
                return annex.connect(place.name, uuid=place.uuid, name=place.name, repository=repository)
        return annex.connect(place.url, uuid=place.uuid, name=place.name)


@asynccontextmanager
async def connected(spec: JobSpec) -> AsyncIterator[Places]:
    """The places of a job. A worker on a machine without the dataset goes by their addresses alone."""
    async with AsyncExitStack() as stack:
        repository: annex.Repository | None = None
        with suppress(annex.AnnexError):  # it is not on this machine
            repository = annex.Repository.open(spec.dataset)
            stack.callback(repository.close)
        yield Places(spec, stack, repository)
