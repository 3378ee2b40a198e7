"""Datasets and artefacts move through bare repositories, and what arrives wrong is not registered."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import datamanifest
import datamanifest.sync
import pytest
from manifests import Study

import annexpy as annex
from glimmer_store.attest import Attestations
from glimmer_store.graph import GlimmerGraph
from glimmer_store.manifest.archiving import chosen
from glimmer_store.manifest.bundle import WorkTree
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.inspecting import Inspection
from glimmer_store.manifest.syncing import Moved, Strength, pull, push, targets

pytestmark = pytest.mark.anyio


async def pushed(
    study: Study, *names: str, to: str | None = None, strength: Strength = "reread", register: bool = False
) -> list[Moved]:
    project = study.project
    async with GlimmerGraph.open(study.root) as graph:
        return await push(
            graph, project, chosen(project, names, cached=False), targets(graph, to, None),
            strength=strength, register=register,
        )  # fmt: skip


async def pulled(study: Study, remote: str, *names: str, batch: bool = False, overwrite: bool = False) -> list[Moved]:
    moving = pull(study.project, study.root, remote, names, batch=batch, overwrite=overwrite)
    return [one async for one in moving]


@pytest.fixture
def laptop(study: Study) -> Study:
    """The same project on another machine, which has nothing but the manifest, and other folders."""
    root = study.top / "laptop"
    with annex.Repository.init(root, bare=False):
        pass
    text = study.manifest.read_text().replace('"$repo/data"', '"$repo/here/data"').replace('"cached"', '"here/cache"')
    (root / "datamanifest.toml").write_text(text)
    return Study(study.top, root, study.sources)


def spoil(study: Study, number: int, pattern: str) -> None:
    found = [p for p in (study.bare(number) / "annex/objects").rglob(pattern) if p.is_file()]
    assert found
    for one in found:
        one.chmod(0o644)
        one.write_bytes(b"?" * one.stat().st_size)


def attested(study: Study, key: str) -> dict[str, str]:
    """UUID → what was found there last, by the signed lines in a repository that others get them from."""
    newest = Attestations(study.root).newest(annex.Key.parse(key))
    return {uuid: one.verdict.value for uuid, one in newest.items()}


def bare_uuid(study: Study, number: int) -> str:
    with annex.Repository.open(study.bare(number)) as repository:
        return str(repository.uuid)


async def test_an_artefact_goes_through_a_bare_repository_to_the_place_of_its_receiver(
    study: Study, laptop: Study
) -> None:
    """E7 and E11 of the fact sheet: the library refuses `….git`, and a pushed folder lands one level too deep."""
    artefact = study.produce()
    library = study.library()
    subprocess.run(["git", "-C", study.root, "remote", "add", "store", study.bare(1)], check=True)
    with pytest.raises(ValueError, match="not usable as a data target"):
        datamanifest.sync.parse_target("store:", project_root=str(study.root))
    commands: list[list[str]] = []

    def runner(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    plain = datamanifest.sync.resolve_object(library, f"anomaly/v1/{artefact.name}", allow_local=True)
    away = datamanifest.sync.parse_target("hpc:/away", project_root=str(study.root))
    datamanifest.sync.transfer(library, plain, away, direction="push", project_root=str(study.root), runner=runner)
    source, destination = commands[-1][-2:]
    assert not source.endswith("/")  # so that rsync makes <hash>/<hash> when the target is there
    assert (Path(source).name, destination.rstrip("/").rpartition("/")[2]) == (artefact.name, artefact.name)

    (sent,) = await pushed(study, "anomaly/v1")
    (arrived,) = await pulled(laptop, str(study.bare(2)), "anomaly/v1")

    assert (sent.ok, arrived.ok) == (True, True)
    place = laptop.root / "here/cache/anomaly/v1" / artefact.name
    assert arrived.path == place
    assert sorted(path.name for path in place.iterdir()) == [".complete", "config.toml", "data.json", "metadata.toml"]

    @laptop.library().cached(cachetype="anomaly", version="v1", format="json")
    def anomaly(*, grid: str) -> None:
        raise AssertionError("ran although it was pulled")

    assert anomaly(grid="5x5") == {"grid": "5x5", "value": 1}


async def test_a_bad_copy_is_refused_on_arrival_and_not_registered(study: Study, laptop: Study) -> None:
    """E8: the library pulls it, registers it, and serves it from then on."""
    study.download("co2")
    await pushed(study, "co2")
    theirs = study.top / "their folder"
    (theirs / "example.org").mkdir(parents=True)
    (theirs / "example.org/co2.csv").write_bytes(b"year,ppm\n2020,999\n")
    (theirs / "example.org/co2.csv.complete").touch()
    plain = Study(study.top, study.top / "plain", study.sources)
    shutil.copytree(study.root, plain.root, ignore=shutil.ignore_patterns("data", ".git", ".datamanifest"))
    library = plain.library()
    what = datamanifest.sync.resolve_object(library, "co2", allow_local=True)
    source = datamanifest.sync.parse_target(str(theirs), project_root=str(plain.root))
    datamanifest.sync.transfer(library, what, source, direction="pull", project_root=str(plain.root))
    (served,) = plain.download("co2")
    assert served.read_bytes() == b"year,ppm\n2020,999\n"  # and nobody complained

    spoil(study, 1, "*.csv")
    (arrived,) = await pulled(laptop, str(study.bare(1)), "co2")

    assert not arrived.ok
    assert not (laptop.root / "here/data/example.org/co2.csv").exists()
    project = laptop.project
    assert project.recorded(project.find("co2")) == ""
    assert arrived.record is not None
    assert attested(laptop, arrived.record.key) == {bare_uuid(study, 1): "bad"}
    (arrived,) = await pulled(laptop, str(study.bare(2)), "co2")
    assert arrived.ok
    assert arrived.digest == f"sha256:{laptop.project.recorded(laptop.project.find('co2'))}"


@pytest.mark.parametrize(("became", "verdict"), [("rotten", "bad"), ("gone", "missing")])
async def test_what_a_pull_found_wrong_stands_in_the_history_and_the_copy_is_not_counted(
    study: Study, became: str, verdict: str
) -> None:
    (mask,) = study.download("mask")
    (sent,) = await pushed(study, "mask", register=True)
    assert sent.record is not None
    tree = WorkTree(study.root).tree(sent.record)
    assert tree is not None
    keys = {entry.path: str(entry.key) for entry in tree.entries}
    key, other = keys[b"sub/b.txt"], keys[b"a.txt"]
    uuids = {bare_uuid(study, number): number for number in (1, 2, 3)}
    assert attested(study, key) == dict.fromkeys(uuids, "good")
    with annex.Repository.open(study.bare(2)) as repository:
        found = repository.content.path(annex.Key.parse(key))
        assert found is not None
        path = study.bare(2) / found.decode()
    path.parent.chmod(0o755)
    path.chmod(0o644)
    path.write_bytes(b"?" * path.stat().st_size) if became == "rotten" else path.unlink()
    shutil.rmtree(mask)

    (refused,) = await pulled(study, "vault2", "mask")

    assert not refused.ok
    assert refused.failed["vault2"].endswith(f"attested as {verdict}")
    assert attested(study, key) == {uuid: verdict if at == 2 else "good" for uuid, at in uuids.items()}
    assert set(attested(study, other).values()) == {"good"}, "nothing is said of what was not looked at"
    with annex.Repository.open(study.root) as repository:
        present = repository.branch.locations(annex.Key.parse(key)).present
    assert {str(uuid) for uuid in present} == {uuid for uuid, at in uuids.items() if at != 2}
    log = subprocess.run(
        ["git", "log", "-1", "--format=%s"], cwd=study.root, capture_output=True, text=True, check=True
    )
    assert log.stdout == f"glimmer-store: a copy at vault2 is {verdict}\n"
    (arrived,) = await pulled(study, "vault1", "mask")
    assert arrived.ok


async def test_a_remote_that_cannot_be_asked_is_not_called_bad(study: Study, laptop: Study) -> None:
    study.download("co2")
    (sent,) = await pushed(study, "co2")
    assert sent.record is not None
    objects = study.bare(1) / "annex"
    objects.rename(objects.with_name("away"))
    objects.write_text("in the way")

    (refused,) = await pulled(laptop, str(study.bare(1)), "co2")

    assert not refused.ok
    assert attested(laptop, sent.record.key) == {}


async def test_what_rotted_here_is_found_replaced_and_not_sent_on(study: Study) -> None:
    """E1 and E2: `download` says all is well and returns it."""
    (path,) = study.download("co2")
    await pushed(study, "co2")
    path.write_bytes(b"year,ppm\n2020,999\n")
    assert study.download("co2") == [path]  # E1
    assert path.read_bytes() == b"year,ppm\n2020,999\n"

    (sent,) = await pushed(study, "co2")
    assert (sent.ok, list(sent.failed)) == (False, ["here"])
    assert "remedy: fetch it again" in sent.failed["here"]
    (kept,) = await pulled(study, "vault1", "co2")
    assert not kept.ok  # it may be somebody's work: nothing is replaced unasked
    (healed,) = await pulled(study, "vault1", "co2", overwrite=True)
    assert healed.ok
    assert path.read_bytes() == b"year,ppm\n2020,414\n"


async def test_folders_that_differ_in_names_only_are_told_apart(study: Study) -> None:
    """E3: to the library a renamed file and a moved file boundary are the same folder."""
    (mask,) = study.download("mask")
    await pushed(study, "mask")
    project = study.project
    before = project.concatenated(mask)
    (mask / "sub" / "b.txt").rename(mask / "sub" / "renamed.txt")
    assert project.concatenated(mask) == before
    datamanifest.database.verify_checksum(study.library(), study.library()["mask"])  # says nothing

    (kept,) = await pulled(study, "vault2", "mask")
    assert not kept.ok
    assert "gt1:" in kept.failed["vault2"]
    (healed,) = await pulled(study, "vault2", "mask", overwrite=True)
    assert healed.ok
    assert (mask / "sub" / "b.txt").exists()
    assert not (mask / "sub" / "renamed.txt").exists()


async def test_a_lying_remote_is_not_counted(study: Study) -> None:
    """What was there before is read again, and the location log forgets what is wrong."""
    study.download("co2")
    (first,) = await pushed(study, "co2", register=True)
    spoil(study, 3, "*.csv")

    (again,) = await pushed(study, "co2", strength="stream")  # what is wrong is signed, asked for or not

    assert first.remotes == ("vault1", "vault2", "vault3")
    assert again.remotes == ("vault1", "vault2")
    assert first.record is not None
    key = annex.Key.parse(first.record.key)
    said = {one.remote: one.verdict.value for one in Attestations(study.root).newest(key).values()}
    assert said == {"vault1": "good", "vault2": "good", "vault3": "bad"}
    with annex.Repository.open(study.root) as repository:
        with annex.Repository.open(study.bare(3)) as bad:
            assert bad.uuid not in repository.branch.locations(key).present


async def test_a_bare_repository_that_is_not_durable_gets_contents_and_history(study: Study, laptop: Study) -> None:
    bare = study.top / "shared.git"
    with annex.Repository.init(bare, bare=True):
        pass
    study.download("mask")
    with pytest.raises(ManifestError, match="no git remote"):
        await pushed(study, "mask", to=str(bare))
    subprocess.run(["git", "-C", study.root, "remote", "add", "shared", bare], check=True)

    (sent,) = await pushed(study, "mask", to="shared", strength="stream")
    (arrived,) = await pulled(laptop, str(bare), "mask")

    assert (sent.remotes, arrived.ok) == (("shared",), True)
    assert (laptop.root / "here/data/made/mask/none").is_dir()


async def test_two_contents_of_one_call_are_both_kept_and_the_first_stays(study: Study, laptop: Study) -> None:
    """A function that is not deterministic: nothing is overwritten, and it is said."""
    artefact = study.produce(value=1)
    await pushed(study, "anomaly/v1")
    shutil.rmtree(artefact)
    study.produce(value=2)
    await pushed(study, "anomaly/v1")

    (arrived,) = await pulled(laptop, str(study.bare(1)), "anomaly/v1")

    assert arrived.ok
    assert len(arrived.conflict) == 1
    assert arrived.path is not None
    assert '"value": 1' in (arrived.path / "data.json").read_text()


async def test_the_same_value_computed_twice_is_no_conflict(study: Study, laptop: Study) -> None:
    artefact = study.produce()
    await pushed(study, "anomaly/v1")
    text = (artefact / "metadata.toml").read_text()
    (artefact / "metadata.toml").write_text(text + "# made elsewhere\n")
    await pushed(study, "anomaly/v1")
    (arrived,) = await pulled(laptop, str(study.bare(1)), "anomaly/v1")
    assert arrived.conflict == ()


async def test_a_hash_that_the_receiver_compared_is_no_verified_copy(study: Study) -> None:
    study.download("co2")
    await pushed(study, "co2", strength="stream", register=True)
    async with GlimmerGraph.open(study.root) as graph:
        (row,) = Inspection(graph, study.project).rows(("co2",))
    assert (len(row.copies), row.verified) == (3, ())


async def test_a_prefix_that_means_two_is_refused_unless_both_are_meant(study: Study, laptop: Study) -> None:
    study.produce(version="v1")
    study.produce(version="v2")
    await pushed(study, "anomaly/v1", "anomaly/v2")
    with pytest.raises(ManifestError, match="can be each of"):
        await pulled(laptop, str(study.bare(1)), "anomaly")
    assert len(await pulled(laptop, str(study.bare(1)), "anomaly", batch=True)) == 2
    with pytest.raises(ManifestError, match="nothing of that name"):
        await pulled(laptop, str(study.bare(1)), "co2")
