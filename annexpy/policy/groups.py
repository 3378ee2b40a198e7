"""The standard groups, and what a repository in one of them wants by ``standard``.

Source: what ``git annex vicfg`` of git-annex 10.20261026 shows under "Standard preferred contents";
git-annex-preferred-content(1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["STANDARD_GROUPS"]

_CLIENT: Final = (
    "(include=* and ((exclude=*/archive/* and exclude=archive/*) or (not (copies=archive:1 or copies=smallarchive:1))))"
    " or approxlackingcopies=1"
)

STANDARD_GROUPS: Final[Mapping[str, str]] = {
    "client": _CLIENT,
    "transfer": f"(not (inallgroup=client and copies=client:2) and ({_CLIENT})) or approxlackingcopies=1",
    "backup": "anything",
    "incrementalbackup": "((not copies=backup:1) and (not copies=incrementalbackup:1)) or approxlackingcopies=1",
    "smallarchive": (
        "((include=*/archive/* or include=archive/*)"
        " and ((not (copies=archive:1 or copies=smallarchive:1)) or approxlackingcopies=1)) or approxlackingcopies=1"
    ),
    "archive": "(not (copies=archive:1 or copies=smallarchive:1)) or approxlackingcopies=1",
    "source": "not (copies=1)",
    "manual": f"present and ({_CLIENT})",
    "public": "inpreferreddir",
    "unwanted": "not anything",
}
"""Group → expression."""
