"""A folder as an output: every file in it has a key, and one list of them has the digest that stands for the folder.

The list is text, in bytes, one line for each thing in the folder::

    glimmer-store tree 1
    d - empty
    f SHA256E-s3--….txt sub/a%20name.txt
    l ../a.nii.gz sub/link
    x SHA256E-s9--….sh tools/run.sh

Kind, key, path from the folder, a blank between them: ``f`` a file, ``x`` one that its owner may execute, ``d`` a
folder with nothing in it, ``l`` a symbolic link, with its target in place of the key. In keys, targets and paths
every byte that is not printable ASCII, the blank and ``%`` are written as ``%XX`` (upper-case hex). Lines are sorted
by the bytes of the path. Times, owners and other permissions are not part of it, so the same content gives the
same list everywhere, and its SHA-256 is the digest of the tree. The list itself is stored as a key, too.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

import annexpy as annex
from glimmer_store.errors import SidecarError, SourceRefused, shell_line

__all__ = ["Tree", "TreeEntry", "annexed", "list_path", "members", "tree_of"]

Kind: TypeAlias = Literal["f", "x", "d", "l"]
_HEAD: Final = b"glimmer-store tree 1\n"
_PLAIN: Final = frozenset(range(0x21, 0x7F)) - {0x25}


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """One thing in a folder.

    Attributes:
        path: From the folder.
        kind: As in the list.
        key: Of a file; None for others.
        target: Of a link; empty for others.
    """

    path: bytes
    kind: Kind
    key: annex.Key | None = None
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder. Entries are sorted by path."""

    entries: tuple[TreeEntry, ...]

    def to_bytes(self) -> bytes:
        """The list."""
        return _HEAD + b"".join(
            b"%b %b %b\n"
            % (
                entry.kind.encode(),
                _quoted(str(entry.key).encode() if entry.key is not None else entry.target) or b"-",
                _quoted(entry.path),
            )
            for entry in self.entries
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Tree:
        """Read a list.

        Raises:
            SidecarError: It is none.
        """
        entries = []
        try:
            if not data.startswith(_HEAD) or not data.endswith(b"\n"):
                raise ValueError("no head, or cut off")
            for line in data[len(_HEAD) :].split(b"\n")[:-1]:
                kind, what, path = line.split(b" ")
                match kind:
                    case b"f" | b"x":
                        key = annex.Key.parse(_plain(what).decode())
                        entries.append(TreeEntry(_plain(path), "f" if kind == b"f" else "x", key))
                    case b"l":
                        entries.append(TreeEntry(_plain(path), "l", None, _plain(what)))
                    case b"d":
                        entries.append(TreeEntry(_plain(path), "d"))
                    case _:
                        raise ValueError(f"kind {kind!r}")
        except (ValueError, annex.AnnexError) as error:
            raise SidecarError(f"list of a tree: {error}") from error
        return cls(tuple(entries))

    @property
    def digest(self) -> str:
        """``sha256:`` and the hex digest of the list."""
        return "sha256:" + hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def keys(self) -> list[annex.Key]:
        """Of all files, each once."""
        return list(dict.fromkeys(entry.key for entry in self.entries if entry.key is not None))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.key.size or 0 for entry in self.entries if entry.key is not None)

    def key(self, backend: str) -> annex.Key:
        """The key of the list."""
        return annex.name_content([self.to_bytes()], backend.encode(), b".tree" if backend.endswith("E") else b"")


def list_path(digest: str) -> bytes:
    """Where a dataset keeps the list with this digest, from its top."""
    return b".glimmer-store/trees/" + digest.removeprefix("sha256:").encode() + b".tree"


def _quoted(text: bytes) -> bytes:
    return b"".join(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in text)


def _plain(text: bytes) -> bytes:
    first, *more = text.split(b"%")
    return first + b"".join(bytes((int(part[:2], 16),)) + part[2:] for part in more)


