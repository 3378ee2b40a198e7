"""The files of a commit, and the keys of those that are annexed: reading a dataset without a work tree."""

from __future__ import annotations

import subprocess
from binascii import unhexlify
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from annexpy.errors import RepositoryError
from annexpy.keys.key import Key
from annexpy.keys.pointer import key_of_pointer
from annexpy.patterns import regex
from annexpy.repo.files import DiskFiles
from annexpy.repo.objects import Objects, git_command, git_environment
from annexpy.repo.refs import Refs
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown
from annexpy.repo.trees import EMPTY_TREE, FOLDER, commit_tree, parse_tree

__all__ = ["FileTree", "TreeFile"]

Kind: TypeAlias = Literal["file", "directory", "link", "submodule"]

_LINK: Final = b"120000"
_NO_BLOBS: Final[dict[bytes, Kind]] = {FOLDER: "directory", b"160000": "submodule"}
_COMMIT: Final = 1  # kinds of objects, as in a pack
_TAG: Final = 4
_FOLDERS_KEPT: Final = 1024
_HEX: Final = regex(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One thing in a folder of a commit.

    Attributes:
        name: In its folder.
        kind: An annexed file is a "file", however git keeps it; "link" is any other symbolic link.
        sha: The git object, 20 bytes.
        key: Of an annexed file; None for what git keeps itself.
        size: In bytes; None for what is no file, and for a key that does not tell.
    """

    name: bytes
    kind: Kind
    sha: bytes
    key: Key | None = None
    size: int | None = None


class FileTree:
    """The commits of a repository, read only. May be used from several threads, and by a forked child."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._objects = Objects(repository.files)
        self._refs = Refs(repository.files, Lockdown.of(repository.config.get("core.sharedrepository")))
        self._folders: OrderedDict[bytes, dict[bytes, TreeFile]] = OrderedDict()

    def close(self) -> None:
        """Give back file handles; it can be used again."""
        self._objects.close()

    def commit(self, ref: str = "HEAD") -> str | None:
        """The commit that *ref* means now: a branch, a tag, an id, or whatever git reads as a commit.

        Returns:
            40 hex digits; None when it means nothing, HEAD before the first commit included.
        """
        if not ref or ref.startswith("-") or "\0" in ref:
            return None
        name = ref.encode("utf-8", "surrogateescape")
        if _HEX.fullmatch(ref):
            return self._peeled(name)
        if ref == "HEAD":
            return self._head()
        for place in (b"refs/tags/", b"refs/heads/", b"refs/remotes/", b""):
            whole = place + name
            if whole.startswith(b"refs/") and (found := self._ref(whole)) is not None:
                return self._peeled(found)
        return self._by_git(ref)

    def _ref(self, name: bytes) -> bytes | None:
        try:
            return self._refs.read(name)
        except (RepositoryError, OSError, ValueError):
            return None  # a name that cannot be one of a ref

    def _head(self) -> str | None:
        folder = self._repository.worktree_git_dir
        files = self._repository.files if folder == self._repository.git_dir else DiskFiles(folder)
        raw = (files.read(b"HEAD") or b"").strip()
        found = self._refs.read(raw[5:]) if raw.startswith(b"ref: ") else raw
        return None if not found else self._peeled(found)

    def _peeled(self, found: bytes) -> str | None:
        for _ in range(8):
            try:
                kind, content = self._objects.typed(unhexlify(found))
            except RepositoryError:
                return None
            if kind == _COMMIT:
                return found.decode()
            if kind != _TAG:
                return None
            found = content[7:47]
        return None

    def _by_git(self, ref: str) -> str | None:
        """``abc123``, ``HEAD~2``, ``main@{yesterday}``: only git knows all of these."""
        git_dir = self._repository.worktree_git_dir
        command = git_command(git_dir, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        if command is None:
            return None
        done = subprocess.run(command, capture_output=True, env=git_environment(), check=False)
        said = done.stdout.decode("ascii", "replace").strip()
        return said if done.returncode == 0 and _HEX.fullmatch(said) else None

    def find(self, commit: str, path: bytes) -> TreeFile | None:
        """What is at *path*, from the top of *commit*; b"" is the top itself. None when nothing is.

        Raises:
            RepositoryError: Objects are missing, or corrupt.
        """
        here = TreeFile(b"", "directory", self._top(commit))
        for name in path.split(b"/") if path else ():
            if here.kind != "directory":
                return None
            found = self._folder(here.sha).get(name)
            if found is None:
                return None
            here = found
        return here

    def list(self, folder: TreeFile) -> list[TreeFile]:
        """What is in *folder*, as ``find`` gave it, sorted as git does."""
        return list(self._folder(folder.sha).values())

    def read(self, file: TreeFile) -> bytes:
        """What git keeps of *file*: the content, if it is not annexed."""
        return self._objects.get(file.sha)

    def _top(self, commit: str) -> bytes:
        return commit_tree(self._objects.get(unhexlify(commit)))

    def _folder(self, sha: bytes) -> dict[bytes, TreeFile]:
        kept = self._folders.get(sha)
        if kept is not None:
            return kept
        entries = {} if sha == EMPTY_TREE else parse_tree(self._objects.get(sha))
        contents = self._objects.get_many([blob for mode, blob in entries.values() if mode not in _NO_BLOBS])
        found = {
            name: TreeFile(name, _NO_BLOBS[mode], blob)
            if mode in _NO_BLOBS
            else _file(name, mode, blob, next(contents))
            for name, (mode, blob) in entries.items()
        }
        while len(self._folders) >= _FOLDERS_KEPT:
            self._folders.popitem(last=False)
        self._folders[sha] = found
        return found


def _file(name: bytes, mode: bytes, sha: bytes, content: bytes) -> TreeFile:
    key = key_of_pointer(content)
    if key is not None:
        return TreeFile(name, "file", sha, key, key.size)
    return TreeFile(name, "link", sha) if mode == _LINK else TreeFile(name, "file", sha, None, len(content))
