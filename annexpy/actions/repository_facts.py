"""What one repository knows about all of them: who they are, how far they are trusted, which keys they have.

From its branch and its configuration alone, each part when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Final

from annexpy.keys.key import Key
from annexpy.logs.location import LocationLog
from annexpy.logs.paths import Log
from annexpy.logs.remotes import SPECIAL_REMOTES
from annexpy.logs.repos import DESCRIPTIONS, TRUST, clusters
from annexpy.policy.trust import TrustLevel, trust_levels
from annexpy.repo.repository import Repository
from annexpy.uuids import BITTORRENT, UUID, WEB

__all__ = ["RepositoryFacts"]

_YES: Final = ("yes", "true")
_BUILT_IN: Final = {WEB: "web", BITTORRENT: "bittorrent"}


class RepositoryFacts:
    """What *repository* knows of repositories.

    Attributes:
        repository: Whose knowledge it is; it stays open as long as this is used.
    """

    def __init__(self, repository: Repository) -> None:
        """Read nothing yet; *repository* is open."""
        self.repository = repository

    @cached_property
    def descriptions(self) -> Mapping[UUID, str]:
        """uuid.log: what people call each repository."""
        return {**_BUILT_IN, **DESCRIPTIONS.parse(self.repository.branch.read(Log.UUID.value))}

    @cached_property
    def remote_names(self) -> Mapping[UUID, str]:
        """What the git remotes that lead to a repository are called."""
        remotes = self.repository.config.remotes().values()
        return {UUID(remote.uuid): remote.name for remote in remotes if remote.uuid is not None}

    @cached_property
    def trust(self) -> Mapping[UUID, TrustLevel]:
        """Trust levels, the configuration's over the log's; semitrusted where silent."""
        remotes = self.repository.config.remotes().values()
        configured = [(UUID(r.uuid), r.trustlevel) for r in remotes if r.uuid is not None and r.trustlevel is not None]
        read = self.repository.branch.read
        special = SPECIAL_REMOTES.parse(read(Log.REMOTE.value))
        trees = [uuid for uuid, settings in special.items() if _holds_a_tree(settings)]
        return trust_levels(TRUST.parse(read(Log.TRUST.value)), configured, trees)

    @cached_property
    def clusters(self) -> Mapping[UUID, frozenset[UUID]]:
        """Cluster → its nodes."""
        return clusters(self.repository.branch.read(Log.CLUSTER.value))

    def trust_of(self, uuid: UUID) -> TrustLevel:
        """How far *uuid* is trusted."""
        return self.trust.get(uuid, TrustLevel.SEMITRUSTED)

    def description(self, uuid: UUID) -> str:
        """What people call *uuid*, and in brackets the remote that leads there; empty when nobody calls it anything.

        To the letter as git-annex shows it: ``desk [usb]``, ``[usb]`` where both are the same, and ``usb``
        where only the remote has a name.
        """
        described, name = self.descriptions.get(uuid, ""), self.remote_names.get(uuid)
        if name is None or not described:
            return described or name or ""
        return f"[{name}]" if described == name else f"{described} [{name}]"

    def name(self, uuid: UUID) -> str:
        """*uuid* as a place in a message; never empty."""
        described = self.description(uuid)
        return f"{described} [here]".lstrip() if uuid == self.repository.uuid else described or uuid

    def recorded(self, key: Key) -> dict[UUID, str]:
        """Who has *key* according to the location log, and what they are called."""
        return self.recorded_in(self.repository.branch.locations(key))

    def recorded_in(self, log: LocationLog) -> dict[UUID, str]:
        """As ``recorded``, of a log that was read already."""
        return {uuid: self.name(uuid) for uuid in log.present}


def _holds_a_tree(settings: Mapping[str, str]) -> bool:
    """It is no store of keys; with versions it is one, because nothing is overwritten."""
    said = {field for field in ("exporttree", "importtree", "versioning") if settings.get(field, "").lower() in _YES}
    return bool(said) and "versioning" not in said
