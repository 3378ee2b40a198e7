"""Glimmer's own rules for a graph on disk, as its validator applies them: our reading, written anew.

What the validator refuses is an error here, what it warns of a warning; where it would break off with a
traceback (an id that is a number, a list of edges that is none) there is an error as well. On purpose we
refuse more than it does in what could hurt whoever reads: aliases, merge keys, nesting and numbers without end.

Source: hebbianloop/glimmer at ``GLIMMER.commit``, its validator and its schema (docs/schema.md).
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from glimmer_store.finding import Finding, Level
from glimmer_store.schema.glimmer import GLIMMER
from glimmer_store.sidecar import MAX_FRONT_MATTER, load_yaml
from glimmer_store.strict_json import parse_json

__all__ = ["INDEX_NAME", "Graph", "Node", "check_graph"]

INDEX_NAME = "_glimmer-index.json"
PROFILES = "_glimmer-profiles"
_ID = re.compile(r"[a-zA-Z0-9]+([-.][a-zA-Z0-9]+)*\n?\Z")
_CITES = "cites"
_Profiles = dict[str, Mapping[str, Collection[str]]]


@dataclass(frozen=True, slots=True)
class Node:
    """A node file that could be read."""

    file: Path
    fields: Mapping[str, Any]  # Any: values of YAML or JSON

    @property
    def id(self) -> str:
        return str(self.fields.get("id") or "")

    @property
    def type(self) -> str:
        return str(self.fields.get("type") or "")


@dataclass(slots=True)
class Graph:
    """A graph as it was read, and what was found on the way."""

    folder: Path
    nodes: list[Node] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    # -- what a rule reports --

    def add(
        self, rule: str, file: Path, message: str, remedy: str, *, node: str = "", name: str = "", warn: bool = False
    ) -> None:
        """Note one finding."""
        level = Level.WARNING if warn else Level.ERROR
        self.findings.append(Finding(level, rule, file, node, name, message, remedy))


def check_graph(folder: Path) -> Graph:
    """Read the graph in *folder* and hold it against Glimmer's rules."""
    graph = Graph(folder)
    index = _read_index(graph)
    if index is None:
        return graph
    ids = _index_ids(graph, index)
    profiles = dict(_profiles(graph))
    default = index.get("default-domain") or GLIMMER.default_domain
    if not isinstance(default, str):
        graph.add("index", folder / INDEX_NAME, "must be a name", "name a domain profile", name="default-domain")
        default = GLIMMER.default_domain
    elif default not in profiles:
        _no_profile(graph, folder / INDEX_NAME, "", "default-domain", default)
    for path in _node_files(folder):
        try:
            graph.nodes.append(Node(path, read_fields(path)))
        except ValueError as error:
            graph.add("unreadable", path, str(error), "a node file is YAML between '---' lines and a body, or JSON")
    seen: set[str] = set()
    for node in graph.nodes:
        _check_node(graph, node, seen, ids, profiles, default)
    for missing in sorted(ids - seen):
        graph.add(
            "index-only", folder / INDEX_NAME, "is in the index, but no node file has this id",
            "restore the node file, or take the entry out of the index", node=missing,
        )  # fmt: skip
    unlisted = seen - ids
    for node in graph.nodes:
        if node.id in unlisted:
            graph.add(
                "not-in-index", node.file, "is not in the index", f"add it to {INDEX_NAME}", node=node.id, name="id"
            )
    return graph


# -- reading --


