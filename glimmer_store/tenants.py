"""Tenants of a server: who they are, what they may do, and what was done.

Everything is in one SQLite file, ``state.db`` in the server's folder, on a local disk: the server and the commands of
its operator open it side by side. Secrets are kept as digests; what was handed out is shown once. Every change is one
transaction together with its line of the audit log.

A tenant's repositories are ``tenants/TENANT/NAME.git``. A deleted tenant's are moved to ``deleted/`` and stay there:
nothing here removes contents.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Final
from uuid import uuid4

import annexpy as annex
from glimmer_store.errors import TenantError
from glimmer_store.tenant import Access, Audited, Credential, Granted, Held, Tenant

__all__ = ["STATE", "VAULTS", "VERSION", "Tenants"]

STATE: Final = "state.db"
VAULTS: Final = ("vault1", "vault2", "vault3")
"""The repositories of a tenant, where nobody says which."""
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")
_INVITED: Final = 7 * 86400.0
"""Seconds for which an invitation is good."""
_WAIT: Final = 30.0
"""Seconds to wait for another process that is writing."""
VERSION: Final = 2
_SECURE: Final = "ALTER TABLE tenant ADD COLUMN secure INTEGER NOT NULL DEFAULT 0"
"""What version 2 has beside version 1."""
_SCHEMA: Final = """
CREATE TABLE tenant (
    name TEXT PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, active INTEGER NOT NULL, access TEXT NOT NULL,
    quota INTEGER, created REAL NOT NULL) STRICT;
CREATE TABLE repository (
    uuid TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant ON DELETE CASCADE, name TEXT NOT NULL,
    UNIQUE (tenant, name)) STRICT;
CREATE TABLE credential (
    id INTEGER PRIMARY KEY, tenant TEXT REFERENCES tenant ON DELETE CASCADE, label TEXT NOT NULL,
    access TEXT NOT NULL, digest TEXT NOT NULL UNIQUE, ssh_key TEXT UNIQUE, created REAL NOT NULL) STRICT;
CREATE TABLE invitation (
    digest TEXT PRIMARY KEY, tenant TEXT NOT NULL REFERENCES tenant ON DELETE CASCADE, access TEXT NOT NULL,
    expires REAL NOT NULL) STRICT;
CREATE TABLE audit (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, tenant TEXT NOT NULL,
    detail TEXT NOT NULL) STRICT;
