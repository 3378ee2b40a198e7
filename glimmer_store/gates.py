"""Gates: what may be pushed, what passes in CI. Every refusal names what to do about it.

What may be taken down is for ``teardown``.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from annexpy import AnnexError
from glimmer_store.config import Config
from glimmer_store.errors import GraphError, SidecarError, shell_line
from glimmer_store.finding import Level
from glimmer_store.graph import GlimmerGraph, GlimmerNode
from glimmer_store.policy import StorageClass
from glimmer_store.report import look
from glimmer_store.status import ObjectStatus, State
from glimmer_store.validate import validate

__all__ = ["Push", "Refusal", "Verdict", "check_graph", "check_push", "git", "of_object"]

_ANNEX_REFS = ("refs/heads/git-annex", "refs/heads/synced/git-annex")
_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a gate stays shut.

    Attributes:
        kind: ``copies``, ``unreachable``, ``unarchived``, ``uncommitted``, ``unpushed``, ``waiting``, ``graph``.
        subject: A node, a file, a repository.
        text: What is the matter.
        remedy: A line for a shell, where ``runs``; else a sentence.
        runs: The remedy can be run as it is.
    """

    kind: str
    subject: str
    text: str
    remedy: str
    runs: bool = True

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says: open when nothing is refused.

    Attributes:
        refusals: In the order in which their remedies should be run.
        notes: What it lets pass, and should be known.
    """

    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        return not self.refusals

    @property
    def exit_code(self) -> int:
        """0 open, 3 too few copies, 4 only because something could not be asked, 1 anything else."""
        kinds = {refusal.kind for refusal in self.refusals}
        if not kinds:
            return 0
        if "copies" in kinds:
            return 3
        return 4 if kinds == {"unreachable"} else 1

    def to_json(self) -> dict[str, object]:
        """Everything, as plain values."""
        refusals = [{"kind": r.kind, "subject": r.subject, "text": r.text, "remedy": r.remedy} for r in self.refusals]
        return {"open": self.open, "refusals": refusals, "notes": list(self.notes)}


@dataclass(frozen=True, slots=True)
class Push:
    """What git tells a pre-push hook about one ref."""

    ref: str
    commit: str
    there: str

    @classmethod
    def parse(cls, lines: Iterable[str]) -> list[Push]:
        """The lines on the hook's standard input; deletions are left out.

        Raises:
            GraphError: A line has not four words.
        """
        found = []
        for line in filter(None, map(str.strip, lines)):
            words = line.split(" ")
            if len(words) != 4:
                raise GraphError(
                    f"{line!r}: not a line of a pre-push hook",
                    remedy="let git call this gate: glimmer-store hook install",
                )
            if words[1].strip("0"):
                found.append(cls(words[0], words[1], words[2]))
        return found


def git(root: Path, *words: str, given: bytes = b"", check: bool = True, fine: Collection[int] = (0,)) -> bytes:
    """What git prints when it is *given* something to read; *fine* are the exit codes that are no failure.

    Raises:
        GraphError: It failed, or did not end.
    """
    command = ["git", "-C", str(root), *words]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"):  # of the push that called a hook
        environment.pop(name, None)
    try:
        done = subprocess.run(command, capture_output=True, env=environment, input=given, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GraphError(f"{shell_line(*command)}: {error}", remedy="is git installed, and does it answer?") from error
    if check and done.returncode not in fine:
        said = done.stderr.decode(errors="replace").strip()
        raise GraphError(f"{shell_line(*command)}: {said}", remedy="see what git says")
    return done.stdout


# -- push --


async def check_push(graph: GlimmerGraph, name: str, url: str, pushed: Iterable[Push]) -> Verdict:
    """Whether what is pushed names an irreplaceable output that has too few copies now.

    Outputs that can be made again are only noted. Everything may go to the durable remotes themselves, since
    that is how copies come about; so may the git-annex branch.

    Args:
        graph: Of the dataset that is pushed.
        name, url: Of the remote.
        pushed: Which refs.
    """
    config = graph.archive.config
    uuid = graph.archive.repository.config.get(f"remote.{name}.annex-uuid")
    if any(url == place.url or uuid == place.uuid for place in config.durable):
        return Verdict(notes=(f"{name} is a durable remote: everything may go there",))
    commits = dict.fromkeys(push.commit for push in pushed if push.ref not in _ANNEX_REFS)
    nodes: dict[tuple[Path, bytes], GlimmerNode] = {}
    refusals = []
    for commit in commits:
        for path, raw in _node_files(graph.root, commit, config):
            try:
                node = graph.read(path, raw)
            except (SidecarError, AnnexError) as error:
                text = f"its node cannot be read: {error}"
                remedy = "mend the file, commit it, and push again"
                refusals.append(Refusal("graph", str(path), text, remedy, runs=False))
                continue
            if node.type in ("dataset", "derivative") and (node.key is not None or node.output is not None):
                nodes[path, raw] = node
    if not nodes:
        return Verdict(tuple(refusals))
    report = await look(graph, full=False, only=nodes.values())
    short = [entry for entry in report.objects if not entry.safe]
    grave = [entry for entry in short if entry.storage_class is StorageClass.IRREPLACEABLE]
    notes = [f"{e.name}: {len(e.live)} of {e.needed} copies; it can be made again" for e in short if e not in grave]
    return Verdict((*refusals, *map(of_object, grave)), tuple(notes))


def _node_files(root: Path, commit: str, config: Config) -> Iterator[tuple[Path, bytes]]:
    """(path, content) of every node file of a commit."""
    listed = git(root, "ls-tree", "-r", "-z", commit, "--", f"{config.graph}/").split(b"\0")
    blobs = []
    for entry in filter(None, listed):
        about, _, path = entry.partition(b"\t")
        mode, kind, blob = about.split(b" ")
        if kind == b"blob" and mode != b"120000" and path.endswith(b".md"):
            blobs.append((Path(os.fsdecode(path)), blob))
    rest = git(root, "cat-file", "--batch", given=b"".join(blob + b"\n" for _, blob in blobs))
    for file, _ in blobs:  # each answers with "BLOB blob SIZE", a line end, the content, and a line end
        head, _, rest = rest.partition(b"\n")
        size = int(head.rsplit(b" ", 1)[1])
        yield file, rest[:size]
        rest = rest[size + 1 :]


def of_object(entry: ObjectStatus) -> Refusal:
    """The refusal of an object that is not safe."""
    text = f"irreplaceable, {len(entry.live)} of {entry.needed} copies are there"
    if entry.storage_class is StorageClass.GENERATED:
        text = f"{len(entry.live)} of {entry.needed} copies are there"
    if entry.state is State.UNREACHABLE:
        names = ", ".join(entry.unreachable)
        return Refusal(
            "unreachable", entry.name, f"{text}; {names} cannot be asked", f"try again when {names} answers", runs=False
        )
    command = next((matter.command for matter in entry.findings if matter.kind == "copies"), "")
    nobody = "no place and no file has it any more: bring back a repository that had it (glimmer-store explain)"
    return Refusal("copies", entry.name, text, command or nobody, runs=bool(command) and " init " not in command)


# -- CI --


async def check_graph(root: Path, *, live: bool = False) -> Verdict:
    """Whether the graph holds by its files alone, as CI sees it; with *live* the durable remotes are asked as well."""
    result = validate(root)
    refusals = [
        Refusal(
            "copies" if finding.level is Level.UNDER_REPLICATED else "graph",
            finding.node or str(finding.file),
            f"{finding.field}: {finding.message}" if finding.field else finding.message,
            finding.remedy,
            runs=False,
        )
        for finding in result.findings
        if finding.level is not Level.WARNING
    ]
    notes = [str(finding) for finding in result.findings if finding.level is Level.WARNING]
    if live:
        async with GlimmerGraph.open(root) as graph:
            report = await look(graph, full=False)
        refusals += [of_object(entry) for entry in report.objects if not entry.safe]
    return Verdict(tuple(refusals), tuple(notes))
