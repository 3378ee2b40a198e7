"""What the git configuration says about the content of a repository, and the permissions that follow from it.

Source: fact sheet repository-format, section 2; the permissions were read off the real git-annex for
every value of ``core.sharedRepository`` and four umasks (test_permissions).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

from annexpy.errors import InvalidInput, UnsupportedRepository
from annexpy.repo.files import WRITE, umask

__all__ = ["INLINE", "ConfigReader", "ContentSettings", "Durability", "Lockdown"]

Durability: TypeAlias = Literal["full", "fast"]

INLINE: Final = 256 * 1024
"""Contents up to this size are handled on the event loop; one thread hop costs as much as storing them."""

_DISK_RESERVE: Final = 100_000_000
_PIDLOCK_TIMEOUT: Final = 300


class ConfigReader(Protocol):
    """What is asked of a git configuration."""

    def get(self, name: str) -> str | None: ...

    def get_bool(self, name: str, default: bool = False) -> bool: ...

    def get_int(self, name: str, default: int | None = None) -> int | None: ...

    def get_size(self, name: str, default: int | None = None) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Lockdown:
    """The permissions that things in ``annex/`` get.

    Attributes:
        folder: Mode of a new folder; None leaves it to the umask.
        file: Mode of other files; None leaves it to the umask.
        freeze: What a key directory loses once its object is in place.
    """

    folder: int | None = None
    file: int | None = None
    freeze: int = WRITE

    @classmethod
    def of(cls, shared: str | None) -> Lockdown:
        """Of a value of ``core.sharedRepository``.

        Raises:
            InvalidInput: git would not accept the value.
        """
        match (shared or "umask").lower():
            case "umask" | "false" | "no" | "off" | "0":
                return cls()
            case "group" | "true" | "yes" | "on" | "1":
                mask = umask()
                return cls(0o777 & ~mask | 0o2070, 0o666 & ~mask | 0o060, 0)
            case "all" | "world" | "everybody" | "2":
                mask = umask()
                return cls(0o777 & ~mask | 0o2075, 0o666 & ~mask | 0o064, 0)
            case text:
                mode = int(text, 8) & 0o666 if text.strip("01234567") == "" else 0
                if mode & 0o600 != 0o600:
                    limit = "umask, group, all, or an octal mode that lets the owner read and write"
                    raise InvalidInput("core.sharedRepository", shared, limit)
                folder = mode | (mode & 0o444) >> 2
                return cls(folder | 0o2000 if mode & 0o077 else folder, mode, 0o200)

    def object(self, mode: int) -> int:
        """Mode of an object whose file had *mode*: nobody may write, the owner may read."""
        return mode & 0o777 & ~WRITE | 0o400


@dataclass(frozen=True, slots=True)
class ContentSettings:
    """How a content store works.

    Attributes:
        bare: New content goes below lower-case hash directories, else below mixed ones.
        lower_only: ``annex.tune.objecthashlower``: only lower-case ones exist.
        levels: 1 with ``annex.tune.objecthash1``, else 2.
        thin: ``annex.thin``: an object may be a hard link to an unlocked file, which somebody may write to.
        durability: "full": stored means on disk, synced. "fast": stored means handed to the system.
        lockdown: Permissions.
        reserve: Bytes to leave free.
        pidlock: ``annex.pidlock``: one lock file for everything, for file systems without locks.
        pidlock_timeout: Seconds to wait for it.
        version: ``annex.version``. Content locks are as version 10 has them; others refuse to lock.
        syncfs: Sync whole file systems rather than single files, until that turns out to be slow.
        transfer_locks: Take git-annex's transfer locks while receiving.
        inline: Up to this many bytes no thread is used.
    """

    bare: bool = True
    lower_only: bool = False
    levels: int = 2
    thin: bool = False
    durability: Durability = "full"
    lockdown: Lockdown = field(default_factory=Lockdown)
    reserve: int = _DISK_RESERVE
    pidlock: bool = False
    pidlock_timeout: float = _PIDLOCK_TIMEOUT
    version: int = 10
    syncfs: bool = True
    transfer_locks: bool = True
    inline: int = INLINE

    def at_once(self, size: int | None) -> bool:
        """A content of *size* is stored without waiting for anybody: it is small, and nothing is synced."""
        return self.durability == "fast" and self.soon(size)

    def soon(self, size: int | None) -> bool:
        """A content of *size* is stored without waiting for anything but the disk, and before others look."""
        return size is not None and size <= self.inline and not self.pidlock and not self.thin

    @classmethod
    def of(cls, config: ConfigReader, *, bare: bool, durability: Durability = "full") -> ContentSettings:
        """As the git configuration of a repository has it.

        Raises:
            InvalidInput: A setting that does not parse.
            UnsupportedRepository: ``annex.version`` is none that annexpy knows.
        """
        version = config.get_int("annex.version", 10) or 0
        if version not in (8, 9, 10):
            raise UnsupportedRepository(f"annex.version is {version}: annexpy knows 8, 9 and 10")
        return cls(
            bare=bare,
            lower_only=config.get_bool("annex.tune.objecthashlower"),
            levels=1 if config.get_bool("annex.tune.objecthash1") else 2,
            thin=not bare and config.get_bool("annex.thin"),
            durability=durability,
            lockdown=Lockdown.of(config.get("core.sharedrepository")),
            reserve=config.get_size("annex.diskreserve", _DISK_RESERVE) or 0,
            pidlock=config.get_bool("annex.pidlock"),
            pidlock_timeout=float(config.get_int("annex.pidlocktimeout", _PIDLOCK_TIMEOUT) or 0),
            version=version,
        )
