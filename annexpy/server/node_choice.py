"""Which nodes of a cluster a key goes to, and which are likely to have it: the location log and preferred content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Final

from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.logs.paths import Log
from annexpy.policy.placement import Candidate, Choice, Unwanted, Wants, choose
from annexpy.remote.base import Remote, Upload
from annexpy.remote.cluster import Verb
from annexpy.remote.other_gateway import Relayed
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from annexpy.actions.wanted import Wanted
    from annexpy.repo.held import HeldSizes

__all__ = ["Placing", "members"]

_LOOK: Final = 1.0
"""Seconds between two looks at what is preferred."""
_PREFERENCES: Final = (Log.PREFERRED_CONTENT, Log.REQUIRED_CONTENT, Log.MAXSIZE)


class Placing:
    """Places keys on nodes, as the branch of *repository* has it."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._wanted: Wanted | None = None
        self._looked = float("-inf")
        self._held: HeldSizes | None = None
        self._puts: Counter[Key] = Counter()
        self._coming: dict[Key, set[UUID]] = {}

    @property
    def unwanted(self) -> Unwanted:
        """``annexpy.unwanted``: what to do with a key that nobody wants. A word that is none counts as "all"."""
        word = self._repository.config.get("annexpy.unwanted") or ""
        return Unwanted(word) if word in {one.value for one in Unwanted} else Unwanted.ALL

    def likely(self, verb: Verb, key: Key, associated_file: str, nodes: Sequence[Remote]) -> Sequence[Remote]:
        """Those that have *key* according to the location log; the others are asked after them."""
        try:
            have = frozenset(self._repository.branch.locations(key).present)
        except AnnexError:
            return nodes
        return [node for node in nodes if not have.isdisjoint(members(node))]

    def place(
        self,
        key: Key,
        associated_file: str,
        nodes: Sequence[Remote],
        *,
        taking: frozenset[UUID],
        refused: frozenset[UUID],
    ) -> Sequence[Remote]:
        """As ``Place``: who is to get *key*, and who has it according to the location log, and so is asked.

        The nodes behind another gateway count one by one; that gateway then chooses among them for itself.
        """
        wanted = self._preferences()
        if wanted is None and not refused:
            return nodes  # nobody has said what they want, so everybody who has it not already gets it
        at = {uuid: node for node in nodes for uuid in members(node)}
        out = refused | {uuid for uuid, node in at.items() if isinstance(node, Relayed) and node.place in refused}
        holders = frozenset(self._repository.branch.locations(key).present) - out
        candidates = sorted(at, key=lambda uuid: at[uuid].cost)
        chosen, wants = self._choose(wanted, candidates, key, associated_file, holders | taking, out)
        having = [uuid for uuid in at if uuid in holders]
        if self._puts[key]:
            self._expect(key, frozenset(chosen.nodes) - holders)
        asked = {*chosen.nodes, *(uuid for uuid in having if wants(uuid, holders - {uuid}))} or {*having}
        return [node for node in nodes if not asked.isdisjoint(members(node)) or not members(node)]

    def _choose(
        self,
        wanted: Wanted | None,
        nodes: list[UUID],
        key: Key,
        associated_file: str,
        holders: frozenset[UUID],
        refused: frozenset[UUID],
    ) -> tuple[Choice, Wants]:
        if wanted is None:
            chosen = choose([Candidate(uuid) for uuid in nodes], _everything, holders=holders, refused=refused)
            return chosen, _everything
        chosen = wanted.choose(nodes, key, associated_file, holders=holders, unwanted=self.unwanted, refused=refused)
        return chosen, wanted.wanting(key, associated_file)

    def _preferences(self) -> Wanted | None:
        """What nodes want; None where nobody has said anything."""
        now, branch = self._repository.clock.now(), self._repository.branch
        if now - self._looked >= _LOOK:
            self._looked = now
            if not any(branch.read(log.value) for log in _PREFERENCES):
                self._wanted = None
            elif self._wanted is None or self._wanted.changed:
                from annexpy.actions.wanted import Wanted
                from annexpy.repo.held import HeldSizes

                self._held = self._held or HeldSizes(self._repository)
                self._wanted = Wanted(self._repository, held=self._held)
        if self._wanted is not None and self._held is not None and self._wanted.by_size:
            self._held.sizes()  # of what other processes have recorded since, too
            self._held.look_elsewhere()
        return self._wanted

    # -- what is under way ------------------------------------------------------------------------

    @property
    def by_size(self) -> bool:
        """How much a node holds makes a difference to where keys go."""
        wanted = self._preferences()
        return wanted is not None and wanted.by_size

    def counted(self, key: Key, put: AbstractAsyncContextManager[Upload]) -> AbstractAsyncContextManager[Upload]:
        """*put*, during which *key* counts as held by the nodes that it is placed on. Record inside what came of it."""
        return _Counted(self, key, put) if key.size and self.by_size else put

    def close(self) -> None:
        """Nothing is under way any more."""
        if self._held is not None:
            self._held.close()

    def begin(self, key: Key) -> None:
        """*key* is about to be placed; ``end`` it."""
        self._puts[key] += 1

    def end(self, key: Key) -> None:
        """Its put is over, and what came of it is recorded."""
        self._puts[key] -= 1
        if self._puts[key]:
            return
        del self._puts[key]
        coming = self._coming.pop(key, None)
        if coming and self._held is not None:
            try:
                have = frozenset(self._repository.branch.locations(key).present)
            except AnnexError:
                have = frozenset()
            for uuid in coming:
                self._held.end(uuid, key, stays=uuid in have)

    def _expect(self, key: Key, nodes: frozenset[UUID]) -> None:
        coming = self._coming.setdefault(key, set())
        for uuid in nodes - coming:
            coming.add(uuid)
            if self._held is not None:
                self._held.begin(uuid, key)


class _Counted(AbstractAsyncContextManager[Upload]):
    __slots__ = ("_key", "_placing", "_put")

    def __init__(self, placing: Placing, key: Key, put: AbstractAsyncContextManager[Upload]) -> None:
        self._placing, self._key, self._put = placing, key, put

    async def __aenter__(self) -> Upload:
        self._placing.begin(self._key)
        try:
            return await self._put.__aenter__()
        except BaseException:
            self._placing.end(self._key)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            return await self._put.__aexit__(kind, error, trace)
        finally:
            self._placing.end(self._key)


def _everything(uuid: UUID, having: frozenset[UUID]) -> bool:
    return True


def members(node: Remote) -> frozenset[UUID]:
    """The repositories that are reached through *node*."""
    return node.members if isinstance(node, Relayed) else frozenset((node.uuid,))
