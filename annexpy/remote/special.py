"""Special remotes: from what remote.log and the git configuration say to a ``Remote``, or a refusal by name.

What annexpy reaches itself: ``type=directory`` and ``type=S3``, with ``encryption=none``, not in chunks, and not
exporting or importing a tree. Everything else is refused with the field that says so, before a byte moves: to store
plaintext where encryption is configured, or whole contents where chunks are, would be wrong and hard to see.

Source: git-annex-initremote(1); fact sheet repository-format, section 3; remote.log as the real git-annex writes it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from annexpy.clock import Clock
from annexpy.errors import InvalidInput, Refused, UnknownUUID
from annexpy.keys.key import Key
from annexpy.keys.layout import location_log
from annexpy.logs.location import LocationLog
from annexpy.logs.paths import Log
from annexpy.logs.remotes import CHUNKS, SPECIAL_REMOTES
from annexpy.repo.gitremote import RemoteConfig
from annexpy.repo.repository import Repository
from annexpy.repo.settings import ContentSettings
from annexpy.system import CLOCK
from annexpy.uuids import UUID, parse_uuid

if TYPE_CHECKING:
    from annexpy.remote.directory import DirectoryRemote
    from annexpy.remote.s3 import S3Remote

__all__ = ["BranchRecords", "Special", "connect_directory", "connect_s3", "connect_special", "special"]

_ITSELF: Final = "git-annex itself reaches it"
_YES: Final = frozenset(("yes", "true"))
_NO: Final = frozenset(("", "0", "no", "false"))


@dataclass(frozen=True, slots=True)
class Special:
    """A special remote as it is configured.

    Attributes:
        name: Of the git remote.
        uuid: Of the special remote.
        type: ``directory`` or ``S3``.
        settings: Its entry in remote.log.
        remote: Its git configuration.
    """

    name: str
    uuid: UUID
    type: str
    settings: Mapping[str, str]
    remote: RemoteConfig


class BranchRecords:
    """What the branch of *repository* says about the special remote *uuid*."""

    def __init__(self, repository: Repository, uuid: UUID) -> None:
        self._repository, self._uuid = repository, uuid

    def anything(self) -> bool:
        """A key is recorded to be there. Reads location logs until one says so."""
        uuid = self._uuid.encode()
        for path, content in self._repository.branch.scan():
            if path.endswith(b".log") and uuid in content and self._uuid in LocationLog.parse(content).present:
                return True
        return False

    def in_chunks(self, key: Key) -> bool:
        counts = CHUNKS.parse(self._repository.branch.read(location_log(key) + b".cnk"))
        return any(count for chunking, count in counts.items() if chunking.uuid == self._uuid)


def special(remote: RemoteConfig, repository: Repository) -> Special:
    """What *remote*, a git remote without a url, is.

    Raises:
        Refused: Of a type, or with a setting, that annexpy does not offer.
        InvalidInput: remote.log does not know it.
    """
    name = f"remote {remote.name}"
    if kind := remote.get("annex-externaltype"):
        raise Refused("remote", remote.name, f"a special remote of externaltype={kind}; {_ITSELF}")
    if "annex-config-uuid" in remote.fields:
        raise Refused(f"{name}: sameas", remote.get("annex-config-uuid"), f"not offered; {_ITSELF}")
    uuid = parse_uuid(remote.uuid or "")
    known = SPECIAL_REMOTES.parse(repository.branch.read(Log.REMOTE.value))
    settings = known.get(uuid)
    if settings is None:
        raise InvalidInput("remote", remote.name, f"{uuid} is not in remote.log: git annex enableremote, or merge")
    _check(name, settings)
    return Special(remote.name, uuid, settings.get("type", ""), settings, remote)


def _check(name: str, settings: Mapping[str, str]) -> None:
    kind = settings.get("type", "")
    if kind not in ("directory", "S3"):
        shown = f"{kind}, {settings['externaltype']}" if "externaltype" in settings else kind
        raise Refused(f"{name}: type", shown, f"only directory and S3 are offered; {_ITSELF}")
    _check_plain(name, {"encryption": "", **settings})


def _check_plain(name: str, settings: Mapping[str, str]) -> None:
    """Contents are to be there as they are, one for each key."""
    encryption = settings.get("encryption", "none")
    if encryption != "none":
        raise Refused(f"{name}: encryption", encryption, f"only encryption=none is offered; {_ITSELF}")
    for field in ("chunk", "chunksize", "onlyencryptcreds"):
        if settings.get(field, "").lower() not in _NO:
            raise Refused(f"{name}: {field}", settings[field], f"not offered; {_ITSELF}")
    for field in ("exporttree", "importtree", "versioning", "annexobjects"):
        if settings.get(field, "").lower() in _YES:
            raise Refused(f"{name}: {field}", settings[field], f"not offered; {_ITSELF}")


def _check_known(name: str, uuid: UUID, repository: Repository) -> None:
    """Whoever reaches it by its address may not get round what remote.log says of it."""
    settings = SPECIAL_REMOTES.parse(repository.branch.read(Log.REMOTE.value)).get(uuid)
    if settings is not None:
        _check(f"remote {name}", settings)


def connect_special(
    remote: RemoteConfig, repository: Repository, *, name: str | None = None, clock: Clock = CLOCK
) -> DirectoryRemote | S3Remote:
    """The special remote that *remote* is; see ``connect``.

    Raises:
        Refused: As ``special``.
        InvalidInput: A setting is missing, or is none; there are no credentials.
    """
    found = special(remote, repository)
    shown = name or found.name
    if found.type == "directory":
        path = remote.get("annex-directory")
        if not path:
            raise InvalidInput(f"remote.{found.name}.annex-directory", "", "the path of the folder")
        path = os.path.join(repository.path, path)
        return connect_directory(path, found.uuid, shown, repository, cost=remote.cost or 100, clock=clock)
    return connect_s3(found.settings, found.uuid, shown, repository, cost=remote.cost or 200, clock=clock)


def connect_s3(
    settings: Mapping[str, str],
    uuid: UUID,
    name: str,
    repository: Repository | None = None,
    *,
    cost: int = 200,
    clock: Clock = CLOCK,
) -> S3Remote:
    """The S3 special remote with the *settings* of remote.log.

    Args:
        settings: host, port, protocol, bucket, fileprefix … as ``git annex initremote`` takes them.
        uuid: Of the special remote.
        name: For messages.
        repository: Where git-annex may have kept the credentials.
        cost: As git-annex's.
        clock: Time.

    Raises:
        Refused: obstore is not installed, or a setting is not offered.
        InvalidInput: A setting is missing, or is none; there are no credentials.
    """
    from annexpy.remote.s3_settings import S3Credentials, S3Settings

    _check_plain(f"remote {name}", settings)
    if repository is not None:
        _check_known(name, uuid, repository)
    where, credentials = S3Settings.of(name, settings), S3Credentials.find(name, uuid, repository, settings)
    try:
        from annexpy.remote.s3 import S3Remote
    except ImportError as error:
        raise Refused("remote", name, f"S3 needs {error.name}: pip install 'annexpy[s3]'") from error
    return S3Remote(where, credentials, uuid=uuid, name=name, cost=cost, clock=clock)


def connect_directory(
    path: str,
    uuid: UUID | None,
    name: str,
    repository: Repository | None,
    *,
    cost: int = 100,
    clock: Clock = CLOCK,
) -> DirectoryRemote:
    """The directory special remote at *path*, with what *repository* knows about it.

    Args:
        path: The folder.
        uuid: Of the special remote; when None, that of the git remote that has this folder.
        name: For messages.
        repository: Who asks.
        cost: As git-annex's.
        clock: Time.

    Raises:
        UnknownUUID: No git remote has this folder.
        Refused: It has settings that annexpy does not offer.
    """
    from annexpy.remote.directory import DirectoryRemote

    if repository is None:
        if uuid is None:
            raise UnknownUUID(f"{name}: a directory does not tell its UUID; give it")
        return DirectoryRemote(path, uuid=uuid, name=name, cost=cost, clock=clock)
    if uuid is None:
        uuid = _uuid_of(path, name, repository)
    _check_known(name, uuid, repository)
    reserve = ContentSettings.of(repository.config, bare=repository.bare).reserve
    records = BranchRecords(repository, uuid)
    return DirectoryRemote(path, uuid=uuid, name=name, cost=cost, clock=clock, reserve=reserve, records=records)


def _uuid_of(path: str, name: str, repository: Repository) -> UUID:
    wanted = os.path.realpath(path)
    for remote in repository.config.remotes().values():
        folder = remote.get("annex-directory")
        if folder and os.path.realpath(os.path.join(repository.path, folder)) == wanted:
            return special(remote, repository).uuid
    raise UnknownUUID(
        f"{name}: no special remote has this folder: git annex initremote NAME type=directory directory={path} "
        "encryption=none"
    )
