"""Push datasets and artefacts to annex remotes, bare ones included, and pull them from there, proven on arrival.

A transfer carries keys, and the record that says which keys an address is made of; that travels in the history. So the
receiver rebuilds a folder at its *own* place, by the library's rules: aside, renamed, marked complete when it was read
again, and registered with the digest that was measured. Nothing of the sender's folders is copied as such.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import annexpy as annex
from glimmer_store.archive import Output
from glimmer_store.attest import Attestation, Signer, Verdict, reader
from glimmer_store.entry import Part
from glimmer_store.graph import GlimmerGraph
from glimmer_store.jobs.dataset import Dataset
from glimmer_store.manifest.archiving import check_expected, manifest_part, new_records, record_of, usual_class
from glimmer_store.manifest.bundle import Bundle, History, bundle_parts
from glimmer_store.manifest.delivering import deliver
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.library import Declared, Project
from glimmer_store.manifest.observing import Observations
from glimmer_store.manifest.restoring import git_url, head_of
from glimmer_store.proving import reread
from glimmer_store.remedies import in_words
from glimmer_store.tree import Tree

__all__ = ["Moved", "Strength", "pull", "push", "targets"]

Strength: TypeAlias = Literal["stream", "reread"]
"""The receiver compared the hash while it stored; or the content was read back from there afterwards, too."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one address.

    Attributes:
        address, name: Which.
        record: What was moved; None when nothing was.
        remotes: Where it is now, proven as strongly as was asked for.
        failed: Remote → why not.
        path: Where it was put, for a pull.
        digest: As measured: before a push, and after a pull.
        conflict: Other contents that the same address has had, by their digests.
    """

    address: str
    name: str
    record: Bundle | None = None
    remotes: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)
    path: Path | None = None
    digest: str = ""
    conflict: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing failed."""
        return self.record is not None and not self.failed

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {
            "address": self.address,
            "name": self.name,
            "success": self.ok,
            "key": None if self.record is None else self.record.key,
            "remotes": list(self.remotes),
            "failed": self.failed,
            "path": None if self.path is None else str(self.path),
            "digest": self.digest,
            "conflict": list(self.conflict),
        }


def targets(graph: GlimmerGraph, remote: str | None, copies: int | None) -> list[str]:
    """Names of the git remotes to push to: *remote*, or as many durable ones as are wanted.

    Raises:
        ManifestError: It is no git remote of the dataset: the record travels with the history.
    """
    if remote is None:
        names = [place.name for place in graph.archive.config.durable]
        if copies is not None and copies > len(names):
            raise ManifestError(f"{copies} copies, and {len(names)} durable remotes", remedy="add durable remotes")
        return names[:copies]
    known = graph.archive.repository.config.remotes()
    named = [name for name, one in known.items() if name == remote or one.url in (remote, git_url(remote))]
    if not named:
        raise ManifestError(
            f"{remote}: no git remote of the dataset",
            remedy=f"git remote add NAME {remote}, then run the same command again",
        )
    return named[:1]


