"""How much a place holds, and how much still fits.

What it holds is known by the location log alone. What is free is the least of what is known: what the disk of a path
has left, what maxsize leaves (``git annex maxsize``), what the quota of a tenant leaves. An object store, and a host
that is reached by ssh, say nothing of it, and then nothing is claimed.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from anyio import to_thread

import annexpy as annex
from glimmer_store.enrol import CREDENTIALS
from glimmer_store.errors import TenantError
from glimmer_store.status import Place
from glimmer_store.tenant_client import ask

__all__ = ["with_capacity"]

log = logging.getLogger(__name__)

_SECONDS: Final = 5.0
"""A report is not held up by a server that does not say how much is left."""


async def with_capacity(
    repository: annex.Repository, places: Iterable[Place], used: Mapping[annex.UUID, int]
) -> list[Place]:
    """*places* with what they hold and what still fits.

    Args:
        repository: The dataset.
        places: As they answered.
        used: UUID → bytes by the location log.
    """
    maxsizes = annex.Wanted(repository).repositories.maxsizes
    quotas = await to_thread.run_sync(_quotas, repository)
    return [_told(place, used.get(place.uuid, 0), maxsizes.get(place.uuid), quotas.get(place.uuid)) for place in places]


def _told(place: Place, holds: int, maxsize: int | None, quota: int | None) -> Place:
    limits = {"maxsize": maxsize, "quota": quota}
    free = {why: max(0, most - holds) for why, most in limits.items() if most is not None}
    folder = Path(place.url.removeprefix("directory:"))
    if place.url and folder.is_dir():
        free["disk"] = shutil.disk_usage(folder).free
    why = min(free, key=lambda one: free[one], default="")
    return replace(place, used=holds, free=free.get(why), free_by=why, maxsize=maxsize)


def _quotas(repository: annex.Repository) -> dict[annex.UUID, int]:
    """What the servers that this dataset is enrolled at allow each repository now."""
    try:
        lines = (Path(os.fsdecode(repository.git_dir)) / CREDENTIALS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found: dict[annex.UUID, int] = {}
    for line in lines:
        parts = urlsplit(line)
        server = f"{parts.scheme}://{unquote(parts.netloc.rpartition('@')[2])}"
        tenant = (parts.username or "").rpartition("-")[0]
        try:
            said = ask(
                server, "GET", f"/tenants/{quote(tenant)}", secret=unquote(parts.password or ""), seconds=_SECONDS
            )
            if said["quota"] is not None:
                found |= {annex.parse_uuid(one["uuid"]): int(said["quota"]) for one in said["repositories"]}
        except (TenantError, KeyError, TypeError, ValueError) as error:
            log.info("%s: its quota is not known: %s", server, error)
    return found
