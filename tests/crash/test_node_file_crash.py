"""A call that fails, or a kill, at any step of writing a node file: the old file or the new one stands there, whole."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glimmer_store.entry import write_whole

OLD, NEW = b"---\nid: a\n---\n" * 50, b"---\nid: a\nverified: true\n---\n" * 80


class Killed(BaseException):
    """The process is gone: nothing has an effect after it."""


class Steps:
    """Every call of *names* of the system, of which the N-th fails; after a kill all fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, number: int | None) -> None:
        self.at, self.number, self.count = at, number, 0
        self.names: list[str] = []
        for name in ("open", "fsync", "close", "mkdir", "rename", "replace", "unlink"):
            monkeypatch.setattr(os, name, self._faulty(name, getattr(os, name)))
        monkeypatch.setattr(io, "open", self._opened(io.open))

    def step(self, name: str) -> None:
        """One call; raises when it is the one that fails."""
        self.count += 1
        self.names.append(name)
        if self.number is None and self.count >= self.at > 0:
            raise Killed
        if self.count == self.at:
            raise OSError(self.number or 0, os.strerror(self.number or 0))

    def _faulty(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*args: object, **options: object) -> object:
            if name == "close":  # which closes in any case, as the system does
                call(*args, **options)
            self.step(name)
            return None if name == "close" else call(*args, **options)

        return stepped

    def _opened(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(path: object, mode: str = "r", *args: object, **options: object) -> object:
            self.step("io.open")
            return Opened(self, call(path, mode, buffering=0) if "b" in mode else call(path, mode, *args, **options))

        return stepped


class Opened:
    """An open file whose calls are steps; of a write that fails half has been written."""

    def __init__(self, steps: Steps, file: Any) -> None:
        self._steps, self._file = steps, file

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._steps.step("file.close")

    def fileno(self) -> int:
        return int(self._file.fileno())

    def write(self, data: bytes) -> int:
        try:
            self._steps.step("write")
        except BaseException:
            self._file.write(data[: len(data) // 2])
            raise
        return int(self._file.write(data))

    def flush(self) -> None:
        self._steps.step("flush")


@pytest.mark.parametrize("number", [None, errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("old", [None, OLD], ids=["new", "again"])
def test_a_node_file_is_old_or_new_whatever_fails(tmp_path: Path, old: bytes | None, number: int | None) -> None:
    at, done, seen = 0, False, list[str]()
    while not done:
        at += 1
        folder = tmp_path / str(at)
        path = folder / "rokb" / "node.md"
        path.parent.mkdir(parents=True)
        if old is not None:
            path.write_bytes(old)
        with pytest.MonkeyPatch.context() as patched:
            steps = Steps(patched, at, number)
            try:
                write_whole(path, NEW)
                done = steps.count < at
                acknowledged = True
            except (OSError, Killed):
                acknowledged = False
        seen = steps.names
        now = path.read_bytes() if path.exists() else None
        assert now in ((NEW,) if acknowledged else (old, NEW)), f"torn at step {at}"

        write_whole(path, NEW)  # what is left behind stands in nobody's way
        assert path.read_bytes() == NEW
        assert os.listdir(path.parent) == ["node.md"]
    assert at > 8
    assert {"io.open", "write", "flush", "fsync", "file.close", "replace", "open", "close"} <= {*seen}
