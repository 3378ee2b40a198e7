"""A home for what glimmer_store keeps of its user, so that no test finds or leaves anything in a real one."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def store_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the signing key of this test is."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("GLIMMER_STORE_HOME", str(home))
    return home
