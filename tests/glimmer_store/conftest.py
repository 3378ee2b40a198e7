"""A home for what glimmer_store keeps of its user, so that no test finds or leaves anything in a real one; programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def store_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the signing key of this test is."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("GLIMMER_STORE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which glimmer-store and annexpy are programs, as after an installation."""
    folder = tmp_path_factory.mktemp("bin")
    for name, module in (("glimmer-store", "glimmer_store.cli.app"), ("annexpy", "annexpy.cli.app")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m {module} "$@"\n')
        script.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
