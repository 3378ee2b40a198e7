"""Restore a whole project from one bare repository: history, manifest, datasets, artefacts and state.

No source URL is asked, and no other repository: the history says what there is, the bare's contents are the bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import annexpy as annex
from glimmer_store.config import Config
from glimmer_store.errors import ConfigError, GraphError
from glimmer_store.gates import git
from glimmer_store.manifest.bundle import Bundle, WorkTree
from glimmer_store.manifest.delivering import deliver
from glimmer_store.manifest.library import Declared, Project, find_manifest
from glimmer_store.provision import add_remote, identify
from glimmer_store.remedies import in_words

__all__ = ["Restored", "clone", "git_url", "head_of", "restore"]

Status: TypeAlias = Literal["restored", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of one address.

    Attributes:
        address: Which.
        status: Whether it is here and was measured to be what is stored.
        path: Where.
        digest: As measured.
        reason: Why it is not here.
    """

    address: str
    status: Status
    path: Path | None = None
    digest: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        path = None if self.path is None else str(self.path)
        return {"address": self.address, "status": self.status, "path": path, "digest": self.digest,
                "reason": self.reason}  # fmt: skip


def clone(remote: str, folder: Path, *, commit: str = "") -> None:
    """Make *folder* a dataset with the history of *remote*, at *commit* if one is named.

    Raises:
        ConfigError: Something is there already.
        GraphError: git cannot clone, or has no such commit.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is there already", remedy="name a folder that does not exist")
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "clone", "--quiet", "--", git_url(remote), str(folder.resolve()))
    if commit:
        git(folder, "checkout", "--quiet", "--detach", commit, "--")
    with annex.Repository.init(folder, bare=False, description=f"restored in {folder.name}") as repository:
        identify(repository)
        for place in Config.load(folder).durable:
            add_remote(repository, place.name, git_url(place.url), place)


def git_url(address: str) -> str:
    """How git reaches the history of what *address* has the contents of."""
    return str(Path(address).resolve()) if Path(address).exists() else address.removeprefix("annex+")


async def restore(
    root: Path,
    remote: str,
    *,
    manifest: Path | None = None,
    outside: bool = False,
    replace: bool = False,
) -> AsyncIterator[Restored]:
    """Bring every recorded content of the dataset *root* back, from *remote* alone.

    Args:
        root: A clone of the dataset.
        remote: Address of the repository that has the contents.
        manifest: If it has several, or one of another name.
        outside: Also write outside of the project and of the library's own folders, where the manifest says so.
        replace: Replace what is there and is something else.

    Raises:
        ManifestError, SidecarError: The clone has no manifest, or its records cannot be read.
    """
    project = Project(manifest or find_manifest(root))
    records = WorkTree(root)
    addresses = dict.fromkeys(record.address for record in records.all())
    declared_now = {one.address: one for one in project.datasets()}
    with annex.Repository.open(root) as repository:
        async with annex.connect(remote, repository=repository) as source:
            for address in addresses:
                declared = declared_now.get(address) or project.named(address)
                if declared is None:
                    yield Restored(address, "skipped", reason="the manifest does not declare it any more")
                    continue
                record = records.current(address, declared.expected)
                assert record is not None
                yield await _one(project, declared, record, records, source, outside, replace)
    for address, declared in declared_now.items():
        if address not in addresses and not declared.lazy:
            yield Restored(address, "skipped", reason="was never archived")


async def _one(
    project: Project,
    declared: Declared,
    record: Bundle,
    records: WorkTree,
    source: annex.Remote,
    outside: bool,
    replace: bool,
) -> Restored:
    if not outside and project.is_outside(declared.target):  # the manifest is somebody's, and writes where it likes
        reason = f"{declared.target} is outside of the project and of datamanifest's folders; allow it with --outside"
        return Restored(declared.address, "skipped", reason=reason)
    declared = project.with_origin(declared, record.format, record.ref)
    try:
        measured = await deliver(project, declared, record, records.tree(record), [source], replace=replace)
    except annex.AnnexError as error:
        return Restored(declared.address, "failed", reason=in_words(error, project.root))
    return Restored(declared.address, "restored", declared.target, measured.digest)


def head_of(remote: str, root: Path) -> str:
    """The commit that *remote* has checked out, fetched into *root*.

    Raises:
        GraphError: git cannot fetch it.
    """
    git(root, "fetch", "--quiet", "--no-tags", "--", git_url(remote), "HEAD")
    found = git(root, "rev-parse", "FETCH_HEAD").decode().strip()
    if not found:
        raise GraphError(f"{remote}: has no history")
    return found
