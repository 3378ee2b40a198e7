"""The key of a file: what git-annex would call its content."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from anyio import to_thread

from annexpy.errors import ContentChanged, InvalidPath
from annexpy.keys.backend import DEFAULT_BACKEND, Hasher, extension, worm_key
from annexpy.keys.key import Key
from annexpy.keys.pointer import MAX_POINTER, key_of_pointer

__all__ = ["annexed_key", "key_of", "read_key"]

_CHUNK = 1024 * 1024
_INLINE = 256 * 1024


async def key_of(
    path: str | bytes | os.PathLike[str],
    *,
    backend: str | bytes = DEFAULT_BACKEND,
    progress: Callable[[int, int], None] | None = None,
) -> Key:
    """The key of the file at *path*, read once. Symbolic links are followed.

    Args:
        path: A regular file. Its name gives the extension of an E-backend, and the name of a WORM key.
        backend: "SHA256E", "MD5", "WORM" …
        progress: Called with (bytes read, size), from a worker thread when the file is large.

    Raises:
        InvalidPath: Not a file that can be read.
        Refused: A backend that makes no keys here.
        ContentChanged: The file changed while it was read.
    """
    try:
        small = os.stat(path).st_size <= _INLINE
    except OSError as error:
        raise InvalidPath("file", os.fsencode(path), error.strerror or "cannot be read") from error
    if small:
        return read_key(path, backend=backend, progress=progress)
    return await to_thread.run_sync(lambda: read_key(path, backend=backend, progress=progress), abandon_on_cancel=True)


def annexed_key(path: str | bytes | os.PathLike[str]) -> Key | None:
    """The key of an annexed file of a work tree, from its link or its pointer; None for any other file.

    A pointer stands where the content of an unlocked file is not present. An unlocked file that is present
    looks like any other: its key is in git's index, which is not read here (``WorkTreeKeys``).
    """
    name = os.fsencode(path)
    try:
        status = os.lstat(name)
        if stat.S_ISLNK(status.st_mode):
            return key_of_pointer(os.readlink(name))
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_POINTER:
            return None
        with open(name, "rb") as file:
            return key_of_pointer(file.read(MAX_POINTER + 1))
    except OSError as error:
        raise InvalidPath("file", name, error.strerror or "cannot be read") from error


def read_key(
    path: str | bytes | os.PathLike[str],
    *,
    backend: str | bytes = DEFAULT_BACKEND,
    progress: Callable[[int, int], None] | None = None,
) -> Key:
    """``key_of``, blocking until the file is read."""
    name = os.fsencode(path)
    backend = os.fsencode(backend)
    try:
        # Not blocking: a named pipe would wait for a writer for ever before it could be refused.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidPath("file", name, error.strerror or "cannot be read") from error
    try:
        before = os.fstat(fd)
        if stat.S_ISDIR(before.st_mode):
            files = os.fsdecode(os.path.join(name, b"*"))
            raise InvalidPath("file", name, f"is a directory: name the files in it, for instance {files}")
        if not stat.S_ISREG(before.st_mode):
            raise InvalidPath("file", name, "must be a regular file")
        if backend == b"WORM":
            return worm_key(name, before.st_size, int(before.st_mtime))
        hasher, size = Hasher(backend), 0
        buffer = memoryview(bytearray(min(_CHUNK, before.st_size + 1)))
        while got := os.readv(fd, [buffer]):
            hasher.update(buffer[:got])
            size += got
            if progress is not None:
                progress(size, before.st_size)
        after = os.fstat(fd)
    except OSError as error:
        raise InvalidPath("file", name, error.strerror or "cannot be read") from error
    finally:
        os.close(fd)
    key = hasher.key(size, extension(name))
    if (size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ContentChanged(key, os.fsdecode(name), "the file changed while it was read")
    return key
