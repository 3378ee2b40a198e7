"""What a server knows of a tenant, as values: who it is, what it has, who is let in, what was done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import annexpy as annex

__all__ = ["Access", "Audited", "Credential", "Granted", "Held", "Tenant"]


class Access(Enum):
    """What may be done with a tenant's repositories."""

    READ_ONLY = "read-only"
    APPEND_ONLY = "append-only"
    WRITE = "write"

    def at_most(self, other: Access) -> Access:
        """The stricter of the two."""
        order = list(Access)
        return min(self, other, key=order.index)


@dataclass(frozen=True, slots=True)
class Held:
    """One repository of a tenant.

    Attributes:
        name: Short name.
        uuid: Of the repository.
        path: Where it is.
    """

    name: str
    uuid: annex.UUID
    path: Path


@dataclass(frozen=True, slots=True)
class Tenant:
    """Somebody who has repositories on the server.

    Attributes:
        name: Lower-case letters, digits, dashes.
        uuid: By which its own page of the HTTP API is guarded.
        active: Not suspended.
        access: Nobody of it may do more than this.
        quota: Bytes of content that each repository may hold; None: no limit.
        secure: Only keys with a cryptographically secure hash may come.
        repositories: In order of their names.
    """

    name: str
    uuid: annex.UUID
    active: bool
    access: Access
    quota: int | None
    secure: bool
    repositories: tuple[Held, ...]

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "active": self.active,
            "access": self.access.value,
            "quota": self.quota,
            "secure-hashes": self.secure,
            "repositories": [{"name": held.name, "uuid": str(held.uuid)} for held in self.repositories],
        }


@dataclass(frozen=True, slots=True)
class Credential:
    """What somebody proves to be of a tenant with.

    Attributes:
        id: Of the credential, for ``rotate``.
        tenant: Whose; "" is the operator.
        label: For people.
        access: What its bearer may do, and no more than the tenant.
        digest: SHA-256 of the secret, hexadecimal.
        ssh_key: The public key that goes with it, as in an authorized_keys file; "" for none.
    """

    id: int
    tenant: str
    label: str
    access: Access
    digest: str
    ssh_key: str

    @property
    def user(self) -> str:
        """The name for basic authentication."""
        return f"{self.tenant or 'operator'}-{self.id}"


@dataclass(frozen=True, slots=True)
class Granted:
    """A credential that was just made. The secret is nowhere else.

    Attributes:
        credential: What is kept of it.
        secret: Password for basic authentication, and bearer token.
    """

    credential: Credential
    secret: str


@dataclass(frozen=True, slots=True)
class Audited:
    """One line of the audit log: *actor* did *action* at *time* (seconds since 1970) to *tenant*."""

    time: float
    actor: str
    action: str
    tenant: str
    detail: str

    def to_json(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in ("time", "actor", "action", "tenant", "detail")}
