"""What must hold before a copy leaves a repository for good, by the dataset as it is now.

Three things, and none replaces another: no rule keeps the content where it is (required content); as many copies as
anybody asks for (numcopies, mincopies, the storage class, every node that needs it) are elsewhere in repositories that
may count (not dead, not untrusted, no cluster); and of each of those a proof is new enough. A proof that is too old is
none: the copy has to be read again first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from anyio import to_thread

import annexpy as annex
from glimmer_store.attest import Attestation, Attestations, Verdict
from glimmer_store.config import CONFIG_NAME
from glimmer_store.errors import GraphError
from glimmer_store.graph import GlimmerGraph
from glimmer_store.jobs.event import Task
from glimmer_store.jobs.floor import Floor, floor_of
from glimmer_store.jobs.spec import JobError, JobSpec
from glimmer_store.manifest.standing import AHEAD, Policy
from glimmer_store.policy import StorageClass

__all__ = ["Leaving", "leaving"]

_STRENGTHS: Final = ("stream", "peer", "reread")
_COUNTING: Final = (annex.TrustLevel.TRUSTED, annex.TrustLevel.SEMITRUSTED)


class Leaving:
    """The rules of one dataset; made by ``leaving``, anew for every shard, so that what was changed meanwhile holds."""

    def __init__(
        self, spec: JobSpec, repository: annex.Repository, graph: GlimmerGraph | None, floor: Floor = (0, "")
    ) -> None:
        self._spec, self._repository, self._graph, self._floor = spec, repository, graph, floor
        self._facts = annex.Facts(repository)
        self._attested = Attestations(Path(spec.dataset))
        self._now = datetime.now(UTC)
        self._ages = Policy().max_age
        self._asked: dict[str, int] = {}
        self.dest = spec.dests[0].uuid
        self._allowed = annex.Wanted(self._facts).keeping(self._facts.copies, [self.dest])

    @property
    def trust(self) -> Mapping[annex.UUID, annex.TrustLevel]:
        """How far repositories are trusted."""
        return self._facts.trust

    def name(self, uuid: str) -> str:
        """What people call a repository."""
        place = self._spec.place(uuid)
        return self._facts.name(annex.UUID(uuid)) if place is None else place.name

    def copies(self, task: Task) -> annex.Copies:
        """How many copies must stay elsewhere.

        Raises:
            RequiredContent: It must stay where it is.
            StoreError: A node that needs it cannot be read, so nobody knows.
        """
        found = self._allowed(annex.Key.parse(task.key))
        asked = [self._floor, *((self._of_node(node), node) for node in task.nodes)]
        if self._graph is not None and task.storage_class:
            of_class = self._graph.archive.config.numcopies[StorageClass(task.storage_class)]
            asked.append((of_class, f"storage class {task.storage_class}"))
        most, who = max(asked)
        return replace(found, num=most, num_from=who) if most > found.num else found

    def _of_node(self, id_: str) -> int:
        if id_ not in self._asked:
            try:
                self._asked[id_] = 0 if self._graph is None else self._graph.node(id_).numcopies_required
            except GraphError:
                self._asked[id_] = 0  # it was taken out of the graph since the job was planned
        return self._asked[id_]

    def recorded(self, key: annex.Key) -> list[annex.UUID]:
        """Who else is said to have it and may count."""
        present = self._repository.branch.locations(key).present
        return [uuid for uuid in present if uuid != self.dest and self._counts(uuid)]

    def uncounted(self, key: annex.Key) -> dict[str, str]:
        """Name → why whoever is said to have it, too, can never count."""
        others = [uuid for uuid in self._repository.branch.locations(key).present if uuid != self.dest]
        levels = {uuid: self._facts.trust_of(uuid) for uuid in others if not annex.is_cluster(uuid)}
        return {self.name(uuid): f"it is {of.value}" for uuid, of in levels.items() if of not in _COUNTING}

    def _counts(self, uuid: annex.UUID) -> bool:
        return not annex.is_cluster(uuid) and self._facts.trust_of(uuid) in _COUNTING

    def proven(self, task: Task) -> dict[annex.UUID, str]:
        """Of those who are said to have it: UUID → how that was proven, where the proof is strong and new enough."""
        key = annex.Key.parse(task.key)
        said = self._attested.newest(key)
        there = [(uuid, said[uuid]) for uuid in self.recorded(key) if uuid in said]
        return {uuid: one.method for uuid, one in there if self._suffices(one, task.storage_class)}

    def _suffices(self, one: Attestation, storage_class: str) -> bool:
        if one.verdict is not Verdict.GOOD or one.method not in _STRENGTHS:
            return False
        try:
            age = self._now - datetime.fromisoformat(one.time)
        except (ValueError, TypeError):  # whoever signed it has another idea of time
            return False
        usual = self._ages.get(storage_class, self._ages[StorageClass.IRREPLACEABLE.value])
        most = timedelta(seconds=self._spec.select.max_age) if self._spec.select.max_age else usual
        strong = _STRENGTHS.index(one.method) >= _STRENGTHS.index(self._spec.verify)
        return strong and -AHEAD <= age <= most


@asynccontextmanager
async def leaving(spec: JobSpec) -> AsyncIterator[Leaving]:
    """The rules of a job's dataset as they are now.

    Raises:
        JobError: The dataset is not on this machine, so nobody here knows how many copies must stay.
        AnnexError: It cannot be read.
    """
    root = Path(spec.dataset)
    if not await to_thread.run_sync(root.is_dir):
        raise JobError(
            f"{root}: is not on this machine, and it says how many copies must stay",
            remedy="drain where the dataset is",
        )
    async with AsyncExitStack() as stack:
        if (root / CONFIG_NAME).exists():
            graph = await stack.enter_async_context(GlimmerGraph.open(root))
            yield Leaving(spec, graph.archive.repository, graph)
        else:
            repository = annex.Repository.open(root)
            stack.callback(repository.close)
            floor = await to_thread.run_sync(floor_of, repository) if repository.work_tree is None else (0, "")
            yield Leaving(spec, repository, None, floor)
