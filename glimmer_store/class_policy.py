"""Storage classes as git-annex knows them: ``annex.numcopies`` in ``.gitattributes``, numcopies, mincopies, required.

Everything counts as irreplaceable unless an output is generated: the general rule asks for the copies of the
irreplaceable, and outputs of the other class have rules of their own, one for a folder where everything that git
tracks in it is of that class. A rule covers what is added to such a folder later; apply again when that is not meant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import annexpy as annex
from glimmer_store.entry import Part
from glimmer_store.errors import shell_line
from glimmer_store.gates import git
from glimmer_store.graph import GlimmerGraph
from glimmer_store.policy import StorageClass
from glimmer_store.status import Matter, class_of

__all__ = ["ClassPolicy", "apply", "examine", "rules", "with_block"]

_FILE = b".gitattributes"
_BEGIN = b"# glimmer-store: copies of each storage class; made by `glimmer-store policy --apply`, do not edit\n"
_END = b"# glimmer-store: end\n"
_BLOCK = re.compile(re.escape(_BEGIN) + b".*?" + re.escape(_END), re.DOTALL)
_ROOT = PurePosixPath()


@dataclass(frozen=True, slots=True)
class ClassPolicy:
    """How the settings should be, and what is not so.

    Attributes:
        attributes: ``.gitattributes`` as it should be.
        numcopies, mincopies: Of all repositories together.
        required: Repository → expression; only where every durable repository is needed for each irreplaceable output.
        drift: What differs from that.
    """

    attributes: bytes
    numcopies: int
    mincopies: int
    required: Mapping[annex.UUID, str]
    drift: tuple[Matter, ...]


def rules(
    outputs: Mapping[PurePosixPath, int], tracked: Iterable[PurePosixPath], general: int
) -> list[tuple[PurePosixPath, bool, int]]:
    """(path, is a folder, copies) wherever the copies are not *general*, as few as say it.

    Args:
        outputs: Output → copies that it needs.
        tracked: What git tracks, outputs or not.
        general: Copies that everything else needs.
    """
    copies = dict.fromkeys(tracked, general) | dict(outputs)
    below: dict[PurePosixPath, set[int]] = {}
    inside: dict[PurePosixPath, set[PurePosixPath]] = {}
    for path, number in copies.items():
        child = path
        for folder in path.parents:
            below.setdefault(folder, set()).add(number)
            inside.setdefault(folder, set()).add(child)
            child = folder
    found = []
    todo = [_ROOT]
    while todo:
        folder = todo.pop()
        for path in sorted(inside.get(folder, ())):
            numbers = below.get(path, set()) | ({copies[path]} if path in copies else set())
            if numbers == {general}:
                continue
            if len(numbers) > 1:
                todo.append(path)
            else:
                (number,) = numbers
                found.append((path, path in below, number))
    return sorted(found)


def with_block(content: bytes, made: Iterable[tuple[PurePosixPath, bool, int]], general: int) -> bytes:
    """``.gitattributes`` with our rules; everything else in it stays as it is. Ours come last, so they count."""
    lines = [b"* annex.numcopies=%d\n" % general]
    for path, folder, number in made:
        lines.append(b"%b annex.numcopies=%d\n" % (_pattern(path, folder), number))
        if not folder:  # an output may be a folder that git does not track
            lines.append(b"%b annex.numcopies=%d\n" % (_pattern(path, True), number))
    block = _BEGIN + b"".join(lines) + _END
    rest = _BLOCK.sub(b"", content)
    if rest and not rest.endswith(b"\n"):
        rest += b"\n"
    return rest + block


def _pattern(path: PurePosixPath, folder: bool) -> bytes:
    """A pattern that fits *path* from the top, or everything below it, and nothing else; quoted as git reads it."""
    escaped = re.sub(rb"([\\*?\[])", rb"\\\1", b"/" + os.fsencode(str(path))) + (b"/**" if folder else b"")
    if re.fullmatch(rb"[!-~]+", escaped) and b'"' not in escaped:
        return escaped
    quoted = b"".join(
        b"\\" + bytes((c,)) if c in b'"\\' else bytes((c,)) if 32 <= c < 127 else b"\\%03o" % c for c in escaped
    )
    return b'"' + quoted + b'"'


def examine(graph: GlimmerGraph) -> ClassPolicy:
    """What the classes of the graph ask for, held against what is set. Nothing is changed.

    Raises:
        GraphError: The dataset is in no git repository.
    """
    config, repository = graph.archive.config, graph.archive.repository
    general, fewest = config.numcopies[StorageClass.IRREPLACEABLE], min(config.numcopies.values())
    outputs = {
        PurePosixPath(node.output.as_posix()): max(node.numcopies_required, config.numcopies[class_of(node)])
        for node in graph.nodes()
        if node.output is not None
    }
    tracked = [PurePosixPath(os.fsdecode(name)) for name in git(graph.root, "ls-files", "-z").split(b"\0") if name]
    content = _read(graph)
    wanted = with_block(content, rules(outputs, tracked, general), general)
    # a removal must never leave fewer than that, whatever else goes wrong; one less than needed lets things move
    mincopies = max(1, fewest - 1)
    places = [place.uuid for place in config.durable]
    required = dict.fromkeys(places, "anything") if len(places) == general == fewest else {}
    fix = shell_line("glimmer-store", "policy", "--apply", "-C", graph.root)
    drift = []
    if wanted != content:
        drift.append(Matter("policy", ".gitattributes", "does not say how many copies each output needs", fix))
    facts = annex.Facts(repository)
    for name, logged, number in zip(("numcopies", "mincopies"), facts.logged_copies, (general, mincopies), strict=True):
        if logged is None or logged < number:
            said = f"is {'not set' if logged is None else logged}, the classes ask for {number}"
            drift.append(Matter("policy", name, said, fix))
    known = annex.Wanted(repository).repositories.required
    drift += [
        Matter("policy", place.name, "holds one of the only copies, and may drop it", fix)
        for place in config.durable
        if place.uuid in required and not known.get(place.uuid)
    ]
    for path, number in outputs.items():
        said_copies = facts.attribute_copies(os.fsencode(str(path)))
        if said_copies is not None and said_copies < number and wanted == content:
            text = f"another rule of .gitattributes asks for {said_copies} copies, its class for {number}"
            drift.append(Matter("policy", str(path), text))
    return ClassPolicy(wanted, general, mincopies, required, tuple(drift))


async def apply(graph: GlimmerGraph) -> ClassPolicy:
    """Set what is not as it should be, commit it, and push it to the durable remotes; what was found before."""
    found, content = examine(graph), _read(graph)
    repository = graph.archive.repository
    logged = annex.Facts(repository).logged_copies
    known = annex.Wanted(repository).repositories.required
    annex.configure(
        repository,
        numcopies=max(found.numcopies, logged[0] or 1),
        mincopies=max(found.mincopies, logged[1] or 1),
        required={uuid: said for uuid, said in found.required.items() if not known.get(uuid)},
    )
    await repository.branch.commit()
    if found.attributes != content:
        part = Part(_FILE, "whole", found.attributes, content or None)
        await graph.enter("glimmer-store: copies of each storage class", [part])
    return found


def _read(graph: GlimmerGraph) -> bytes:
    try:
        return (graph.root / os.fsdecode(_FILE)).read_bytes()
    except FileNotFoundError:
        return b""