async def push(
    graph: GlimmerGraph,
    project: Project,
    entries: Sequence[Declared],
    remotes: Sequence[str],
    *,
    strength: Strength = "reread",
    register: bool = False,
) -> list[Moved]:
    """Store what is here on *remotes*, and send the records after it.

    Args:
        graph: Of the dataset.
        project: Its manifest.
        entries: What to push; each is read once, and one that is not what the manifest declares is not sent.
        remotes: Names of git remotes.
        strength: How a copy is proven.
        register: Sign what was proven, so that it counts as verified here at once; else whoever verifies there does.

    Raises:
        ManifestError: The manifest is not in the dataset.
        AnnexError: The records could not be committed.
    """
    manifest = manifest_part(graph, project)
    done: list[Moved] = []
    proofs: list[Attestation] = []
    trees: dict[str, Tree | None] = {}
    async with AsyncExitStack() as stack:
        places = {name: annex.connect(name, repository=graph.archive.repository, name=name) for name in remotes}
        for remote in places.values():
            stack.push_async_callback(remote.aclose)
        for declared in entries:
            try:
                if not declared.present:
                    raise ManifestError(f"{declared.name}: is not here")
                measured = await Observations(project.root).measure(declared.path, graph.archive.config.backend)
                aliases = check_expected(project, declared, measured)
                record = record_of(declared, measured, usual_class(declared), aliases)
            except annex.AnnexError as error:
                done.append(Moved(declared.address, declared.name, failed={"here": in_words(error, graph.root)}))
                continue
            trees[record.key] = measured.tree
            output = Output(Path(declared.place), measured.key, measured.tree, measured.path)
            moved = Moved(declared.address, declared.name, record, digest=measured.digest)
            for name, remote in places.items():
                sent = await _send(graph, output, name, remote, strength)
                proofs += sent.proofs
                if sent.why:
                    moved.failed[name] = sent.why
            done.append(replace(moved, remotes=tuple(name for name in places if name not in moved.failed)))
    # what was found wrong is signed whatever was asked for: it voids the proofs before it
    signed = [proof for proof in proofs if register or proof.verdict is not Verdict.GOOD]
    records = [one.record for one in done if one.record is not None and one.remotes]
    if records or signed:
        parts = bundle_parts([(one, trees[one.key]) for one in new_records(graph.root, records)])
        every = [manifest, *parts, *graph.archive.signer.parts(signed, reader(graph.root))]
        _hold_back(done, await _send_history(graph, remotes, f"glimmer-store: {len(records)} entries pushed", every))
    return done


async def _send_history(
    graph: GlimmerGraph, remotes: Sequence[str], title: str, parts: Sequence[Part]
) -> Mapping[str, str]:
    """Enter *parts*; remote → why it does not have the history."""
    behind = dict((await graph.enter(title, parts)).behind)
    durable = {place.name for place in graph.archive.config.durable}
    for pushed in await annex.push(graph.archive.repository, [name for name in remotes if name not in durable]):
        if pushed.error is not None:
            behind[pushed.remote] = str(pushed.error)
    return behind


def _hold_back(done: Sequence[Moved], behind: Mapping[str, str]) -> None:
    """Without the history nobody would find there what the keys are."""
    for one in done:
        for name in one.remotes:
            if name in behind:
                one.failed[name] = f"has the contents, and not the history: {behind[name]}"


@dataclass(frozen=True, slots=True)
class _Sent:
    proofs: tuple[Attestation, ...] = ()
    why: str = ""


async def _send(graph: GlimmerGraph, output: Output, name: str, remote: annex.Connected, strength: Strength) -> _Sent:
    """Store one output at one remote, and prove it."""
    signer, proofs = graph.archive.signer, []
    try:
        uuid = await remote.connect()
        target = annex.Recording(remote, graph.archive.repository.branch)
        for key, source in output.items(graph.root):
            stored = await annex.put(target, key, source, associated_file=output.path.as_posix())
            if strength == "stream" and not stored.already:
                proofs.append(signer.attest(key, str(uuid), name, Verdict.GOOD, "stream"))
                continue
            # what was there before was proven by nobody we know: it is read, whatever was asked for
            verdict, why = await reread(remote, key)
            if verdict is not None:
                proofs.append(signer.attest(key, str(uuid), name, verdict, "reread"))
            if verdict in (Verdict.BAD, Verdict.MISSING):
                graph.archive.repository.branch.set_present(key, uuid, False)
            if verdict is not Verdict.GOOD:
                return _Sent(tuple(proofs), why)
    except annex.AnnexError as error:
        return _Sent(tuple(proofs), str(error))
    return _Sent(tuple(proofs))


