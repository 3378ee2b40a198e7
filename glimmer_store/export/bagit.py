"""BagIt 1.0 (RFC 8493): the outputs as payload, the nodes and their locations as tag files, everything with its hash.

The bag can be checked, unpacked and read without us: ``glimmer/nodes.json`` says of each file which node it
belongs to, its key, and where its copies were when the bag was made.

Version 1.0 writes the per cent sign of a name as ``%25``, which ``bagit`` 1.9.0, and so many an archive, does not read
back. Before that it stood for itself. So a bag with such names is one of version 0.97, which everybody reads alike.
Only where ``%0A`` or ``%0D`` stands for itself that would mean something else; no output has such a name (``scope``).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from urllib.parse import quote

from annexpy import __version__
from glimmer_store.export.payload import Item

__all__ = ["NODES_FILE", "bag_version", "nodes_table", "write_bag", "write_nodes"]

NODES_FILE = "glimmer/nodes.json"
"""The tag file that names nodes, keys and locations."""
_LINE_END = re.compile("%0[AD]", re.IGNORECASE)


def bag_version(names: Iterable[str]) -> str:
    """The version of BagIt in which these names are read back alike by everybody; that of the RFC if there is none."""
    marked = [name for name in names if "%" in name]
    return "0.97" if marked and not any(map(_LINE_END.search, marked)) else "1.0"


def write_bag(folder: Path, items: Sequence[Item], absent: Sequence[Item], today: date) -> None:
    """Make *folder*, which holds the contents of *items* below ``data/``, a bag.

    Args:
        folder: The bag.
        items: What it holds.
        absent: What is to be fetched: each has a URL, a size and a SHA-256. A bag with such is *holey*: it is
            valid once everything has been fetched.
        today: The date of bagging.
    """
    write_nodes(folder, [*items, *absent])
    payload = sorted([*items, *absent], key=lambda item: item.path)
    version = bag_version([*(item.path for item in payload), *(item.node.file.as_posix() for item in payload)])
    marks = version == "1.0"
    _write(folder, "manifest-sha256.txt", (f"{i.sha256}  {_path('data/' + i.path, marks)}" for i in payload))
    if absent:
        urls = (quote(item.urls[0], safe="%/:=&?~#+!$,;@()*[]") for item in absent)
        rows = (f"{url} {i.size} {_path('data/' + i.path, marks)}" for url, i in zip(urls, absent, strict=True))
        _write(folder, "fetch.txt", rows)
    _write(folder, "bagit.txt", (f"BagIt-Version: {version}", "Tag-File-Character-Encoding: UTF-8"))
    ids = dict.fromkeys(item.node.id for item in payload)
    info = [
        f"Bag-Software-Agent: annexpy {__version__}",
        f"Bagging-Date: {today.isoformat()}",
        *("External-Identifier: " + " ".join(name.split()) for name in ids),
        f"Payload-Oxum: {sum(item.size for item in payload)}.{len(payload)}",
    ]
    _write(folder, "bag-info.txt", info)
    _write(folder, "tagmanifest-sha256.txt", _tags(folder, marks))


def write_nodes(folder: Path, items: Sequence[Item]) -> None:
    """Write the node files below ``glimmer/nodes/``, and the table of nodes, keys and locations."""
    for node in {item.node.file: item.node for item in items}.values():
        target = folder / "glimmer" / "nodes" / node.file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(node.raw)
    table = json.dumps(nodes_table(items), indent=2, ensure_ascii=False)
    _write(folder, NODES_FILE, [table])


def nodes_table(items: Sequence[Item]) -> list[dict[str, object]]:
    """One entry per file: node, key, hash, the five storage fields, public URLs."""
    return [
        {
            "path": f"data/{item.path}",
            "id": item.node.id,
            "type": item.node.text("type"),
            "node": f"glimmer/nodes/{item.node.file.as_posix()}",
            "key": str(item.key),
            "size": item.size,
            "sha256": item.sha256,
            **(item.node.record.to_fields() if item.node.record is not None else {}),
            "urls": list(item.urls),
        }
        for item in items
    ]


def _path(path: str, marks: bool) -> str:
    """As a manifest writes it: only line ends are encoded, and with *marks* the per cent sign."""
    return (path.replace("%", "%25") if marks else path).replace("\n", "%0A").replace("\r", "%0D")


def _tags(folder: Path, marks: bool) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(("data/", "tagmanifest-")):
            with path.open("rb") as file:
                yield f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {_path(name, marks)}"


def _write(folder: Path, name: str, lines: Iterator[str] | Sequence[str]) -> None:
    (folder / name).write_bytes("".join(f"{line}\n" for line in lines).encode())
