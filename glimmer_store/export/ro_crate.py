"""RO-Crate 1.1: one file of linked data that describes what lies beside it.

Durable repositories are named, with their UUID, as properties; only what the web has gets a URL.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from glimmer_store.export.payload import Item

__all__ = ["CRATE_FILE", "crate"]

CRATE_FILE = "ro-crate-metadata.json"
_VERSION = "https://w3id.org/ro/crate/1.1"
_Entity = dict[str, Any]  # Any: JSON


def crate(items: Sequence[Item], *, name: str, license_: str, now: datetime) -> _Entity:
    """The content of ``ro-crate-metadata.json``; paths are as ``write_nodes`` and ``deliver`` lay them out."""
    files = [entity for item in items for entity in _file(item)]
    nodes = [_node(item) for item in {item.node.file: item for item in items}.values()]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": name,
        "description": f"{len(items)} outputs of {len(nodes)} Glimmer nodes, with the places of their copies",
        "datePublished": now.date().isoformat(),
        "license": license_ or "not stated",
        "hasPart": _references(entity["@id"] for entity in [*files, *nodes] if "File" in entity["@type"]),
    }
    head = {
        "@id": CRATE_FILE,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": _VERSION},
    }
    return {
        "@context": [f"{_VERSION}/context", {"sha256": "http://schema.org/sha256"}],
        "@graph": [head, root, *files, *nodes],
    }


def _file(item: Item) -> Iterator[_Entity]:
    place = _id(f"data/{item.path}")
    properties = list(_properties(item, place))
    downloads = [
        {"@id": f"{place}#url-{number}", "@type": "DataDownload", "contentUrl": url}
        for number, url in enumerate(item.urls, 1)
    ]
    entity: _Entity = {
        "@id": place,
        "@type": "File",
        "name": item.path.rpartition("/")[2],
        "contentSize": str(item.size),
        "sha256": item.sha256,
        "encodingFormat": media_type(item.path),
        "identifier": str(item.key),
        "subjectOf": {"@id": _node_id(item)},
        "additionalProperty": _references(entry["@id"] for entry in properties),
    }
    if item.node.text("description"):
        entity["description"] = item.node.text("description")
    if downloads:
        entity["distribution"] = _references(entry["@id"] for entry in downloads)
    yield entity
    yield from properties
    yield from downloads


def _properties(item: Item, place: str) -> Iterator[_Entity]:
    record = item.node.record
    if record is None:
        return
    for copy in record.stored_at:
        yield {
            "@id": f"{place}#stored-at-{_id(copy.uuid)}",
            "@type": "PropertyValue",
            "propertyID": "stored-at",
            "name": copy.remote,
            "value": str(copy.uuid),
        }
    for name, value in record.to_fields().items():
        if name != "stored-at":
            yield {"@id": f"{place}#{name}", "@type": "PropertyValue", "propertyID": name, "name": name, "value": value}


def _node(item: Item) -> _Entity:
    node = item.node
    return {
        "@id": _node_id(item),
        "@type": "File",
        "name": node.text("name") or node.id,
        "identifier": node.id,
        "encodingFormat": "application/json" if node.file.suffix == ".json" else "text/markdown",
    }


def _node_id(item: Item) -> str:
    return _id(f"glimmer/nodes/{item.node.file.as_posix()}")


def _id(path: str) -> str:
    return quote(path, safe="/")


def _references(ids: Iterator[str] | Sequence[str]) -> list[_Entity]:
    return [{"@id": name} for name in ids]


def media_type(path: str) -> str:
    """The media type of a file name; that of plain bytes when it says nothing."""
    kind, packed = mimetypes.guess_type(path, strict=False)
    return "application/gzip" if packed == "gzip" else kind or "application/octet-stream"
