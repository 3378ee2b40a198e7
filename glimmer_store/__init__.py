"""Durability as part of the research object: creating a Glimmer node stores its output and proves every copy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glimmer_store.archive import Archive, Archived
    from glimmer_store.config import Config, Durable
    from glimmer_store.errors import (
        ConfigError,
        GraphError,
        HashMismatch,
        Shortfall,
        SidecarError,
        SourceRefused,
        StoreError,
    )
    from glimmer_store.graph import GlimmerGraph, GlimmerNode
    from glimmer_store.policy import StorageClass
    from glimmer_store.record import Location, StorageRecord
    from glimmer_store.sidecar import Sidecar

__all__ = [
    "Archive",
    "Archived",
    "Config",
    "ConfigError",
    "Durable",
    "GlimmerGraph",
    "GlimmerNode",
    "GraphError",
    "HashMismatch",
    "Location",
    "Shortfall",
    "Sidecar",
    "SidecarError",
    "SourceRefused",
    "StorageClass",
    "StorageRecord",
    "StoreError",
]

_HOME = {
    "archive": ("Archive", "Archived"),
    "config": ("Config", "Durable"),
    "errors": ("ConfigError", "GraphError", "HashMismatch", "Shortfall", "SidecarError", "SourceRefused", "StoreError"),
    "graph": ("GlimmerGraph", "GlimmerNode"),
    "policy": ("StorageClass",),
    "record": ("Location", "StorageRecord"),
    "sidecar": ("Sidecar",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOME.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f"glimmer_store.{module}"), name)
    raise AttributeError(f"module 'glimmer_store' has no attribute {name!r}")
