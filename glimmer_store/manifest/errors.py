"""What goes wrong with manifests, on top of the store's own errors."""

from __future__ import annotations

from glimmer_store.errors import StoreError

__all__ = ["ManifestError"]


class ManifestError(StoreError):
    """A manifest cannot be read or changed, or what is asked of it is not there, or not one thing."""
