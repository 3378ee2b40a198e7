"""Paths that others wrote: whether they stay in the folder that they are meant for."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

__all__ = ["out_of_scope"]

_DRIVE: Final = re.compile(r"[A-Za-z]:")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def out_of_scope(path: str) -> str:
    """Why *path* may not be used below a folder; empty when it may.

    Refused are absolute paths, ``..``, a leading ``~``, drive letters and control characters, as they stand and
    as they would read once percent-encoding is undone (twice), or backslashes are taken for slashes or for nothing.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return "is no UTF-8"
    readings = [path, unquote(path), unquote(unquote(path))]
    readings += [form for text in tuple(readings) for form in (text.replace("\\", "/"), text.replace("\\", ""))]
    for reading in dict.fromkeys(readings):
        if not reading or reading.strip("/.") == "":
            return "names no file"
        if _CONTROL.search(reading):
            return "holds control characters"
        if reading.startswith("/"):
            return "is absolute"
        if _DRIVE.match(reading):
            return "names a drive"
        if reading.startswith("~"):
            return "begins in somebody's home"
        if ".." in reading.split("/"):
            return "leads out of its folder (..)"
    return ""
