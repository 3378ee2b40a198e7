"""What kind of repository: versions, tuning, and the permissions of what annexpy adds to one.

Source: fact sheet repository-format, sections 2 and 3.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final

from annexpy.errors import AccessDenied, AnnexError, RepositoryError
from annexpy.repo.config import GitConfig
from annexpy.repo.files import Files
from annexpy.repo.settings import Lockdown

__all__ = [
    "NEWEST_VERSION",
    "STATE",
    "VERSIONS",
    "Tuning",
    "apply_mode",
    "is_branch_path",
    "make_folders",
    "repository_error",
]

VERSIONS: Final = range(8, 11)
"""Repository versions that git-annex 10.20261026 opens; annexpy too."""
NEWEST_VERSION: Final = 10
STATE: Final = b"annex/annexpy"
"""Where annexpy keeps what only annexpy reads."""
_NO_NAMES: Final = frozenset((b"", b".", b"..", b".git"))


@dataclass(frozen=True, slots=True)
class Tuning:
    """Choices made when the repository was initialised (``annex.tune.*``). They can never change.

    Attributes:
        object_hash_lower: Objects are only in lower-case hash directories, bare or not.
        object_levels: Levels of hash directories for objects, 2 unless ``objecthash1``.
        branch_levels: The same for per-key logs of the branch (``branchhash1``).
    """

    object_hash_lower: bool = False
    object_levels: int = 2
    branch_levels: int = 2

    @classmethod
    def of(cls, config: GitConfig) -> Tuning:
        """Read ``annex.tune.*``."""
        return cls(
            config.get_bool("annex.tune.objecthashlower"),
            1 if config.get_bool("annex.tune.objecthash1") else 2,
            1 if config.get_bool("annex.tune.branchhash1") else 2,
        )

    @property
    def differences(self) -> frozenset[str]:
        """As ``difference.log`` names them."""
        names = (
            ("ObjectHashLower", self.object_hash_lower),
            ("OneLevelObjectHash", self.object_levels == 1),
            ("OneLevelBranchHash", self.branch_levels == 1),
        )
        return frozenset(name for name, chosen in names if chosen)


def is_branch_path(path: bytes) -> bool:
    """*path* can stand in a git tree: git refuses trees with an empty name, ``.``, ``..`` or ``.git`` in them."""
    return b"\0" not in path and _NO_NAMES.isdisjoint(path.lower().split(b"/"))


def make_folders(files: Files, path: bytes, lockdown: Lockdown) -> list[bytes]:
    """As ``mkdir -p``, with the permissions of a shared repository; those that were made, outermost first."""
    made = files.make_folders(path)
    if lockdown.folder is not None:
        for folder in made:
            files.chmod(folder, lockdown.folder)
    return made


def apply_mode(files: Files, fd: int, lockdown: Lockdown) -> None:
    """Give a file that was just made the permissions of a shared repository."""
    if lockdown.file is not None:
        files.fchmod(fd, lockdown.file)


def repository_error(where: bytes, doing: str, error: OSError) -> AnnexError:
    """*error*, met while *doing* something in the repository *where*, as annexpy's own."""
    reason = error.strerror or str(error)
    path = error.filename
    if path:
        reason += f": {os.fsdecode(path) if isinstance(path, bytes | str) else path}"
    text = f"{os.fsdecode(where)}: cannot {doing}: {reason}"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(text)
    return RepositoryError(text)
