"""Run the command line in this process, as a shell would see it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from annexpy.cli.app import main


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.decode("utf-8", "surrogateescape").splitlines()

    @property
    def json(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def cli(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Ran]:
    def run(*argv: object, stdin: bytes | None = None) -> Ran:
        words = [str(word) for word in argv]
        if stdin is not None:
            done = subprocess.run(
                [sys.executable, "-m", "annexpy.cli.app", *words], input=stdin, capture_output=True, timeout=60
            )
            return Ran(done.returncode, done.stdout, done.stderr.decode())
        capfdbinary.readouterr()
        code = main(words)
        out, err = capfdbinary.readouterr()
        return Ran(code, out, err.decode())

    return run
