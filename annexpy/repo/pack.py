"""Write the git objects of one commit of the branch: always as one pack.

A ``.keep`` beside the pack protects it from a ``git gc --prune=now`` that looks before the ref points to it;
``done`` removes that once it does. Loose objects have no such protection, and cost a sync each; so that
many small commits do not leave many small packs, every ``_MOST`` of ours the next commit takes their entries
over into its own pack and removes them, as long as they are small.

Everything here happens under the journal lock, and what is unfinished lies in ``annex/annexpy/tmp``, where
gc does not look and the next holder of the lock clears up.

Source: gitrepository-layout(5).
"""

from __future__ import annotations

import os
import re
from binascii import hexlify
from hashlib import sha1
from typing import Final

from annexpy.patterns import regex
from annexpy.repo.files import Files
from annexpy.repo.format import STATE, make_folders
from annexpy.repo.packfile import PackFile, whole_entries
from annexpy.repo.settings import Lockdown

__all__ = ["BLOB", "COMMIT", "KEEP_MARK", "TREE", "ObjectWriter", "name_of", "remove_leftovers"]

COMMIT: Final = 1
TREE: Final = 2
BLOB: Final = 3
KEEP_MARK: Final = b"annexpy\n"
"""Content of our ``.keep`` files, so that one left by a crash can be told from somebody else's."""

_NAMES: Final = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob"}
_PACKS: Final = b"objects/pack"
_TEMPORARY: Final = STATE + b"/tmp"
_SMALL_ONES: Final = STATE + b"/packs"  # names of our small packs, one a line
_NAME: Final = regex(rb"^pack-[0-9a-f]{40}$", re.MULTILINE)
_SMALL: Final = 1 << 20
_MOST: Final = 16
_REMEMBERED: Final = 4096


def name_of(kind: int, data: bytes) -> bytes:
    """The id of an object."""
    return sha1(b"%b %d\0%b" % (_NAMES[kind], len(data), data)).digest()


class ObjectWriter:
    """Objects of one commit. ``add`` them, ``finish``, publish the ref, then ``done`` (or ``abandon``).

    Args:
        files: The git directory.
        lockdown: Permissions.
        sync: Everything is on disk when ``finish`` returns.
    """

    def __init__(self, files: Files, lockdown: Lockdown, *, sync: bool = True) -> None:
        self._files, self._lockdown, self._sync = files, lockdown, sync
        self._blobs: dict[bytes, bytes] = {}
        self._pack: PackFile | None = None
        self._made: list[bytes] = []
        self._keep: bytes | None = None
        self._small: list[bytes] = []
        self._taken_over: list[bytes] = []

    def add(self, kind: int, data: bytes) -> bytes:
        """Write an object, once however often it is added; its id."""
        if kind == BLOB:  # many logs say the same
            blobs = self._blobs
            name = blobs.get(data)
            if name is not None:
                return name
            if len(blobs) >= _REMEMBERED:
                blobs.clear()
        name = name_of(kind, data)
        pack = self._begun()
        if name not in pack:
            pack.add(kind, name, data)
        if kind == BLOB:
            blobs[data] = name
        return name

    def add_entry(self, name: bytes, entry: bytes) -> None:
        """Write an object as it stands in another pack, once however often it is added."""
        pack = self._begun()
        if name not in pack:
            pack.add_entry(name, entry)

    def _begun(self) -> PackFile:
        if self._pack is None:
            self._pack = PackFile(self._files, *self._temporary(b"pack"))
        return self._pack

    def _temporary(self, stem: bytes) -> tuple[bytes, int]:
        path = _TEMPORARY + b"/%b-%d" % (stem, os.getpid())
        if not self._files.unlink(path):  # it may be there, and not ours to write to
            make_folders(self._files, _TEMPORARY, self._lockdown)
        return path, self._files.open_write(path, exclusive=True)

    def finish(self) -> None:
        """Everything added can be read by others when this returns, and is on disk if so asked."""
        files, pack = self._files, self._pack
        if pack is None:
            return
        self._take_over(pack)
        size = pack.size
        trailer = pack.finish(self._sync)
        name = b"pack-" + hexlify(trailer)
        base = _PACKS + b"/" + name
        self._made = [base + b".keep"]
        files.replace(base + b".keep", KEEP_MARK, sync=False, temporary=_TEMPORARY + b"/keep")
        self._keep = base + b".keep"
        # Both there: the very same objects, byte for byte, of an earlier try. Perhaps that was never synced, so ours is
        # put over it; perhaps others need it, so it is not taken away with ours. (One alone is what a power cut left.)
        if files.status(base + b".idx") is None or files.status(base + b".pack") is None:
            self._made = [base + b".idx", base + b".pack", base + b".keep"]
        index = self._write_index(pack, trailer)
        mode = self._lockdown.object(0o444 if self._lockdown.file is None else self._lockdown.file)
        for path in (pack.path, index):
            files.chmod(path, mode)
        # order matters: a pack counts for readers from the moment its .idx is there
        files.rename(pack.path, base + b".pack")
        files.rename(index, base + b".idx")
        if self._sync:
            files.sync_folder(_PACKS)
        if size < _SMALL:
            self._small.append(name)

    def _write_index(self, pack: PackFile, trailer: bytes) -> bytes:
        path, fd = self._temporary(b"idx")
        try:
            pack.write_index(fd, trailer)
            if self._sync:
                self._files.sync(fd)
        finally:
            self._files.close_fd(fd)
        return path

    def _take_over(self, pack: PackFile) -> None:
        """Copy our small packs into this one when there are many."""
        files = self._files
        self._small = list(dict.fromkeys(_NAME.findall(files.read(_SMALL_ONES) or b"")))
        if len(self._small) < _MOST:
            return
        for name in self._small:
            base = _PACKS + b"/" + name
            content, index = files.read(base + b".pack"), files.read(base + b".idx")
            if content is None or index is None or files.status(base + b".keep") is not None:
                continue  # gc has it in another pack by now
            entries = whole_entries(content, index)
            if entries is not None:
                for sha, entry in entries:
                    if sha not in pack:
                        pack.add_entry(sha, entry)
                self._taken_over.append(base)
        self._small = []

    def done(self) -> None:
        """The ref points to the commit, or may: gc may have the pack, and packs it replaces can go."""
        files = self._files
        if self._keep is not None:
            keep, self._keep = self._keep, None
            files.unlink(keep)
            for base in self._taken_over:
                if base + b".keep" != keep:
                    # order matters: without .idx nobody new begins to use it
                    files.unlink(base + b".idx")
                    files.unlink(base + b".pack")
            names = b"".join([name + b"\n" for name in self._small])
            files.replace(_SMALL_ONES, names, sync=False, temporary=_TEMPORARY + b"/packs")

    def abandon(self) -> None:
        """Nobody needs these objects: the ref had moved."""
        if self._pack is not None:
            self._pack.abandon()
            for name in self._made:
                self._files.unlink(name)
            self._keep = None


def remove_leftovers(files: Files) -> None:
    """Remove what a crash left: call it under the journal lock, before writing."""
    for name in files.names(_TEMPORARY):
        files.unlink(_TEMPORARY + b"/" + name)
    for name in files.names(_PACKS):
        if name.endswith(b".keep"):
            path = _PACKS + b"/" + name
            try:
                ours = files.read(path) == KEEP_MARK
            except OSError:
                continue
            if ours:
                files.unlink(path)
