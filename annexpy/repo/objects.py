"""Git objects of a repository by id: one at a time, or many at a time through git.

Ids are the 20 raw bytes. One object costs about 10 µs (``packs``), one of many through ``git cat-file --batch``
about 5 and less of our own time, so ``get_many`` starts that process from ``BULK`` objects on. Where ``packs``
does not know the form of an object, and as the oracle of the tests, dulwich reads it; it is imported then.

Source: fact sheet performance, section 3 item 9.
"""

from __future__ import annotations

import os
import threading
import weakref
from binascii import hexlify
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import IO, TYPE_CHECKING, Final

from annexpy.errors import RepositoryError
from annexpy.repo.files import Files
from annexpy.repo.packs import ObjectFiles

if TYPE_CHECKING:
    import subprocess

    from dulwich.object_store import DiskObjectStore

__all__ = ["BULK", "GitReader", "Objects", "git_command", "git_environment"]

BULK: Final = 2000
"""From so many objects on a git process is worth its start."""

_EMPTY_TREE: Final = bytes.fromhex("4b825dc642cb6eb9a060e54bf8d69288fbee4904")
_SLAB: Final = 480  # ids in flight: two slabs of 41 bytes each fit in a pipe, so writing never blocks


def git_command(git_dir: bytes, *arguments: str) -> list[bytes | str] | None:
    """How to run git on a repository without looking for another one; None when there is no git."""
    import shutil  # 3 ms

    git = shutil.which("git")
    return None if git is None else [git, b"--git-dir=" + git_dir, "--no-replace-objects", *arguments]


def git_environment() -> dict[str, str]:
    """The environment for a git that only reads: nothing that points it elsewhere, no locks, no fetching."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | {"GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}


class Objects:
    """Reading objects. May be used from several threads."""

    def __init__(self, files: Files, *, git: bool = True, dulwich: bool = False) -> None:
        """Open nothing yet.

        Args:
            files: The directory that holds ``objects``.
            git: Whether git may be run for many objects at once.
            dulwich: Use nothing but dulwich.
        """
        self.git_dir = files.path
        self._git = git
        self._own = None if dulwich else ObjectFiles(files)
        self._stores: list[DiskObjectStore] = []
        self._lock = threading.Lock()
        # dulwich complains when it is collected with packs open, at the end of the program even
        weakref.finalize(self, _close_all, self._stores)

    def get(self, sha: bytes) -> bytes:
        """The content of the object.

        Raises:
            RepositoryError: The repository does not have it, or it is corrupt.
        """
        return self.typed(sha)[1]

    def typed(self, sha: bytes) -> tuple[int, bytes]:
        """(kind, content), the kind as in a pack. Raises as ``get``."""
        with self._lock:
            if self._own is not None:
                for _ in range(2):
                    try:
                        found = self._own.get(sha)
                    except (OSError, RepositoryError):
                        self._own.close()  # gc may have replaced the packs while we looked
                        continue
                    if found is not None:
                        return found
                    break
            return self._by_dulwich(sha)

    def _by_dulwich(self, sha: bytes) -> tuple[int, bytes]:
        reason: Exception | None = None
        for _ in range(3):
            if not self._stores:
                from dulwich.object_store import DiskObjectStore

                self._stores.append(DiskObjectStore(os.fsdecode(self.git_dir + b"/objects")))
            try:
                return self._stores[0].get_raw(sha)  # type: ignore[arg-type]  # dulwich's NewType of bytes
            except (KeyError, OSError, ValueError) as error:
                reason = error
                _close_all(self._stores)
            except Exception as error:
                if type(error).__module__.partition(".")[0] not in ("dulwich", "zlib"):
                    raise
                raise RepositoryError(f"object {hexlify(sha).decode()} cannot be read: {error}") from error
        raise RepositoryError(f"object {hexlify(sha).decode()} is not in {os.fsdecode(self.git_dir)}") from reason

    def get_many(self, shas: Sequence[bytes], reader: GitReader | None = None) -> Iterator[bytes]:
        """The contents, in order. *reader* is used if given, else one is started when it is worth it."""
        if reader is not None:
            yield from reader.get_many(shas)
            return
        if len(shas) >= BULK and (own := self.reader()) is not None:
            with own:
                yield from own.get_many(shas)
            return
        for sha in shas:
            yield self.get(sha)

    def reader(self) -> GitReader | None:
        """A ``git cat-file --batch``, or None when git may not be run, is not there, or does not work here."""
        command = git_command(self.git_dir, "cat-file", "--batch") if self._git else None
        if command is None:
            return None
        reader = GitReader(command)
        try:
            if next(reader.get_many([_EMPTY_TREE])) == b"":  # git knows it in every repository
                return reader
        except RepositoryError:
            pass  # then we read by ourselves; what is wrong with the repository shows there
        except BaseException:
            reader.close()
            raise
        reader.close()
        return None

    def close(self) -> None:
        """Give back file handles; the next call opens them again."""
        with self._lock:
            _close_all(self._stores)
            if self._own is not None:
                self._own.close()


def _close_all(stores: list[DiskObjectStore]) -> None:
    while stores:
        stores.pop().close()


class GitReader:
    """One ``git cat-file --batch``, fed with object ids. A context manager; not for several threads."""

    def __init__(self, command: Sequence[bytes | str]) -> None:
        import subprocess  # 9 ms, and only for many objects

        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=git_environment(),
            bufsize=1 << 20,
        )

    def __enter__(self) -> GitReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass  # it is being ended: what it did not read does not matter
        process.wait()

    def get_many(self, shas: Iterable[bytes]) -> Iterator[bytes]:
        """The contents, in order.

        Raises:
            RepositoryError: An object is missing, or git died.
        """
        write, read = self._process.stdin, self._process.stdout
        assert write is not None
        assert read is not None
        waiting = iter(shas)
        sent = self._send(write, waiting)
        while sent:
            behind, sent = sent, self._send(write, waiting)
            for _ in range(behind):
                yield self._receive(read)

    @staticmethod
    def _send(write: IO[bytes], shas: Iterator[bytes]) -> int:
        slab = [hexlify(sha) for sha in islice(shas, _SLAB)]
        if slab:
            try:
                write.write(b"\n".join(slab) + b"\n")
                write.flush()
            except BrokenPipeError as error:
                raise RepositoryError("git cat-file ended early") from error
        return len(slab)

    @staticmethod
    def _receive(read: IO[bytes]) -> bytes:
        head = read.readline()
        parts = head.split()
        if len(parts) != 3 or not head.endswith(b"\n"):
            what = "ended early" if not head else head.strip().decode("utf-8", "backslashreplace")
            raise RepositoryError(f"git cat-file: {what}")
        size = int(parts[2])
        content = read.read(size + 1)
        if len(content) != size + 1:
            raise RepositoryError("git cat-file ended early")
        return content[:-1]
