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
from contextlib import contextmanager, nullcontext
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
_PIPE: Final = 1 << 20  # so that neither side has to wait for the other all the time
_SMALLEST_PIPE: Final = 1 << 12
_LINE: Final = 50  # bytes that ask for an object


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
        self._kept: _Kept | None = None
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

    def where(self, sha: bytes) -> tuple[bytes, ...]:
        """The files of this repository that hold the object; none when it borrows the object.

        Raises:
            OSError, RepositoryError: They cannot be read: gc may be replacing them.
        """
        with self._lock:
            return () if self._own is None else self._own.where(sha)

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
        """A ``git cat-file``, or None when git may not be run, is not there, or does not work here."""
        if not self._git:
            return None
        for arguments in (("--batch-command", "--buffer"), ("--batch",)):  # before git 2.36 there is only the latter
            command = git_command(self.git_dir, "cat-file", *arguments)
            if command is None:
                return None
            reader = GitReader(command, buffered=len(arguments) > 1)
            try:
                if list(reader.get_many([_EMPTY_TREE])) == [b""]:  # git knows it in every repository
                    return reader
            except RepositoryError:
                pass  # then we read by ourselves; what is wrong with the repository shows there
            except BaseException:
                reader.close()
                raise
            reader.close()
        return None

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Until this is left, ``lent`` lends one and the same process again and again."""
        if self._kept is not None:
            yield
            return
        kept = self._kept = _Kept()
        try:
            yield
        finally:
            self._kept = None
            kept.close()

    @contextmanager
    def lent(self) -> Iterator[GitReader | None]:
        """A reader for now: that of ``keeping`` if it is free, else a new one. None as ``reader``."""
        kept = self._kept
        if kept is None or kept.pid != os.getpid() or not kept.free.acquire(blocking=False):
            with self.reader() or nullcontext() as reader:
                yield reader
            return
        try:
            if kept.reader is None:
                kept.reader = self.reader()
            yield kept.reader
        finally:
            if kept.reader is not None and not kept.reader.in_step:
                kept.close()
            kept.free.release()

    def close(self) -> None:
        """Give back file handles; the next call opens them again."""
        with self._lock:
            _close_all(self._stores)
            if self._own is not None:
                self._own.close()


def _close_all(stores: list[DiskObjectStore]) -> None:
    while stores:
        stores.pop().close()


def _widened(pipe: IO[bytes] | None) -> int:
    """The capacity of a pipe, made as large as it may be."""
    import fcntl

    assert pipe is not None
    for size in (_PIPE, _PIPE // 4):
        try:
            return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)
        except (AttributeError, OSError):
            continue  # not on Linux, or beyond what the user may have
    try:
        return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
    except (AttributeError, OSError):
        return _SMALLEST_PIPE


class _Kept:
    """A reader that is kept, of one process."""

    __slots__ = ("free", "pid", "reader")

    def __init__(self) -> None:
        self.pid, self.free = os.getpid(), threading.Lock()
        self.reader: GitReader | None = None

    def close(self) -> None:
        reader, self.reader = self.reader, None
        if reader is not None and self.pid == os.getpid():
            reader.close()


class GitReader:
    """One ``git cat-file``, fed with object ids. A context manager; not for several threads.

    Args:
        command: The process.
        buffered: It is ``--batch-command --buffer``, which writes whole blocks instead of every object by itself.
    """

    def __init__(self, command: Sequence[bytes | str], *, buffered: bool) -> None:
        import subprocess  # 9 ms, and only for many objects

        self._ask, self._end = (b"contents ", b"flush\n") if buffered else (b"", b"")
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=git_environment(),
            bufsize=0,
        )
        # Asked for at once: twice as many fit in the pipe, so writing never blocks.
        self._slab = min(map(_widened, (self._process.stdin, self._process.stdout))) // (2 * _LINE) - 1
        self._some, self._at = b"", 0  # what was read of its answers, and up to where it was used
        self._owed = 0

    @property
    def in_step(self) -> bool:
        """Every answer was taken, so it can be asked again."""
        return not self._owed and self._at == len(self._some)

    def __enter__(self) -> GitReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()

    def get_many(self, shas: Iterable[bytes]) -> Iterator[bytes]:
        """The contents, in order.

        Raises:
            RepositoryError: An object is missing, or git died.
        """
        waiting = iter(shas)
        sent = self._send(waiting)
        while sent:
            behind, sent = sent, self._send(waiting)
            for _ in range(behind):
                some = self._some
                end = some.find(b"\n", self._at)
                try:
                    size = int(some[some.rindex(b" ", self._at, end) + 1 : end]) if end >= 0 else -1
                except ValueError:
                    size = -1
                stop = end + 1 + size
                if size < 0 or stop >= len(some):  # not all of it is here: the rare case
                    content = self._receive()
                else:
                    self._at = stop + 1
                    content = some[end + 1 : stop]
                self._owed -= 1
                yield content

    def _send(self, shas: Iterator[bytes]) -> int:
        ask = self._ask
        slab = [b"%b%b\n" % (ask, hexlify(sha)) for sha in islice(shas, self._slab)]
        if slab:
            assert self._process.stdin is not None
            rest = memoryview(b"".join(slab) + self._end)
            self._owed += len(slab)
            try:
                while rest:
                    rest = rest[os.write(self._process.stdin.fileno(), rest) :]
            except BrokenPipeError as error:
                raise RepositoryError("git cat-file ended early") from error
        return len(slab)

    def _receive(self) -> bytes:
        """One answer, reading what is missing of it."""
        while (end := self._some.find(b"\n", self._at)) < 0:
            self._some, self._at = self._some[self._at :] + self._read(), 0
        head = self._some[self._at : end]
        parts = head.split()
        if len(parts) != 3:
            raise RepositoryError(f"git cat-file: {head.strip().decode('utf-8', 'backslashreplace')}")
        parts, missing = [self._some[end + 1 :]], int(parts[2]) + 1 - (len(self._some) - end - 1)
        while missing > 0:
            parts.append(self._read())
            missing -= len(parts[-1])
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        stop = len(whole) + missing if missing < 0 else len(whole)
        self._some, self._at = whole, stop
        return whole[: stop - 1]

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        part = os.read(self._process.stdout.fileno(), _PIPE)
        if not part:
            raise RepositoryError("git cat-file ended early")
        return part
