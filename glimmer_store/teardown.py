"""The teardown gate: may a folder, with every dataset, repository and file in it, go for good?

It may when nothing in it would be lost: every output has enough copies elsewhere, every commit is elsewhere, and
nothing waits to be written. Copies inside the folder do not count, since they go as well. Nothing is changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from fnmatch import fnmatch
from pathlib import Path
from typing import TypeAlias

import annexpy as annex
from glimmer_store.config import CONFIG_NAME, Config
from glimmer_store.errors import GraphError, shell_line
from glimmer_store.footprint import Found, ahead, around, has_commit, held, refs, uncommitted, walk
from glimmer_store.gates import Refusal, Verdict, git, of_object
from glimmer_store.graph import GlimmerGraph
from glimmer_store.nodes import UNREADABLE, Unreadable
from glimmer_store.report import look
from glimmer_store.verify import keys_of

__all__ = ["check_teardown"]

_OWN = (".gitattributes", CONFIG_NAME)
_SHOWN = 20
"""Files that are named one by one."""
_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|[^/]+:")
"""How URLs begin that are no path: a scheme, or the host of an address as scp has it."""
_Digest: TypeAlias = tuple[int | None, bytes]


async def check_teardown(path: Path, *, dataset: Path | None = None, ignore: Sequence[str] = ()) -> Verdict:
    """Whether everything below *path* may go.

    Args:
        path: A scratch folder, the root of a container, a dataset, or a folder in one.
        dataset: The dataset that loose files and bare repositories belong to, where it is not below *path*.
        ignore: Patterns of files that may go, matched with their names and their paths below *path*.

    Raises:
        GraphError: There is no such folder, or git failed.
    """
    top = _folder(path)
    gate = _Gate(top, ignore)
    root = around(top)
    if root is not None:
        await gate.part_of(root)
        return gate.verdict()
    found = walk(top)
    for root in found.repositories:
        await gate.repository(root)
    await gate.elsewhere(dataset, found)
    return gate.verdict()


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise GraphError(f"{path}: is not a folder", remedy="name the folder that is to go")
    return path.resolve()


class _Gate:
    """Collects what speaks against it."""

    def __init__(self, top: Path, ignore: Sequence[str]) -> None:
        self._top, self._ignore = top, tuple(ignore)
        self._refusals: list[Refusal] = []
        self._safe: set[_Digest] = set()

    def verdict(self) -> Verdict:
        """Everything that was found, each once."""
        return Verdict(tuple(dict.fromkeys(self._refusals)))

    def _refuse(self, kind: str, subject: object, text: str, remedy: str, *, runs: bool = True) -> None:
        self._refusals.append(Refusal(kind, str(subject), text, remedy, runs))

    def _ignored(self, file: Path) -> bool:
        below = file.relative_to(self._top).as_posix() if file.is_relative_to(self._top) else file.as_posix()
        return any(fnmatch(file.name, pattern) or fnmatch(below, pattern) for pattern in self._ignore)

    def _goes(self, url: str, root: Path) -> bool:
        """What *url* leads to, as *root* has it, is below the folder, and goes as well."""
        path = url.removeprefix("file://").removeprefix("directory:")
        if _ELSEWHERE.match(path):
            return False
        return (root / path).resolve().is_relative_to(self._top)

    # -- repositories --

    async def repository(self, root: Path) -> None:
        """A repository with a work tree, all of which goes."""
        if not (root / CONFIG_NAME).exists():
            self._commit_first(root, uncommitted(root))
            await self._contents(root)
        else:
            async with GlimmerGraph.open(root) as graph:
                self._commit_first(root, await self._outputs(graph, uncommitted(root), lambda _: True))
                await self._contents(root, graph)
            self._spools(root)
        self._unpushed(root)

    async def part_of(self, root: Path) -> None:
        """Only a folder of the repository *root* goes; its history stays."""
        files = [file for file in uncommitted(root) if file.is_relative_to(self._top)]
        if not (root / CONFIG_NAME).exists():
            self._commit_first(root, files)
            return
        async with GlimmerGraph.open(root) as graph:
            self._commit_first(
                root, await self._outputs(graph, files, lambda file: (root / file).is_relative_to(self._top))
            )

    async def _outputs(
        self, graph: GlimmerGraph, files: Iterable[Path], concerned: Callable[[Path], bool]
    ) -> list[Path]:
        """Refuse for outputs with too few copies and for files that are none; the files of *files* that git is for."""
        going = [place.name for place in graph.archive.config.durable if self._goes(place.url, graph.root)]
        nodes = []
        for one in graph.scan():
            if isinstance(one, Unreadable):
                self._refuse("graph", one.file, f"its node cannot be read: {one.reason}", UNREADABLE, runs=False)
            else:
                nodes.append(one)
        report = await look(graph, full=False, only=nodes, without=going)
        folders: list[Path] = []
        said: set[_Digest] = set()  # of these there is a refusal already
        for entry in report.objects:
            keys = [] if entry.node.key is None else keys_of(graph.root, entry.node)
            if entry.safe:
                self._safe |= set(map(_digest, keys))
                folders += [graph.root / entry.node.output] if entry.node.output is not None else []
            elif entry.node.output is None or concerned(entry.node.output):
                self._refusals.append(of_object(entry))
                said |= set(map(_digest, keys))
        own = [graph.root / name for name in (graph.archive.config.graph, ".glimmer-store", *_OWN)]
        left, unknown = [], []
        for file in files:
            if any(file == name or file.is_relative_to(name) for name in own):
                left.append(file)
            elif file.is_symlink() and any(file.is_relative_to(folder) for folder in folders):
                continue  # the list of a folder says where its links lead
            elif not await _stored(file, self._safe | said, graph.archive.config.backend):
                unknown.append(file)
        known = {graph.root / node.output: node.id for node in nodes if node.output is not None}
        for file in unknown[:_SHOWN]:
            command = shell_line("glimmer-store", "archive", "-C", graph.root, file)
            if file in known:  # it was changed after that
                command = graph.archived_as_another(known[file], file)
            self._refuse("unarchived", file, "is in no commit and no copy of it is known", command)
        if len(unknown) > _SHOWN:
            more = f"{len(unknown) - _SHOWN} more files are in no commit and no copy of them is known"
            rest = shell_line("glimmer-store", "archive", "-C", graph.root, *unknown[_SHOWN:])
            self._refuse("unarchived", graph.root, more, rest)
        return left

    def _commit_first(self, root: Path, files: list[Path]) -> None:
        if not files:
            return
        named = [str(file.relative_to(root)) for file in files]
        add = shell_line("git", "-C", root, "add", "--all", "--", *(named if len(named) <= _SHOWN else ["."]))
        commit = shell_line("git", "-C", root, "commit", "-q", "-m", "What was there before teardown")
        few = ", ".join(named[:3]) + (" …" if len(named) > 3 else "")
        self._refuse("uncommitted", root, f"{len(files)} files are not committed: {few}", f"{add} && {commit}")

    async def _contents(self, root: Path, graph: GlimmerGraph | None = None) -> None:
        """Annexed contents of the repository itself that too few others have."""
        try:
            repository = annex.Repository.open(root) if graph is None else graph.archive.repository
        except annex.RepositoryError:
            return  # git alone
        async with AsyncExitStack() as stack:
            if graph is None:
                stack.callback(repository.close)
            keys = held(Path(os.fsdecode(repository.git_dir)))
            if not keys:
                return
            places = {
                name: remote.url or ""
                for name, remote in repository.config.remotes().items()
                if remote.uuid is not None and not self._goes(remote.url or "", root)
            }
            there: dict[annex.Key, list[str]] = {key: [] for key in keys}
            silent: list[str] = []
            for name in places:
                try:
                    remote = await stack.enter_async_context(annex.connect(name, repository=repository))
                    answers = await annex.has_many(remote, keys)
                except annex.AnnexError:
                    silent.append(name)
                    continue
                for key, answer in zip(keys, answers, strict=True):
                    if answer:
                        there[key].append(name)
            facts = annex.Facts(repository)
            for key, have in there.items():
                needed = facts.copies(key).num
                if len(have) < needed:
                    lacking = [name for name in places if name not in have and name not in silent][: needed - len(have)]
                    self._too_few(root, key, have, needed, lacking, silent)

    def _too_few(
        self, root: Path, key: annex.Key, have: list[str], needed: int, lacking: list[str], silent: list[str]
    ) -> None:
        text = f"annexed here, {len(have)} of {needed} copies are elsewhere"
        copies = [shell_line("annexpy", "-C", root, "copy", ".", name, key) for name in lacking]
        if len(have) + len(lacking) >= needed:
            self._refuse("copies", key, text, " && ".join(copies))
        elif silent:
            names = ", ".join(silent)
            self._refuse(
                "unreachable", key, f"{text}; {names} cannot be asked", f"try again when {names} answers", runs=False
            )
        else:
            self._refuse("copies", key, text, shell_line("glimmer-store", "init", root), runs=False)

    def _spools(self, root: Path) -> None:
        """What emits left behind that were killed."""
        waiting = list((root / ".git" / "glimmer-store").glob("*.ready"))
        if waiting:
            self._refuse(
                "waiting",
                root,
                f"{len(waiting)} nodes wait to be committed",
                "run any glimmer-store emit again",
                runs=False,
            )

    # -- history --

    def _unpushed(self, root: Path) -> None:
        """Commits, and lines of the location log, that no repository elsewhere has."""
        try:
            with annex.Repository.open(root) as repository:
                if repository.branch.overlaid():
                    command = shell_line("annexpy", "-C", root, "sync")
                    self._refuse("waiting", root, "lines of the location log are not committed", command)
        except annex.RepositoryError:
            pass  # git alone
        local = refs(root)
        if not local:
            return
        urls = [line.split(b"\t", 1) for line in git(root, "remote", "-v").splitlines()]
        fetched = {
            os.fsdecode(name): os.fsdecode(url[: -len(b" (fetch)")]) for name, url in urls if url.endswith(b" (fetch)")
        }
        remotes = [name for name, url in fetched.items() if not self._goes(url, root)]
        there: set[str] = set()
        silent, answering = [], []
        for name in remotes:
            try:
                listed = git(root, "ls-remote", name).decode(errors="surrogateescape").splitlines()
            except GraphError:
                silent.append(name)
                continue
            answering.append(name)
            there |= {line.split("\t")[0] for line in listed}
        for ref, commit in local.items():
            count = ahead(root, commit, there)
            if not count:
                continue
            text = f"{ref.removeprefix('refs/heads/')}: {count} commits are nowhere else"
            if answering:
                self._refuse("unpushed", root, text, _push(root, answering[0], ref, commit))
            elif silent:
                names = ", ".join(silent)
                self._refuse(
                    "unreachable",
                    root,
                    f"{text}; {names} cannot be asked",
                    f"try again when {names} answers",
                    runs=False,
                )
            else:
                init = shell_line("glimmer-store", "init", root)
                self._refuse("unpushed", root, f"{text}, and no repository elsewhere is known", init, runs=False)

    # -- what is in no repository --

    async def elsewhere(self, dataset: Path | None, found: Found) -> None:
        """Loose files and bare repositories, by what *dataset* and the datasets of the folder know of them."""
        for folder in found.unreadable:
            self._refuse("unarchived", folder, "cannot be looked into", "let its owner ask this gate", runs=False)
        loose = [file for file in found.loose if not self._ignored(file)]
        if not loose and not found.bares:
            return
        backend = Config().backend
        if dataset is not None:
            async with GlimmerGraph.open(dataset) as graph:
                backend = graph.archive.config.backend
                going = [place.name for place in graph.archive.config.durable if self._goes(place.url, graph.root)]
                report = await look(graph, full=False, without=going)
                for entry in report.objects:
                    if entry.safe and entry.node.key is not None:
                        self._safe |= {_digest(key) for key in keys_of(graph.root, entry.node)}
        self._loose([file for file in loose if not await _stored(file, self._safe, backend)], dataset)
        for bare in found.bares:
            self._bare(bare, dataset)

    def _loose(self, files: Sequence[Path], dataset: Path | None) -> None:
        for file in files[:_SHOWN]:
            text = f"{file.stat().st_size} bytes that no copy is known of"
            if dataset is None:
                remedy = "archive it in a dataset and name that with -C, or let it go with --ignore PATTERN"
                self._refuse("unarchived", file, text, remedy, runs=False)
                continue
            target = dataset.resolve() / file.relative_to(self._top)
            copy = f"{shell_line('mkdir', '-p', target.parent)} && {shell_line('cp', '-n', file, target)}"
            archive = shell_line("glimmer-store", "archive", "-C", dataset.resolve(), target)
            self._refuse("unarchived", file, text, f"{copy} && {archive}")
        if len(files) > _SHOWN:
            text = f"{len(files) - _SHOWN} more files like these"
            self._refuse("unarchived", self._top, text, "archive those first, then ask again", runs=False)

    def _bare(self, bare: Path, dataset: Path | None) -> None:
        keys = [key for key in held(bare) if _digest(key) not in self._safe]
        if keys:
            text = f"a bare repository with {len(keys)} contents that have too few copies elsewhere"
            remedy = (
                "move it to where it stays" if dataset else "name the dataset whose copies it holds, with -C DATASET"
            )
            self._refuse("copies", bare, text, remedy, runs=False)
        heads = {ref: commit for ref, commit in refs(bare).items() if "git-annex" not in ref}
        if dataset is not None:
            heads = {ref: commit for ref, commit in heads.items() if not has_commit(dataset, commit)}
        if heads:
            self._refuse(
                "unpushed",
                bare,
                f"history that may be nowhere else: {', '.join(heads)}",
                "push it to where it stays",
                runs=False,
            )


def _push(root: Path, remote: str, ref: str, commit: str) -> str:
    """The command that brings *ref* to *remote*."""
    if "git-annex" in ref:
        return shell_line("annexpy", "-C", root, "sync")
    kept = {"HEAD": f"{commit}:refs/heads/kept-{commit[:12]}", "refs/stash": f"{commit}:refs/heads/kept-{commit[:12]}"}
    return shell_line("git", "-C", root, "push", remote, kept.get(ref, ref))


def _digest(key: annex.Key) -> _Digest:
    """What two keys of one content have in common, whatever its file is called."""
    return key.size, key.name.split(b".")[0]


async def _stored(file: Path, safe: set[_Digest], backend: str) -> bool:
    """The content of *file* is one of the safe ones. It is read only when its size is that of one of them."""
    key = annex.annexed_key(file)
    if key is not None:
        return _digest(key) in safe
    size = _size(file)
    if size is None or not any(size == known for known, _ in safe):
        return False
    return _digest(await annex.key_of(file, backend=backend)) in safe


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() and not file.is_symlink() else None
