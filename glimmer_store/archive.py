"""Archive on emit: one output becomes proven copies on the durable remotes of its dataset.

An output is a file, or a folder: then each file in it is stored, and the list of them (``tree``).

Order: content → proof → location log → sidecar. So a crash at any point leaves only what a second run of
the same emit completes, and a second emit of the same bytes stores nothing twice.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

import annexpy as annex
from glimmer_store.adjunct import connect_adjuncts, store_copies
from glimmer_store.attest import Attestation, Signer, Verdict
from glimmer_store.config import Config, Durable
from glimmer_store.errors import ConfigError, Shortfall, SourceRefused, shell_line
from glimmer_store.policy import StorageClass, check_name, check_place, check_source
from glimmer_store.proving import prove
from glimmer_store.record import Location, StorageRecord
from glimmer_store.tree import Tree, annexed, members, tree_of

__all__ = ["Archive", "Archived", "Output", "Progress", "is_here"]

log = logging.getLogger(__name__)

_SECONDS = 60.0
"""How long a remote may take to answer before it is left out: hundreds of jobs may keep a disk busy that long."""

_CLOSING = 5.0
"""How long to wait for a journal when all is done, and what is recorded there could wait for the next commit."""

Progress = Callable[[str, int, int], None]
"""Called with the output's path, bytes done and bytes in all."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output, looked at.

    Attributes:
        path: Relative to the dataset.
        key: Of the file; of the list, for a folder.
        tree: What is in it, for a folder.
        source: Where the bytes are, if not at *path*: data that a manifest declares lies outside of the dataset.
    """

    path: Path
    key: annex.Key
    tree: Tree | None = None
    source: Path | None = None

    def items(self, root: Path) -> list[tuple[annex.Key, str | bytes]]:
        """(key, a path or the content) of all that is to be stored."""
        whole = self.source or root / self.path
        if self.tree is None:
            return [(self.key, str(whole))]
        return [*members(self.tree, whole), (self.key, self.tree.to_bytes())]


@dataclass(frozen=True, slots=True)
class Archived:
    """One output that is stored.

    Attributes:
        output: What it is.
        record: Where it is. Of a folder a remote has a copy when it has all of it.
        stored: Names of the remotes that received something now.
        failed: Remote → why it has no proven copy.
        proofs: What was found where, signed.
    """

    output: Output
    record: StorageRecord
    stored: tuple[str, ...]
    failed: Mapping[str, str]
    proofs: tuple[Attestation, ...]

    def check(self, root: Path, durable: int) -> None:
        """Raise Shortfall unless there are as many proven copies as needed, with *durable* places set up at *root*."""
        needed = self.record.numcopies_required
        if not self.record.shortfall:
            return
        if durable < needed:
            few = {"configuration": f"{durable} durable remotes are set up"}
            init = shell_line("glimmer-store", "init", root)
            raise Shortfall(str(self.output.key), self.record.copies, needed, {**self.failed, **few}, remedy=init)
        raise Shortfall(str(self.output.key), self.record.copies, needed, self.failed)


class Archive:
    """The durable remotes of one dataset. Open it with ``Archive.open``."""

    def __init__(
        self,
        root: Path,
        config: Config,
        repository: annex.Repository,
        nodes: Mapping[Durable, annex.Remote],
        *,
        one_by_one: bool = False,
        adjuncts: Mapping[Durable, annex.Remote] | None = None,
        unusable: Mapping[str, str] | None = None,
        to: Collection[str] = (),
    ) -> None:
        self.root, self.config, self.repository = root, config, repository
        self._nodes = dict(nodes)
        self._chosen = {place: node for place, node in nodes.items() if not to or place.name in to}
        self.adjuncts, self.unusable = dict(adjuncts or {}), dict(unusable or {})
        self._told: set[str] = set()
        self._signer: Signer | None = None
        self._names = {place.uuid: place.name for place in nodes}
        if one_by_one:  # whoever waits for the pid lock of one repository must not have that of another
            targets: dict[annex.Remote, list[annex.UUID]] = {n: [place.uuid] for place, n in self._chosen.items()}
        elif self._chosen:
            clock, chosen = repository.clock, list(self._chosen.values())
            cluster = annex.Cluster(chosen, name="durable remotes", clock=clock, deadline=_SECONDS)
            targets = {cluster: [place.uuid for place in self._chosen]}
        else:
            targets = {}
        self._targets = [(annex.Recording(target, repository.branch), uuids) for target, uuids in targets.items()]

    @classmethod
    @asynccontextmanager
    async def open(
        cls, root: Path, *, numcopies: int | None = None, to: Collection[str] = ()
    ) -> AsyncIterator[Archive]:
        """The archive of the dataset at *root*. Connections are made when they are first needed.

        Args:
            root: Its top.
            numcopies: Copies that everything needs, in place of those of the classes.
            to: Names of those durable repositories and adjuncts that contents are stored in; none: all of them.

        Raises:
            ConfigError: The dataset is not set up, or has no place of such a name.
            NotARepository: The dataset is no git-annex repository.
        """
        config = Config.load(root)
        if numcopies is not None:
            config = replace(config, numcopies=dict.fromkeys(config.numcopies, numcopies))
        places = [place.name for place in config.durable] + [adjunct.name for adjunct in config.adjuncts]
        if unknown := [name for name in to if name not in places]:
            raise ConfigError(f"{', '.join(unknown)}: no place of that name", remedy=f"name one of {', '.join(places)}")
        one_by_one = _adopt_pidlock([str(root), *(place.url for place in config.durable)])
        repository = annex.Repository.open(root)
        async with AsyncExitStack() as stack:
            stack.callback(repository.close)
            nodes: dict[Durable, annex.Remote] = {}
            for place in config.durable:
                remote = annex.connect(place.url, uuid=place.uuid, name=place.name, repository=repository)
                stack.push_async_callback(_closed, remote)
                nodes[place] = remote
            counting, adjuncts, unusable = connect_adjuncts(config.adjuncts, repository)
            for adjunct in (*counting.values(), *adjuncts.values()):
                stack.push_async_callback(_closed, adjunct)
            nodes |= counting
            adjuncts = {place: remote for place, remote in adjuncts.items() if not to or place.name in to}
            unusable = {name: why for name, why in unusable.items() if not to or name in to}
            yield cls(
                root, config, repository, nodes, one_by_one=one_by_one, adjuncts=adjuncts, unusable=unusable, to=to
            )

    @property
    def remotes(self) -> Sequence[tuple[Durable, annex.Remote]]:
        """The durable remotes, in the order of the configuration."""
        return list(self._nodes.items())

    @property
    def signer(self) -> Signer:
        """Signs what this user finds. Raises ConfigError when the key cannot be read or made."""
        if self._signer is None:
            self._signer = Signer.of_user()
        return self._signer

    async def look(self, path: Path) -> Output:
        """Find the key of an output; reads all of it once.

        Raises:
            SourceRefused: It may not be archived from where it is.
        """
        whole = _absolute(path)
        if whole.is_dir():
            relative = check_place(path, self.root)
            if relative == Path():
                raise SourceRefused(f"{path}: is the dataset itself", remedy="archive the folder that a step wrote")
            if relative.is_relative_to(self.config.graph) or relative.is_relative_to(".glimmer-store"):
                raise SourceRefused(
                    f"{path}: changes with every emit, and is kept by the history",
                    remedy="archive the folder that a step wrote",
                )
            tree = await tree_of(self.root / relative, self.root, self.config.backend)
            return Output(relative, tree.key(self.config.backend), tree)
        key = await annexed(whole, self.root, self.config.backend)
        if key is not None:
            return Output(check_name(check_place(whole.parent, self.root) / whole.name), key)
        relative = check_source(path, self.root)
        return Output(relative, await annex.key_of(self.root / relative, backend=self.config.backend))

    async def store(self, output: Output, storage_class: StorageClass, *, progress: Progress | None = None) -> Archived:
        """Store an output on every durable remote, or those chosen, have every copy read again, and record where it is.

        A copy counts when what was read again, in another request, is the content of its key (``proving``).
        Location lines are on disk before this returns; they are committed with the node.
        """
        items = output.items(self.root)
        report = None if progress is None else (lambda _key, done, total: progress(str(output.path), done, total or 0))
        failed = dict(self.unusable)
        having = {place: [key for key, _ in items] for place in self._nodes}
        received: set[annex.UUID] = set()
        for key, source in items:
            stored = await self._put(key, source, output, report)
            received |= stored.uuids
            for place in self._nodes:
                if place.uuid in stored.uuids | stored.already:
                    continue
                if place not in self._chosen:  # what it had before counts, once it is proven
                    if place.uuid not in self.repository.branch.locations(key).present:
                        having[place].remove(key)
                        failed.setdefault(place.name, "it was not named, and is not said to have it")
                    continue
                why = stored.failed.get(place.uuid)
                if isinstance(why, annex.TimedOut | annex.ConnectionLost) and await self._has_it_all_the_same(
                    place, key
                ):
                    received.add(place.uuid)
                    continue
                having[place].remove(key)
                failed.setdefault(place.name, str(why or "it was not named among those that have it"))
        copies = await store_copies(self.adjuncts, self.repository.branch, items, failed)
        self._tell_of_adjuncts(failed)
        places = {place: keys for place, keys in having.items() if keys} | copies
        proofs = await self.prove(places, failed, dict(items))
        await self.repository.branch.sync()
        good = {(proof.key, proof.uuid) for proof in proofs if proof.verdict is Verdict.GOOD}
        proven = [p for p in self._nodes if all((str(key), str(p.uuid)) in good for key, _ in items)]
        record = StorageRecord(
            tuple(sorted(Location(place.name, place.uuid) for place in proven)),
            self.config.numcopies[storage_class],
            bool(proven),
            storage_class,
        )
        names = tuple(sorted(self._names[uuid] for uuid in received if uuid in self._names))
        return Archived(output, record, names, failed, tuple(proofs))

    def _tell_of_adjuncts(self, failed: Mapping[str, str]) -> None:
        """They stop nothing, so nobody would hear of it; once is enough."""
        names = self.unusable.keys() | {place.name for place in self.adjuncts}
        for name in sorted(names & failed.keys() - self._told):
            log.warning("adjunct %s gets no copy: %s", name, failed[name])
            self._told.add(name)

    async def _put(
        self,
        key: annex.Key,
        source: str | bytes,
        output: Output,
        report: annex.Progress | None,
    ) -> annex.Stored:
        """Who has it, and of everybody else why not."""
        uuids, already = set[annex.UUID](), set[annex.UUID]()
        why: dict[annex.UUID, annex.AnnexError] = {}
        for target, places in self._targets:
            try:
                stored = await annex.put(target, key, source, associated_file=output.path.as_posix(), progress=report)
            except annex.NodesFailed as error:
                why |= {annex.UUID(uuid): reason for uuid, reason in error.failed.items()}
            except annex.AnnexError as error:
                why |= dict.fromkeys(places, error)  # of a cluster: about the content, and not about one of its nodes
            else:
                uuids |= stored.uuids
                already |= stored.already
                why |= stored.failed
        return annex.Stored(frozenset(uuids), frozenset(already), why)

    async def _has_it_all_the_same(self, place: Durable, key: annex.Key) -> bool:
        """A put that was not answered in time may have been done after that: whoever says so now is to prove it."""
        try:
            with anyio.fail_after(_SECONDS):
                there = await self._nodes[place].check_present(key)
        except (annex.AnnexError, TimeoutError):
            return False
        if there:
            self.repository.branch.set_present(key, place.uuid, True)
        return there

    async def prove(
        self,
        places: Mapping[Durable, Iterable[annex.Key]],
        failed: dict[str, str] | None = None,
        sources: Mapping[annex.Key, str | bytes] | None = None,
    ) -> list[Attestation]:
        """Have contents read again where they are said to be, and sign what is found.

        Args:
            places: Durable remote → keys.
            failed: Gets why a remote has no good copy. One that cannot be asked proves nothing either way, so
                there is no attestation of it.
            sources: Key → a file, or the content, to compare with; else what the dataset has is used.
        """
        remotes = {place: self._nodes.get(place) or self.adjuncts[place] for place in places}
        wanted = {place: list(keys) for place, keys in places.items()}
        return await prove(remotes, wanted, self.repository, self.signer, {} if failed is None else failed, sources)


async def _closed(remote: annex.Remote) -> None:
    """Close it. Where others are at its branch all the time, what was recorded waits there for the next commit."""
    try:
        with anyio.move_on_after(_CLOSING):
            await remote.aclose()
    except (annex.LockHeld, annex.BranchConflict) as error:
        log.info("%s: %s", remote.name, error)


def _adopt_pidlock(places: Iterable[str]) -> bool:
    """Of those that are on this machine; whether one has it. One that is no repository shows itself later."""
    adopted = False
    for place in places:
        if os.path.isdir(place):
            with suppress(annex.AnnexError):
                adopted = annex.adopt_pidlock(place) or adopted
    return adopted


def is_here(place: Durable) -> bool:
    """It is a folder on this machine."""
    return os.path.isdir(place.url)


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Links are not followed."""
    return Path(os.path.abspath(path))
