"""The file system itself: what a path means, and what can be asked of it.

Without a dataset a path is a key. With one it is a file of the dataset, ``sub-01/anat.nii.gz``; a folder or file name
may be followed by ``@`` and a commit, tag or branch (``sub-01@v1.0/anat.nii.gz``, ``sub-01/anat.nii.gz@v1.0``,
``@v1.0/sub-01``), and a key is understood too, where there is no such file. A file that has an ``@`` in its name is
found by its name first.
"""

from __future__ import annotations

import asyncio
import errno
import os
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NoReturn

import fsspec.asyn
from fsspec.asyn import AbstractAsyncStreamedFile, AsyncFileSystem
from fsspec.spec import AbstractBufferedFile

import annexpy as annex
from glimmer_store.fs.errors import read_only, translated, unlistable
from glimmer_store.fs.sources import Sources

__all__ = ["AnnexFile", "AnnexFileSystem"]

_BLOCK: Final = 1024 * 1024
_CLOSE_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class _Place:
    """What a path means: a key, or something in a commit."""

    key: annex.Key | None = None
    found: annex.TreeFile | None = None


class AnnexFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Contents of git-annex keys as files: read only, in parts, from anywhere that annexpy reaches.

    It pickles as its arguments, HEAD as the commit that it is, and goes on in a forked child: connections are made
    anew there. A content that is read whole (``cat_file``, ``get_file``) is verified; of parts nobody can tell.

    Args:
        remote: An address as ``annexpy.connect`` takes it, several of them, or, with *dataset*, names of its git
            remotes. Without it the dataset itself and all of its git remotes are read from.
        dataset: A git repository on this machine: paths are those of its files then. Its contents need not be there.
        ref: Which commit of the dataset paths without ``@`` are of. A branch is looked up with each use.
        uuid: Which repository the only *remote* must be.
        block_size: Bytes that an opened file reads ahead by default.
        asynchronous, loop: As of any ``fsspec.asyn.AsyncFileSystem``.
    """

    protocol = "annex"
    root_marker = ""
    _loop: asyncio.AbstractEventLoop | None
    _pid: int

    def __init__(
        self,
        remote: str | os.PathLike[str] | Sequence[str] | None = None,
        *,
        dataset: str | os.PathLike[str] | None = None,
        ref: str = "HEAD",
        uuid: str | None = None,
        block_size: int = _BLOCK,
        asynchronous: bool = False,
        loop: asyncio.AbstractEventLoop | None = None,
        **options: Any,  # those of every fsspec file system
    ) -> None:
        if remote is None and dataset is None:
            raise ValueError("annex:// needs remote=, dataset= or both (or FSSPEC_ANNEX_REMOTE, FSSPEC_ANNEX_DATASET)")
        super().__init__(asynchronous=asynchronous, loop=loop, **options)
        remotes = [os.fspath(remote)] if isinstance(remote, str | os.PathLike) else remote and [*map(os.fspath, remote)]
        folder = None if dataset is None else os.path.abspath(dataset)
        self.ref, self.block_size = ref, block_size
        self._sources = Sources(remotes, folder, uuid)
        if self._loop is not None:
            weakref.finalize(self, _close, self._loop, self._sources)

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._loop = None if self.asynchronous else fsspec.asyn.get_loop()
        return self._loop

    @property
    def commit(self) -> str | None:
        """The commit that paths without ``@`` are of now; None without a dataset."""
        tree = self._tree()
        return None if tree is None else tree.commit(self.ref)

    def __reduce__(self) -> tuple[Any, ...]:
        make, (kind, args, options) = super().__reduce__()
        pinned = self.commit
        return make, (kind, args, options if pinned is None else options | {"ref": pinned})

    def __dask_tokenize__(self) -> tuple[str, str | None]:
        return self._fs_token, self.commit

    def _tree(self) -> annex.FileTree | None:
        with translated(""):
            return self._sources.tree

    # -- what a path means ----------------------------------------------------------------------------

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = os.fspath(path)
        return text.removeprefix("annex://").strip("/") if text.startswith("annex://") else text.rstrip("/")

    def _place(self, path: str) -> _Place:
        """What is at *path*.

        Raises:
            FileNotFoundError: Nothing.
        """
        path = self._strip_protocol(path)
        with translated(path):
            tree = self._tree()
            if tree is not None and (found := self._in_tree(tree, path)) is not None:
                return _Place(found.key, found)
            if not path:
                return _Place()
            try:
                return _Place(annex.Key.parse(path))
            except annex.InvalidKey:
                raise FileNotFoundError(errno.ENOENT, "no such file, and no key", path) from None

    def _in_tree(self, tree: annex.FileTree, path: str) -> annex.TreeFile | None:
        commit = tree.commit(self.ref)
        raw = os.fsencode(path.strip("/"))
        if commit is not None and (found := tree.find(commit, raw)) is not None:
            return found
        at = len(path)
        while (at := path.rfind("@", 0, at)) >= 0:
            ref, slash, rest = path[at + 1 :].partition("/")
            commit = tree.commit(ref)
            if commit is not None:
                whole = path[:at].strip("/") + slash + rest
                if (found := tree.find(commit, os.fsencode(whole.strip("/")))) is not None:
                    return found
        return None

    def _facts(self, path: str, place: _Place, size: int | None) -> dict[str, Any]:
        found = place.found
        kind = "directory" if found is None and place.key is None else "file" if found is None else found.kind
        facts: dict[str, Any] = {"name": path, "size": 0 if kind == "directory" else size, "type": kind}
        if kind not in ("file", "directory"):
            facts["type"] = "other"
        if place.key is not None:
            facts["key"] = str(place.key)
        if found is not None and found.kind == "file":
            facts["annexed"] = place.key is not None
        return facts

    # -- asking ---------------------------------------------------------------------------------------

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        """What is known of *path*; of a key itself, its holders are asked whether they have it."""
        path = self._strip_protocol(path)
        place = self._place(path)
        size = place.found.size if place.found is not None else None if place.key is None else place.key.size
        if place.key is not None:
            with translated(path):
                if place.found is None and not await self._sources.remote().check_present(place.key):
                    raise FileNotFoundError(errno.ENOENT, "nobody who was asked has it", path)
                if size is None:
                    size = await self._sources.size(place.key)
        return self._facts(path, place, size)

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path)
        place, tree = self._place(path), self._tree()
        if place.found is None or place.found.kind != "directory" or tree is None:
            if place.key is None and place.found is None:
                raise unlistable(path)
            found = [await self._info(path)]
        else:
            with translated(path):
                inside = await asyncio.to_thread(tree.list, place.found)
            above = path + "/" if path else ""
            found = [self._facts(above + os.fsdecode(one.name), _Place(one.key, one), one.size) for one in inside]
        return found if detail else [one["name"] for one in found]

    async def _exists(self, path: str, **_: Any) -> bool:
        try:
            await self._info(path)
        except FileNotFoundError:
            return False
        return True  # anything else is no answer, and is raised

    def ukey(self, path: str) -> str:
        """What changes exactly when the content does: the key, or git's own name for it."""
        place = self._place(path)
        known = str(place.key).encode() if place.key is not None else place.found.sha if place.found else b""
        return sha256(known).hexdigest()

    # -- reading --------------------------------------------------------------------------------------

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        path = self._strip_protocol(path)
        place = self._place(path)
        if place.key is None:
            return self._kept_by_git(path, place)[slice(start, end)]
        if (start is not None and start < 0) or (end is not None and end < 0):
            size = (await self._info(path))["size"]
            start, end, _step = slice(start, end).indices(size)
        first = start or 0
        size = place.key.size
        if size is not None:
            end = None if end is None else min(end, size)
            if first >= (size if end is None else end) and size:
                return b""
        elif end is not None and first >= end:
            return b""
        with translated(path):
            return await self._sources.read(place.key, first, end)

    def _kept_by_git(self, path: str, place: _Place) -> bytes:
        tree, found = self._tree(), place.found
        if tree is None or found is None or found.kind == "directory":
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        if found.kind != "file":
            raise OSError(errno.ENOTSUP, f"is a {found.kind}, which is not followed", path)
        with translated(path):
            return tree.read(found)

    async def _get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        """The whole content, verified, as a file."""
        path = self._strip_protocol(rpath)
        place = self._place(path)
        if place.found is not None and place.found.kind == "directory":
            os.makedirs(lpath, exist_ok=True)
        elif place.key is None:
            await asyncio.to_thread(Path(lpath).write_bytes, self._kept_by_git(path, place))
        else:
            with translated(path):
                await self._sources.fetch(place.key, lpath)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> AnnexFile:
        if mode != "rb":
            raise read_only(path)
        size = options.pop("size", None)
        if size is None:
            size = self.info(path)["size"]
        return AnnexFile(self, path, mode, block_size or self.block_size, size=size, **options)

    async def open_async(self, path: str, mode: str = "rb", **_: Any) -> AbstractAsyncStreamedFile:
        """A file whose ``read`` is awaited. It asks for what is read, and for nothing ahead."""
        if mode != "rb":
            raise read_only(path)
        return _Streamed(self, path, mode, size=(await self._info(path))["size"], cache_type="none")

    async def close(self) -> None:
        """Give back the connections of the event loop that runs; they are made again when needed."""
        await self._sources.close()

    # -- nothing is written ---------------------------------------------------------------------------

    async def _pipe_file(self, path: str, *_: Any, **__: Any) -> NoReturn:
        raise read_only(path)

    async def _put_file(self, lpath: str, rpath: str, *_: Any, **__: Any) -> NoReturn:
        raise read_only(rpath)

    _rm_file = _rm = _cp_file = _mv_file = _mkdir = _makedirs = _touch = _rmdir = _pipe_file

    def touch(self, path: str, *_: Any, **__: Any) -> NoReturn:
        """Refused, as are ``mkdir``, ``rm`` and everything else that would change something."""
        raise read_only(path)

    mkdir = makedirs = rmdir = touch


class AnnexFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A content, open for reading. Blocks are kept as ``cache_type`` and ``cache_options`` of fsspec say."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes = self.fs.cat_file(self.path, start=start, end=end)
        return found


class _Streamed(AbstractAsyncStreamedFile):  # type: ignore[misc]  # fsspec has no types
    async def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes = await self.fs._cat_file(self.path, start=start, end=min(end, self.size))
        return found


def _close(loop: asyncio.AbstractEventLoop, sources: Sources) -> None:
    """When the file system is gone, or the program ends."""
    if loop.is_running() and not sources.foreign:
        closing = asyncio.run_coroutine_threadsafe(sources.close(), loop)
        # Garbage is collected in any thread, the loop's own included, which must not wait for itself.
        if not fsspec.asyn._on_loop_thread(loop):
            with suppress(TimeoutError, OSError, annex.AnnexError):  # there is nobody to tell
                closing.result(_CLOSE_SECONDS)
