"""Keys from the command line or from standard input, a few at a time however many there are."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from select import select

import click

from annexpy.cli.show import Report
from annexpy.errors import InvalidKey
from annexpy.keys.key import Key

__all__ = ["given_keys", "key_batches", "key_lines", "wants_stdin"]

_AT_ONCE = 1000
_READ = 64 * 1024
_KEYS_OF_BLOCK = 700


def wants_stdin(keys: Sequence[str], batch: bool) -> bool:
    """True when keys come from standard input.

    Raises:
        UsageError: No keys and no --batch, or both.
    """
    if batch and keys:
        raise click.UsageError("Give KEYs or --batch, not both.")
    if not batch and not keys:
        raise click.UsageError("Give at least one KEY, or --batch to read keys from standard input.")
    return batch or tuple(keys) == ("-",)


def key_lines(keys: Sequence[str], batch: bool) -> Iterator[str]:
    """The keys as text, one by one, as soon as each line is there. Empty lines are left out.

    A whole line is one key: keys may hold blanks (git-annex stops at the first blank).
    """
    if not wants_stdin(keys, batch):
        yield from keys
        return
    for line in sys.stdin.buffer:
        if text := line.rstrip(b"\r\n").decode("utf-8", "surrogateescape"):
            yield text


def given_keys(keys: Sequence[str]) -> list[Key]:
    """Those on the command line.

    Raises:
        InvalidKey: One is none.
    """
    return [Key.parse(key) for key in keys]


async def key_batches(
    keys: Sequence[str], batch: bool, report: Report, *, at_once: int = _AT_ONCE
) -> AsyncIterator[list[Key]]:
    """The keys in lists of at most *at_once*: as many as can be had without waiting, at least one.

    So 100,000 keys from a file go out in large pipelined groups, and a program that writes one key and
    waits for its answer gets it.

    Args:
        keys: From the command line.
        batch: From standard input instead.
        report: Told about lines of standard input that are no keys; a malformed KEY argument raises.
        at_once: How long a list may be.
    """
    if not wants_stdin(keys, batch):
        parsed = given_keys(keys)
        for start in range(0, len(parsed), at_once):
            yield parsed[start : start + at_once]
        return
    from anyio import to_thread

    rest = b""
    while block := await to_thread.run_sync(os.read, 0, _READ, abandon_on_cancel=True):
        blocks = [rest, block]
        while len(blocks) * _KEYS_OF_BLOCK < at_once and select([0], [], [], 0)[0] and (more := os.read(0, _READ)):
            blocks.append(more)
        *lines, rest = b"".join(blocks).split(b"\n")
        for start in range(0, len(lines), at_once):
            if good := _parsed(lines[start : start + at_once], report):
                yield good
    if good := _parsed([rest], report):
        yield good


def _parsed(lines: list[bytes], report: Report) -> list[Key]:
    good = []
    for line in lines:
        if not (line := line.removesuffix(b"\r")):
            continue
        try:
            good.append(Key.parse(line))
        except InvalidKey as error:
            report.failed(error, input=[line.decode("utf-8", "surrogateescape")])
    return good
