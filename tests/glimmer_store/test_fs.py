"""``annex://`` for fsspec: keys and files of datasets, in parts, from everywhere; as users of fsspec expect it."""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import Place, content_of, key_of
from served import Work, serve

fsspec = pytest.importorskip("fsspec")
fsspec.register_implementation("annex", "glimmer_store.fs.AnnexFileSystem", clobber=True)  # without an installation
from glimmer_store.fs import AnnexFileSystem  # noqa: E402

CONTENT = content_of(1, 700_000)
KEY = str(key_of(CONTENT))
OTHER = content_of(2, 3000)
ABSENT = str(key_of(b"nobody has this"))


@pytest.fixture
def lab(tmp_path: Path) -> Place:
    return Place.make(tmp_path / "lab", [CONTENT, OTHER])


@contextmanager
def at_path(lab: Place) -> Iterator[object]:
    yield str(lab.path)


@contextmanager
def over_http(lab: Place) -> Iterator[object]:
    with serve("--http", "127.0.0.1:0", "--wideopen", str(lab.path)) as server:
        yield f"annex+{server.url}/git-annex/{lab.uuid}"


@contextmanager
def over_a_socket(lab: Place) -> Iterator[object]:
    path = f"{lab.path.parent}/socket"
    with serve("--http", "127.0.0.1:0", "--wideopen", "--unix", f"lab={path}", str(lab.path)) as server:
        server.until("unix:")
        yield f"unix:{path}"


@contextmanager
def of_a_cluster(lab: Place) -> Iterator[object]:
    empty = Place.make(lab.path.parent / "empty", [])
    with over_a_socket(lab) as socket:
        yield [str(empty.path), socket]


CARRIERS = [at_path, over_http, over_a_socket, of_a_cluster]


@pytest.mark.parametrize("carrier", CARRIERS, ids=lambda carrier: carrier.__name__)
def test_a_content_is_a_file_wherever_it_is(lab: Place, carrier: Callable[[Place], Iterator[object]]) -> None:
    with carrier(lab) as remote:
        fs = fsspec.filesystem("annex", remote=remote)

        assert fs.cat_file(KEY, 1000, 1010) == CONTENT[1000:1010]
        assert fs.cat_file(KEY) == fs.cat(f"annex://{KEY}") == CONTENT
        assert fs.cat_file(KEY, start=-5) == CONTENT[-5:]
        assert fs.cat_file(KEY, end=-699_990) == CONTENT[:10]
        assert fs.cat_file(KEY, 699_999, 10**9) == CONTENT[-1:]
        assert fs.cat_file(KEY, 10**8) == fs.cat_file(KEY, 5, 5) == fs.cat_file(KEY, 700_000, 700_001) == b""
        starts, ends = [0, 650_000, 17], [9, 700_000, 300_017]
        assert fs.cat_ranges([KEY] * 3, starts, ends) == [CONTENT[a:b] for a, b in zip(starts, ends, strict=True)]
        with fsspec.open(f"annex://{KEY}", remote=remote) as file:
            assert (file.read(3), file.seek(-4, os.SEEK_END), file.read()) == (CONTENT[:3], 699_996, CONTENT[-4:])
        assert fs.info(KEY) == {"name": KEY, "size": 700_000, "type": "file", "key": KEY}
        assert fs.size(KEY) == 700_000
        assert fs.isfile(KEY)
        assert fs.ls(KEY, detail=False) == [KEY]
        assert (fs.exists(KEY), fs.exists(ABSENT), fs.exists("no-key-at-all")) == (True, False, False)
        for ask in (fs.info, fs.cat_file, fs.open, lambda path: fs.cat_file(path, 0, 1)):
            with pytest.raises(FileNotFoundError):
                ask(ABSENT)
        fs.get(KEY, f"{lab.path}/got")
        assert Path(f"{lab.path}/got").read_bytes() == CONTENT


@pytest.mark.interop
def test_a_stock_repository_over_ssh_is_read_in_parts(lab: Place, sshd: object) -> None:
    fs = AnnexFileSystem(remote=f"ssh://annex-test{lab.path}")
    assert fs.cat_ranges([KEY] * 2, [10, 600_000], [20, 600_100]) == [CONTENT[10:20], CONTENT[600_000:600_100]]
    with pytest.raises(FileNotFoundError):
        fs.cat_file(ABSENT)


@pytest.mark.parametrize("cache", ["none", "readahead", "blockcache", "bytes", "first", "background", "all"])
def test_the_caches_of_fsspec_give_the_same_bytes(lab: Place, cache: str) -> None:
    with AnnexFileSystem(remote=str(lab.path)).open(KEY, block_size=4096, cache_type=cache) as file:
        for start, size in ((650_000, 9000), (0, 10), (8190, 4), (699_990, 100)):
            file.seek(start)
            assert file.read(size) == CONTENT[start : start + size]


