"""What is published about the storage fields, made from the field table: JSON Schema, a patch for Glimmer.

The results are also kept as files beside this module, for whoever wants them without Python; a test
proves that they are what is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from glimmer_store.schema.fields import FIELDS, NODE_TYPES

__all__ = ["JSON_SCHEMA_FILE", "PATCH_FILE", "frontmatter_patch", "json_schema"]

JSON_SCHEMA_FILE: Final = "storage-fields.schema.json"
PATCH_FILE: Final = "frontmatter.patch"

_AFTER: Final = {"dataset": 96, "derivative": 143}
"""Node type → the line of Glimmer's frontmatter.yaml (version 0.4.0) after which its optional fields end."""


def json_schema() -> dict[str, Any]:  # Any: JSON
    """JSON Schema (2020-12) of a node's front matter, or of a BIDS ``_x-glimmer`` block, for our fields alone.

    Other fields are left to Glimmer's schema. Not said, since JSON Schema cannot: ``copies`` is the length
    of ``stored-at``, and no UUID stands there twice.
    """
    names = [field.name for field in FIELDS]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Storage fields of a Glimmer node",
        "type": "object",
        "properties": {field.name: {"description": field.meaning, **field.schema} for field in FIELDS},
        "dependentRequired": {name: [other for other in names if other != name] for name in names},
        "if": {"required": ["stored-at", "verified"], "properties": {"verified": {"const": True}}},
        "then": {"properties": {"stored-at": {"minItems": 1}}},
    }


def frontmatter_patch() -> str:
    """The storage fields for Glimmer's own ``frontmatter.yaml``, as a unified diff without context.

    Only lines are added, to the optional fields of both node types; ``git apply --unidiff-zero`` applies it
    to the version that ``GLIMMER`` names.
    """
    path = "glimmer/schema/frontmatter.yaml"
    lines = [f"--- a/{path}", f"+++ b/{path}"]
    block = _field_lines()
    for added, name in enumerate(NODE_TYPES):
        after = _AFTER[name]
        lines += [f"@@ -{after},0 +{after + 1 + added * len(block)},{len(block)} @@", *("+" + line for line in block)]
    return "\n".join(lines) + "\n"


def _field_lines() -> Sequence[str]:
    head = "    # Storage: where the content is, and how well that is known"
    return [head, *(f"    {field.name + ':':<20} {field.spec:<24} # {field.comment}" for field in FIELDS)]
