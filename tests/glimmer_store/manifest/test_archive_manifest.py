"""What a manifest declares is archived, and comes back from one bare when every source is dead."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import datamanifest
import pytest
from manifests import Study

import annexpy as annex
from glimmer_store.errors import HashMismatch, Shortfall, SourceRefused
from glimmer_store.graph import GlimmerGraph
from glimmer_store.manifest.annotating import annotate_manifest
from glimmer_store.manifest.archiving import ArchivedEntry, archive_manifest, chosen, worst
from glimmer_store.manifest.bundle import Bundle, WorkTree, bundle_parts, log_path
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.library import Project
from glimmer_store.manifest.restoring import Restored, clone, restore
from glimmer_store.verify import keys_of, verify

pytestmark = pytest.mark.anyio


async def archived(study: Study, *names: str, cached: bool = False) -> list[ArchivedEntry]:
    project = study.project
    async with GlimmerGraph.open(study.root) as graph:
        return [one async for one in archive_manifest(graph, project, chosen(project, names, cached=cached))]


async def restored(study: Study, folder: Path, number: int = 1, *, commit: str = "") -> dict[str, Restored]:
    clone(str(study.bare(number)), folder, commit=commit)
    return {one.address: one async for one in restore(folder, str(study.bare(number)))}


async def test_a_project_comes_back_from_one_bare_with_every_source_dead(study: Study) -> None:
    study.download("co2", "mask")
    artefact = study.produce()
    done = await archived(study, cached=True)
    assert [one.status for one in done] == ["archived"] * 3
    study.lose_sources()
    shutil.rmtree(study.root)
    for number in (2, 3):
        shutil.rmtree(study.bare(number))

    found = await restored(study, study.top / "again")

    assert {one.status for one in found.values()} == {"restored"}
    again = Study(study.top, study.top / "again", study.sources)
    co2, mask = again.download("co2", "mask")  # plain datamanifest finds all of it, and asks no source
    assert co2.read_bytes() == b"year,ppm\n2020,414\n"
    assert (mask / "sub" / "b.txt").read_bytes() == b"b" * 100
    assert (mask / "none").is_dir()

    @again.library().cached(cachetype="anomaly", version="v1", format="json")
    def anomaly(*, grid: str) -> dict[str, object]:
        raise AssertionError("ran although it was restored")

    assert anomaly(grid="5x5") == {"grid": "5x5", "value": 1}
    assert (again.root / "cached" / "anomaly" / "v1" / artefact.name / ".complete").exists()
    project = again.project
    assert project.recorded(project.find("co2")) == found["datasets/example.org/co2.csv"].digest.removeprefix("sha256:")


async def test_an_older_state_of_the_project_can_be_restored(study: Study) -> None:
    study.download("co2")
    await archived(study, "co2")
    then = subprocess.run(["git", "-C", study.root, "rev-parse", "HEAD"], capture_output=True, check=True).stdout
    study.download("mask")
    await archived(study, "mask")

    found = await restored(study, study.top / "then", commit=then.decode().strip())

    assert list(found) == ["datasets/example.org/co2.csv", "datasets/made/mask"]
    assert found["datasets/made/mask"].reason == "was never archived"
    assert not (study.top / "then" / "data" / "made").exists()


async def test_a_second_restore_completes_and_replaces_nothing(study: Study) -> None:
    study.download("co2", "mask")
    await archived(study)
    again = study.top / "again"
    await restored(study, again)
    shutil.rmtree(again / "data" / "made")
    (again / "data" / "example.org" / "co2.csv").write_bytes(b"my own notes")

    found = {one.address: one async for one in restore(again, str(study.bare(2)))}

    assert found["datasets/made/mask"].status == "restored"
    assert found["datasets/example.org/co2.csv"].status == "failed"
    assert (again / "data" / "example.org" / "co2.csv").read_bytes() == b"my own notes"


async def test_a_manifest_of_somebody_else_writes_nothing_outside(study: Study) -> None:
    """Neither by a folder that it names nor by a link that lies in the history."""
    study.download("co2")
    await archived(study, "co2")
    victim = study.top / "victim"
    victim.mkdir()
    again = study.top / "again"
    clone(str(study.bare(1)), again)
    (again / "data").symlink_to(victim)
    found = {one.address: one async for one in restore(again, str(study.bare(1)))}
    assert found["datasets/example.org/co2.csv"].status == "skipped"
    (again / "data").unlink()
    manifest = again / "datamanifest.toml"
    text = manifest.read_text()
    for folder in (f'"{victim}"\nuser_data_dir = "/"', '"$repo/.git/hooks"'):
        manifest.write_text(text.replace('"$repo/data"', folder))
        found = {one.address: one async for one in restore(again, str(study.bare(1)))}
        assert "outside of the project" in found["datasets/example.org/co2.csv"].reason
    assert list(victim.iterdir()) == []


async def test_what_was_whole_all_along_is_marked_so(study: Study) -> None:
    """Somebody copied the files by hand: they are compared, and the library believes them from then on."""
    artefact = study.produce()
    await archived(study, cached=True)
    (artefact / ".complete").unlink()
    found = [one async for one in restore(study.root, str(study.bare(1)))]
    assert [one.status for one in found if one.address.startswith("datacache/")] == ["restored"]
    assert (artefact / ".complete").exists()


async def test_a_copy_that_went_bad_is_not_what_is_restored(study: Study) -> None:
    study.download("co2")
    (entry,) = await archived(study, "co2")
    assert entry.record is not None
    (place,) = [p for p in (study.bare(1) / "annex/objects").rglob(entry.record.key) if p.is_file()]
    place.chmod(0o644)
    place.write_bytes(b"year,ppm\n2020,999\n")

    found = await restored(study, study.top / "again")

    (one,) = [one for one in found.values() if one.status == "failed"]
    assert one.address == "datasets/example.org/co2.csv"
    assert not (study.top / "again" / "data" / "example.org" / "co2.csv").exists()


async def test_a_second_archive_of_the_same_adds_nothing(study: Study) -> None:
    study.download("co2", "mask")
    await archived(study)
    log = study.root / log_path("datasets/made/mask")
    before = log.read_bytes(), sorted((study.root / "rokb").rglob("*.md"))

    await archived(study)

    assert (log.read_bytes(), sorted((study.root / "rokb").rglob("*.md"))) == before


async def test_what_differs_from_the_declared_checksum_is_refused_and_the_rest_goes_on(study: Study) -> None:
    (path, _) = study.download("co2", "mask")
    path.write_bytes(b"year,ppm\n2020,999\n")

    done = await archived(study)

    assert [(one.declared.name, one.status) for one in done] == [("co2", "failed"), ("mask", "archived")]
    assert isinstance(done[0].error, HashMismatch)
    assert worst(done) == 1
    assert WorkTree(study.root).of("datasets/example.org/co2.csv") == []


async def test_a_checksum_in_another_algorithm_is_checked_once_and_kept_as_an_alias(study: Study) -> None:
    study.manifest.write_text(
        study.manifest.read_text().replace("[co2]\n", '[co2]\nchecksum = "md5:6cdc6a1a6cbb2b5d2fe6b0f5e3a6e5b0"\n')
    )
    project = study.project
    digest = project.concatenated(study.sources / "co2.csv", "md5")
    study.manifest.write_text(study.manifest.read_text().replace("6cdc6a1a6cbb2b5d2fe6b0f5e3a6e5b0", digest))
    study.download("co2")

    (one,) = await archived(study, "co2")

    assert one.record is not None
    assert one.record.aliases == (f"md5:{digest}",)
    assert one.record.digest.startswith("sha256:")


async def test_the_users_own_file_is_archived_and_never_touched(study: Study) -> None:
    own = study.top / "own.nc"
    own.write_bytes(b"cannot be fetched again")
    study.manifest.write_text(study.manifest.read_text() + f'\n[own]\nuri = "{own}"\nskip_download = true\n')

    (one,) = await archived(study, "own")

    assert one.status == "archived"
    assert own.read_bytes() == b"cannot be fetched again"
    own.unlink()
    found = await restored(study, study.top / "again")
    (mine,) = [one for one in found.values() if "own.nc" in one.address]
    assert (mine.status, own.exists()) == ("skipped", False)  # outside of the project: only when asked for
    async for again in restore(study.top / "again", str(study.bare(1)), outside=True):
        if again.address == mine.address:
            assert again.status == "restored"
    assert own.read_bytes() == b"cannot be fetched again"


async def test_lazy_and_absent_data_is_passed_over_with_a_reason(study: Study) -> None:
    study.manifest.write_text(study.manifest.read_text() + '\n[z]\nuri = "s3://b/x.zarr"\nlazy_access = true\n')
    done = await archived(study)
    assert {one.declared.name: one.reason for one in done} == {
        "co2": "is not here",
        "mask": "is not here",
        "z": "is opened where it is, and never fetched",
    }


async def test_data_in_a_temporary_folder_is_refused_where_the_dataset_is_not(
    study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr("glimmer_store.manifest.archiving.temporary_folders", lambda: (scratch,))
    study.manifest.write_text(study.manifest.read_text().replace('"$repo/data"', f'"{scratch}"'))
    study.download("co2")

    (one,) = await archived(study, "co2")

    assert isinstance(one.error, SourceRefused)


async def test_too_few_copies_are_a_failure_of_their_own(study: Study) -> None:
    study.download("co2")
    shutil.rmtree(study.bare(3))
    done = await archived(study, "co2")
    assert isinstance(done[0].error, Shortfall)
    assert worst(done) == 3


async def test_every_file_of_a_folder_dataset_is_verified(study: Study) -> None:
    """The node of a dataset has no hash of its output: the key of its list leads to the files."""
    study.download("mask")
    (one,) = await archived(study, "mask")
    assert one.node is not None
    assert len(keys_of(study.root, one.node)) == 4
    for place in (study.bare(1) / "annex/objects").rglob("*s100--*"):
        if place.is_file():
            place.chmod(0o644)
            place.write_bytes(b"?" * 100)
    async with GlimmerGraph.open(study.root) as graph:
        (verified,) = [found async for found in verify(graph, [graph.node(one.node.id)])]
    assert verified.found == {"vault1": "bad", "vault2": "good", "vault3": "good"}


async def test_annotation_is_committed_and_the_comments_stay(study: Study) -> None:
    study.download("co2")
    commented = "# by hand\n" + study.manifest.read_text()
    study.manifest.write_text(commented)
    done = await archived(study, "co2")
    async with GlimmerGraph.open(study.root) as graph:
        await annotate_manifest(graph, study.project, [(one.declared, one.record, one.node) for one in done])

    assert study.manifest.read_text().startswith(commented.rstrip("\n"))
    shown = subprocess.run(["git", "-C", study.root, "show", "HEAD:datamanifest.toml"], capture_output=True, check=True)
    assert shown.stdout == study.manifest.read_bytes()
    entry = datamanifest.Database(datasets_toml=str(study.manifest)).datasets["co2"]
    assert done[0].record is not None
    assert entry.extra["_GLIMMER"]["annex-key"] == done[0].record.key


async def test_two_contents_of_one_address_are_both_kept_and_the_declared_one_counts(study: Study) -> None:
    (path,) = study.download("co2")
    (first,) = await archived(study, "co2")
    path.write_bytes(b"year,ppm\n2021,416\n")
    study.manifest.write_text(study.manifest.read_text().replace(first.record.digest, "") if first.record else "")
    (second,) = await archived(study, "co2")
    assert first.record is not None
    assert second.record is not None

    records = WorkTree(study.root)
    assert [one.key for one in records.of(first.record.address)] == [first.record.key, second.record.key]
    assert records.current(first.record.address) == second.record
    assert records.current(first.record.address, first.record.digest) == first.record
    async with GlimmerGraph.open(study.root) as graph:
        assert len(list(graph.nodes())) == 2  # the older content keeps its node, and with it its copies


def test_records_of_two_machines_merge_as_a_set() -> None:
    a, b = (
        Bundle("datasets/h/x", "x", f"SHA256E-s1--{n * 64}", "", f"sha256:{n}", n, 1, "generated", time=n) for n in "ab"
    )
    (_, one), (_, other) = bundle_parts([(a, None)]), bundle_parts([(b, None)])
    assert one.change(other.content) == other.change(one.content) == one.change(one.change(other.content))


@pytest.mark.parametrize(
    "address", ["datasets/../../etc/passwd", "datasets//etc/passwd", "elsewhere/x", "datasets/~/x"]
)
def test_a_record_that_leads_out_of_its_folder_is_no_record(address: str) -> None:
    line = Bundle(address, "x", "SHA256E-s1--ab", "", "sha256:ab", "", 1, "generated").to_line()
    assert Bundle.from_line(line) is None


async def test_a_list_whose_link_leads_out_is_refused(study: Study) -> None:
    study.download("mask")
    (one,) = await archived(study, "mask")
    assert one.record is not None
    records = WorkTree(study.root)
    tree = records.tree(one.record)
    assert tree is not None
    evil = type(tree)((*tree.entries, type(tree.entries[0])(b"z", "l", None, b"../../../etc")))
    record = Bundle.from_line(one.record.to_line().replace(tree.digest.encode(), evil.digest.encode()))
    assert record is not None
    (study.root / ".glimmer-store/trees" / f"{evil.digest[7:]}.tree").write_bytes(evil.to_bytes())
    with pytest.raises(ManifestError, match="leads out"):
        records.tree(record)


def test_the_unrelated_package_of_the_same_name_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "datamanifest").mkdir()
    (tmp_path / "datamanifest" / "__init__.py").write_text('"""RDF dataset manifests."""\n')
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import glimmer_store.manifest.library"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "PyPI project `datamanifest`" in done.stderr
    assert "`datamanifestpy`" in done.stderr


async def test_a_manifest_outside_of_the_dataset_is_refused(study: Study) -> None:
    elsewhere = study.top / "datamanifest.toml"
    elsewhere.write_text(study.manifest.read_text())
    async with GlimmerGraph.open(study.root) as graph:
        with pytest.raises(ManifestError, match="not in the dataset"):
            async for _ in archive_manifest(graph, Project(elsewhere), []):
                pass


def test_a_name_that_means_two_things_means_none(study: Study) -> None:
    study.produce()
    study.produce(version="v2")
    with pytest.raises(ManifestError, match="can be each of"):
        study.project.find("anomaly/v")
    assert study.project.find("anomaly/v2").address.startswith("datacache/anomaly@v2/")
    with pytest.raises(ManifestError, match="no dataset"):
        study.project.find("nothing")


async def cli(study: Study, *words: str, expect: int = 0) -> list[dict[str, object]]:
    """``glimmer-store manifest archive … --json``."""
    argv = [sys.executable, "-m", "glimmer_store.cli.app", "manifest", "archive", "--json", "-C", str(study.root)]
    ended = await anyio.run_process([*argv, *words], check=False)
    assert ended.returncode == expect, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_destinations_can_be_chosen_and_what_others_had_before_still_counts(study: Study) -> None:
    study.download("co2")
    (first,) = await cli(study, "co2", "--to", "vault2", "--numcopies", "1")
    assert [place["remote"] for place in first["stored-at"]] == ["vault2"]  # type: ignore[attr-defined]
    with annex.Repository.open(study.root) as repository:
        key = annex.Key.parse(str(first["key"]))
        assert len(repository.branch.locations(key).present) == 1
    has = {number: await anyio.to_thread.run_sync(holds, study.bare(number), key) for number in (1, 2, 3)}
    assert has == {1: False, 2: True, 3: False}

    (second,) = await cli(study, "co2", "--to", "vault1", "--to", "vault3")

    assert [place["remote"] for place in second["stored-at"]] == ["vault1", "vault2", "vault3"]  # type: ignore[attr-defined]
    assert second["copies"] == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_too_few_chosen_destinations_and_unknown_ones_are_refused(study: Study) -> None:
    study.download("co2")
    (told,) = await cli(study, "co2", "--to", "vault1", expect=3)
    assert (told["status"], told["error-class"]) == ("failed", "Shortfall")
    assert "vault2: it was not named" in str(told["reason"])
    assert await cli(study, "co2", "--to", "nowhere", expect=2) == []


def holds(bare: Path, key: annex.Key) -> bool:
    with annex.Repository.open(bare) as repository:
        return repository.content.present(key)
