"""One thing that a check found, in the form that every check of a graph reports it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

__all__ = ["Finding", "Level"]


class Level(Enum):
    """How grave a finding is."""

    ERROR = "error"
    UNDER_REPLICATED = "under-replicated"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, where, and what to do about it.

    Attributes:
        level: How grave.
        rule: Name of the rule; those that begin with ``storage-`` are ours, the others Glimmer's.
        file: The file, as it was found.
        node: Id of the node; empty when it is not about one node.
        field: The field; empty when it is not about one.
        message: What is wrong, as a phrase.
        remedy: What to do.
    """

    level: Level
    rule: str
    file: Path
    node: str
    field: str
    message: str
    remedy: str

    def __str__(self) -> str:
        where = ": ".join(part for part in (str(self.file), self.node, self.field) if part)
        return f"{where}: {self.message}"

    def to_json(self) -> dict[str, str]:
        return {
            "level": self.level.value,
            "rule": self.rule,
            "file": str(self.file),
            "node": self.node,
            "field": self.field,
            "message": self.message,
            "remedy": self.remedy,
        }
