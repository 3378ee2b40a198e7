"""Validate a graph: Glimmer's own rules, and what its storage fields must be and promise.

Everything is read from the files alone: nothing is asked of a remote, so this is for continuous integration
and hooks. What is really there is the business of ``status`` and ``migrate``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annexpy import InvalidKey, Key
from glimmer_store.bids import JsonSidecar, bids_files
from glimmer_store.config import CONFIG_NAME, Config
from glimmer_store.errors import ConfigError, SidecarError, shell_line
from glimmer_store.finding import Finding, Level
from glimmer_store.record import FIELDS, StorageRecord
from glimmer_store.rules import INDEX_NAME, Node, check_graph
from glimmer_store.schema.fields import NODE_TYPES, problems

__all__ = ["Validation", "sha256_of", "validate"]


@dataclass(frozen=True, slots=True)
class Validation:
    """What was found.

    Attributes:
        graph: The folder of the graph.
        nodes: How many nodes were read.
        findings: In the order of the files; empty when all is well.
    """

    graph: Path
    nodes: int
    findings: tuple[Finding, ...]

    def count(self, level: Level) -> int:
        """How many findings are of that level."""
        return Counter(finding.level for finding in self.findings)[level]

    def to_json(self) -> dict[str, object]:
        counts = {f"{level.value}s" if level is not Level.UNDER_REPLICATED else level.value: self.count(level)
                  for level in Level}  # fmt: skip
        findings = [finding.to_json() for finding in self.findings]
        return {"graph": str(self.graph), "nodes": self.nodes, **counts, "findings": findings}


def validate(path: Path) -> Validation:
    """Hold a graph against all rules.

    Args:
        path: The folder of a graph, or a dataset. The settings of the dataset (classes, durable remotes) are
            held against the storage fields when they are there; a graph without them is fine.

    Raises:
        ConfigError: There is no graph, or the settings are malformed.
    """
    folder, dataset, config = _locate(path)
    graph = check_graph(folder)
    findings, nodes = list(graph.findings), list(graph.nodes)
    for file in bids_files(dataset, folder) if dataset is not None else ():
        try:
            nodes.append(Node(file, JsonSidecar.read(file).fields))
        except SidecarError as error:
            remedy = "mend the file"
            findings.append(Finding(Level.ERROR, "storage-unreadable", file, "", "", str(error), remedy))
    for node in nodes:
        if node.type in NODE_TYPES:
            findings += _Storage(node, config, (dataset or path).resolve()).findings()
    return Validation(folder, len(nodes), tuple(findings))


def _locate(path: Path) -> tuple[Path, Path | None, Config | None]:
    """(folder of the graph, dataset, its settings)."""
    for dataset in (path, path.parent) if (path / INDEX_NAME).is_file() else (path,):
        if (dataset / CONFIG_NAME).is_file():
            config = Config.load(dataset)
            folder = path if dataset is not path else dataset / config.graph
            return folder, dataset, config
    if (path / INDEX_NAME).is_file():
        return path, None, None
    if (path / Config().graph / INDEX_NAME).is_file():
        return path / Config().graph, path, None
    raise ConfigError(
        f"{path}: neither a graph ({INDEX_NAME}) nor a dataset with one",
        remedy=shell_line("glimmer-store", "init", path.resolve()),
    )


class _Storage:
    """The storage rules for one node."""

    def __init__(self, node: Node, config: Config | None, root: Path) -> None:
        self._node, self._config = node, config
        self._root = root
        self._found: list[Finding] = []

    def findings(self) -> list[Finding]:
        fields = self._node.fields
        self._check_key(fields)
        if not any(name in fields for name in FIELDS):
            self._add(Level.WARNING, "missing", "stored-at", "no storage fields", self._migrate())
            return self._found
        wrong = list(problems(fields))
        for problem in wrong:
            remedy = self._migrate("--refresh")
            self._add(Level.ERROR, "field", problem.field, problem.message, remedy)
        record = None if wrong else StorageRecord.from_fields(fields)
        if record is not None:
            self._check_record(record)
        return self._found

    def _add(self, level: Level, rule: str, name: str, message: str, remedy: str) -> None:
        self._found.append(Finding(level, f"storage-{rule}", self._node.file, self._node.id, name, message, remedy))

    def _migrate(self, *options: str) -> str:
        return shell_line("glimmer-store", "migrate", *options, "--yes", "-C", self._root)

    def _check_key(self, fields: Mapping[str, Any]) -> None:
        named, recorded = fields.get("datalad-annex-key"), fields.get("output-hash")
        if not named:
            return
        try:
            key = Key.parse(str(named))
        except InvalidKey as error:
            self._add(Level.ERROR, "key", "datalad-annex-key", str(error), "take it from: git annex lookupkey FILE")
            return
        digest = sha256_of(key)
        if recorded and digest and recorded != f"sha256:{digest}":
            message = f"says {recorded}, the key is of sha256:{digest}"
            self._add(Level.ERROR, "hash", "output-hash", message, "find out which of the two is the output")

    def _check_record(self, record: StorageRecord) -> None:
        needed = record.numcopies_required
        if self._config is not None:
            wanted = self._config.numcopies[record.storage_class]
            if wanted != needed:
                message = f"says {needed}, {record.storage_class.value} outputs of this dataset need {wanted}"
                remedy = self._migrate("--refresh")
                self._add(Level.WARNING, "policy", "numcopies-required", message, remedy)
            needed = max(needed, wanted)
            self._check_places(record, self._config)
        if record.copies < needed:
            message = f"{record.copies} recorded, {needed} needed ({record.storage_class.value})"
            remedy = shell_line("glimmer-store", "emit", "-C", self._root, self._node.file.resolve())
            self._add(Level.UNDER_REPLICATED, "copies", "copies", message, remedy)
        if not record.verified:
            remedy = self._migrate("--refresh", "--verify")
            self._add(Level.WARNING, "unverified", "verified", "the copies were not read and compared", remedy)

    def _check_places(self, record: StorageRecord, config: Config) -> None:
        names = {place.uuid: place.name for place in config.durable}
        for place in record.stored_at:
            if place.uuid not in names:
                message = f"{place.remote} ({place.uuid}) is counted, but is no durable remote of this dataset"
                remedy = self._migrate("--refresh")
                self._add(Level.ERROR, "place", "stored-at", message, remedy)
            elif names[place.uuid] != place.remote:
                message = f"{place.remote} is called {names[place.uuid]} in this dataset"
                remedy = self._migrate("--refresh")
                self._add(Level.WARNING, "place", "stored-at", message, remedy)


def sha256_of(key: Key) -> str:
    """The SHA-256 that *key* is named after; empty for keys of other hashes."""
    return key.name.split(b".")[0].decode() if key.backend in (b"SHA256", b"SHA256E") else ""
