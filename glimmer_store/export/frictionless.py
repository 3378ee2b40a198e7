"""Frictionless Data Package (version 2): one resource per output, with its hash and its storage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from glimmer_store.export.payload import Item
from glimmer_store.export.ro_crate import media_type

__all__ = ["PACKAGE_FILE", "package"]

PACKAGE_FILE = "datapackage.json"


def package(items: Sequence[Item], *, name: str, license_: str, now: datetime) -> dict[str, Any]:  # Any: JSON
    """The content of ``datapackage.json``; paths are as ``deliver`` lays them out."""
    taken: set[str] = set()
    made: dict[str, Any] = {
        "$schema": "https://datapackage.org/profiles/2.0/datapackage.json",
        "name": _slug(name),
        "title": name,
        "created": now.isoformat(timespec="seconds"),
        "resources": [_resource(item, taken) for item in items],
    }
    if license_:
        made["licenses"] = [
            {"name": re.sub(r"[^-A-Za-z0-9._]+", "-", license_).strip("-") or "stated", "title": license_}
        ]
    return made


def _resource(item: Item, taken: set[str]) -> dict[str, Any]:
    slug, number = _slug(item.path), 1
    while (name := slug if number == 1 else f"{slug}-{number}") in taken:
        number += 1
    taken.add(name)
    made: dict[str, Any] = {
        "name": name,
        "path": f"data/{item.path}",
        "title": item.node.text("name") or item.node.id,
        "bytes": item.size,
        "hash": f"sha256:{item.sha256}",
        "mediatype": media_type(item.path),
        "x-glimmer": {
            "id": item.node.id,
            "type": item.node.text("type"),
            "key": str(item.key),
            **(item.node.record.to_fields() if item.node.record is not None else {}),
        },
    }
    if item.node.text("description"):
        made["description"] = item.node.text("description")
    if item.urls:
        made["sources"] = [{"title": "web", "path": url} for url in item.urls]
    return made


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-.") or "data"
