"""The nine conformance pairs of spec-v5.9: what we write into a manifest changes nothing else in it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datamanifest
import datamanifest.database as database
import pytest

from glimmer_store.manifest.annotating import annotated
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.library import Project, param_hash

FIXTURES = Path(__file__).parents[2] / "fixtures"
SPEC = FIXTURES / "datamanifest-spec"
PAIRS = sorted(path.name.removesuffix(".expected.json") for path in SPEC.glob("*.expected.json"))
TABLE: dict[str, str | int] = {"annex-key": "SHA256E-s3--ab.txt", "storage-class": "irreplaceable", "numcopies": 3}


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((SPEC / f"{name}.expected.json").read_text())
    return found


MANIFESTS = [name for name in PAIRS if not name.startswith("config_sidecar")]
SIDECARS = [name for name in PAIRS if name.startswith("config_sidecar")]


def test_there_are_nine_pairs() -> None:
    assert (len(PAIRS), len(SIDECARS)) == (9, 2)


def datasets(raw: bytes) -> list[str]:
    return [name for name in tomllib.loads(raw.decode()) if not name.startswith("_")]


def bound(path: Path) -> dict[str, Any]:
    """What the library makes of every dataset: by which rung it is fetched and loaded, and with what."""
    db = datamanifest.Database(datasets_toml=str(path))
    return {
        name: (
            database.resolve_fetcher(entry),
            database.resolve_loader_rungs(db, entry),
            database.to_dict(entry) | {"_GLIMMER": None},
        )
        for name, entry in db.datasets.items()
    }


@pytest.mark.parametrize("name", MANIFESTS)
def test_our_tables_change_nothing_else(name: str, tmp_path: Path) -> None:
    wanted = expected(name)
    raw = (SPEC / f"{name}.toml").read_bytes()
    before, after = tmp_path / "before.toml", tmp_path / "after.toml"

    made = annotated(raw, dict.fromkeys(datasets(raw), TABLE))

    assert made.startswith(raw.rstrip(b"\n"))  # comments and order too
    values = tomllib.loads(made.decode())
    for dataset in datasets(raw):
        assert values[dataset].pop("_GLIMMER") == TABLE
    assert values == tomllib.loads(raw.decode())
    before.write_bytes(raw)
    after.write_bytes(made)
    assert bound(before) == bound(after)
    for dataset, rungs in wanted.get("resolution", {}).get("python", {}).items():
        entry = datamanifest.Database(datasets_toml=str(after)).datasets[dataset]
        assert (database.resolve_fetcher(entry)[0] in ("uri", None, "")) is (rungs["fetcher"]["rung"] == "uri")


@pytest.mark.parametrize("name", MANIFESTS)
def test_what_the_library_writes_afterwards_keeps_our_tables_and_everything_foreign(name: str, tmp_path: Path) -> None:
    wanted = expected(name).get("preserve_verbatim", {})
    raw = (SPEC / f"{name}.toml").read_bytes()
    path = tmp_path / "datamanifest.toml"
    path.write_bytes(annotated(raw, dict.fromkeys(datasets(raw), TABLE)))

    datamanifest.Database(datasets_toml=str(path)).write(str(path))

    before, after = tomllib.loads(raw.decode()), tomllib.loads(path.read_text())
    assert all(after[dataset]["_GLIMMER"] == TABLE for dataset in datasets(raw))
    for table in wanted.get("unknown_structural", ()):
        assert after[table] == before[table]
    for space in wanted.get("lang_namespaces", {}).get("top_level", ()):
        assert at(after, space) == at(before, space)
    for dataset, spaces in wanted.get("lang_namespaces", {}).get("per_dataset", {}).items():
        for space in spaces:
            assert at(after[dataset], space) == at(before[dataset], space)


def at(values: Mapping[str, Any], path: str) -> Any:
    found: Any = values
    for name in path.split("."):
        found = found[name]
    return found


@pytest.mark.parametrize("name", SIDECARS)
def test_calls_are_named_by_the_hash_of_the_specification(name: str) -> None:
    values = tomllib.loads((SPEC / f"{name}.toml").read_text())
    recorded = values.pop("_META")["hash"]
    assert param_hash(values) == recorded
    assert recorded in json.dumps(expected(name))
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(canonical.encode()).hexdigest() == recorded


def test_the_places_of_the_storage_pair_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "datamanifest.toml"
    path.write_bytes((SPEC / "storage.toml").read_bytes())
    found = {one.name: one for one in Project(path).datasets()}
    assert (found["big"].managed, found["pinned"].managed) == (True, False)
    assert str(found["pinned"].target).endswith("exact/file.nc")


def test_keys_that_collide_are_not_what_we_go_by(tmp_path: Path) -> None:
    """Port and query are not in the library's storage keys; two such datasets stay two contents of one address."""
    cases = json.loads((FIXTURES / "derived/storage-key-cases.json").read_text())["cases"]
    for case in cases:
        path = tmp_path / "datamanifest.toml"
        version = f'version = "{case["version"]}"\n' if "version" in case else ""
        path.write_text(f'[one]\nuri = "{case["uri"]}"\n{version}')
        (one,) = Project(path).datasets()
        assert one.address == f"datasets/{case['key']}"


def test_a_table_of_ours_is_replaced_and_not_added_twice() -> None:
    raw = b'# mine\n[a]\nuri = "http://h/a"\n\n["b c"]\nuri = "http://h/b"\n'
    once = annotated(raw, {"a": TABLE, "b c": TABLE})
    twice = annotated(once, {"a": {**TABLE, "numcopies": 2}})
    assert annotated(once, {"a": TABLE, "b c": TABLE}) == once
    assert twice.count(b"_GLIMMER") == 2
    assert tomllib.loads(twice.decode())["a"]["_GLIMMER"]["numcopies"] == 2
    assert tomllib.loads(twice.decode())["b c"]["_GLIMMER"] == TABLE


@pytest.mark.parametrize("raw", [b'a = { uri = "http://h/a" }\n', b"[a]\n_GLIMMER = { mine = 1 }\n"])
def test_a_manifest_that_cannot_take_a_table_is_left_alone(raw: bytes) -> None:
    with pytest.raises(ManifestError, match="cannot be annotated"):
        annotated(raw, {"a": TABLE})


def test_an_extension_of_the_fixture_is_read_and_written_the_same() -> None:
    raw = (FIXTURES / "derived/manifest.glimmer-extension.toml").read_bytes()
    table = tomllib.loads(raw.decode())["co2"]["_GLIMMER"]
    assert annotated(raw, {"co2": table}) == raw


def test_the_legacy_index_of_the_fixtures_is_read_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "datamanifest.toml"
    path.write_bytes((SPEC / "legacy/cached_index.spec-v3.toml").read_bytes())
    before = tomllib.loads(path.read_text())
    names = [one.name for one in Project(path).datasets()]
    assert names == [name for name in before if not name.startswith("_")]
    after = tomllib.loads(annotated(path.read_bytes(), dict.fromkeys(names, TABLE)).decode())
    assert after == {name: of | {"_GLIMMER": TABLE} if name in names else of for name, of in before.items()}


def test_legacy_manifests_are_read_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "datamanifest.toml"
    path.write_text('[old]\nuri = "http://h/a.csv"\nstore = "cache"\nscope = "mine"\nsha256 = "ab"\n')
    (one,) = Project(path).datasets()
    assert (one.name, one.expected) == ("old", "sha256:ab")
    assert tomllib.loads(annotated(path.read_bytes(), {"old": TABLE}).decode())["old"]["scope"] == "mine"
