"""Keys of files are those of git-annex."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from annexpy.actions.key import key_of, read_key
from annexpy.errors import ContentChanged, InvalidPath, Refused
from annexpy.keys.key import Key

pytestmark = pytest.mark.anyio


@pytest.mark.interop
@pytest.mark.parametrize("backend", ["SHA256E", "SHA256", "SHA512E", "MD5E", "BLAKE2B256E", "SHA3_256"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_keys_of_files_are_the_ones_git_annex_gives(backend: str, tmp_path: Path, git_annex: str) -> None:
    names = ["a.tar.gz", "noext", ".hidden", "x.y z.nii.gz"]
    for name in names:
        (tmp_path / name).write_bytes(b"content of " + name.encode())
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)

    keys = [await key_of(tmp_path / name, backend=backend) for name in names]

    calckey = [git_annex, "calckey", f"--backend={backend}", *names]
    said = subprocess.run(calckey, cwd=tmp_path, capture_output=True, check=True).stdout
    assert said.split() == [bytes(key) for key in keys]


async def test_a_large_file_is_read_in_a_thread_and_reports_progress(tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    path.write_bytes(b"x" * 3_000_000)
    seen: list[tuple[int, int]] = []

    key = await key_of(path, progress=lambda done, total: seen.append((done, total)))

    assert key == read_key(path)
    assert key.size == 3_000_000
    assert seen[-1] == (3_000_000, 3_000_000)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


async def test_an_empty_file_has_a_key(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    assert await key_of(tmp_path / "empty") == Key.parse(
        "SHA256E-s0--e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


async def test_worm_keys_take_name_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("abc")
    os.utime("notes.txt", (1700000000, 1700000000))

    assert str(await key_of("notes.txt", backend="WORM")) == "WORM-s3-m1700000000--notes.txt"


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo"])
async def test_what_is_no_file_is_refused_with_its_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)

    with pytest.raises(InvalidPath, match="thing"):
        await key_of(path)


async def test_a_backend_that_names_no_contents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()

    with pytest.raises(Refused, match="NOSUCH"):
        await key_of(tmp_path / "f", backend="NOSUCH")


async def test_a_file_that_grows_while_it_is_read_has_no_key(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"a" * 10)

    def grow(done: int, total: int) -> None:
        if done == 10:
            with path.open("ab") as file:
                file.write(b"b")

    with pytest.raises(ContentChanged, match="changed while it was read"):
        read_key(path, progress=grow)