"""


class Tenants:
    """The tenants of the server in *folder*. Cheap to make; for several threads and processes at once."""

    def __init__(self, folder: str | os.PathLike[str], *, now: Callable[[], float] = time.time) -> None:
        """Use the state in *folder*, which is made when it is not there (mode 0700); *now* is seconds since 1970.

        Raises:
            TenantError: The state is of another version, or cannot be read.
        """
        self.folder = Path(folder).resolve()
        self._now = now
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._open() as db, db:
            db.execute("BEGIN IMMEDIATE")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == VERSION:
                return
            if version not in (0, 1):
                raise TenantError(f"{self.folder / STATE}: version {version}, and this program knows {VERSION}")
            for statement in filter(str.strip, _SCHEMA.split(";") if version == 0 else ()):
                db.execute(statement)
            db.execute(_SECURE)
            db.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        path = self.folder / STATE
        try:
            with closing(sqlite3.connect(path, timeout=_WAIT, isolation_level=None)) as db:
                path.chmod(0o600)
                db.execute("PRAGMA foreign_keys = ON")
                db.execute("PRAGMA synchronous = FULL")
                yield db
        except sqlite3.Error as error:
            raise TenantError(f"{path}: {error}", remedy="see whether the disk is full and the file is ours") from error

    @contextmanager
    def _changing(self, actor: str, action: str, tenant: str, detail: str = "") -> Iterator[sqlite3.Connection]:
        """One transaction, with its line of the audit log."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute(
                    "INSERT INTO audit (time, actor, action, tenant, detail) VALUES (?, ?, ?, ?, ?)",
                    (self._now(), actor, action, tenant, detail),
                )
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise

    # -- looking ----------------------------------------------------------------------------------

    def stamp(self) -> tuple[int, int]:
        """Differs when anything was changed, by whomever."""
        with self._open() as db:
            (last,) = db.execute("SELECT coalesce(max(id), 0) FROM audit").fetchone()
        status = (self.folder / STATE).stat()
        return status.st_ino, last

    def all(self) -> tuple[Tenant, ...]:
        """Every tenant, by name."""
        with self._open() as db:
            return tuple(self._tenant(db, row) for row in db.execute("SELECT * FROM tenant ORDER BY name").fetchall())

    def get(self, name: str) -> Tenant:
        """The tenant of that name.

        Raises:
            TenantError: There is none.
        """
        with self._open() as db:
            return self._get(db, name)

    def _get(self, db: sqlite3.Connection, name: str) -> Tenant:
        row = db.execute("SELECT * FROM tenant WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise TenantError(f"no tenant {name!r}", remedy="glimmer-store tenant list shows those there are")
        return self._tenant(db, row)

    def _tenant(self, db: sqlite3.Connection, row: tuple[str, str, int, str, int | None, float, int]) -> Tenant:
        name, uuid, active, access, quota, _, secure = row
        held = db.execute("SELECT name, uuid FROM repository WHERE tenant = ? ORDER BY name", (name,)).fetchall()
        repositories = tuple(Held(one, annex.UUID(of), self._home(name) / f"{one}.git") for one, of in held)
        return Tenant(name, annex.UUID(uuid), bool(active), Access(access), quota, bool(secure), repositories)

    def credentials(self, tenant: str | None = None) -> tuple[Credential, ...]:
        """All that are good now; or those of one *tenant*, "" being the operator."""
        columns = "id, coalesce(tenant, ''), label, access, digest, coalesce(ssh_key, '')"
        with self._open() as db:
            rows = db.execute(f"SELECT {columns} FROM credential ORDER BY id").fetchall()
        found = (Credential(id_, of, label, Access(may), digest, key) for id_, of, label, may, digest, key in rows)
        return tuple(one for one in found if tenant is None or one.tenant == tenant)

    def audit(self, tenant: str | None = None) -> tuple[Audited, ...]:
        """What was done, oldest first; to one *tenant* only, if it is named."""
        with self._open() as db:
            rows = db.execute("SELECT time, actor, action, tenant, detail FROM audit ORDER BY id").fetchall()
        return tuple(Audited(*row) for row in rows if tenant is None or row[3] == tenant)

    def note(self, actor: str, action: str, tenant: str, detail: str) -> None:
        """Add a line to the audit log, of something that is done elsewhere."""
        with self._changing(actor, action, tenant, detail):
            pass

    # -- tenants ----------------------------------------------------------------------------------

    def _home(self, name: str) -> Path:
        return self.folder / "tenants" / name

    def create(
        self,
        name: str,
        *,
        repositories: Sequence[str] = VAULTS,
        access: Access = Access.WRITE,
        quota: int | None = None,
        secure: bool = False,
        actor: str = "operator",
    ) -> Tenant:
        """Make a tenant and its bare repositories.

        Args:
            name: Lower-case letters, digits and dashes, 40 at most.
            repositories: Names of the bares, of the same form.
            access: Nobody of it may do more.
            quota: Bytes of content for each repository.
            secure: Only keys with a cryptographically secure hash may come: no MD5, which DataLad uses, and no SHA1.
            actor: Who does it, for the audit log.

        Raises:
            TenantError: A name is malformed or taken.
        """
        for one in (name, *repositories):
            if not _NAME.match(one):
                raise TenantError(f"{one!r}: lower-case letters, digits and single names with '-', 40 at most")
        if not repositories or len(set(repositories)) < len(repositories):
            raise TenantError("repositories: at least one, and each name once")
        if quota is not None and quota < 0:
            raise TenantError(f"quota {quota}: 0 or more bytes")
        with self._changing(actor, "create", name, f"{', '.join(repositories)}; {access.value}; quota {quota}") as db:
            if db.execute("SELECT 1 FROM tenant WHERE name = ?", (name,)).fetchone():
                raise TenantError(f"there is a tenant {name!r} already")
            home = self._home(name)
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            row = (name, str(uuid4()), 1, access.value, quota, self._now(), secure)
            db.execute("INSERT INTO tenant VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            for one in repositories:
                uuid = _made(home / f"{one}.git", f"{name}/{one}", _settings(quota, secure))
                db.execute("INSERT INTO repository VALUES (?, ?, ?)", (uuid, name, one))
            return self._get(db, name)

    def suspend(self, name: str, *, actor: str = "operator") -> Tenant:
        """Let nobody of the tenant in any more; its contents stay as they are."""
        return self._set(name, "active", 0, "suspend", actor)

    def resume(self, name: str, *, actor: str = "operator") -> Tenant:
        """Let them in again."""
        return self._set(name, "active", 1, "resume", actor)

    def limit(self, name: str, quota: int | None, *, actor: str = "operator") -> Tenant:
        """Change how many bytes each repository of the tenant may hold; contents that are there stay."""
        if quota is not None and quota < 0:
            raise TenantError(f"quota {quota}: 0 or more bytes")
        return self._configured(self._set(name, "quota", quota, "quota", actor))

    def hashes(self, name: str, *, secure: bool, actor: str = "operator") -> Tenant:
        """Let only keys with a *secure* hash come from now on, or all that can be verified; what is there stays."""
        return self._configured(self._set(name, "secure", int(secure), "hashes", actor))

    @staticmethod
    def _configured(tenant: Tenant) -> Tenant:
        for held in tenant.repositories:
            with annex.Repository.open(held.path) as repository:
                repository.config.change(_settings(tenant.quota, tenant.secure))
        return tenant

    def _set(self, name: str, column: str, value: int | None, action: str, actor: str) -> Tenant:
        with self._changing(actor, action, name, "" if column == "active" else str(value)) as db:
            self._get(db, name)
            db.execute(f"UPDATE tenant SET {column} = ? WHERE name = ?", (value, name))
            return self._get(db, name)

    def delete(self, name: str, *, actor: str = "operator") -> Path:
        """Forget the tenant; where its repositories are now. They are not removed: that is left to a person."""
        away = self.folder / "deleted"
        away.mkdir(mode=0o700, exist_ok=True)
        with self._changing(actor, "delete", name) as db:
            self._get(db, name)
            place = away / f"{name}-{int(self._now())}-{secrets.token_hex(4)}"
            db.execute("DELETE FROM tenant WHERE name = ?", (name,))
            self._home(name).rename(place)
        return place

    # -- who is let in ----------------------------------------------------------------------------

    def operator(self, label: str = "operator") -> Granted:
        """A new credential that may do everything through the HTTP API."""
        with self._changing("operator", "operator credential", "", label) as db:
            return self._grant(db, None, label, Access.WRITE, "")

    def invite(self, name: str, *, access: Access = Access.WRITE, actor: str = "operator") -> str:
        """An invitation: whoever ``accept``s it first, within a week, gets a credential of the tenant."""
        token = secrets.token_urlsafe(24)
        with self._changing(actor, "invite", name, access.value) as db:
            may = access.at_most(self._get(db, name).access)
            until = self._now() + _INVITED
            db.execute("INSERT INTO invitation VALUES (?, ?, ?, ?)", (_digest(token), name, may.value, until))
        return token

    def accept(self, token: str, *, label: str, ssh_key: str = "") -> Granted:
        """Turn an invitation into a credential.

        Args:
            token: Of ``invite``.
            label: Who it is, for people.
            ssh_key: A public key, as in ``id_ed25519.pub``; "" for HTTP alone.

        Raises:
            TenantError: The invitation is not good (any more), or the key is not.
        """
        key = _checked_key(ssh_key) if ssh_key else ""
        label = label.strip()[:80]
        with self._open() as db:
            row = db.execute(
                "SELECT tenant, access, expires FROM invitation WHERE digest = ?", (_digest(token),)
            ).fetchone()
        if row is None or row[2] < self._now():
            raise TenantError("the invitation is not good, or not any more", remedy="ask for a new one")
        with self._changing(label or "somebody", "accept", row[0], "with an ssh key" if key else "") as db:
            if not db.execute("DELETE FROM invitation WHERE digest = ?", (_digest(token),)).rowcount:
                raise TenantError("the invitation was accepted already", remedy="ask for a new one")
            return self._grant(db, row[0], label, Access(row[1]), key)

    def rotate(self, name: str, id_: int, *, actor: str = "operator") -> Granted:
        """A new secret in place of that of a credential, which is good for nothing from now on. Its ssh key stays."""
        with self._changing(actor, "rotate", name, str(id_)) as db:
            row = db.execute(
                "SELECT label, access, coalesce(ssh_key, '') FROM credential WHERE id = ? AND tenant = ?", (id_, name)
            ).fetchone()
            if row is None:
                raise TenantError(f"{name}: no credential {id_}")
            db.execute("DELETE FROM credential WHERE id = ?", (id_,))
            return self._grant(db, name, row[0], Access(row[1]), row[2])

    def revoke(self, name: str, id_: int, *, actor: str = "operator") -> None:
        """Let the bearer of a credential in no more."""
        with self._changing(actor, "revoke", name, str(id_)) as db:
            if not db.execute("DELETE FROM credential WHERE id = ? AND tenant = ?", (id_, name)).rowcount:
                raise TenantError(f"{name}: no credential {id_}")

    def _grant(self, db: sqlite3.Connection, tenant: str | None, label: str, access: Access, key: str) -> Granted:
        secret = secrets.token_urlsafe(32)
        if key and db.execute("SELECT 1 FROM credential WHERE ssh_key = ?", (key,)).fetchone():
            raise TenantError("this ssh key cannot be used", remedy="make another one: ssh-keygen -t ed25519")
        row = (tenant, label, access.value, _digest(secret), key or None, self._now())
        columns = "(tenant, label, access, digest, ssh_key, created)"
        id_ = db.execute(f"INSERT INTO credential {columns} VALUES (?, ?, ?, ?, ?, ?)", row).lastrowid
        assert id_ is not None
        return Granted(Credential(id_, tenant or "", label, access, _digest(secret), key), secret)


def _digest(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _checked_key(line: str) -> str:
    """Type and data of a public key, without its comment, so that the same key is the same text."""
    kind, _, rest = line.strip().partition(" ")
    coded = rest.strip().partition(" ")[0]
    try:
        blob = b64decode(coded, validate=True)
    except ValueError:
        blob = b""
    size = int.from_bytes(blob[:4], "big")
    if not blob or blob[4 : 4 + size] != kind.encode("utf-8", "surrogateescape") or "\n" in line.strip():
        raise TenantError("ssh key: one line as in id_ed25519.pub", remedy="make one: ssh-keygen -t ed25519")
    return f"{kind} {coded}"


def _made(path: Path, description: str, settings: Mapping[str, str | None]) -> annex.UUID:
    """The bare repository at *path*; one that a creation which broke off had made is used."""
    try:
        repository = annex.Repository.open(path)
    except annex.RepositoryError:
        repository = annex.Repository.init(path, bare=True, description=description)
    with repository:
        repository.config.change({"annexpy.verifiable": "true", **settings})
        return repository.uuid


def _settings(quota: int | None, secure: bool) -> dict[str, str | None]:
    return {
        "annexpy.quota": None if quota is None else str(quota),
        "annex.securehashesonly": "true" if secure else None,
    }
