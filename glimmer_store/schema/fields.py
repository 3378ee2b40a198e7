"""The five storage fields: types, meaning, who writes them, and what is wrong with given values.

Everything that is published about the fields (JSON Schema, the patch for Glimmer's own schema, the table
in the manual) is made from ``FIELDS``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from annexpy import InvalidUUID, is_cluster, parse_uuid
from glimmer_store.policy import StorageClass

__all__ = ["FIELDS", "NODE_TYPES", "UUID_PATTERN", "Field", "Problem", "problems"]

NODE_TYPES: Final = ("dataset", "derivative")
"""Types of nodes that have an output to store."""

UUID_PATTERN: Final = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"
"""UUIDs as git-annex takes them: opaque names, not only those of RFC 4122."""

_CLASSES: Final = tuple(c.value for c in StorageClass)


@dataclass(frozen=True, slots=True)
class Field:
    """One storage field.

    Attributes:
        name: As it stands in a node file.
        spec: Its type, in the words of Glimmer's schema.
        comment: One line on it for a schema file.
        meaning: What it says, for people.
        written_by: Which operations set it.
        schema: JSON Schema of its value.
    """

    name: str
    spec: str
    comment: str
    meaning: str
    written_by: str
    schema: Mapping[str, Any]  # Any: JSON


FIELDS: Final = (
    Field(
        "stored-at",
        "[list-of-locations]",
        "{remote, uuid} of each durable copy",
        "The durable repositories that have the content: the name of the remote and the UUID of its repository. "
        "Each was asked, or received the content, when this was written.",
        "archive, emit, migrate",
        {
            "type": "array",
            "uniqueItems": True,
            "items": {
                "type": "object",
                "required": ["remote", "uuid"],
                "additionalProperties": False,
                "properties": {
                    "remote": {"type": "string", "minLength": 1},
                    "uuid": {"type": "string", "pattern": UUID_PATTERN, "not": {"pattern": "^ac.{12}8"}},
                },
            },
        },
    ),
    Field(
        "copies",
        "int",
        "how many durable copies stored-at names",
        "The number of entries of stored-at. Adjuncts (object stores) are no durable copies and are not counted.",
        "archive, emit, migrate",
        {"type": "integer", "minimum": 0},
    ),
    Field(
        "numcopies-required",
        "int",
        "how many the storage class needs",
        "How many copies the storage class asked for when this was written.",
        "archive, emit, migrate",
        {"type": "integer", "minimum": 1},
    ),
    Field(
        "verified",
        "bool",
        "every copy was proven by its hash",
        "True only when the content of every copy was compared with the hash in its key; false when copies "
        "were only found to be present.",
        "archive, emit; migrate with --verify",
        {"type": "boolean"},
    ),
    Field(
        "storage-class",
        f"<enum:{{{','.join(_CLASSES)}}}>",
        "what losing the content would mean",
        "Irreplaceable: acquired, and gone for ever when lost. Generated: can be made again at some cost.",
        "people, or the call that creates the node; migrate fills in a default",
        {"enum": list(_CLASSES)},
    ),
)
"""The storage fields, in the order in which a new node gets them."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the field, and a sentence on it."""

    field: str
    message: str


# Any: the values of a parsed YAML mapping
def problems(fields: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the storage fields among *fields*; nothing when there are none.

    The rules of the published JSON Schema, and two that it cannot say: ``copies`` is the length of
    ``stored-at``, and no UUID stands there twice.
    """
    given = [field.name for field in FIELDS if field.name in fields]
    if not given:
        return
    missing = [field.name for field in FIELDS if field.name not in fields]
    for name in missing:
        yield Problem(name, f"missing, though {given[0]} is there: the storage fields stand together")
    places = fields.get("stored-at")
    if "stored-at" in fields:
        yield from _places(places)
    for name, least in (("copies", 0), ("numcopies-required", 1)):
        if name in fields and (why := _not_a_count(fields[name], least)):
            yield Problem(name, why)
    if "verified" in fields and not isinstance(fields["verified"], bool):
        yield Problem("verified", "must be true or false")
    if "storage-class" in fields and fields["storage-class"] not in _CLASSES:
        yield Problem("storage-class", f"must be {' or '.join(_CLASSES)}")
    if missing or not isinstance(places, list):
        return
    if fields["copies"] != len(places):
        yield Problem("copies", f"says {fields['copies']}, stored-at names {len(places)}")
    if fields["verified"] is True and not places:
        yield Problem("verified", "true, though there is no copy")


def _places(places: Any) -> Iterator[Problem]:
    if not isinstance(places, list):
        yield Problem("stored-at", "must be a list of {remote, uuid}")
        return
    seen: set[str] = set()
    for number, place in enumerate(places, 1):
        if not isinstance(place, dict) or set(place) != {"remote", "uuid"}:
            yield Problem("stored-at", f"entry {number} must be a mapping of remote and uuid, and of nothing else")
            continue
        if not isinstance(place["remote"], str) or not place["remote"]:
            yield Problem("stored-at", f"entry {number}: remote must be a name")
        if not isinstance(place["uuid"], str) or not _is_uuid(place["uuid"]):
            yield Problem("stored-at", f"entry {number}: uuid is none that git-annex would take")
        elif is_cluster(place["uuid"]):
            yield Problem("stored-at", f"entry {number}: {place['uuid']} is a cluster, and never a copy")
        elif place["uuid"] in seen:
            yield Problem("stored-at", f"entry {number}: {place['uuid']} stands there twice; a copy counts once")
        else:
            seen.add(place["uuid"])


def _is_uuid(text: str) -> bool:
    try:
        parse_uuid(text)
    except InvalidUUID:
        return False
    return True


def _not_a_count(value: Any, least: int) -> str:
    if isinstance(value, bool) or not isinstance(value, int):
        return "must be a whole number"
    return "" if value >= least else f"must be at least {least}"
