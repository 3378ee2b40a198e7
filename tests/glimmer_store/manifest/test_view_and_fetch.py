"""Contents are shown in read pools without being stored again, and fetched by bindings from whoever has a good copy."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import datamanifest
import pytest
from manifests import Study

import annexpy as annex
from glimmer_store.archive import Archive
from glimmer_store.datamanifest import fetch, fetch_content, open_annex
from glimmer_store.graph import GlimmerGraph
from glimmer_store.manifest.archiving import archive_manifest, chosen
from glimmer_store.manifest.bundle import Bundle
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.filling import Shown, fill_view
from glimmer_store.manifest.viewing import LINKS, Link, View

pytestmark = pytest.mark.anyio


@pytest.fixture
async def records(study: Study) -> dict[str, Bundle]:
    """Two datasets and an artefact that are archived, and whose own bytes and sources are gone."""
    study.download("co2", "mask")
    study.produce()
    project = study.project
    async with GlimmerGraph.open(study.root) as graph:
        done = [one async for one in archive_manifest(graph, project, chosen(project, (), cached=True))]
    study.lose_sources()
    for folder in ("data", "cached", ".datamanifest"):
        shutil.rmtree(study.root / folder)
    return {one.declared.name.partition("/")[0]: one.record for one in done if one.record is not None}


async def filled(study: Study, view: View, *names: str, **options: bool) -> dict[str, Shown]:
    async with Archive.open(study.root) as archive:
        shown = [one async for one in fill_view(archive, study.project, view, names, **options)]  # type: ignore[arg-type]
    return {one.declared.name.partition("/")[0]: one for one in shown}


def with_pools(study: Study, folder: Path) -> datamanifest.Database:
    text = study.manifest.read_text().replace(
        "[_STORAGE]\n", f'[_STORAGE]\ndatasets_pools = ["{folder}"]\ndatacache_pools = ["{folder}"]\n'
    )
    study.manifest.write_text(text)
    return study.library()


async def test_plain_datamanifest_reads_a_view_in_place(study: Study, records: dict[str, Bundle]) -> None:
    view = View.create(study.top / "pool", study.root)
    shown = await filled(study, view, cached=True)
    assert {one.link for one in shown.values()} == {"symlink"}
    library = with_pools(study, view.folder)

    assert Path(datamanifest.download_dataset("co2", db=library)) == view.folder / "example.org/co2.csv"
    mask = Path(datamanifest.download_dataset("mask", db=library))
    assert (mask / "sub" / "b.txt").read_bytes() == b"b" * 100
    assert (mask / "none").is_dir()
    assert not (study.root / "data").exists()  # nothing was stored a second time

    @library.cached(cachetype="anomaly", version="v1", format="json")
    def anomaly(*, grid: str) -> None:
        raise AssertionError("ran although the view has it")

    assert anomaly(grid="5x5") == {"grid": "5x5", "value": 1}


async def test_what_a_tool_removes_in_a_view_is_made_again(study: Study, records: dict[str, Bundle]) -> None:
    """E5b of the fact sheet: `delete` of a pooled dataset unlinks inside of the pool."""
    view = View.create(study.top / "pool", study.root)
    await filled(study, view)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (view.folder, view.folder / "example.org")}
    assert modes == {0o555}
    assert stat.S_IMODE((view.folder / "example.org/co2.csv").stat().st_mode) == 0o444
    (view.folder / "example.org").chmod(0o755)
    (view.folder / "example.org/co2.csv").unlink()

    shown = await filled(study, view, "co2")

    assert shown["co2"].link == "symlink"
    assert (view.folder / "example.org/co2.csv").read_bytes().startswith(b"year")


@pytest.mark.parametrize("link", LINKS)
async def test_a_view_says_how_its_links_were_made(study: Study, records: dict[str, Bundle], link: Link) -> None:
    view = View.create(study.top / "pool", study.root)
    async with Archive.open(study.root) as archive:
        shown = [one async for one in fill_view(archive, study.project, view, ("co2", "mask"), link=link)]
    if link == "reflink" and shown[0].failed:
        assert "reflink" in shown[0].reason  # a file system without them says so
        return
    assert {entry.link for entry in View.open(view.folder).entries.values()} == {link}
    (found,) = [p for p in (study.bare(1) / "annex/objects").rglob(records["co2"].key) if p.is_file()]
    before = found.stat().st_ino
    there = view.folder / "example.org/co2.csv"
    assert (os.path.islink(there), there.stat().st_ino == before) == (
        link == "symlink",
        link in ("symlink", "hardlink"),
    )
    assert stat.S_IMODE(there.stat().st_mode) == 0o444

    view.delete()

    assert not view.folder.exists()
    assert found.read_bytes().startswith(b"year")


async def test_scopes_share_every_byte_and_tell_what_only_they_show(study: Study, records: dict[str, Bundle]) -> None:
    one, other = (View.create(study.top / name, study.root, name) for name in ("one", "other"))
    await filled(study, one)
    await filled(study, other, "mask")
    views = {view.scope: view for view in View.registered(study.root / ".git")}

    assert set(views) == {"one", "other"}
    assert views["one"].apparent_size == 18 + 200
    assert views["one"].exclusive_size([views["other"]]) == 18
    assert views["other"].exclusive_size([views["one"]]) == 0
    other.delete()
    assert [view.scope for view in View.registered(study.root / ".git")] == ["one"]


async def test_what_is_not_on_this_machine_is_fetched_when_asked(study: Study, records: dict[str, Bundle]) -> None:
    """A durable repository that is reached by a command only: no link can lead into it."""
    config = study.root / "glimmer-store.toml"
    text = config.read_text()
    for number in (1, 2, 3):
        text = text.replace(
            f'"{study.bare(number)}"', f'"exec:{sys.executable} -m annexpy.cli.app serve --stdio {study.bare(number)}"'
        )
    config.write_text(text)
    view = View.create(study.top / "pool", study.root)

    shown = await filled(study, view, "co2")
    assert (shown["co2"].failed, shown["co2"].link) == (True, None)
    shown = await filled(study, view, "co2", fetch=True)

    assert shown["co2"].link == "symlink"
    assert (view.folder / "example.org/co2.csv").resolve().is_relative_to(study.root / ".git/annex/objects")
    with annex.Repository.open(study.root) as repository:
        key = annex.Key.parse(records["co2"].key)
        assert repository.uuid in repository.branch.locations(key).present


async def test_an_artefact_whose_object_rotted_is_not_shown(study: Study, records: dict[str, Bundle]) -> None:
    """E10 of the fact sheet: a pool is believed without a look; so the look is ours, before it is shown."""
    for number in (1, 2, 3):
        for found in (study.bare(number) / "annex/objects").rglob("*.json"):
            if found.is_file():
                found.chmod(0o644)
                found.write_bytes(found.read_bytes().replace(b"1", b"7"))
    view = View.create(study.top / "pool", study.root)
    shown = await filled(study, view, cached=True)
    assert shown["anomaly"].failed
    assert not (view.folder / "anomaly").exists()


def test_a_folder_with_other_things_in_it_is_no_place_for_a_view(study: Study) -> None:
    with pytest.raises(ManifestError, match="not empty"):
        View.create(study.root, study.root)
    with pytest.raises(ManifestError, match="is no view"):
        View.open(study.root)


# -- fetch --


def spoil(study: Study, number: int, key: str) -> None:
    (found,) = [p for p in (study.bare(number) / "annex/objects").rglob(key) if p.is_file()]
    found.chmod(0o644)
    found.write_bytes(b"?" * found.stat().st_size)


async def test_a_bad_copy_is_passed_over(study: Study, records: dict[str, Bundle]) -> None:
    key = annex.Key.parse(records["co2"].key)
    for number in (1, 2):
        spoil(study, number, str(key))
    target = study.top / "fetched" / "co2.csv"
    assert await fetch_content(key, target, study.root) == "the archive"
    assert target.read_bytes() == b"year,ppm\n2020,414\n"


async def test_the_web_is_asked_last_and_believed_only_when_it_is_right(
    study: Study, records: dict[str, Bundle]
) -> None:
    key = annex.Key.parse(records["co2"].key)
    for number in (1, 2, 3):
        spoil(study, number, str(key))
    wrong, right = study.top / "wrong.csv", study.top / "right.csv"
    wrong.write_bytes(b"year,ppm\n2020,999\n")
    right.write_bytes(b"year,ppm\n2020,414\n")
    target = study.top / "co2.csv"

    with pytest.raises(annex.AnnexError):
        await fetch_content(key, target, study.root, [wrong.as_uri()])
    assert not target.exists()
    assert await fetch_content(key, target, study.root, [wrong.as_uri(), right.as_uri()]) == right.as_uri()
    assert target.read_bytes() == right.read_bytes()


async def test_a_folder_is_fetched_by_the_key_of_its_list(study: Study, records: dict[str, Bundle]) -> None:
    target = study.top / "mask"
    await fetch_content(annex.Key.parse(records["mask"].key), target, study.root)
    assert sorted(path.name for path in target.iterdir()) == ["a.txt", "empty", "none", "sub"]


async def test_a_shell_binding_and_a_fetcher_get_what_the_source_has_no_more(
    study: Study, records: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = records["co2"].key
    command = f"{sys.executable} -m glimmer_store.cli.app"
    study.manifest.write_text(
        f'[shell]\nkey = "a/shell.csv"\nshell = "{command} fetch --key {key} --to $download_path"\n\n'
        f'[python]\nkey = "a/python.csv"\n'
        'fetcher = { ref = "glimmer_store.datamanifest:fetch", '
        f'kwargs = {{ annex_key = "{key}", dest = "$download_path" }} }}\n\n'
        '[_STORAGE]\ndatasets_dir = "$repo/data"\n'
    )
    monkeypatch.chdir(study.root)
    for path in study.download("shell", "python"):
        assert path.read_bytes() == b"year,ppm\n2020,414\n"
    with pytest.raises(annex.AnnexError, match="no key is named"):
        fetch("somewhere")


async def test_a_lazy_dataset_is_opened_where_it_is(
    study: Study, records: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(study.root)
    study.manifest.write_text(
        f'[z]\nuri = "annex://vault2/{records["co2"].key}/co2.csv"\nlazy_access = true\n'
        'loader = "glimmer_store.datamanifest:open_annex"\n'
    )
    with datamanifest.load_dataset("z", db=study.library()) as file:
        file.seek(5)
        assert file.read(3) == b"ppm"
    for wrong in ("annex://nobody/SHA256E-s1--ab", "annex://vault2", "http://vault2/k"):
        with pytest.raises(annex.AnnexError):
            open_annex(wrong)


async def test_fetch_works_without_a_dataset(study: Study, records: dict[str, Bundle], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "glimmer_store.cli.app"]
    subprocess.run(
        [*command, "fetch", "--key", records["co2"].key, "--to", tmp_path / "x", "--from", study.bare(2)],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    assert (tmp_path / "x").read_bytes().startswith(b"year")
