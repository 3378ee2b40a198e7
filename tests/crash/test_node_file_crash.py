"""A call that fails, or a kill, at any step of writing a node file: the old file or the new one stands there, whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glimmer_store.graph import _write

OLD, NEW = b"---\nid: a\n---\n" * 50, b"---\nid: a\nverified: true\n---\n" * 80


class Killed(BaseException):
    """The process is gone: nothing has an effect after it."""


class Steps:
    """Every call of *names* of the system, of which the N-th fails; after a kill all fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, number: int | None) -> None:
        self.at, self.number, self.count = at, number, 0
        for name in ("open", "fsync", "mkdir", "rename", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._faulty(getattr(os, name)))

    def _faulty(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: object, **options: object) -> object:
            self.count += 1
            if self.number is None and self.count >= self.at > 0:
                raise Killed
            if self.count == self.at:
                raise OSError(self.number or 0, os.strerror(self.number or 0))
            return call(*args, **options)

        return stepped


@pytest.mark.parametrize("number", [None, errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("old", [None, OLD], ids=["new", "again"])
def test_a_node_file_is_old_or_new_whatever_fails(tmp_path: Path, old: bytes | None, number: int | None) -> None:
    at, done = 0, False
    while not done:
        at += 1
        folder = tmp_path / str(at)
        path = folder / "rokb" / "node.md"
        if old is not None:
            path.parent.mkdir(parents=True)
            path.write_bytes(old)
        with pytest.MonkeyPatch.context() as patched:
            steps = Steps(patched, at, number)
            try:
                _write(path, NEW)
                done = steps.count < at
                acknowledged = True
            except (OSError, Killed):
                acknowledged = False
        now = path.read_bytes() if path.exists() else None
        assert now in ((NEW,) if acknowledged else (old, NEW)), f"torn at step {at}"

        _write(path, NEW)  # what is left behind stands in nobody's way
        assert path.read_bytes() == NEW
        assert os.listdir(path.parent) == ["node.md"]
    assert at > 4
