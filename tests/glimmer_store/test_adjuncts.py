"""Adjuncts take further copies, are proven like all others, and count only where the configuration says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import pytest
from anyio import to_thread

import annexpy as annex
from glimmer_store.cli.commands.verify import _line
from glimmer_store.config import Adjunct, Config
from glimmer_store.errors import ConfigError, Shortfall
from glimmer_store.graph import GlimmerGraph
from glimmer_store.jobs.places import get_to_know
from glimmer_store.provision import provision
from glimmer_store.verify import verify

sys.path.insert(0, str(Path(__file__).parents[1] / "annexpy/remote"))
from s3_server import S3Server, serving  # beside the tests of the remote

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

DISK = annex.parse_uuid("dddddddd-0000-4000-8000-000000000001")
CLOUD = annex.parse_uuid("dddddddd-0000-4000-8000-000000000002")
CONTENT = b"brain" * 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3"), "--auth-key", "somebody,a-secret") as running:
        yield running


@pytest.fixture
def study(tmp_path: Path) -> Path:
    root = tmp_path / "study"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2)])
    (root / "derivatives").mkdir()
    (root / "derivatives" / "brain.nii.gz").write_bytes(CONTENT)
    (tmp_path / "disk").mkdir()
    return root


def disk_of(study: Path, *, counts: bool = False) -> Adjunct:
    return Adjunct("disk", DISK, "directory", {"directory": str(study.parent / "disk")}, counts)


def cloud_of(server: S3Server, bucket: str) -> Adjunct:
    folder = server.folder / bucket
    folder.mkdir()
    (folder / "annex-uuid").write_text(CLOUD)  # as git annex initremote does it
    return Adjunct("cloud", CLOUD, "s3", server.settings(bucket))


def configure(study: Path, *adjuncts: Adjunct) -> None:
    config = Config.load(study)
    Config(config.durable, config.numcopies, config.graph, config.backend, adjuncts).save(study)


def copy_in(folder: Path, key: annex.Key) -> Path:
    (found,) = (path for path in folder.rglob(str(key)) if path.is_file() and path.parent.name != "bad")
    return found


def spoil(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[17] ^= 4
    path.write_bytes(content)
    path.chmod(0o444)


def test_a_bucket_is_set_up_as_git_annex_wants_it(
    study: Path, tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch, anyio_backend: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    (tmp_path / "s3" / "fresh").mkdir(parents=True)
    with serving(tmp_path / "s3") as server:  # it does not take the signatures of git-annex for good
        options = {name: value for name, value in server.settings("fresh").items() if name != "bucket"}
        url = f"s3://fresh/lab/?{urlencode(options)}"
        for _ in range(2):
            (made,) = provision(study, [], adjuncts=[url]).adjuncts
        assert (made.name, made.kind, made.settings["fileprefix"]) == ("fresh", "s3", "lab/")
        assert (tmp_path / "s3" / "fresh" / "lab" / "annex-uuid").read_text() == made.uuid
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        done = subprocess.run(
            [git_annex, "copy", "--to", "fresh", "--json", "--key", key_in(study, git_annex)],
            cwd=study, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def key_in(study: Path, git_annex: str) -> str:
    """Of a content that git-annex has put into the dataset."""
    (study / "raw.txt").write_text("raw")
    run = {"cwd": study, "check": True, "capture_output": True, "text": True}
    subprocess.run(["git", "config", "annex.security.allowed-ip-addresses", "127.0.0.1"], **run)
    subprocess.run([git_annex, "add", "-q", "raw.txt"], **run)
    return subprocess.run([git_annex, "lookupkey", "raw.txt"], **run).stdout.strip()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://somebody:a-secret@lab/study/", "give s3://BUCKET"),
        ("s3://lab:9000/study/", "give s3://BUCKET"),
        ("s3://lab/study/?encryption=shared&chunk=1MiB", "chunk, encryption not offered; give s3://BUCKET"),
        ("s3://lab//study/", "fileprefix"),
        ("tape:study", "an adjunct is directory:PATH or s3://BUCKET"),
        ("s3://lab/a/%2e%2e/study", "fileprefix"),
    ],
)
def test_a_url_that_would_lead_elsewhere_is_refused(study: Path, anyio_backend: str, url: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        provision(study, [], adjuncts=[url])
    assert "a-secret" not in str(refused.value)
    assert Config.load(study).adjuncts == ()


def set_up_by_git_annex(study: Path, **settings: str) -> None:
    with annex.Repository.open(study) as repository:
        annex.configure(repository, special_remotes={DISK: {"name": "shelf", "type": "directory", **settings}})
        repository.branch.commit_now(seconds=60)
        folder = str(study.parent / "disk")
        repository.config.change({"remote.shelf.annex-uuid": DISK, "remote.shelf.annex-directory": folder})


@pytest.mark.parametrize("setting", ["encryption=shared", "chunk=1MiB"])
async def test_a_store_that_is_encrypted_or_in_chunks_never_gets_a_plain_content(
    study: Path, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    name, _, value = setting.partition("=")
    set_up_by_git_annex(study, **{"encryption": "none", name: value})
    with pytest.raises(ConfigError, match=f"{name} '{value}'"):
        await to_thread.run_sync(partial(provision, study, [], adjuncts=[f"directory:{study.parent / 'disk'}"]))
    with pytest.raises(annex.Refused, match=name):
        await get_to_know(study, [f"uuid:{DISK}"])
    configure(study, disk_of(study))  # whoever writes it there by hand does not get round it
    async with GlimmerGraph.open(study) as graph:
        node = await graph.derivative(study / "derivatives" / "brain.nii.gz")
        (found,) = [one async for one in verify(graph, [node], repair=True)]
    assert node.copies == found.node.copies == 2
    assert [record.getMessage() for record in caplog.records if f"{name} '{value}'" in record.getMessage()]
    assert [*(study.parent / "disk").iterdir()] == []


def test_a_folder_that_git_annex_has_set_up_is_used_as_what_it_is(study: Path, anyio_backend: str) -> None:
    set_up_by_git_annex(study, encryption="none")
    for _ in range(2):
        (adjunct,) = provision(study, [], adjuncts=[f"directory:{study.parent / 'disk'}"]).adjuncts
    assert (adjunct.name, adjunct.uuid) == ("shelf", DISK)


@pytest.mark.parametrize(
    ("place", "said"),
    [("study/inner.git", "lies in the dataset"), ("file", "not a directory"), ("file/v.git", "v.git: ")],
)
def test_a_durable_repository_that_cannot_be_one_is_refused_with_what_to_do(
    study: Path, anyio_backend: str, place: str, said: str
) -> None:
    (study.parent / "file").write_text("a file")
    with pytest.raises(ConfigError, match=said) as refused:
        provision(study, [str(study.parent / place)])
    assert refused.value.remedy.startswith("name ")
    assert len(Config.load(study).durable) == 2


def test_somebodys_git_remote_of_the_same_name_stays_as_it_is(study: Path, anyio_backend: str) -> None:
    with annex.Repository.open(study) as repository:
        repository.config.change(
            {"remote.vault3.url": "https://example.org/other.git", "remote.disk.url": "/elsewhere"}
        )
    made = provision(study, [str(study.parent / "vault3.git")], adjuncts=[f"directory:{study.parent / 'disk'}"])
    assert [place.name for place in made.durable] == ["vault1", "vault2", "vault3-2"]
    assert [adjunct.name for adjunct in made.adjuncts] == ["disk-2"]
    with annex.Repository.open(study) as repository:
        remotes = repository.config.remotes()
    assert (remotes["vault3"].url, remotes["disk"].url) == ("https://example.org/other.git", "/elsewhere")
    assert (remotes["vault3"].uuid, remotes["disk"].uuid) == (None, None)


def test_what_is_saved_is_loaded(study: Path, server: S3Server, anyio_backend: str) -> None:
    adjuncts = (disk_of(study, counts=True), cloud_of(server, "saved"))
    configure(study, *adjuncts)
    loaded = Config.load(study).adjuncts
    assert loaded == adjuncts
    assert [one.counts for one in loaded] == [True, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "tape"\n[adjunct.settings]\ndirectory = "/x"', "tape"),
        ('kind = "directory"', "directory"),
        ('kind = "s3"\n[adjunct.settings]\nhost = "h"', "bucket"),
        ('kind = "directory"\ncounts = "yes"\n[adjunct.settings]\ndirectory = "/x"', "counts"),
        ('kind = "directory"\n[adjunct.settings]\ndirectory = ["/x"]', "settings"),
    ],
)
def test_an_entry_that_is_malformed_is_named(study: Path, anyio_backend: str, text: str, said: str) -> None:
    with open(study / "glimmer-store.toml", "a") as file:
        file.write(f'\n[[adjunct]]\nname = "a"\nuuid = "{DISK}"\n{text}\n')
    with pytest.raises(ConfigError, match=said):
        Config.load(study)


async def test_a_bit_flipped_in_each_kind_of_copy_is_found_never_counted_and_repaired(
    study: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    configure(study, disk_of(study), cloud_of(server, "flipped"))
    async with GlimmerGraph.open(study) as graph:
        node = await graph.derivative(study / "derivatives" / "brain.nii.gz")
        assert node.key is not None
        assert [place.remote for place in node.stored_at] == ["vault1", "vault2"]
        assert node.copies == 2
        copies = [copy_in(study.parent / place, node.key) for place in ("vault2.git", "disk")]
        copies.append(copy_in(server.folder / "flipped", node.key))
        assert {path.read_bytes() for path in copies} == {CONTENT}

        for path in copies:
            spoil(path)
        (found,) = [one async for one in verify(graph, [node])]
        assert found.found == {"vault1": "good", "vault2": "bad"}
        assert found.adjuncts == {"disk": "bad", "cloud": "bad"}
        assert "adjunct disk bad" in _line(found, study)
        assert found.node.copies == 1
        assert not found.enough
        with annex.Repository.open(study) as repository:
            present = set(repository.branch.locations(node.key).present)
        assert present.isdisjoint({DISK, CLOUD})

        (mended,) = [one async for one in verify(graph, [found.node], repair=True)]
        assert mended.found == {"vault1": "good", "vault2": "repaired"}
        assert mended.adjuncts == {"disk": "repaired", "cloud": "repaired"}
        assert mended.node.copies == 2
    for place in (study.parent / "vault2.git", study.parent / "disk", server.folder / "flipped"):
        assert copy_in(place, node.key).read_bytes() == CONTENT


async def test_an_adjunct_that_is_away_or_refused_stops_nothing_and_is_told(study: Path, server: S3Server) -> None:
    (study.parent / "disk").rmdir()
    gone = Adjunct("odd", CLOUD, "s3", {"bucket": "b", "storageclass": "GLACIER"})
    configure(study, disk_of(study), gone)
    async with GlimmerGraph.open(study) as graph:
        output = await graph.archive.look(study / "derivatives" / "brain.nii.gz")
        node = await graph.derivative(study / "derivatives" / "brain.nii.gz")
        archived = await graph.archive.store(output, node.record.storage_class)  # type: ignore[union-attr]
    assert node.copies == 2
    assert "disk" in archived.failed["disk"]
    assert "storageclass" in archived.failed["odd"]


async def test_an_adjunct_counts_when_the_configuration_says_so(study: Path) -> None:
    (study / "raw.tsv").write_bytes(b"id\n01\n")
    configure(study, disk_of(study))
    async with GlimmerGraph.open(study) as graph:
        with pytest.raises(Shortfall, match="2 of 3"):
            await graph.dataset(study / "raw.tsv")
    configure(study, disk_of(study, counts=True))
    async with GlimmerGraph.open(study) as graph:
        node = await graph.dataset(study / "raw.tsv")
    assert [place.remote for place in node.stored_at] == ["disk", "vault1", "vault2"]