def test_reading_on_asks_for_no_more_than_the_block_ahead(lab: Place) -> None:
    with AnnexFileSystem(remote=str(lab.path)).open(KEY, block_size=10_000) as file:
        file.read(5)
        file.read(9000)
        assert file.cache.total_requested_bytes == 10_005


def test_the_size_of_a_key_that_does_not_tell_is_asked_for(tmp_path: Path) -> None:
    from annexpy import sync as annex

    place = Place.make(tmp_path / "lab", [])
    key = annex.Key.parse(b"URL--http&c%%example.org%a@b")
    with annex.connect(place.path) as remote:
        annex.put(remote, key, OTHER)
    with over_http(place) as address, over_a_socket(place) as socket:
        for remote in (str(place.path), address, socket):
            fs = AnnexFileSystem(remote=remote)
            assert fs.size(str(key)) == 3000
            assert fs.cat_file(str(key), 2990, 4000) == OTHER[2990:]
            assert fs.cat_file(str(key), -10, -5) == OTHER[-10:-5]
            with fs.open(str(key)) as file:
                assert file.read() == OTHER


# -- errors ---------------------------------------------------------------------------------------------


def test_nothing_can_be_written(lab: Place, tmp_path: Path) -> None:
    fs = AnnexFileSystem(remote=str(lab.path))
    (tmp_path / "file").write_bytes(b"x")
    for write in (
        lambda: fs.pipe(KEY, b"x"),
        lambda: fs.pipe_file("new", b"x"),
        lambda: fs.put(str(tmp_path / "file"), "new"),
        lambda: fs.rm(KEY),
        lambda: fs.rm_file(KEY),
        lambda: fs.mv(KEY, "new"),
        lambda: fs.copy(KEY, "new"),
        lambda: fs.mkdir("new"),
        lambda: fs.makedirs("new"),
        lambda: fs.rmdir("new"),
        lambda: fs.touch("new"),
        lambda: fs.open("new", "wb"),
        lambda: fs.open(KEY, "ab"),
        lambda: fs.open(KEY, "r+b"),
    ):
        with pytest.raises(OSError, match="read-only") as caught:
            write()
        assert caught.value.errno == errno.EROFS
    assert fs.cat_file(KEY) == CONTENT


def test_who_cannot_be_asked_is_never_taken_for_absence(lab: Place, tmp_path: Path) -> None:
    absent = AnnexFileSystem(remote=str(tmp_path / "nowhere"))
    for ask in (absent.exists, absent.info, absent.cat_file):
        with pytest.raises(ConnectionError):
            ask(KEY)
    partly = AnnexFileSystem(remote=[str(tmp_path / "nowhere"), str(lab.path)])
    assert partly.cat_file(KEY) == CONTENT
    with pytest.raises(ConnectionError):
        partly.cat_file(ABSENT)


def test_a_refusal_is_a_permission_error(lab: Place) -> None:
    with serve("--http", "127.0.0.1:0", "--authenv", str(lab.path), P2PHTTP_USER="u", P2PHTTP_PASSWORD="p") as server:
        refused = AnnexFileSystem(remote=f"annex+{server.url}/git-annex/{lab.uuid}")
        with pytest.raises(PermissionError):
            refused.cat_file(KEY)


def test_a_whole_content_is_verified_and_a_corrupt_one_never_arrives(lab: Place, tmp_path: Path) -> None:
    (path,) = [path for path in lab.path.rglob(KEY) if path.is_file()]
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-1] + b"!")
    fs = AnnexFileSystem(remote=str(lab.path))
    with pytest.raises(OSError, match="not that of the key"):
        fs.cat_file(KEY)
    with pytest.raises(OSError):
        fs.get_file(KEY, str(tmp_path / "got"))
    assert not (tmp_path / "got").exists()


def test_a_remote_has_no_list_of_its_keys(lab: Place) -> None:
    with pytest.raises(OSError, match="dataset="):
        AnnexFileSystem(remote=str(lab.path)).ls("")
    with pytest.raises(ValueError, match="remote="):
        AnnexFileSystem()
    with pytest.raises(ValueError, match="carried"):  # a mistake of the caller is no error of the file
        AnnexFileSystem(remote="ftp://host/path").cat_file(KEY)


# -- threads, processes, event loops ----------------------------------------------------------------------


