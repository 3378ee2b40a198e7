"""One export from beginning to end: it stands there whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

from glimmer_store.archive import Archive
from glimmer_store.config import Config
from glimmer_store.errors import ConfigError
from glimmer_store.export.bagit import write_bag, write_nodes
from glimmer_store.export.frictionless import PACKAGE_FILE, package
from glimmer_store.export.payload import Item, Limits, collect, deliver
from glimmer_store.export.ro_crate import CRATE_FILE, crate
from glimmer_store.export.stage import DATA, publish, staged
from glimmer_store.strict_json import parse_json

__all__ = ["Exported", "Format", "export"]


class Format(Enum):
    """What an export is."""

    RO_CRATE = "ro-crate"
    BAGIT = "bagit"
    FRICTIONLESS = "frictionless"


@dataclass(frozen=True, slots=True)
class Exported:
    """What was exported: the files that are there, and those that a holey bag says where to fetch."""

    target: Path
    items: tuple[Item, ...]
    absent: tuple[Item, ...]


async def export(
    dataset: Path,
    target: Path,
    form: Format,
    ids: Collection[str] = (),
    *,
    holey: bool = False,
    limits: Limits | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Exported:
    """Write the outputs of nodes and what describes them to *target*.

    Args:
        dataset: Where the graph is.
        target: A folder that does not exist, or is empty.
        form: What describes them.
        ids: Of the nodes; none for all.
        holey: Only for bags: leave out what the web has, and say where (only outputs with a URL, a size and a
            SHA-256 in their key).
        limits: What it may take.
        progress: Called with a path, bytes done and bytes in all.

    Raises:
        ConfigError: The target is taken, or holey is asked for what is no bag.
        GraphError, OverLimit: See ``collect`` and ``deliver``.
        AnnexError: No durable remote has a good copy of one. Nothing is left behind then.

    Interrupted, or cut off by what may pass, it leaves what it has beside *target*; the next export to there compares
    that with the keys, and copies the rest.
    """
    if holey and form is not Format.BAGIT:
        raise ConfigError("only bags can be holey", remedy="leave --holey out, or use --format bagit")
    with staged(target) as aside:
        async with Archive.open(_resolved(dataset)) as archive:
            items = await collect(archive, ids, aside)
            absent = [item for item in items if holey and item.urls and item.sha256 and item.size >= 0]
            wanted = [item for item in items if item not in absent]
            done = await deliver(archive, wanted, aside / DATA, limits or Limits(), progress)
            name, license_ = _described(archive.root)
        now = datetime.now(UTC)
        match form:
            case Format.BAGIT:
                write_bag(aside, done, absent, now.date())
            case Format.RO_CRATE:
                write_nodes(aside, done)
                _write_json(aside / CRATE_FILE, crate(done, name=name, license_=license_, now=now))
            case Format.FRICTIONLESS:
                write_nodes(aside, done)
                _write_json(aside / PACKAGE_FILE, package(done, name=name, license_=license_, now=now))
        publish(aside, target)
    return Exported(target, tuple(done), tuple(absent))


def _resolved(dataset: Path) -> Path:
    return Config.dataset_of(dataset.resolve())


def _described(root: Path) -> tuple[str, str]:
    """Name and licence of the dataset, from its BIDS description if there is one."""
    try:
        said = parse_json((root / "dataset_description.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return root.name, ""
    described = said if isinstance(said, dict) else {}
    name, license_ = (described.get(field) for field in ("Name", "License"))
    return (name if isinstance(name, str) and name else root.name), license_ if isinstance(license_, str) else ""


def _write_json(path: Path, value: object) -> None:
    path.write_bytes((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
