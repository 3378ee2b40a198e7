"""The only place that knows the library ``datamanifestpy``: what a manifest declares, and where its data is here.

The library stays the authority for its own rules: where data lies, how it is published (aside, renamed into place,
marked complete, under a lock), and how calls of a cached function are named. Nothing of that is computed twice.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from glimmer_store.errors import ConfigError
from glimmer_store.manifest.errors import ManifestError

try:
    import datamanifest as _dm
except ImportError as error:
    raise ConfigError(
        f"manifests need the library datamanifestpy: {error}", remedy="pip install 'annexpy[manifest]'"
    ) from error
if not hasattr(_dm, "Database"):
    raise ConfigError(
        f"{getattr(_dm, '__file__', 'datamanifest')}: is the PyPI project `datamanifest` (RDF), not about manifests; "
        "the PyPI project `datamanifestpy` is needed, and both import as `datamanifest`",
        remedy="pip uninstall datamanifest && pip install 'datamanifestpy>=0.19.2,<0.20'",
    )
from datamanifest import cache as _cache
from datamanifest import config as _config
from datamanifest import database as _database
from datamanifest import store as _store

__all__ = ["MARKER", "Declared", "Project", "cached", "find_manifest", "param_hash"]

MARKER: Final = ".complete"
"""The file in a folder, or the ending beside a file, that says that it was published whole."""
_NAMES: Final = ("datamanifest.toml", "DataManifest.toml", "datasets.toml", "Datasets.toml")

Kind: TypeAlias = Literal["dataset", "artefact"]


@dataclass(frozen=True, slots=True)
class Declared:
    """A dataset of a manifest, or an artefact that a cached function produced.

    Attributes:
        kind: Which of the two.
        name: In the manifest; of an artefact, what people type: ``cachetype[/version]/hash``.
        address: What it is called wherever it is stored: ``datasets/STORAGE-KEY`` or
            ``datacache/CACHETYPE[@VERSION]/HASH``.
        place: Below a datasets or cache folder: the storage key, or ``cachetype[/version]/hash``.
        path: Where it is read; where it would be, when it is not there.
        target: Where it belongs, by the rules of the manifest on this machine.
        expected: ``algorithm:hex`` as the author declared; empty when nothing is declared, or not to be checked.
        lazy: It is opened where it is and never here.
        managed: The tool may write and remove it: it is not the user's own file.
        format: Of an artefact, how its value is written.
        ref: Of an artefact, the function, where the state says so.
    """

    kind: Kind
    name: str
    address: str
    place: str
    path: Path
    target: Path
    expected: str = ""
    lazy: bool = False
    managed: bool = True
    format: str = ""
    ref: str = ""

    @property
    def present(self) -> bool:
        """Something is where it is read."""
        return not self.lazy and os.path.lexists(self.path) and self.path.exists()


def find_manifest(folder: Path) -> Path:
    """The manifest in *folder*.

    Raises:
        ManifestError: There is none.
    """
    for name in _NAMES:
        if (folder / name).is_file():
            return folder / name
    raise ManifestError(f"{folder}: has no datamanifest.toml", remedy="name one with --manifest FILE")


class Project:
    """A manifest, with its folders on this machine. Reading it never writes it.

    Args:
        manifest: The file.

    Raises:
        ManifestError: It cannot be read.
    """

    def __init__(self, manifest: Path) -> None:
        self.manifest = manifest.resolve()
        self.root = self.manifest.parent
        try:
            self.raw = self.manifest.read_bytes()
            tomllib.loads(self.raw.decode())
            # with persist=False the library forgets the project's folder, which relative places hang on
            self._db: Any = _dm.Database(datasets_toml=str(self.manifest))  # Any: the library has no types
        except (OSError, ValueError, TypeError) as error:
            raise ManifestError(f"{manifest}: {error}", remedy="mend the file; it is plain TOML") from error

    # -- what there is --

    def datasets(self) -> Iterator[Declared]:
        """Every dataset of the manifest, in its order."""
        for name, entry in self._db.datasets.items():
            yield self._dataset(name, entry)

    def artefacts(self) -> Iterator[Declared]:
        """Every whole artefact of the cache: its parameters hash to its name."""
        seen: set[str] = set()
        refs = {(record["cachetype"], record["version"]): record for record in self._state().recipe_records()}
        roots = [self.cache_folder]
        for record in refs.values():
            roots += [self._absolute(path) for path in record["instances"].values() if path]
        for root in roots:
            for found in _cache.enumerate_artifacts(str(root), with_size=False, with_created=False):
                location = Path(found.location)
                if found.key in seen or not (location / MARKER).exists() or not _is_valid(location):
                    continue
                record = refs.get((found.cachetype, found.version), {})
                artefact = self.artefact(
                    found.cachetype, found.version, found.hash, found.format, record.get("ref", "")
                )
                if artefact.address not in seen:
                    seen.add(artefact.address)
                    yield Declared(**{**_fields(artefact), "path": location})

    def artefact(self, cachetype: str, version: str, hash_: str, format_: str = "", ref: str = "") -> Declared:
        """The artefact of these names, whether it is there or not."""
        parts = [cachetype, version, hash_] if version else [cachetype, hash_]
        place = "/".join(parts)
        address = f"datacache/{cachetype}@{version}/{hash_}" if version else f"datacache/{cachetype}/{hash_}"
        target = self.cache_folder.joinpath(*parts)
        recorded = self._state().instance_path_of(cachetype=cachetype, version=version, hash=hash_)
        there = self._absolute(recorded) if recorded else target
        path = there if there.exists() else target
        return Declared("artefact", place, address, place, path, target, format=format_, ref=ref)

    def find(self, name: str) -> Declared:
        """What *name* means: a dataset by name, alias or DOI; an artefact by ``cachetype[/version]/hash`` or a prefix.

        Raises:
            ManifestError: Nothing, or more than one thing.
        """
        found = _database.search_datasets(self._db, name)
        produced = [one for one in self.artefacts() if one.name == name or one.name.startswith(name)]
        exact = [one for one in produced if one.name == name] or produced
        if len(found) + len(exact) > 1:
            names = ", ".join([*(key for key, _ in found), *(one.name for one in exact)])
            raise ManifestError(f"{name}: can be each of {names}", remedy="name it in full")
        if found:
            return self._dataset(*found[0])
        if exact:
            return exact[0]
        raise ManifestError(f"{name}: no dataset of {self.manifest.name}, and no artefact", remedy="see its names")

    def named(self, address: str) -> Declared | None:
        """What has this address here; None for a dataset that the manifest does not declare."""
        kind, _, rest = address.partition("/")
        if kind == "datasets":
            return next((one for one in self.datasets() if one.place == rest), None)
        recipe, _, hash_ = rest.rpartition("/")
        cachetype, _, version = recipe.partition("@")
        return self.artefact(cachetype, version, hash_)

    def with_origin(self, declared: Declared, format_: str, ref: str) -> Declared:
        """The same with what a record knows of how it was made."""
        return Declared(**{**_fields(declared), "format": declared.format or format_, "ref": declared.ref or ref})

    def _dataset(self, name: str, entry: Any) -> Declared:  # Any: a DatasetEntry of the library
        checked = entry.checksum and not entry.skip_checksum and not self._db.skip_checksum
        storage = {"project_root": str(self.root), "storage_config": self._db.storage_config}
        target = "" if entry.lazy_access else _database.get_dataset_path(entry, **storage)
        path = target
        if target:
            path = _database.resolve_existing_path(self._db, entry)
            if not os.path.exists(path):
                path = self._pooled(entry) or path
        target, path = (_local(where) for where in (target, path))
        managed = not (entry.skip_download or _store.locations.is_user_managed(entry.storage_path))
        place = _config.get_extract_path(entry.key) if entry.extract else entry.key
        return Declared(
            "dataset",
            name,
            f"datasets/{place}",
            place,
            self.root / path,
            self.root / target,
            entry.checksum if checked else "",
            bool(entry.lazy_access),
            managed,
        )

    def _pooled(self, entry: Any) -> str:
        """A pool that has it, whatever its content: that is looked at here."""
        if entry.skip_download or _store.locations.is_user_managed(entry.storage_path):
            return ""
        place = _config.get_extract_path(entry.key) if entry.extract else entry.key
        pools = _store.locations.datasets_pools(project_root=str(self.root), storage_config=self._db.storage_config)
        return next((found for pool in pools if os.path.exists(found := os.path.join(pool, place))), "")

    # -- where it is, and what is written --

    @property
    def cache_folder(self) -> Path:
        """Where artefacts belong."""
        found = _store.datacache_dir(project_root=str(self.root), storage_config=self._db.storage_config)
        return Path(found)

    @property
    def state_file(self) -> Path:
        """Where the library keeps what is where."""
        return self.root / str(_cache.STATE_FILE_NAME)

    def context(self) -> object:
        """For the library's cached functions: this project, wherever the process runs."""
        return _cache.CacheContext(str(self.root), self._db.storage_config, str(self.state_file))

    def resolve(self, expression: str) -> Path:
        """A path as the manifest writes paths, on this machine."""
        found = _store.resolve_path(expression, project_root=str(self.root), storage_config=self._db.storage_config)
        return Path(found)

    def is_outside(self, path: Path) -> bool:
        """It is neither in the project nor in the library's own folders of this user, once links are followed.

        A repository's own folder counts as outside.
        """
        bases = (_store.resolve_symbol(name, storage_config=None) for name in ("user_data_dir", "user_cache_dir"))
        inside = [self.root, *(Path(base, "datamanifest").resolve() for base in bases)]
        real = path.resolve()
        return ".git" in real.parts or not any(real.is_relative_to(folder) for folder in inside)

    def mark(self, target: Path) -> None:
        """Say that *target* is whole."""
        Path(_store.marker_path(str(target))).touch()

    def record(self, declared: Declared, path: Path, sha256: str) -> None:
        """Write into the state that it is at *path*, with the digest that was *measured* there."""
        state, where = self._state(), str(path)
        if path.is_relative_to(self.root):
            where = str(path.relative_to(self.root))
        if declared.kind == "dataset":
            key = next(e.key for name, e in self._db.datasets.items() if name == declared.name)
            state.register_dataset(key=key, storage_path=where, sha256=sha256)
        else:
            cachetype, version, hash_ = _recipe(declared)
            state.register(
                cachetype=cachetype, version=version, hash=hash_, ref=declared.ref, format=declared.format,
                storage_path=where,
            )  # fmt: skip
        state.write()

    def forget(self, declared: Declared) -> None:
        """Take it out of the state."""
        state = self._state()
        if declared.kind == "dataset":
            key = next(e.key for name, e in self._db.datasets.items() if name == declared.name)
            gone = state.remove_dataset(key)
        else:
            cachetype, version, hash_ = _recipe(declared)
            gone = state.remove_instance(cachetype=cachetype, version=version, hash=hash_)
        if gone:
            state.write()

    def recorded(self, declared: Declared) -> str:
        """The digest that the state has of a dataset; empty when it has none."""
        key = next((e.key for name, e in self._db.datasets.items() if name == declared.name), "")
        return str(self._state().dataset_sha256_of(key))

    def publish(self, target: Path, write: Callable[[Path], None], *, replace: bool = False) -> bool:
        """Let *write* fill a place aside, then rename it to *target* and mark it complete, under the library's lock.

        Returns:
            False when somebody else had published *target* meanwhile, and *replace* does not ask for it anew.
        """
        written = []

        def fill(aside: str) -> None:
            write(Path(aside))
            written.append(aside)
            if replace:
                _store.remove_path(str(target))

        there = None if replace else _store.is_complete
        age = _store.materialize.lock_stale_age(self._db.storage_config)
        try:
            _store.materialize_target(str(target), fill, skip_if=there, merge=False, stale_age=age)
        except (FileExistsError, _store.materialize.LockedError) as error:
            raise ManifestError(f"{target}: {error}", remedy="move what is there away, or ask to replace it") from error
        except OSError as error:
            raise ManifestError(f"{target}: {error.strerror or error}") from error
        return bool(written)

    def remove(self, declared: Declared) -> None:
        """Remove the bytes at its own place, with their marks."""
        for ending in ("", MARKER, ".lock", ".tmp"):
            _store.remove_path(str(declared.target) + ending)

    def concatenated(self, path: Path, algorithm: str = "sha256") -> str:
        """The library's own digest of a file or folder, hex; that of a folder does not see names.

        Raises:
            ManifestError: The algorithm is not known, or it cannot be read.
        """
        try:
            return str(_config.hash_path(str(path), algorithm))
        except (OSError, ValueError) as error:
            raise ManifestError(f"{path}: {error}") from error

    def _absolute(self, path: str) -> Path:
        return self.root / path

    def _state(self) -> Any:
        try:
            return _cache.CachedIndex.read_or_empty(str(self.root))
        except (OSError, ValueError) as error:
            raise ManifestError(f"{self.state_file}: {error}", remedy="remove the file; it is made anew") from error


def cached(**options: Any) -> Any:
    """The library's decorator."""
    return _cache.cached(**options)


def param_hash(arguments: Mapping[str, Any], select: Any = None) -> str:
    """The name of a call with these keyword arguments, as the library computes it."""
    table = _cache.key_table_from_kwargs(dict(arguments))
    if select is not None:
        table = dict(select(table)) if callable(select) else {name: table[name] for name in select if name in table}
    return str(_cache.param_hash(table))


def _fields(declared: Declared) -> dict[str, Any]:
    return {name: getattr(declared, name) for name in Declared.__slots__}


def _recipe(declared: Declared) -> tuple[str, str, str]:
    """Cachetype, version and hash of an artefact."""
    recipe, _, hash_ = declared.address.removeprefix("datacache/").rpartition("/")
    cachetype, _, version = recipe.partition("@")
    return cachetype, version, hash_


def _is_valid(folder: Path) -> bool:
    try:
        return bool(_cache.config_is_valid(str(folder)))
    except (OSError, ValueError):
        return False


def _local(where: str) -> str:
    return where.removeprefix("file://")
