"""What a ``datamanifest.toml`` can name: a fetcher that gets contents from the archive, and a loader that opens them.

::

    [co2._LANG.python.fetcher]
    ref = "glimmer_store.datamanifest:fetch"
    kwargs = { annex_key = "SHA256E-…", dest = "$download_path", uri = "https://…" }

    [volume]
    uri = "annex://lab/SHA256E-…/volume.nii.gz"
    lazy_access = true
    loader = "glimmer_store.datamanifest:open_annex"

Nothing here needs the library, so it works in any process that the library starts.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import annexpy as annex
from glimmer_store.config import CONFIG_NAME
from glimmer_store.errors import ConfigError
from glimmer_store.fetching import get_from_web, get_good

__all__ = ["dataset_of", "fetch", "fetch_content", "open_annex", "run_blocking"]


def fetch(
    download_path: str = "", *, annex_key: str = "", dest: str = "", uri: str = "", project_root: str = ".", **_: Any
) -> str:
    """Write the content of *annex_key* to *dest*, from the archive of the project; from *uri* when nobody has it.

    Returns:
        The path that was written.

    Raises:
        ConfigError: No key is named, or the project is no dataset.
        AnnexError: No good copy can be had.
    """
    if not annex_key or not (dest or download_path):
        raise ConfigError("no key is named, or no place", remedy='give the fetcher kwargs = { annex_key = "KEY", '
                          'dest = "$download_path" }')  # fmt: skip
    target, start = Path(dest or download_path), Path(project_root or ".")
    run_blocking(fetch_content, annex.Key.parse(annex_key), target, dataset_of(start) or start, [uri] if uri else [])
    return str(target)


async def fetch_content(
    key: annex.Key, target: Path, dataset: Path, urls: Sequence[str] = (), remotes: Sequence[str] = ()
) -> str:
    """Write a content, or the folder whose list *key* is the key of, to *target*; where it came from.

    The cheapest place first, the next one when a copy is bad or cannot be had, *urls* last. What comes is verified
    while it is written, and *target* is there only when it is right.

    Args:
        key: What.
        target: Where to; its folder is made.
        dataset: Whose durable remotes are asked, if it has any.
        urls: Where the web may have it.
        remotes: Addresses of repositories to ask in place of the dataset's.

    Raises:
        AnnexError: No good copy can be had; that of the archive, when all failed.
    """
    from contextlib import AsyncExitStack

    from glimmer_store.archive import Archive
    from glimmer_store.manifest.local_contents import sources_of

    _make_room(target)
    problem: annex.AnnexError = annex.KeyNotPresent(key, str(dataset))
    async with AsyncExitStack() as stack:
        try:
            if remotes:
                sources: list[annex.Remote] = [await stack.enter_async_context(annex.connect(one)) for one in remotes]
            else:
                archive = await stack.enter_async_context(Archive.open(dataset))
                here = await stack.enter_async_context(annex.connect(str(dataset)))
                sources = sources_of(archive, here)
            await _fetch(sources, key, target)
            return "the archive"
        except annex.AnnexError as error:
            problem = error
    for url in urls:
        try:
            await get_from_web(url, key, target)
            return url
        except annex.AnnexError:
            continue
    raise problem


async def _fetch(sources: Sequence[annex.Remote], key: annex.Key, target: Path) -> None:
    if not key.name.endswith(b".tree"):
        await get_good(sources, key, target)
        return
    from glimmer_store.manifest.bundle import checked_tree
    from glimmer_store.manifest.delivering import fill

    listed = target.with_name(f".{target.name}.{os.getpid()}.tree")
    try:
        await get_good(sources, key, listed)
        tree = checked_tree(_read(listed), str(key))
    finally:
        listed.unlink(missing_ok=True)
    await fill(sources, key, tree, target)


def open_annex(uri: str, *_: Any, **__: Any) -> io.BufferedIOBase:
    """Open what ``annex://PLACE/KEY[/NAME]`` names, for reading from any position, without fetching all of it.

    PLACE is the name of a durable remote of the dataset that the process runs in, or the percent-encoded address of
    a repository. The file system for fsspec is used where it is installed.

    Raises:
        InvalidInput: It is no such URI.
        ConfigError: There is no such durable remote.
    """
    parts = urlsplit(uri)
    place, name = unquote(parts.netloc), parts.path.lstrip("/").partition("/")[0]
    if parts.scheme != "annex" or not place or not name:
        raise annex.InvalidInput("uri", uri, "annex://PLACE/KEY[/NAME]")
    address, key = _address(place), annex.Key.parse(unquote(name))
    if importlib.util.find_spec("fsspec") is not None:
        fsspec: Any = importlib.import_module("fsspec")
        if "annex" in fsspec.available_protocols():
            opened: io.BufferedIOBase = fsspec.filesystem("annex", remote=address).open(str(key))
            return opened
    import annexpy.sync as blocking

    return blocking.open(blocking.connect(address), key)


def dataset_of(start: Path) -> Path | None:
    """The dataset that *start* lies in."""
    top = start.resolve()
    return next((folder for folder in (top, *top.parents) if (folder / CONFIG_NAME).exists()), None)


def _address(place: str) -> str:
    from glimmer_store.config import Config

    root = dataset_of(Path.cwd())
    if root is not None:
        for durable in Config.load(root).durable:
            if place in (durable.name, str(durable.uuid)):
                return durable.url
    if "/" in place or ":" in place or Path(place).exists():
        return place
    raise ConfigError(f"{place}: no durable remote of that name", remedy="run it in the dataset, or name an address")


def run_blocking(function: Any, *args: Any) -> Any:
    """Run an async function to its end, also in a process that has an event loop of its own."""
    import annexpy.sync as blocking

    return blocking.run(function, *args)


def _make_room(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)


def _read(path: Path) -> bytes:
    return path.read_bytes()
