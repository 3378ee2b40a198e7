"""Copies of a server's own state: who its tenants are. Repositories are not in them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import annexpy as annex
from glimmer_store.errors import TenantError
from glimmer_store.synced import sync
from glimmer_store.tenant import Tenant
from glimmer_store.tenants import STATE, VERSION, Tenants

__all__ = ["backup", "restore"]


def backup(tenants: Tenants, path: Path) -> None:
    """Write a copy of the state to *path*, while servers run.

    Raises:
        TenantError: There is such a file, or it cannot be written.
    """
    if path.exists():
        raise TenantError(f"{path}: exists", remedy="name a file that does not exist")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with closing(sqlite3.connect(tenants.folder / STATE)) as db, closing(sqlite3.connect(aside)) as copy:
            aside.chmod(0o600)
            db.backup(copy)
        sync(aside)
        aside.replace(path)
        sync(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise TenantError(f"{path}: {error}") from error
    finally:
        aside.unlink(missing_ok=True)


def restore(copy: Path, folder: str | os.PathLike[str]) -> tuple[Tenants, list[str]]:
    """Put a *copy* of the state into *folder*, which has none; and what of it is not there, as sentences.

    Raises:
        TenantError: There is a state already, or *copy* is none.
    """
    state = Path(folder).resolve() / STATE
    if state.exists():
        raise TenantError(f"{state}: exists", remedy="move it away first, with no server running")
    state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(f"{copy.resolve().as_uri()}?mode=ro", uri=True)) as db:
            if db.execute("PRAGMA user_version").fetchone()[0] not in range(1, VERSION + 1):
                raise TenantError(f"{copy}: no state of this version")
            with closing(sqlite3.connect(state)) as new:
                db.backup(new)
    except (OSError, sqlite3.Error) as error:
        state.unlink(missing_ok=True)
        raise TenantError(f"{copy}: {error}") from error
    tenants = Tenants(folder)
    return tenants, [reason for tenant in tenants.all() for reason in _missing(tenant)]


def _missing(tenant: Tenant) -> Iterator[str]:
    for held in tenant.repositories:
        try:
            with annex.Repository.open(held.path) as repository:
                if repository.uuid != held.uuid:
                    yield f"{held.path}: is repository {repository.uuid}, and was {held.uuid}"
        except annex.RepositoryError as error:
            yield f"{tenant.name}/{held.name}: {error}"
