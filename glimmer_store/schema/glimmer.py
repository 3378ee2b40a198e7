"""What Glimmer's own schema asks of node files, read from ``glimmer.toml`` beside this module."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

__all__ = ["GLIMMER", "Glimmer", "NodeType"]


@dataclass(frozen=True, slots=True)
class NodeType:
    """One core node type: its required fields and the edges it may have, without those that all types share."""

    required: tuple[str, ...]
    edges: frozenset[str]


@dataclass(frozen=True, slots=True)
class Glimmer:
    """One version of Glimmer's schema, as far as its validator enforces it.

    Attributes:
        version, commit: Which schema, and of which state of its repository.
        default_domain: The domain profile of nodes and graphs that name none.
        common: Fields that every node must have.
        universal: Edges that every node may have.
        outside: Edges whose target need not be a node of the graph.
        types: The core node types.
        profiles: Curated domain profiles: domain → node type → further required fields.
    """

    version: str
    commit: str
    default_domain: str
    common: tuple[str, ...]
    universal: frozenset[str]
    outside: frozenset[str]
    types: Mapping[str, NodeType]
    profiles: Mapping[str, Mapping[str, tuple[str, ...]]]


def _load() -> Glimmer:
    raw = tomllib.loads(files("glimmer_store.schema").joinpath("glimmer.toml").read_text(encoding="utf-8"))
    return Glimmer(
        raw["version"],
        raw["commit"],
        raw["default-domain"],
        tuple(raw["common-required"]),
        frozenset(raw["universal-edges"]),
        frozenset(raw["out-of-graph-edges"]),
        {name: NodeType(tuple(entry["required"]), frozenset(entry["edges"])) for name, entry in raw["types"].items()},
        {
            domain: {name: tuple(entry["required"]) for name, entry in types.items()}
            for domain, types in raw["profiles"].items()
        },
    )


GLIMMER = _load()
"""The version that ours is checked against."""
