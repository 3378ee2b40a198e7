"""Set a dataset up: its repository, its durable bare repositories, its configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import annexpy as annex
from glimmer_store.config import CONFIG_NAME, Config, Durable
from glimmer_store.errors import ConfigError

__all__ = ["plan", "provision"]


def plan(root: Path, durable: Sequence[str]) -> list[str]:
    """What ``provision`` would do, as phrases that follow "will"."""
    steps = [f"use the repository {root}" if _is_annex(root) else f"make {root} a git-annex repository"]
    for url in durable:
        verb = "use" if _is_annex(Path(url)) else "make the bare repository"
        steps.append(f"{verb} {url}")
    return [*steps, f"write {root / CONFIG_NAME}"]


def provision(root: Path, durable: Sequence[str]) -> Config:
    """Do it. What exists is kept; a second run with the same arguments changes nothing.

    Raises:
        ConfigError: A durable place is no local path, or not a bare git-annex repository.
        RepositoryError: A repository cannot be made or opened.
    """
    config = Config.load(root) if (root / CONFIG_NAME).exists() else Config()
    repository = annex.Repository.open(root) if _is_annex(root) else annex.Repository.init(root, bare=False)
    try:
        places = list(config.durable)
        for url in durable:
            place = _durable(root, url, {p.name for p in places})
            if any(place.uuid == known.uuid for known in places):
                continue
            places.append(place)
            prefix = f"remote.{place.name}"
            repository.config.set(f"{prefix}.url", place.url)
            repository.config.set(f"{prefix}.fetch", f"+refs/heads/*:refs/remotes/{place.name}/*")
            repository.config.set(f"{prefix}.annex-uuid", str(place.uuid))
        config = Config(tuple(places), config.numcopies, config.graph, config.backend)
        config.save(root)
    finally:
        repository.close()
    return config


def _durable(root: Path, url: str, taken: set[str]) -> Durable:
    if re.match(r"[A-Za-z0-9+.-]+:", url):
        raise ConfigError(
            f"{url}: only local paths can be provisioned so far",
            remedy=f"make the repository there yourself and add it to {CONFIG_NAME}: name, uuid, url",
        )
    path = Path(os.path.abspath(url))  # not resolved: a link may be how the disk is meant to be found
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.name.removesuffix(".git")).strip("-") or "durable"
    while name in taken:
        name += "-2"
    if _is_annex(path):
        with annex.Repository.open(path) as bare:
            if not bare.bare:
                raise ConfigError(
                    f"{path}: has a work tree; a durable copy is a bare repository",
                    remedy="name a bare repository, or a path that does not exist yet",
                )
            return Durable(name, bare.uuid, str(path))
    with annex.Repository.init(path, bare=True, description=name) as bare:
        return Durable(name, bare.uuid, str(path))


def _is_annex(path: Path) -> bool:
    try:
        annex.Repository.open(path).close()
    except annex.RepositoryError:
        return False
    return True
