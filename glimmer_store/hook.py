"""The pre-push hook: a plain shell script that asks ``glimmer-store gate push``.

The same script is committed in the dataset, so that everybody can read it and every clone can install it, and
installed where git looks for hooks. A hook that is there already is kept beside it and asked first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from glimmer_store.errors import ConfigError
from glimmer_store.gates import git

__all__ = ["COMMITTED", "Installed", "install", "installed", "uninstall"]

COMMITTED = Path(".glimmer-store/hooks/pre-push")
"""Where the dataset has it."""
_KEPT = "pre-push.before-glimmer-store"
_MARK = "# glimmer-store pre-push hook, version 1"
_SCRIPT = f"""#!/bin/sh
{_MARK}
# Stops a push while an irreplaceable output has too few copies. Installed by: glimmer-store hook install
refs=$(cat)
kept=$(dirname "$0")/{_KEPT}
if [ -x "$kept" ]; then
    printf '%s\\n' "$refs" | "$kept" "$@" || exit $?
fi
if ! command -v glimmer-store >/dev/null 2>&1; then
    echo "pre-push: glimmer-store is not in PATH, so nobody can check the copies; nothing is pushed" >&2
    echo "  remedy: install glimmer-store, or put its folder into PATH, and push again" >&2
    exit 1
fi
printf '%s\\n' "$refs" | glimmer-store gate push "$@"
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """How the hook stands.

    Attributes:
        path: Where git looks for it.
        active: It is there, and is ours as it is to be.
        committed: The dataset has the same script.
        kept: The hook that was there before, when there is one.
    """

    path: Path
    active: bool
    committed: bool
    kept: Path | None


def installed(root: Path) -> Installed:
    """Look."""
    path = _path(root)
    kept = path.with_name(_KEPT)
    return Installed(
        path,
        _read(path) == _SCRIPT and os.access(path, os.X_OK),
        _read(root / COMMITTED) == _SCRIPT,
        kept if kept.exists() else None,
    )


def install(root: Path) -> Installed:
    """Install it in the dataset *root*, and write the script that is to be committed. A second time changes nothing.

    Raises:
        ConfigError: *root* is in no git repository, or another hook would be lost.
    """
    path = _path(root)
    there = _read(path)
    if there is not None and _MARK not in there:
        kept = path.with_name(_KEPT)
        if kept.exists():
            raise ConfigError(
                f"{path}: another hook, and {kept} as well", remedy="make one script of the two, then try again"
            )
        path.rename(kept)
    for file, mode in ((path, 0o755), (root / COMMITTED, 0o644)):
        if _read(file) != _SCRIPT or (mode & 0o100 and not os.access(file, os.X_OK)):
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = file.with_name(f".{file.name}.{os.getpid()}.tmp")
            aside.write_text(_SCRIPT, encoding="utf-8")
            aside.chmod(mode)
            aside.replace(file)
    return installed(root)


def uninstall(root: Path) -> None:
    """Take it out of git's way, and put back the one that was there before. The committed script stays."""
    path = _path(root)
    if _MARK in (_read(path) or ""):
        path.unlink()
        kept = path.with_name(_KEPT)
        if kept.exists():
            kept.rename(path)


def _path(root: Path) -> Path:
    """Where git looks for the hook, also with ``core.hooksPath`` and in linked work trees."""
    said = os.fsdecode(git(root, "rev-parse", "--git-path", "hooks/pre-push").rstrip(b"\n"))
    return (root / said).absolute()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None
