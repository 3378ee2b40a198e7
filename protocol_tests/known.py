"""Known differences: where an implementation fails a requirement, and is known to.

A file in TOML: ``name``, and for each requirement's id the reason. A requirement that fails and is not in it is as
bad as ever; one that is in it and passes has vanished, and the file is to be mended.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from protocol_tests.run import Result, Status

__all__ = ["SHIPPED", "Known", "Verdict", "judge", "load"]

SHIPPED: Final = Path(__file__).parent / "differences"
"""Files that come with the harness: ``git-annex.toml``."""


@dataclass(frozen=True, slots=True)
class Known:
    """The known differences of one implementation.

    Attributes:
        name: Of the implementation, with its version.
        differences: Requirement id → why it fails.
    """

    name: str
    differences: Mapping[str, str]


class Verdict(StrEnum):
    """What a result means beside the known differences."""

    AS_REQUIRED = "as required"
    KNOWN = "known difference"
    NEW = "new difference"
    VANISHED = "vanished difference"
    NOT_TRIED = "not tried"


def load(name: str) -> Known:
    """The file *name*, or the shipped one of that name.

    Raises:
        OSError, ValueError: It cannot be read, or is no such file.
    """
    shipped = SHIPPED / f"{name}.toml"
    read = tomllib.loads((shipped if shipped.is_file() else Path(name)).read_text())
    differences = read.get("differences", {})
    if not isinstance(differences, dict) or not all(isinstance(why, str) for why in differences.values()):
        raise ValueError(f"{name}: differences is not a table of ids and reasons")
    return Known(str(read.get("name", name)), differences)


def judge(result: Result, known: Known) -> Verdict:
    """What *result* means, of the implementation whose differences are *known*."""
    expected = result.requirement.id in known.differences
    match result.status:
        case Status.SKIP:
            return Verdict.NOT_TRIED
        case Status.FAIL:
            return Verdict.KNOWN if expected else Verdict.NEW
        case Status.PASS:
            return Verdict.VANISHED if expected else Verdict.AS_REQUIRED
