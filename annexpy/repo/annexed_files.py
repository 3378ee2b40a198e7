"""The files that git tracks in a work tree, by its index, and which of them have which key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from annexpy.keys.key import Key
from annexpy.keys.pointer import key_of_pointer, pointer
from annexpy.repo.files import DiskFiles
from annexpy.repo.gitindex import GitIndex
from annexpy.repo.objects import Objects

__all__ = ["FilesOfKeys", "IndexEntry", "read_index"]


class IndexEntry(NamedTuple):
    """One file that git tracks: its path, and the blob with its mode."""

    path: bytes
    mode: int
    sha: bytes


def read_index(git_dir: bytes) -> list[IndexEntry]:
    """The index of a work tree; empty when there is none. Unmerged files are there once for each side.

    Args:
        git_dir: The directory that holds ``index``.

    Raises:
        UnsupportedRepository: It is damaged, or split in two files.
    """
    files = DiskFiles(git_dir)
    try:
        content = files.read(b"index")
    finally:
        files.close()
    return [] if content is None else [IndexEntry(*blob) for blob in GitIndex(content).blobs()]


class FilesOfKeys:
    """Which files of the index have which key. A moment's view: the index is read once.

    Locked files are found by reading their links. Unlocked ones are found by the id that git gives to the
    pointer of a key, so that no file that is not annexed has to be read; a pointer that somebody wrote in
    another form than git-annex does is not found.
    """

    def __init__(self, entries: Iterable[IndexEntry], objects: Objects) -> None:
        self.paths: list[bytes] = []
        self._by_key: dict[Key, list[bytes]] = {}
        self._by_sha: dict[bytes, list[bytes]] = {}
        links = []
        for entry in entries:
            self.paths.append(entry.path)
            match entry.mode & 0o170000:
                case 0o120000:
                    links.append(entry)
                case 0o100000:
                    self._by_sha.setdefault(entry.sha, []).append(entry.path)
        for entry, target in zip(links, objects.get_many([entry.sha for entry in links]), strict=True):
            key = key_of_pointer(target)
            if key is not None:
                self._by_key.setdefault(key, []).append(entry.path)

    def of(self, key: Key) -> list[bytes]:
        """The paths of the files that have *key*, without those that are there twice."""
        content = pointer(key).removesuffix(b"\n")
        found = list(self._by_key.get(key, ()))
        if self._by_sha:
            for end in (b"\n", b"", b"\r\n"):
                blob = content + end
                sha = hashlib.sha1(b"blob %d\0" % len(blob) + blob, usedforsecurity=False).digest()
                found += self._by_sha.get(sha, ())
        return list(dict.fromkeys(found))
