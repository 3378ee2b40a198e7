"""Regular expressions that are compiled when they are first used.

To compile one takes 0.1 to 0.5 ms, and there are some fifty of them, most of which a command never needs.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from re import compile as regex
    from typing import Any

__all__ = ["regex"]


if not TYPE_CHECKING:

    class regex:
        """What ``re.compile`` gives, with the same methods."""

        def __init__(self, text: str | bytes, flags: int = 0) -> None:
            self._source = text, flags

        def __getattr__(self, name: str) -> Any:
            found = getattr(re.compile(*self._source), name)
            setattr(self, name, found)  # from now on an attribute like any other
            return found
