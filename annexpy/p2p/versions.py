"""The versions of the P2P protocol, over lines and over HTTP alike.

Source: fact sheet p2p-protocol, section 1.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MAX_VERSION"]

MAX_VERSION: Final = 4
"""The newest that we speak; the oldest is 0."""