async def pull(
    project: Project,
    root: Path,
    remote: str,
    names: Sequence[str],
    *,
    batch: bool = False,
    register: bool = True,
    overwrite: bool = False,
) -> AsyncIterator[Moved]:
    """Bring what *names* mean from a remote to where it belongs here.

    What arrives is verified while it comes, published by the library's rules, and read again where it lies; only then
    the state gets it, with the digest that was measured. A bad copy there is refused, and nothing is registered but
    that: it is read once more, and when it is bad or gone, *root* gets an attestation of that, and the location log
    forgets the copy.

    Args:
        project: The manifest here, whose folders are filled.
        root: Its dataset, or any git-annex repository that knows the remote.
        remote: Name of a git remote, or an address.
        names: Datasets by name, alias or DOI; artefacts by ``cachetype[/version]/hash``, or a prefix of that.
        batch: A prefix may mean several artefacts.
        register: Write it into the state.
        overwrite: Replace what is here and is something else.

    Raises:
        ManifestError: A name means nothing, or more than one thing.
        GraphError: The history of the remote cannot be had.
    """
    with annex.Repository.open(root) as repository:
        known = repository.config.remotes().get(remote)
        address = remote if known is None or known.url is None else known.url
        history = History(root, head_of(address, root))
        chosen = [one for name in names for one in _meant(project, history, name, batch=batch)]
        async with annex.connect(remote, repository=repository) as source:
            for declared, record in chosen:
                others = tuple(
                    one.digest
                    for one in history.of(record.address)
                    if (one.content or one.digest) != (record.content or record.digest)
                )
                declared = project.with_origin(declared, record.format, record.ref)
                moved = Moved(record.address, declared.name, record, conflict=others)
                try:
                    tree = history.tree(record)
                    measured = await deliver(
                        project, declared, record, tree, [source], register=register, replace=overwrite
                    )
                except annex.AnnexError as error:
                    noted = await _note_bad(repository, source, error)
                    yield replace(moved, failed={remote: in_words(error, project.root) + noted})
                else:
                    yield replace(moved, remotes=(remote,), path=declared.target, digest=measured.digest)


async def _note_bad(repository: annex.Repository, source: annex.Connected, error: annex.AnnexError) -> str:
    """Read the copy that *error* is about again, and attest what is found if it is not good; what to add to *error*."""
    if not isinstance(error, annex.VerificationFailed | annex.KeyNotPresent):
        return ""
    try:
        uuid = await source.connect()
        key = annex.Key.parse(str(error.key))
        verdict, _ = await reread(source, key)
        if verdict is None or verdict is Verdict.GOOD or annex.is_cluster(uuid):
            return ""
        signer = Signer.of_user()
        signed = signer.sign([signer.attest(key, str(uuid), source.name, verdict, "reread")])
        async with AsyncExitStack() as stack:
            dataset = await Dataset.open(repository, stack)
            dataset.absent(key, uuid)
            title = f"glimmer-store: a copy at {source.name} is {verdict.value}"
            await dataset.enter(title, signed, (), {signer.name: signer.public})
    except annex.AnnexError as problem:
        return f"; that could not be attested: {problem}"
    return f"; attested as {verdict.value}"


def _meant(project: Project, history: History, name: str, *, batch: bool) -> list[tuple[Declared, Bundle]]:
    """What *name* means: a dataset that is declared here, or artefacts that are recorded there."""
    produced = {one.address: one.name for one in history.all() if one.kind == "datacache"}
    exact = [address for address, known in produced.items() if known == name]
    found = exact or [address for address, known in produced.items() if known.startswith(name)]
    try:
        declared = project.find(name)
    except ManifestError:
        declared = None
    if declared is not None and declared.kind == "dataset":
        found.append(declared.address)
    if len(found) > 1 and not batch:
        raise ManifestError(f"{name}: can be each of {', '.join(found)}", remedy="name it in full, or say --batch")
    chosen = []
    for address in found:
        here = declared if declared is not None and declared.address == address else project.named(address)
        record = history.current(address, here.expected if here is not None else "")
        if here is not None and record is not None:
            chosen.append((here, record))
    if not chosen:
        raise ManifestError(f"{name}: nothing of that name is recorded there", remedy="push it there first")
    return chosen
