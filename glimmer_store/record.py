"""The storage fields of a Glimmer node, as one value.

The names and meanings are the proposal's: ``stored-at`` [{remote, uuid}], ``copies``,
``numcopies-required``, ``verified``, ``storage-class``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annexpy import UUID
from glimmer_store.errors import SidecarError
from glimmer_store.policy import StorageClass
from glimmer_store.schema import fields as schema

__all__ = ["FIELDS", "Location", "StorageRecord"]

FIELDS = tuple(field.name for field in schema.FIELDS)
"""The fields that belong to us, in the order in which a new node gets them."""


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """One proven copy: the name of the durable remote and the UUID of its repository."""

    remote: str
    uuid: UUID


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """Where the content of a node is, and how well that is known.

    Attributes:
        stored_at: Proven copies, sorted by name.
        numcopies_required: What the storage class asks for.
        verified: Every copy of ``stored_at`` was proven by size and hash when this was written.
        storage_class: Irreplaceable or generated.
    """

    stored_at: tuple[Location, ...]
    numcopies_required: int
    verified: bool
    storage_class: StorageClass

    @property
    def copies(self) -> int:
        return len(self.stored_at)

    @property
    def shortfall(self) -> int:
        """Copies that are missing; 0 when there are enough."""
        return max(0, self.numcopies_required - self.copies)

    def to_fields(self) -> dict[str, object]:
        """The five fields, ready for a sidecar."""
        return {
            "stored-at": [{"remote": place.remote, "uuid": str(place.uuid)} for place in self.stored_at],
            "copies": self.copies,
            "numcopies-required": self.numcopies_required,
            "verified": self.verified,
            "storage-class": self.storage_class.value,
        }

    # Any: the values of a parsed YAML mapping
    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], *, node: str = "") -> StorageRecord | None:
        """The record in a node's front matter; None when it has none of the fields.

        Raises:
            SidecarError: Some are there and malformed.
        """
        if not any(name in fields for name in FIELDS):
            return None
        wrong = next(schema.problems(fields), None)
        if wrong is not None:
            raise SidecarError(
                f"{node or 'node'}: {wrong.field}: {wrong.message}",
                remedy="glimmer-store migrate --refresh --yes",
            )
        return cls(
            tuple(sorted(Location(place["remote"], UUID(place["uuid"])) for place in fields["stored-at"])),
            fields["numcopies-required"],
            fields["verified"],
            StorageClass(fields["storage-class"]),
        )
