"""What was measured at places on this machine, and when: files of the project that are not committed.

A measurement is kept with a fingerprint of the place (names, sizes, times of change): as long as that is the same, and
the policy allows, the place need not be read again. Bits that rot behind the back of the file system are found when
the observation is stale, or at once when a policy without patience is asked for.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from glimmer_store.entry import write_whole
from glimmer_store.manifest.digest import MARKS, Measured, measure
from glimmer_store.manifest.standing import Observed

__all__ = ["Observations"]


@dataclass(frozen=True, slots=True)
class _Kept:
    observed: Observed
    fingerprint: str


class Observations:
    """Of one project.

    Args:
        root: The folder of its manifest.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / ".datamanifest" / "observed"

    def note(self, path: Path, digest: str) -> Observed:
        """*digest* was just measured at *path*; empty when nothing is there."""
        observed = Observed(digest, datetime.now(UTC))
        self._folder.mkdir(parents=True, exist_ok=True)
        ignore = self._folder.parent / ".gitignore"
        if not ignore.exists():
            write_whole(ignore, b"*\n")
        said = {"path": str(path), "digest": digest, "when": observed.when.isoformat(), "seen": _fingerprint(path)}
        write_whole(self._file(path), json.dumps(said).encode())
        return observed

    async def measure(self, path: Path, backend: str = "SHA256E") -> Measured:
        """Measure *path*, and note it."""
        measured = await measure(path, self._root, backend)
        self.note(path, measured.digest)
        return measured

    def of(self, path: Path) -> Observed | None:
        """The newest measurement; None when there is none, or *path* has been changed since."""
        kept = self._kept(path)
        return kept.observed if kept is not None and kept.fingerprint == _fingerprint(path) else None

    def last(self, path: Path) -> Observed | None:
        """The newest measurement, whatever happened to *path* since."""
        kept = self._kept(path)
        return None if kept is None else kept.observed

    def _kept(self, path: Path) -> _Kept | None:
        try:
            said = json.loads(self._file(path).read_bytes())
            return _Kept(Observed(said["digest"], datetime.fromisoformat(said["when"])), said["seen"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _file(self, path: Path) -> Path:
        return self._folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _fingerprint(path: Path) -> str:
    if not path.exists():
        return ""
    lines = sorted(_stats(path) if path.is_dir() else [_stat(path, "")])
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _stats(folder: Path) -> Iterator[str]:
    marks = {os.fsdecode(mark) for mark in MARKS}
    for where, folders, names in os.walk(folder):
        top = where == str(folder)
        for name in [*names, *folders]:
            if not (top and name in marks):
                whole = Path(where, name)
                yield _stat(whole, str(whole.relative_to(folder)))


def _stat(path: Path, name: str) -> str:
    status = path.stat() if path.exists() else path.lstat()
    if path.is_dir():
        return f"{name}/"  # its time changes with marks that come and go
    return f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\0{status.st_mode & 0o100}"
