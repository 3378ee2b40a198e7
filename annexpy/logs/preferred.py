"""Preferred content as it is recorded: the text of an expression for each repository or group.

What an expression means is for ``policy``. An empty expression is none.

Source: fact sheet repository-format, sections 3 and 6; vectors map_logs.json.
"""

from __future__ import annotations

from typing import Final

from annexpy.logs.uuidbased import MapLog, UUIDBasedLog, raw, text

__all__ = ["GROUP_PREFERRED_CONTENT", "PREFERRED_CONTENT", "REQUIRED_CONTENT"]

PREFERRED_CONTENT: Final = UUIDBasedLog[str](text, raw)
"""preferred-content.log: what each repository wants to have."""

REQUIRED_CONTENT: Final = UUIDBasedLog[str](text, raw)
"""required-content.log: what each repository must keep."""

GROUP_PREFERRED_CONTENT: Final = MapLog[str, str](text, raw, text, raw)
"""group-preferred-content.log: what ``groupwanted`` means, by group."""
