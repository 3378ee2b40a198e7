"""``@cached``, as datamanifest has it, with memory that outlives a machine: found here, else in the archive, else run.

::

    from glimmer_store.cache import cached

    @cached(format="json", version="v1", durable="generated")
    def anomaly(*, grid: str) -> dict[str, float]: ...

What is found here is compared with what was stored, or measured when it was made, before it is used: at once when the
files were touched, and again when that is longer ago than the policy allows. What differs is moved aside, and the call
goes on as if nothing had been here. Everything else is the library's own: names, places, locks, formats.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import annexpy as annex
from glimmer_store.config import Config
from glimmer_store.datamanifest import dataset_of, run_blocking
from glimmer_store.errors import SourceRefused
from glimmer_store.manifest import library
from glimmer_store.manifest.bundle import Bundle, WorkTree
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.library import MARKER, Declared, Project
from glimmer_store.manifest.observing import Observations
from glimmer_store.manifest.standing import Policy
from glimmer_store.policy import StorageClass

__all__ = ["Durable", "cached", "wait"]

log = logging.getLogger(__name__)

Durable: TypeAlias = Literal["generated", "irreplaceable"]
_CODE = ("pickle", "pkl")
"""Formats whose files run code when they are read."""
_behind = ThreadPoolExecutor(1, thread_name_prefix="glimmer-store-archive")  # its thread starts with the first use
_waiting: list[Future[None]] = []


# Any: a decorator of functions of any kind, with the library's own options
def cached(
    _fn: Callable[..., Any] | None = None,
    *,
    durable: Durable | None = None,
    policy: Policy | None = None,
    trust_pickle: bool = False,
    manifest: str | os.PathLike[str] = "",
    cachetype: str | None = None,
    format: str | None = None,
    key: Callable[[dict[str, Any]], dict[str, Any]] | Sequence[str] | None = None,
    basename: str = "",
    version: str = "",
    storage_path: str = "",
    name: str = "",
) -> Any:
    """Produce or load, as ``datamanifest.cache.cached``; the parameters that are not described here are its own.

    Args:
        durable: Archive what is produced: ``generated`` behind the caller's back (see ``wait``), ``irreplaceable``
            before the call returns. And look in the archive before running.
        policy: How long what is here is believed without being read again.
        trust_pickle: Load pickles from the archive. Reading one runs code: only where all who can write there may.
        manifest: Default: that of the folder the process runs in, or of one above.
    """
    options = {"cachetype": cachetype, "format": format, "key": key, "basename": basename, "version": version}
    options |= {"storage_path": storage_path, "name": name}

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        plain = library.cached(**options, context=lambda: _project(manifest).context())(function)
        recipe = _Recipe(plain.recipe, key, basename, storage_path, durable, policy or Policy(), trust_pickle)

        @functools.wraps(plain)
        def call(*args: Any, cached: bool = True, cache_dir: str = "", **kwargs: Any) -> Any:
            if args:
                return plain(*args, **kwargs)  # which refuses them
            one = _Call(recipe, _project(manifest), kwargs, cache_dir)
            found = cached and one.find()
            value = plain(cached=cached, cache_dir=cache_dir, **kwargs)
            if not found:
                one.keep()
            return value

        return call

    return decorate if _fn is None else decorate(_fn)


def wait() -> None:
    """Wait until everything that is archived behind the caller's back is.

    Raises:
        AnnexError: What went wrong with the first of them that did not get there. The values are here all the same.
    """
    while _waiting:
        _waiting.pop(0).result()


class _Recipe:
    """One decorated function."""

    def __init__(
        self,
        recipe: Any,  # Any: the library's
        key: Any,
        basename: str,
        storage_path: str,
        durable: Durable | None,
        policy: Policy,
        trust_pickle: bool,
    ) -> None:
        self.cachetype, self.version, self.format, self.ref = (
            recipe.cachetype,
            recipe.version,
            recipe.format,
            recipe.ref,
        )
        self.key, self.storage_path, self.durable = key, storage_path, durable
        self.policy, self.trust_pickle = policy, trust_pickle
        self.file = f"{basename or 'data'}.{recipe.format}"


class _Call:
    """One call: where its value is, and whether that may be believed."""

    def __init__(self, recipe: _Recipe, project: Project, arguments: dict[str, Any], cache_dir: str) -> None:
        self._recipe, self._project = recipe, project
        self._dataset = dataset_of(project.root)
        if recipe.durable is not None:
            Config.load(self._dataset or project.root)  # before anything is computed that could not be kept
        hash_ = library.param_hash(arguments, recipe.key)
        declared = project.artefact(recipe.cachetype, recipe.version, hash_, recipe.format, recipe.ref)
        if recipe.storage_path:
            declared = _at(declared, project.resolve(recipe.storage_path) / hash_)
        elif cache_dir:
            declared = _at(declared, Path(cache_dir, *declared.place.split("/")))
        self._declared = declared
        self._observations = Observations(project.root)
        self._records = WorkTree(self._dataset or project.root)

    def find(self) -> bool:
        """A value that may be believed is here now."""
        path = self._declared.path
        if (path / MARKER).exists() and (path / self._recipe.file).exists():
            if self._is_right(path):
                return True
            if path != self._declared.target:
                raise ManifestError(f"{path}: is not what was stored", remedy="make that view or pool anew")
            aside = path.with_name(f"{path.name}.bad-{time.time_ns()}")
            path.rename(aside)
            log.warning("%s: is not what was stored; moved to %s", path, aside)
        return self._recipe.durable is not None and self._from_archive()

    def keep(self) -> None:
        """Measure what was just produced, and archive it."""
        path = self._declared.target
        if not (path / MARKER).exists():
            return  # a pool had it
        run_blocking(self._observations.measure, path)
        if self._recipe.durable == "irreplaceable":
            self._archive()
        elif self._recipe.durable is not None:
            _waiting.append(_behind.submit(self._archive))

    def _is_right(self, path: Path) -> bool:
        known = {record.digest for record in self._records.of(self._declared.address)}
        last = self._observations.last(path)
        now = self._observations.of(path)
        class_ = self._recipe.durable or "generated"
        fresh = now is not None and not self._recipe.policy.stale(now, class_, datetime.now(UTC))
        if fresh and now is not None and (not known or now.digest in known):
            return True
        try:
            measured = run_blocking(self._observations.measure, path)
        except SourceRefused:
            return True  # a view: its contents were read before they were shown, and cannot be written
        if not known:
            return last is None or last.digest == measured.digest
        return measured.digest in known

    def _from_archive(self) -> bool:
        record = self._records.current(self._declared.address)
        if record is None:
            return False
        if self._recipe.format in _CODE and not self._recipe.trust_pickle:
            log.warning("%s: the archive has a pickle, which is code; it is computed again", self._declared.name)
            return False
        try:
            run_blocking(self._deliver, record)
        except annex.AnnexError as error:
            log.warning("%s: the archive has it, and it cannot be had: %s", self._declared.name, error)
            return False
        return (self._declared.target / self._recipe.file).exists()

    async def _deliver(self, record: Bundle) -> None:
        from glimmer_store.archive import Archive
        from glimmer_store.manifest.delivering import deliver
        from glimmer_store.manifest.local_contents import sources_of

        assert self._dataset is not None
        async with Archive.open(self._dataset) as archive:
            tree = self._records.tree(record)
            await deliver(self._project, self._declared, record, tree, sources_of(archive))

    def _archive(self) -> None:
        run_blocking(self._store)

    async def _store(self) -> None:
        from glimmer_store.graph import GlimmerGraph
        from glimmer_store.manifest.archiving import archive_manifest

        assert self._dataset is not None
        before = {record.content for record in self._records.of(self._declared.address)}
        declared = _at(self._declared, self._declared.target)
        async with GlimmerGraph.open(self._dataset) as graph:
            class_ = StorageClass(self._recipe.durable)
            async for one in archive_manifest(
                graph, self._project, [declared], storage_class=class_, allow_volatile=True
            ):
                if one.error is not None:
                    raise one.error
                if before and one.record is not None and one.record.content not in before:
                    log.warning("%s: this run came to something else than before; both are kept", declared.name)


def _at(declared: Declared, target: Path) -> Declared:
    return replace(declared, path=target, target=target)


@functools.lru_cache(maxsize=8)
def _read(manifest: Path, _changed: int) -> Project:
    return Project(manifest)


def _project(manifest: str | os.PathLike[str]) -> Project:
    """The manifest, read anew when it changed."""
    path = Path(manifest).resolve() if os.fspath(manifest) else _nearest(Path.cwd())
    return _read(path, path.stat().st_mtime_ns)


def _nearest(start: Path) -> Path:
    for folder in (start, *start.parents):
        try:
            return library.find_manifest(folder)
        except ManifestError:
            continue
    raise ManifestError(f"{start}: no manifest here or above", remedy="write a datamanifest.toml, or name one")