def test_it_pickles_and_goes_on_in_a_forked_child_and_in_threads(lab: Place) -> None:
    with over_a_socket(lab) as remote:
        fs = AnnexFileSystem(remote=remote)
        assert fs.cat_file(KEY, 0, 5) == CONTENT[:5]
        assert pickle.loads(pickle.dumps(fs)).cat_file(KEY, 0, 5) == CONTENT[:5]
        with fs.open(KEY) as file:
            file.seek(100)
            assert pickle.loads(pickle.dumps(file)).read(5) == CONTENT[100:105]
        found: list[bytes] = []
        threads = [
            threading.Thread(target=lambda at=at: found.append(fs.cat_file(KEY, at, at + 9))) for at in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted(CONTENT[at : at + 9] for at in range(20))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: that is what is tried
            child = os.fork()
        if not child:
            os._exit(0 if fs.cat_file(KEY, 7, 9) == CONTENT[7:9] else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert fs.cat_file(KEY, 7, 9) == CONTENT[7:9]


def test_another_process_opens_what_was_pickled(lab: Place) -> None:
    program = "import pickle, sys; fs, key = pickle.load(sys.stdin.buffer); sys.stdout.buffer.write(fs.cat_file(key))"
    given = pickle.dumps((AnnexFileSystem(remote=str(lab.path)), KEY))
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=given,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert (done.stdout, done.stderr) == (CONTENT, b"")


def test_it_is_awaited_in_any_event_loop(lab: Place) -> None:
    async def work(fs: AnnexFileSystem) -> bytes:
        parts = await fs._cat_ranges([KEY, KEY], [0, 5], [5, 10])
        file = await fs.open_async(KEY)
        parts += [await file.read(5), await file.read(5)]
        await file.close()
        await fs.close()
        return b"".join(parts)

    with over_http(lab) as remote:
        fs = AnnexFileSystem(remote=remote, asynchronous=True)
        for _ in range(2):
            assert asyncio.run(work(fs)) == CONTENT[:10] * 2


def test_dask_reads_blocks_of_it_in_other_processes(lab: Place) -> None:
    tokenize = pytest.importorskip("dask.base").tokenize
    from dask.bytes import read_bytes

    options = {"remote": str(lab.path)}
    _, blocks = read_bytes(f"annex://{KEY}", blocksize=100_000, sample=False, **options)
    parts = __import__("dask").compute(*blocks[0], scheduler="processes", num_workers=1)
    assert b"".join(parts) == CONTENT
    assert tokenize(AnnexFileSystem(**options)) == tokenize(AnnexFileSystem(**options))
    assert tokenize(AnnexFileSystem(**options)) != tokenize(AnnexFileSystem(remote="/elsewhere"))


def test_the_entry_point_leads_here() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    place = project["entry-points"]["fsspec.specs"]["annex"]
    module, _, name = place.partition(":")
    assert getattr(__import__(module, fromlist=[name]), name) is AnnexFileSystem


# -- datasets ---------------------------------------------------------------------------------------------


@pytest.fixture
def work(made: Path, tmp_path: Path, git_annex: str) -> Work:
    """A dataset with annexed, unlocked and plain files, two versions of one; its contents are in vault.git only."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return Work(tmp_path / "study", git_annex)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, git_annex: str) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "study").mkdir()
    work = Work(folder / "study", git_annex)
    work.git("init", "-q", "-b", "main")
    work.begin("study")
    (work.path / "sub-01").mkdir()
    work.add("sub-01/anat.nii", b"one " * 1000)
    work.git("tag", "v1")
    work.git("annex", "unlock", "-q", "sub-01/anat.nii")
    (work.path / "sub-01/anat.nii").write_bytes(b"two " * 2000)
    work.git("annex", "add", "-q", "sub-01/anat.nii")
    (work.path / "README").write_text("about it\n")
    (work.path / "me@home.txt").write_text("at home\n")
    (work.path / "link").symlink_to("README")
    work.git("-c", "annex.largefiles=nothing", "add", "README", "me@home.txt", "link")
    work.git("commit", "-qm", "second")
    work.git("init", "-q", "--bare", "../vault.git")
    Work(folder / "vault.git", git_annex).git("annex", "init", "-q", "vault")
    work.git("remote", "add", "vault", "../vault.git")
    work.git("push", "-q", "vault", "main")
    work.git("annex", "copy", "-q", "--all", "--to", "vault")
    work.git("annex", "drop", "-q", "--all", "--force")
    return folder


@pytest.mark.interop
def test_files_of_a_dataset_are_read_by_path_at_any_commit(work: Work) -> None:
    fs = fsspec.filesystem("annex", dataset=str(work.path))
    new, old = b"two " * 2000, b"one " * 1000

    assert fs.cat("sub-01/anat.nii") == new
    assert fs.cat_file("sub-01/anat.nii@v1", 4, 12) == b"one one "
    first = work.git("rev-parse", "v1").strip()
    for path in (f"sub-01/anat.nii@{first}", f"sub-01@{first[:9]}/anat.nii", "@main~1/sub-01/anat.nii"):
        assert fs.cat_file(path) == old, path
    with fsspec.open("annex://sub-01/anat.nii@v1", dataset=str(work.path), remote="vault") as file:
        assert file.read() == old
    assert fs.cat("README") == b"about it\n"
    assert fs.cat_file("README", 6, 8) == b"it"
    assert fs.cat("me@home.txt") == b"at home\n"
    assert fs.cat(fs.info("sub-01/anat.nii")["key"]) == new
    assert AnnexFileSystem(dataset=str(work.path), ref="v1").cat("sub-01/anat.nii") == old
    for path in ("sub-02", "sub-01/none", "README/x", "sub-01/anat.nii@v9", "README@v1"):
        with pytest.raises(FileNotFoundError):
            fs.info(path)
    with pytest.raises(IsADirectoryError):
        fs.cat_file("sub-01")
    with pytest.raises(OSError, match="link"):
        fs.cat_file("link")


@pytest.mark.interop
def test_a_dataset_is_listed_with_sizes_and_keys(work: Work, tmp_path: Path) -> None:
    fs = AnnexFileSystem(dataset=str(work.path))
    names = {"README", "link", "me@home.txt", "sub-01"}
    assert {one["name"]: one["type"] for one in fs.ls("")} == dict.fromkeys(names, "file") | {
        "sub-01": "directory",
        "link": "other",
    }
    (one,) = fs.ls("annex://sub-01/")
    assert (one["name"], one["size"], one["annexed"]) == ("sub-01/anat.nii", 8000, True)
    assert one["key"].startswith("SHA256E-s8000--")
    assert fs.ls("sub-01@v1", detail=False) == ["sub-01@v1/anat.nii"]
    assert [one["size"] for one in fs.ls("@v1/sub-01")] == [4000]
    assert fs.find("") == ["README", "link", "me@home.txt", "sub-01/anat.nii"]
    assert fs.glob("*/*.nii") == ["sub-01/anat.nii"]
    assert fs.isdir("sub-01")
    assert fs.du("sub-01") == 8000
    fs.get("sub-01", str(tmp_path / "got"), recursive=True)
    assert (tmp_path / "got" / "anat.nii").read_bytes() == b"two " * 2000
    assert fs.ukey("sub-01/anat.nii") != fs.ukey("sub-01/anat.nii@v1")


@pytest.mark.interop
def test_a_pickle_means_the_commit_that_it_was_made_at(work: Work) -> None:
    fs = AnnexFileSystem(dataset=str(work.path))
    kept, token = pickle.dumps(fs), fs.__dask_tokenize__()
    (work.path / "README").write_text("more\n")
    work.git("-c", "annex.largefiles=nothing", "commit", "-qam", "third")
    assert fs.cat("README") == b"more\n"
    assert pickle.loads(kept).cat("README") == b"about it\n"
    assert fs.__dask_tokenize__() != token


@pytest.mark.interop
def test_content_that_is_nowhere_is_a_file_that_is_not_found(work: Work) -> None:
    fs = AnnexFileSystem(dataset=str(work.path), remote=str(work.path))  # dropped here
    assert fs.size("sub-01/anat.nii") == 8000
    with pytest.raises(FileNotFoundError):
        fs.cat_file("sub-01/anat.nii")


@pytest.mark.interop
def test_zarr_and_nibabel_read_what_they_need(work: Work, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    nibabel = pytest.importorskip("nibabel")
    import numpy

    array = zarr.create_array(
        store=str(work.path / "data.zarr"), shape=(400, 1000), chunks=(100, 1000), dtype="f8", compressors=None
    )
    array[:] = numpy.arange(400_000.0).reshape(400, 1000)
    nibabel.save(nibabel.Nifti1Image(numpy.arange(64_000.0).reshape(40, 40, 40), numpy.eye(4)), work.path / "b.nii")
    work.git("-c", "annex.largefiles=not include=*.json", "annex", "add", "-q", ".")
    work.git("commit", "-qm", "data")
    work.git("annex", "copy", "-q", "--to", "vault", ".")
    work.git("annex", "drop", "-q", ".")

    options = {"dataset": str(work.path)}
    read = zarr.open_array("annex://data.zarr", mode="r", storage_options=options)
    assert read[150, 7] == 150_007.0
    assert read[:].sum() == array.shape[0] * array.shape[1] * (400_000 - 1) / 2
    with AnnexFileSystem(**options).open("b.nii", cache_type="bytes", block_size=4096) as file:
        image = nibabel.Nifti1Image.from_stream(file)
        assert image.shape == (40, 40, 40)
        assert file.cache.total_requested_bytes < 10_000
        assert float(image.dataobj[3, 4, 5]) == 40 * 40 * 3 + 40 * 4 + 5
        assert file.cache.total_requested_bytes < 20_000
