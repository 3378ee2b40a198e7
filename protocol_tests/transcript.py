"""What was said, as JSON lines: the form that ``annexpy replay`` plays."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeAlias

__all__ = ["Row", "Transcript", "read", "write"]

Row: TypeAlias = dict[str, Any]
"""One JSON object: ``t`` seconds, ``dir``, ``conn`` when there are several, and ``text``, ``b64`` or ``len``."""

_WHOLE: Final = 8 * 1024


class Transcript:
    """The conversations of one check. Long bodies are kept as length and digest, tokens not at all."""

    def __init__(self, remark: str = "") -> None:
        """Begin with *remark*."""
        self._start = time.monotonic()
        self.rows: list[Row] = []
        if remark:
            self.rows.append({"t": 0.0, "dir": "comment", "comment": remark})

    def said(self, conn: str, by_client: bool, data: bytes) -> None:
        """*data* went over the wire."""
        if data.startswith(b"AUTH ") and data.endswith(b"\n"):
            data = data[: data.rfind(b" ")] + b" (token)\n"
        row = self._row(conn, "C>S" if by_client else "S>C")
        if len(data) > _WHOLE:
            row |= {"len": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            row["head_b64"] = base64.b64encode(data[:64]).decode()
        else:
            try:
                row["text"] = data.decode()
            except UnicodeDecodeError:
                row["b64"] = base64.b64encode(data).decode()
        self.rows.append(row)

    def note(self, conn: str, kind: str, text: str) -> None:
        """A remark: ``exec``, ``EOF``, ``exit``, ``comment``."""
        row = self._row(conn, kind)
        row["comment"] = text
        self.rows.append(row)

    def _row(self, conn: str, direction: str) -> Row:
        return {"t": round(time.monotonic() - self._start, 3), "dir": direction} | ({"conn": conn} if conn else {})


def read(path: Path) -> list[Row]:
    """The rows of a file.

    Raises:
        OSError, ValueError: It cannot be read.
    """
    return [json.loads(line) for line in path.read_text().split("\n") if line.strip()]


def write(path: Path, rows: Iterable[Row]) -> None:
    """One row a line.

    Raises:
        OSError: It cannot be written.
    """
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
