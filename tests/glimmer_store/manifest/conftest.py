"""A project with a manifest, durable bares, and a home of its own: nothing of the user's is seen or left."""

from __future__ import annotations

from pathlib import Path

import pytest
from manifests import MANIFEST, Study

from glimmer_store.provision import provision


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def library_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library keeps what it shares between projects."""
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("DATAMANIFEST_TOML", "DATASETS_TOML"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    root, sources = tmp_path / "study", tmp_path / "sources"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    (sources / "mask" / "sub").mkdir(parents=True)
    (sources / "mask" / "none").mkdir()
    (sources / "co2.csv").write_bytes(b"year,ppm\n2020,414\n")
    (sources / "mask" / "a.txt").write_bytes(b"a" * 100)
    (sources / "mask" / "sub" / "b.txt").write_bytes(b"b" * 100)
    (sources / "mask" / "empty").write_bytes(b"")
    (root / "datamanifest.toml").write_text(MANIFEST.format(sources=sources))
    return Study(tmp_path, root, sources)