def read_fields(path: Path) -> dict[str, Any]:  # Any: values of YAML or JSON
    """The fields of a node file, split as Glimmer's validator splits it.

    Raises:
        ValueError: It cannot be read; the message says why.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.startswith("---\n"):
        parts = text.split("---\n", 2)
        if len(parts) < 3:
            raise ValueError("the front matter does not end with a line '---'")
        if len(parts[1]) > MAX_FRONT_MATTER:
            raise ValueError(f"front matter of {len(parts[1])} characters, at most {MAX_FRONT_MATTER} are read")
        try:
            fields = load_yaml(parts[1]) or {}
        except (yaml.YAMLError, OverflowError, RecursionError) as error:
            raise ValueError(f"front matter does not parse: {error}") from error
    elif text.startswith("{"):
        try:
            fields = parse_json(text.encode())
        except RecursionError as error:
            raise ValueError(str(error)) from error
    else:
        raise ValueError("starts neither with a line '---' nor with '{'")
    if not isinstance(fields, dict):
        raise ValueError(f"its fields are a {type(fields).__name__}, not a mapping")  # noqa: TRY004 - of the file
    return fields


def _read_index(graph: Graph) -> dict[str, Any] | None:
    path = graph.folder / INDEX_NAME
    remedy = "write the index anew: an object with a list `nodes` of {id, type, path}"
    try:
        index = parse_json(path.read_bytes())
    except FileNotFoundError:
        graph.add("index", path, "is missing", "is this the folder of a graph? " + remedy)
        return None
    except (OSError, ValueError, RecursionError) as error:
        graph.add("index", path, f"cannot be read: {error}", remedy)
        return None
    if not isinstance(index, dict) or not isinstance(index.get("nodes"), list):
        graph.add("index", path, "is no list", remedy, name="nodes")
        return None
    return index


def _index_ids(graph: Graph, index: Mapping[str, Any]) -> set[str]:
    path, ids = graph.folder / INDEX_NAME, set()
    for number, entry in enumerate(index["nodes"], 1):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
            graph.add("index", path, f"entry {number} has no id", "give it the id of its node file", name="nodes")
        elif entry["id"] in ids:
            graph.add("index", path, "stands there twice", "keep one of the entries", node=entry["id"], name="nodes")
        else:
            ids.add(entry["id"])
    return ids


def _profiles(graph: Graph) -> Iterator[tuple[str, Mapping[str, Collection[str]]]]:
    """Domain → node type → further required fields: the curated profiles, then the graph's own."""
    yield from GLIMMER.profiles.items()
    folder, known = graph.folder / PROFILES, set(GLIMMER.profiles)
    for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else ():
        if path.name.startswith("_"):
            continue
        try:
            profile = load_yaml(path.read_bytes().decode("utf-8")) or {}
        except (OSError, yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
            graph.add("profile", path, f"cannot be read: {error}; it is not used", "mend the file", warn=True)
            continue
        remedy = "a profile names its `profile` and what it `augments`"
        if not isinstance(profile, dict) or not isinstance(profile.get("profile") or "", str):
            graph.add("profile", path, "is no profile", remedy)
            continue
        name, augments = profile.get("profile"), profile.get("augments") or {}
        if not name or "augments" not in profile:
            graph.add("profile", path, "has no `profile` or no `augments`; it is not used", remedy, warn=True)
            continue
        if name in known:
            graph.add("profile", path, f"hides the curated profile {name}", "give it another name", warn=True)
        known.add(name)
        try:
            yield name, {type_: dict((fields or {}).get("required") or {}) for type_, fields in augments.items()}
        except (AttributeError, TypeError, ValueError):
            graph.add("profile", path, "is no mapping of node types to fields", remedy, name="augments")


def _node_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith((".md", ".json")) and name != INDEX_NAME:
                yield Path(place, name)


# -- one node --


def _check_node(graph: Graph, node: Node, seen: set[str], ids: set[str], profiles: _Profiles, default: str) -> None:
    """Identity, type, required fields; then edges and what goes with its type."""
    fields, file = node.fields, node.file
    named = fields.get("id")
    if not named:
        graph.add("id", file, "missing", "give the node an id and add it to the index", name="id")
        return
    if not isinstance(named, str):
        graph.add("id", file, "must be text", "put it in quotes", node=str(named), name="id")
        return
    if not _ID.match(named):
        remedy = "letters and digits, joined by single '-' or '.'"
        graph.add("id", file, "is not kebab-case", remedy, node=named, name="id")
    if named in seen:
        graph.add("id", file, "another node file has the same id", "give one of them another", node=named, name="id")
    seen.add(named)
    _check_type(graph, node, profiles, default)
    kinds = _check_edges(graph, node, ids)
    if node.type in ("finding", "derivative") and fields.get("produced-by-agent") and not fields.get("reasoning-trace"):
        message = "missing, though produced-by-agent is set"
        graph.add("agent", file, message, "say how the agent came to it", node=named, name="reasoning-trace")
    if node.type == "finding" and "based-on" in fields and not fields["based-on"]:
        remedy = "name the derivatives or datasets that support it"
        graph.add("evidence", file, "is empty", remedy, node=named, name="based-on")
    if node.type == "dataset" and "produced-by" not in kinds:
        remedy = "add an edge to the method of acquisition"
        graph.add("hint", file, "no edge produced-by", remedy, node=named, name="edges", warn=True)
    if node.type == "publication" and not any(kind.startswith(_CITES) for kind in kinds):
        graph.add("hint", file, "no edge cites-…", "say what it cites", node=named, name="edges", warn=True)


def _check_type(graph: Graph, node: Node, profiles: _Profiles, default: str) -> None:
    kind = node.fields.get("type")
    if not isinstance(kind, str) or kind not in GLIMMER.types:
        message = f"unknown type {kind!r}" if kind else "missing"
        remedy = "one of " + ", ".join(GLIMMER.types)
        graph.add("type", node.file, message, remedy, node=node.id, name="type")
        return
    required = [*GLIMMER.common, *GLIMMER.types[kind].required]
    domain = node.fields.get("domain") or default
    if not isinstance(domain, str):
        graph.add("domain", node.file, "must be a name", "name a domain profile", node=node.id, name="domain")
    elif domain in profiles:
        required += profiles[domain].get(kind, ())
    elif node.fields.get("domain"):
        _no_profile(graph, node.file, node.id, "domain", domain)
    for name in dict.fromkeys(required):
        if name not in node.fields:
            graph.add("required", node.file, f"missing, a {kind} needs it", f"add {name}", node=node.id, name=name)


def _check_edges(graph: Graph, node: Node, ids: set[str]) -> set[str]:
    """The kinds of edges that the node has."""
    edges, kinds = node.fields.get("edges") or [], set()

    def wrong(message: str, remedy: str) -> None:
        graph.add("edge", node.file, message, remedy, node=node.id, name="edges")

    if not isinstance(edges, list):
        wrong("must be a list", "write a list of {type, target}")
        return set()
    type_ = GLIMMER.types.get(node.type)
    for edge in edges:
        if not isinstance(edge, dict):
            wrong(f"{edge!r} is no edge", "write {type, target}")
            continue
        kind, target = edge.get("type"), edge.get("target")
        if isinstance(kind, str) and kind:
            kinds.add(kind)
            if type_ is not None and kind not in type_.edges | GLIMMER.universal:
                allowed = ", ".join(sorted(type_.edges | GLIMMER.universal))
                wrong(f"{kind} is no edge of a {node.type}", f"allowed are {allowed}")
        else:
            wrong(f"an edge to {target} has no type", "give it one")
        outside = isinstance(kind, str) and kind in GLIMMER.outside
        if not target:
            wrong(f"an edge {kind} has no target", "give it one")
        elif type_ is not None and not outside and not (isinstance(target, str) and target in ids):
            wrong(f"{kind} leads to {target}, which is not in the index", "create that node, or take the edge out")
    return kinds


def _no_profile(graph: Graph, file: Path, node: str, name: str, domain: str) -> None:
    message = f"no profile {domain!r}; fields of the domain go unchecked"
    remedy = f"write {PROFILES}/{domain}.yaml, or name one that exists"
    graph.add("domain", file, message, remedy, node=node, name=name, warn=True)