async def annexed(path: str | bytes | os.PathLike[str], root: Path, backend: str) -> annex.Key | None:
    """The key of a file whose content git-annex has put away, with a link into ``.git/annex/objects`` in its place.

    The repository is that of *root*, or one below it. Content whose key proves nothing (MD5, which DataLad uses) gets
    one of *backend*, as it would if it was not put away.

    Raises:
        SourceRefused: The content is not here; also of a pointer, which git-annex leaves in place of an unlocked file.
    """
    key = _put_away(os.fsencode(path), os.fsencode(root))
    return key if key is None or annex.is_secure(key) else await annex.key_of(path, backend=backend)


def _put_away(path: bytes, root: bytes) -> annex.Key | None:
    linked = os.path.islink(path)
    if linked:
        target = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        repository, inside, _ = target.partition(b"/.git/annex/objects/")
        if not inside or not (repository + b"/").startswith(root + b"/"):
            return None
    key = annex.annexed_key(path) if linked or os.path.isfile(path) else None
    if key is not None and not (linked and os.path.exists(path)):
        folder, name = os.path.split(os.path.abspath(os.fsdecode(path)))
        raise SourceRefused(
            f"{os.fsdecode(path)}: its content is not here",
            remedy=shell_line("git", "-C", folder, "annex", "get", "--", name),
        )
    return key


async def tree_of(folder: Path, root: Path, backend: str, *, without: Collection[bytes] = ()) -> Tree:
    """Look at everything in *folder* but for the names *without* at its top, and read every file once.

    A link that stays inside the folder is recorded as a link. Nothing outside is followed to, but for contents
    that git-annex has put away.

    Raises:
        SourceRefused: There is a link that leads out, a device, a pipe, a socket, or another git repository.
        InvalidPath, ContentChanged: A file cannot be read, or changed meanwhile.
    """
    top = os.fsencode(folder)
    found = sorted((path, kind) for path, kind in _walk(top, b"") if path.split(b"/")[0] not in without)
    return Tree(tuple([await _entry(top, path, kind, root, backend) for path, kind in found]))


async def _entry(top: bytes, path: bytes, kind: Kind, root: Path, backend: str) -> TreeEntry:
    whole = os.path.join(top, path)
    match kind:
        case "d":
            return TreeEntry(path, "d")
        case "l":
            key = await annexed(whole, root, backend)
            if key is None:
                return TreeEntry(path, "l", None, _inside(top, path))
            return TreeEntry(path, "x" if os.stat(whole).st_mode & stat.S_IXUSR else "f", key)
        case _:
            await annexed(whole, root, backend)  # a pointer is not what is to be kept
            return TreeEntry(path, kind, await annex.key_of(os.fsdecode(whole), backend=backend))


def _walk(top: bytes, below: bytes) -> Iterator[tuple[bytes, Kind]]:
    found = list(os.scandir(os.path.join(top, below)))
    if not found and below:
        yield below, "d"
    for entry in found:
        path, whole = os.path.join(below, entry.name), os.fsdecode(entry.path)
        if entry.name == b".git":
            raise SourceRefused(f"{whole}: another git repository", remedy="archive it as a dataset of its own")
        if entry.is_symlink():
            yield path, "l"
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(top, path)
        elif entry.is_file(follow_symlinks=False):
            yield path, "x" if entry.stat(follow_symlinks=False).st_mode & stat.S_IXUSR else "f"
        else:
            raise SourceRefused(f"{whole}: is neither file, folder nor link", remedy="remove it from the output")


def _inside(top: bytes, path: bytes) -> bytes:
    """The target of a link, if it stays in the folder."""
    target = os.readlink(os.path.join(top, path))
    leads = os.path.normpath(os.path.join(os.path.dirname(path), target))
    if os.path.isabs(target) or leads == b".." or leads.startswith(b"../"):
        raise SourceRefused(
            f"{os.fsdecode(os.path.join(top, path))}: is a link to {os.fsdecode(target)}, outside of the output",
            remedy="put the file itself there, or make the link relative and inside",
        )
    return target


def members(tree: Tree, folder: Path) -> Iterable[tuple[annex.Key, str]]:
    """(key, a file that has it), each key once."""
    seen = set[annex.Key]()
    for entry in tree.entries:
        if entry.key is not None and entry.key not in seen:
            seen.add(entry.key)
            yield entry.key, os.fsdecode(os.path.join(os.fsencode(folder), entry.path))
