"""A cached function finds its value here, else in the archive, else runs; and what rotted is not believed."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from manifests import Study

import annexpy as annex
from glimmer_store import cache
from glimmer_store.cache import cached
from glimmer_store.errors import ConfigError, Shortfall
from glimmer_store.manifest.bundle import WorkTree
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.standing import Policy


@pytest.fixture(autouse=True)
def here(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.root)


def counting(value: int = 1, **options: Any) -> tuple[Callable[..., Any], list[str]]:
    """A cached function, and its runs."""
    runs: list[str] = []

    def work(*, grid: str) -> dict[str, object]:
        runs.append(grid)
        return {"grid": grid, "value": value}

    return cached(work, cachetype="work", **{"format": "json", **options}), runs


def artefact(study: Study) -> Path:
    (found,) = [path.parent for path in (study.root / "cached" / "work").rglob("data.*") if ".bad-" not in str(path)]
    return found


def test_a_value_is_computed_once_and_named_as_the_library_names_it(study: Study) -> None:
    work, runs = counting(version="v1")
    assert work(grid="5x5") == work(grid="5x5") == {"grid": "5x5", "value": 1}
    assert runs == ["5x5"]
    library = study.library()

    @library.cached(cachetype="work", version="v1", format="json")
    def plain(*, grid: str) -> None:
        raise AssertionError("the library does not find what we wrote")

    assert plain(grid="5x5") == {"grid": "5x5", "value": 1}
    with pytest.raises(TypeError):
        work("5x5")


def test_a_value_that_rotted_is_moved_aside_and_computed_again(study: Study) -> None:
    """E9: the library returns the wrong value, and its own verify says that all is well."""
    work, runs = counting()
    work(grid="5x5")
    (artefact(study) / "data.json").write_text('{"grid": "5x5", "value": 7}')
    library = study.library()

    @library.cached(cachetype="work", format="json")
    def plain(*, grid: str) -> None:
        raise AssertionError

    assert plain(grid="5x5") == {"grid": "5x5", "value": 7}  # the library's answer

    assert work(grid="5x5") == {"grid": "5x5", "value": 1}
    assert runs == ["5x5", "5x5"]
    (bad,) = artefact(study).parent.glob("*.bad-*")
    assert "7" in (bad / "data.json").read_text()


def test_bits_that_flip_without_a_trace_are_found_when_the_measurement_is_old(study: Study) -> None:
    work, _ = counting()
    work(grid="5x5")
    file = artefact(study) / "data.json"
    times = file.stat()
    file.write_text(file.read_text().replace("1", "7"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert work(grid="5x5")["value"] == 7  # as agreed: believed for as long as the policy says

    strict, runs = counting(policy=Policy(max_age={"generated": timedelta(0)}))
    assert strict(grid="5x5")["value"] == 1
    assert runs == ["5x5"]


def test_a_value_comes_from_the_archive_when_it_is_gone_here(study: Study) -> None:
    work, runs = counting(durable="irreplaceable")
    work(grid="5x5")
    assert len(WorkTree(study.root).of(f"datacache/work/{artefact(study).name}")) == 1
    shutil.rmtree(study.root / "cached")
    shutil.rmtree(study.bare(1))

    assert work(grid="5x5") == {"grid": "5x5", "value": 1}

    assert runs == ["5x5"]


def test_what_rotted_is_replaced_from_the_archive_without_a_run(study: Study) -> None:
    work, runs = counting(durable="irreplaceable")
    work(grid="5x5")
    (artefact(study) / "data.json").write_text('{"grid": "5x5", "value": 7}')
    assert work(grid="5x5")["value"] == 1
    assert runs == ["5x5"]


def test_generated_values_are_archived_behind_the_callers_back(study: Study) -> None:
    work, _ = counting(durable="generated")
    work(grid="5x5")
    work(grid="7x7")
    cache.wait()
    assert len(list(WorkTree(study.root).all())) == 2


def test_a_value_that_cannot_be_kept_is_a_failure_that_is_told(study: Study) -> None:
    for number in (1, 2):
        shutil.rmtree(study.bare(number))
    work, _ = counting(durable="generated")
    assert work(grid="5x5")["value"] == 1
    with pytest.raises(Shortfall):
        cache.wait()
    strict, _ = counting(durable="irreplaceable", version="strict")
    with pytest.raises(Shortfall):
        strict(grid="5x5")


def test_another_value_for_the_same_call_is_kept_beside_the_first(
    study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = counting(durable="irreplaceable")
    first(grid="5x5")
    other, _ = counting(value=2, durable="irreplaceable")
    with caplog.at_level(logging.WARNING):
        assert other(grid="5x5", cached=False)["value"] == 2
    assert "both are kept" in caplog.text
    assert len(WorkTree(study.root).of(f"datacache/work/{artefact(study).name}")) == 2


def test_a_pickle_from_the_archive_is_not_loaded_unless_it_is_trusted(
    study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    work, runs = counting(durable="irreplaceable", format="pickle")
    work(grid="5x5")
    shutil.rmtree(study.root / "cached")
    assert work(grid="5x5")["value"] == 1
    assert runs == ["5x5", "5x5"]
    assert "which is code" in caplog.text
    shutil.rmtree(study.root / "cached")
    trusting, more = counting(durable="irreplaceable", format="pickle", trust_pickle=True)
    assert trusting(grid="5x5")["value"] == 1
    assert more == []


def test_nothing_is_computed_that_could_not_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    monkeypatch.chdir(bare)
    work, runs = counting(durable="generated")
    with pytest.raises(ManifestError, match="no manifest here or above"):
        work(grid="5x5")
    (bare / "datamanifest.toml").write_text('[_STORAGE]\ndatacache_dir = "cached"\n')
    with pytest.raises(ConfigError):
        work(grid="5x5")
    assert runs == []
    alone, _ = counting()  # without an archive it is the library's, with a look
    assert alone(grid="5x5")["value"] == 1
    assert issubclass(ManifestError, annex.AnnexError)
