"""What a registrar enters into the dataset besides the location log: attestations, and the nodes that they change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

import annexpy as annex
from glimmer_store.attest import log_parts, reader
from glimmer_store.config import CONFIG_NAME
from glimmer_store.enter import Entering
from glimmer_store.entry import Entry, Part, changes
from glimmer_store.receipts import Receipts

if TYPE_CHECKING:
    from glimmer_store.graph import GlimmerGraph

__all__ = ["Dataset"]


class Dataset:
    """The dataset of a job. Made by ``open``.

    Attributes:
        behind: Durable remote → why it does not have the history.
    """

    def __init__(self, repository: annex.Repository, graph: GlimmerGraph | None) -> None:
        self._repository, self._graph = repository, graph
        self._entering = None
        if graph is None and repository.work_tree is not None:
            self._entering = Entering(repository, "", ())
        self.behind: dict[str, str] = {}

    @classmethod
    async def open(cls, repository: annex.Repository, stack: AsyncExitStack) -> Dataset:
        """That of *repository*, with its graph where it has one."""
        if not (Path(repository.path) / CONFIG_NAME).exists():
            return cls(repository, None)
        from glimmer_store.graph import GlimmerGraph

        return cls(repository, await stack.enter_async_context(GlimmerGraph.open(repository.path)))

    def absent(self, key: annex.Key, uuid: annex.UUID) -> None:
        """Write that a content is not there, later than its holder has claimed it: also where that stands already."""
        self._repository.branch.set_present(key, uuid, True)
        self._repository.branch.set_present(key, uuid, False)

    async def enter(
        self, title: str, receipts: Collection[Receipts], nodes: Collection[str], publics: Mapping[str, bytes]
    ) -> int:
        """Commit attestations that are not there yet, and bring nodes up to date, and the git-annex branch.

        Args:
            title: Of the commit.
            receipts: Lines.
            nodes: Ids of those whose keys they are about.
            publics: Name → PEM of who signed.

        Returns:
            How many nodes changed.
        """
        changed: list[Part] = []
        if self._graph is not None and nodes:
            from glimmer_store.jobs.node_updates import node_parts

            changed = node_parts(self._graph, nodes, receipts)
        if self._graph is not None:
            parts = [*log_parts(receipts, publics, reader(self._graph.root)), *changed]
            if parts:
                self.behind = dict((await self._graph.enter(title, parts)).behind)
        elif self._entering is not None:
            parts = log_parts(receipts, publics, reader(Path(self._repository.path)))
            if parts:
                await self._entering.enter(Entry(title, tuple(parts)))
        elif receipts:
            await to_thread.run_sync(_enter_beside, self._repository, title, receipts, publics)
        await self._repository.branch.commit()
        return len(changed)


def _enter_beside(
    repository: annex.Repository, title: str, receipts: Iterable[Receipts], publics: Mapping[str, bytes]
) -> None:
    """Enter attestations into a bare repository, from where a sync brings them to its clones.

    One without a history of its own has no log to enter them into: they stay in the ledger.
    """
    branch = annex.SyncedBranch(repository)
    try:
        if branch.branch is not None:
            parts = log_parts(receipts, publics, branch.read)
            branch.commit(changes([Entry(title, tuple(parts))]), title)
    finally:
        branch.close()
