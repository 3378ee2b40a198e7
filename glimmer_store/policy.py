"""Storage classes, how many copies they need, and which outputs may be archived at all."""

from __future__ import annotations

import os
import tempfile
from enum import Enum
from pathlib import Path

from glimmer_store.errors import SourceRefused

__all__ = ["NUMCOPIES", "StorageClass", "check_name", "check_place", "check_source", "temporary_folders"]


class StorageClass(Enum):
    """What losing the content would mean."""

    IRREPLACEABLE = "irreplaceable"
    GENERATED = "generated"


NUMCOPIES = {StorageClass.IRREPLACEABLE: 3, StorageClass.GENERATED: 2}
"""Copies that each class needs, unless the dataset's configuration says otherwise."""


def temporary_folders() -> tuple[Path, ...]:
    """Folders that nobody promises to keep: the system's, the user's, and those of batch systems."""
    named = [tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm", "/run"]
    named += [
        os.environ[name]
        for name in ("TMPDIR", "TEMP", "TMP", "SLURM_TMPDIR", "XDG_RUNTIME_DIR")
        if os.environ.get(name)
    ]
    return tuple(dict.fromkeys(Path(name).resolve() for name in named))


def check_source(path: str | os.PathLike[str], dataset: Path) -> Path:
    """The place of a file relative to *dataset*, when it may be archived; links are followed first.

    Raises:
        SourceRefused: As ``check_place``, or not a regular file.
    """
    relative = check_place(path, dataset)
    if not (dataset.resolve() / relative).is_file():
        raise SourceRefused(f"{path}: is not a regular file", remedy="archive a file, or a folder with files")
    return relative


def check_place(path: str | os.PathLike[str], dataset: Path) -> Path:
    """The place of a file or folder relative to *dataset*, when it lies where outputs may be archived from.

    Links are followed first: what counts is where the bytes are. A dataset that itself lies in a
    temporary folder is the operator's choice (a demonstration, a test) and is not second-guessed.

    Raises:
        SourceRefused: In a temporary folder, outside the dataset, inside ``.git``, or nothing is there; or as
            ``check_name``.
    """
    given, root = Path(path), dataset.resolve()
    absolute = given.resolve() if given.is_absolute() else (Path.cwd() / given).resolve()
    if not absolute.is_relative_to(root):
        for folder in temporary_folders():
            if absolute.is_relative_to(folder) and not root.is_relative_to(folder):
                raise SourceRefused(
                    f"{given}: lies in {folder}, which does not outlive the job",
                    remedy=f"write the output below {root} and archive it there",
                )
        raise SourceRefused(
            f"{given}: lies outside the dataset {root}",
            remedy=f"move or write the output below {root} and archive it there",
        )
    for folder in temporary_folders():
        if absolute.is_relative_to(folder) and not root.is_relative_to(folder):
            raise SourceRefused(
                f"{given}: lies in {folder}, which does not outlive the job",
                remedy="write the output to a folder of the dataset that is kept",
            )
    relative = absolute.relative_to(root)
    if relative.parts[:1] == (".git",):
        raise SourceRefused(f"{given}: is git's own", remedy="archive files of the work tree")
    if not absolute.exists():
        raise SourceRefused(f"{given}: does not exist", remedy="run the step that writes it first")
    return check_name(relative)


def check_name(relative: Path) -> Path:
    """*relative* itself, when a node can name it: nodes are text.

    Raises:
        SourceRefused: It is not UTF-8.
    """
    try:
        str(relative).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(relative).decode("utf-8", "backslashreplace")
        remedy = "rename it; or archive the folder that it is in, whose list can say such names"
        raise SourceRefused(f"{shown}: its name is not UTF-8", remedy=remedy) from None
    return relative
