"""How a dataset is set up: one committed TOML file, ``glimmer-store.toml``, in its top folder."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from annexpy import UUID, AnnexError, parse_uuid
from glimmer_store.errors import ConfigError, shell_line
from glimmer_store.policy import NUMCOPIES, StorageClass

__all__ = ["CONFIG_NAME", "FORGE", "Adjunct", "Config", "Durable"]

CONFIG_NAME = "glimmer-store.toml"
FORGE = "forge"
"""The git remote, if there is one, that gets the history and pointers, and no contents."""
_HASHES = ("SHA2", "SHA3", "SHA5", "BLAKE")
"""How the names of backends begin whose keys prove a content: collisions cannot be made."""
_KINDS = {"directory": "directory", "s3": "bucket"}
"""Kind of an adjunct → the setting that it cannot do without."""


@dataclass(frozen=True, slots=True)
class Durable:
    """A durable repository: bare, git and annex, tracking the full history.

    Attributes:
        name: Short name, also that of the git remote.
        uuid: UUID of the repository; a repository that answers with another one is not used.
        url: What ``annexpy`` connects to: a path, ``ssh://…``, ``unix:…`` or ``exec:…``.
    """

    name: str
    uuid: UUID
    url: str


@dataclass(frozen=True, slots=True)
class Adjunct:
    """A store of contents without history: a git-annex special remote.

    Attributes:
        name: Short name, also that of the git remote where there is one.
        uuid: UUID of the special remote.
        kind: ``directory`` or ``s3``.
        settings: ``directory``: its path; for S3 what ``git annex initremote`` takes (host, bucket, fileprefix …).
        counts: It counts as a durable copy.
    """

    name: str
    uuid: UUID
    kind: str
    settings: Mapping[str, str]
    counts: bool = False

    def __hash__(self) -> int:
        return hash((self.name, self.uuid))

    @classmethod
    def of(cls, entry: Mapping[str, object]) -> Adjunct:
        """An entry of the file.

        Raises:
            KeyError, TypeError, ValueError: A field is missing or malformed; the message names it.
        """
        kind, settings, counts = str(entry["kind"]), entry.get("settings", {}), entry.get("counts", False)
        if kind not in _KINDS:
            raise ValueError(f"adjunct: kind {kind!r}: {' or '.join(_KINDS)}")
        if not isinstance(settings, dict) or not all(isinstance(value, str | int) for value in settings.values()):
            raise TypeError("adjunct: settings: a table of words")
        if not isinstance(counts, bool):
            raise TypeError("adjunct: counts: true or false")
        if _KINDS[kind] not in settings:
            raise KeyError(f"adjunct: settings: {_KINDS[kind]}")
        words = {str(name): str(value) for name, value in settings.items()}
        return cls(str(entry["name"]), parse_uuid(str(entry["uuid"])), kind, words, counts)

    def lines(self) -> list[str]:
        """As it is written."""
        fixed = [f"{name} = {json.dumps(str(getattr(self, name)))}" for name in ("name", "uuid", "kind")]
        table = [f"{json.dumps(name)} = {json.dumps(value)}" for name, value in self.settings.items()]
        return ["[[adjunct]]", *fixed, *["counts = true"] * self.counts, "[adjunct.settings]", *table]

    @property
    def place(self) -> Durable:
        """As something that is stored to and proven like a durable repository."""
        return Durable(self.name, self.uuid, f"{self.kind}:{self.settings[_KINDS[self.kind]]}")


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one dataset.

    Attributes:
        durable: Where outputs are stored, in order.
        numcopies: Copies per storage class.
        graph: Folder of the node files, relative to the dataset.
        backend: Key-value backend for new keys.
        adjuncts: Stores without history, which hold further copies.
    """

    durable: tuple[Durable, ...] = ()
    numcopies: Mapping[StorageClass, int] = field(default_factory=lambda: dict(NUMCOPIES))
    graph: str = "rokb"
    backend: str = "SHA256E"
    adjuncts: tuple[Adjunct, ...] = ()

    @staticmethod
    def dataset_of(path: Path) -> Path:
        """The dataset that *path* lies in: up to the top of its git repository, as git looks for one; else *path*."""
        for folder in (path, *path.parents):
            if (folder / CONFIG_NAME).exists():
                return folder
            if (folder / ".git").exists():
                break
        return path

    @classmethod
    def load(cls, dataset: Path) -> Config:
        """Read the dataset's file.

        Raises:
            ConfigError: There is none, or a field is malformed (the message names it).
        """
        path = dataset / CONFIG_NAME
        try:
            return cls.parse(path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            raise ConfigError(
                f"{dataset}: not set up for glimmer-store ({CONFIG_NAME} is missing)",
                remedy=shell_line("glimmer-store", "init", dataset.resolve()),
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}", remedy="mend the file; it is plain TOML") from error

    @classmethod
    def parse(cls, text: str, path: str) -> Config:
        """The settings in *text*, which stands in *path*.

        Raises:
            ConfigError: As ``load``.
        """
        try:
            raw = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # tomllib raises more than TOMLDecodeError
            raise ConfigError(f"{path}: {error}", remedy="mend the file; it is plain TOML") from error
        try:
            durable = tuple(
                Durable(str(entry["name"]), parse_uuid(str(entry["uuid"])), str(entry["url"]))
                for entry in raw.get("durable", [])
            )
            adjuncts = tuple(Adjunct.of(entry) for entry in raw.get("adjunct", []))
            classes = raw.get("classes", {})
            numcopies = {c: int(classes.get(c.value, {}).get("numcopies", NUMCOPIES[c])) for c in StorageClass}
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, AnnexError) as error:
            raise ConfigError(f"{path}: {type(error).__name__}: {error}", remedy="mend the field named") from error
        if min(numcopies.values()) < 1:
            raise ConfigError(f"{path}: classes: numcopies must be at least 1", remedy="mend the field named")
        backend = str(raw.get("backend", "SHA256E"))
        if not backend.startswith(_HASHES):
            raise ConfigError(
                f"{path}: backend {backend!r}: its keys hold no hash that proves a copy",
                remedy="use SHA256E, or another of the SHA2, SHA3 or BLAKE families",
            )
        places = [*durable, *(adjunct.place for adjunct in adjuncts)]
        names = [place.name for place in places]
        if len(set(names)) < len(names) or len({place.uuid for place in places}) < len(names):
            raise ConfigError(
                f"{path}: durable, adjunct: two entries share a name or a uuid", remedy="give each its own"
            )
        return cls(durable, numcopies, str(raw.get("graph", "rokb")), backend, adjuncts)

    def save(self, dataset: Path) -> None:
        """Write the file whole, atomically."""
        lines = [
            "# glimmer-store: where the outputs of this dataset are kept",
            f"graph = {json.dumps(self.graph)}",
            f"backend = {json.dumps(self.backend)}",
        ]
        for storage_class, copies in self.numcopies.items():
            lines += ["", f"[classes.{storage_class.value}]", f"numcopies = {copies}"]
        for place in self.durable:
            lines += ["", "[[durable]]"]
            lines += [f"{name} = {json.dumps(str(getattr(place, name)))}" for name in ("name", "uuid", "url")]
        for adjunct in self.adjuncts:
            lines += ["", *adjunct.lines()]
        path = dataset / CONFIG_NAME
        aside = path.with_name(f".{CONFIG_NAME}.{os.getpid()}")
        aside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        aside.replace(path)
