"""Errors as users of fsspec expect them: everything is an ``OSError``, with the annex's error as its cause."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import annexpy as annex

__all__ = ["read_only", "translated", "unlistable"]


@contextmanager
def translated(path: str) -> Iterator[None]:
    """What goes wrong inside with *path* comes out as an ``OSError``.

    FileNotFoundError only where absence was seen, PermissionError where somebody refused, TimeoutError and
    ConnectionError where nobody could be asked: the file may well be there. What the caller got wrong stays a
    ValueError.
    """
    try:
        yield
    except annex.AnnexError as error:
        if isinstance(error, annex.InvalidInput) and not isinstance(error, annex.InvalidKey):
            raise  # an address that is none, and the like: a ValueError
        raise _os_error(error, path) from error


def read_only(path: object) -> OSError:
    """What every attempt to write gets."""
    return OSError(errno.EROFS, "annex:// is read-only; put contents with annexpy", str(path))


def unlistable(path: str) -> OSError:
    """A remote is asked for keys one by one."""
    return OSError(errno.ENOTSUP, "a remote cannot be listed, only a dataset: give dataset=", path)


def _os_error(error: annex.AnnexError, path: str) -> OSError:
    text = str(error)
    match error:
        case annex.KeyNotPresent() | annex.InvalidKey():
            return FileNotFoundError(errno.ENOENT, text, path)
        case annex.AccessDenied() | annex.AuthFailed():
            return PermissionError(errno.EACCES, text, path)
        case annex.TimedOut():
            return TimeoutError(errno.ETIMEDOUT, text, path)
        case annex.ConnectFailed():
            return ConnectionRefusedError(errno.ECONNREFUSED, text, path)
        case annex.ConnectionLost():
            return ConnectionResetError(errno.ECONNRESET, text, path)
        case annex.NodesFailed():
            return _of_nodes(error.failed.values(), text, path)
        case _:
            return OSError(errno.EIO, text, path)


def _of_nodes(errors: Iterable[annex.AnnexError], text: str, path: str) -> OSError:
    """Nobody gave it: a refusal counts for more than absence, no answer for more than both."""
    found = {type(_os_error(one, path)) for one in errors}
    for kind, number in ((TimeoutError, errno.ETIMEDOUT), (PermissionError, errno.EACCES)):
        if found <= {kind, FileNotFoundError}:
            return kind(number, text, path)
    return ConnectionError(errno.EHOSTUNREACH, text, path)
