"""Archive on emit: one output becomes proven copies on the durable remotes of its dataset.

Order: content → location log → sidecar. So a crash at any point leaves only what a second run of
the same emit completes, and a second emit of the same bytes stores nothing twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import annexpy as annex
from glimmer_store.config import Config, Durable
from glimmer_store.errors import Shortfall
from glimmer_store.policy import StorageClass, check_source
from glimmer_store.record import Location, StorageRecord

__all__ = ["Archive", "Archived", "Progress"]

Progress = Callable[[str, int, int], None]
"""Called with the output's path, bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class Archived:
    """One output that is stored.

    Attributes:
        path: Relative to the dataset.
        key: Its key.
        record: Where it is.
        stored: Names of the remotes that received it now (the others had it and were re-read).
        failed: Remote → why it has no proven copy.
    """

    path: Path
    key: annex.Key
    record: StorageRecord
    stored: tuple[str, ...]
    failed: Mapping[str, str]


class Archive:
    """The durable remotes of one dataset. Open it with ``Archive.open``."""

    def __init__(
        self, root: Path, config: Config, repository: annex.Repository, nodes: Mapping[Durable, annex.Remote]
    ) -> None:
        self.root, self.config, self.repository = root, config, repository
        self._nodes = dict(nodes)
        self._names = {place.uuid: place.name for place in nodes}
        self._cluster = annex.Recording(annex.Cluster(list(nodes.values()), name="durable remotes"), repository.branch)

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path) -> AsyncIterator[Archive]:
        """The archive of the dataset at *root*. Connections are made when they are first needed.

        Raises:
            ConfigError: The dataset is not set up.
            NotARepository: The dataset is no git-annex repository.
        """
        config = Config.load(root)
        repository = annex.Repository.open(root)
        async with AsyncExitStack() as stack:
            stack.callback(repository.close)
            nodes: dict[Durable, annex.Remote] = {}
            for place in config.durable:
                remote = annex.connect(place.url, uuid=place.uuid, name=place.name)
                stack.push_async_callback(remote.aclose)
                nodes[place] = remote
            yield cls(root, config, repository, nodes)

    @property
    def remotes(self) -> Sequence[tuple[Durable, annex.Remote]]:
        """The durable remotes, in the order of the configuration."""
        return list(self._nodes.items())

    async def emit(
        self,
        path: Path,
        storage_class: StorageClass,
        *,
        expect: Callable[[annex.Key], None] | None = None,
        progress: Progress | None = None,
    ) -> Archived:
        """Store one output on every durable remote and record where it is.

        A copy counts when its repository verified size and hash of what it received, or was found to
        have it and proved it by reading it again. Location lines are on disk before this returns.

        Args:
            path: The output.
            storage_class: Says how many copies are needed.
            expect: Called with the key before anything is stored; may refuse by raising.
            progress: Called while bytes move.

        Raises:
            SourceRefused: The output may not be archived from where it is.
            Shortfall: Fewer proven copies than needed; those that exist are recorded.
        """
        relative = check_source(path, self.root)
        source = self.root / relative
        key = await annex.key_of(source, backend=self.config.backend)
        if expect is not None:
            expect(key)
        failed: dict[str, str] = {}
        proven: set[annex.UUID] = set()
        report = None if progress is None else (lambda _key, done, total: progress(str(relative), done, total))
        try:
            stored = await annex.put(self._cluster, key, source, associated_file=str(relative), progress=report)
        except annex.AnnexError as error:
            failed["durable remotes"] = str(error)
            stored = annex.Stored()
        proven |= stored.uuids
        for uuid, why in stored.failed.items():
            failed[self._names.get(uuid, str(uuid))] = str(why)
        for place, remote in self._nodes.items():
            if place.uuid in stored.already:
                verdict = await self._reread(remote, key)
                if verdict:
                    failed[place.name] = verdict
                else:
                    proven.add(place.uuid)
        await self.repository.branch.commit()
        record = StorageRecord(
            tuple(sorted(Location(place.name, place.uuid) for place in self._nodes if place.uuid in proven)),
            self.config.numcopies[storage_class],
            bool(proven) and annex.is_verifiable(key),
            storage_class,
        )
        if record.shortfall:
            raise Shortfall(str(key), record.copies, record.numcopies_required, failed or self._too_few())
        names = tuple(sorted(self._names[uuid] for uuid in stored.uuids if uuid in self._names))
        return Archived(relative, key, record, names, failed)

    def _too_few(self) -> dict[str, str]:
        return {"configuration": f"{len(self._nodes)} durable remotes are set up"}

    async def _reread(self, remote: annex.Remote, key: annex.Key) -> str:
        """Prove a copy that was there before; the reason when it is not good."""
        try:
            verified = await annex.verify(remote, key)
        except annex.AnnexError as error:
            return str(error)
        return "" if verified is annex.Verified.HASH else "its key has no hash that could be compared"
