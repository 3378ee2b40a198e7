"""A directory special remote that annexpy and the real git-annex use in turn."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from places import Place, annexpy, content_of, key_of

from annexpy.errors import InvalidInput, Refused
from annexpy.keys.key import Key
from annexpy.remote.connect import connect
from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop

CONTENTS = [content_of(1), content_of(2, 300_000)]
KEYS = [key_of(content) for content in CONTENTS]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.mkdir()
    return path


@pytest.fixture
def place(tmp_path: Path, disk: Path, git_annex: str) -> Place:
    place = Place.make(tmp_path / "r.git", CONTENTS)
    place.git("annex", "initremote", "disk", "type=directory", f"directory={disk}", "encryption=none")
    return place


def uuid_of(place: Place) -> str:
    return place.git("config", "remote.disk.annex-uuid").strip()


def layout(disk: Path) -> dict[str, tuple[str, bytes]]:
    """Path → permissions and content of everything but what arrives."""
    return {
        str(path.relative_to(disk)): (oct(path.stat().st_mode), path.read_bytes() if path.is_file() else b"")
        for path in disk.rglob("*")
        if path.relative_to(disk).parts[0] != "tmp"
    }


def test_what_we_store_git_annex_finds_proves_gets_and_drops(place: Place, disk: Path) -> None:
    annexpy(place.path, "copy", ".", "disk", *KEYS)

    for key in KEYS:
        assert uuid_of(place) in place.whereis([key])[key]
        place.git("annex", "checkpresentkey", str(key), "disk")
        place.git("annex", "drop", "--key", str(key), "--numcopies=1")
        assert place.object(key) is None
    place.git("annex", "fsck", "--from", "disk", "--all")
    for key in KEYS:
        place.git("annex", "get", "--key", str(key), "--from", "disk")
        assert place.object(key) is not None
        place.git("annex", "drop", "--key", str(key), "--from", "disk", "--numcopies=1")
    assert layout(disk) == {}


def test_what_git_annex_stores_we_find_prove_get_and_drop(place: Place, disk: Path) -> None:
    for key in KEYS:
        place.git("annex", "copy", "--key", str(key), "--to", "disk")

    assert all(line["success"] for line in annexpy(place.path, "fsck", "disk"))
    annexpy(place.path, "drop", ".", "--force", *KEYS)
    annexpy(place.path, "get", "disk", KEYS[1], "-o", str(disk.with_name("got")))
    assert disk.with_name("got").read_bytes() == CONTENTS[1]
    annexpy(place.path, "copy", "disk", ".", *KEYS)
    annexpy(place.path, "drop", "disk", *KEYS)
    assert layout(disk) == {}
    for key in KEYS:
        assert place.whereis([key])[key] == {place.uuid}


def test_both_lay_out_the_folder_in_the_same_way(place: Place, disk: Path) -> None:
    annexpy(place.path, "copy", ".", "disk", *KEYS)
    ours = layout(disk)
    subprocess.run(["chmod", "-R", "u+w", disk], check=True)
    shutil.rmtree(disk)
    disk.mkdir()
    for key in KEYS:
        place.git("annex", "setpresentkey", str(key), uuid_of(place), "0")
        place.git("annex", "copy", "--key", str(key), "--to", "disk")

    assert layout(disk) == ours


def test_a_folder_that_is_away_is_an_error_to_both_and_costs_no_record(place: Place, disk: Path) -> None:
    annexpy(place.path, "copy", ".", "disk", *KEYS)
    away = disk.rename(disk.with_name("away"))

    annexpy(place.path, "fsck", "disk", KEYS[0], fails=True)
    annexpy(place.path, "drop", "disk", KEYS[0], fails=True)
    disk.mkdir()  # the place where it was mounted
    annexpy(place.path, "fsck", "disk", KEYS[0], fails=True)
    annexpy(place.path, "copy", ".", "disk", KEYS[0], fails=True)
    assert uuid_of(place) in place.whereis([KEYS[0]])[KEYS[0]]
    assert list(disk.iterdir()) == []

    disk.rmdir()
    away.rename(disk)
    assert annexpy(place.path, "fsck", "disk", KEYS[0])[0]["success"]


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (["encryption=shared"], "encryption"),
        (["encryption=none", "chunk=1MiB"], "chunk"),
        (["encryption=none", "exporttree=yes"], "exporttree"),
        (["encryption=none", "importtree=yes"], "importtree"),
    ],
)
def test_what_is_not_offered_is_refused_by_the_name_of_the_field(
    place: Place, tmp_path: Path, settings: list[str], field: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    place.git("annex", "initremote", "odd", "type=directory", f"directory={other}", *settings)

    with Repository.open(place.path) as repository:
        for address in ("odd", f"directory:{other}"):
            with pytest.raises(Refused, match=f"remote odd: {field}"):
                connect(address, repository=repository)
    annexpy(place.path, "copy", ".", "odd", KEYS[0], fails=True)
    assert list(other.iterdir()) == []
    annexpy(place.path, "drop", ".", KEYS[0], fails=True)  # which asks every remote that it can, and says what lacks


def test_other_types_and_remotes_nobody_has_heard_of_are_refused_by_name(place: Place, tmp_path: Path) -> None:
    place.git("annex", "initremote", "sync", "type=rsync", f"rsyncurl={tmp_path}/x", "encryption=none")
    with Repository.open(place.path) as repository:
        with pytest.raises(Refused, match="rsync"):
            connect("sync", repository=repository)
        repository.config.change(
            {"remote.ghost.annex-uuid": "11111111-1111-4111-8111-111111111111", "remote.ghost.annex-directory": "/x"}
        )
        with pytest.raises(InvalidInput, match=r"remote\.log"):
            connect("ghost", repository=repository)
        repository.config.set("remote.disk.annex-directory", "")
        with pytest.raises(InvalidInput, match="annex-directory"):
            connect("disk", repository=repository)


def test_what_was_stored_in_chunks_is_refused_and_not_called_absent(place: Place, disk: Path) -> None:
    key = KEYS[1]
    place.git("annex", "enableremote", "disk", f"directory={disk}", "chunk=64KiB")
    place.git("annex", "copy", "--key", str(key), "--to", "disk")
    place.git("annex", "enableremote", "disk", f"directory={disk}", "chunk=0")

    (line,) = annexpy(place.path, "fsck", "disk", key, fails=True)
    assert "chunk" in line["error-messages"][0]
    assert uuid_of(place) in place.whereis([key])[key]
    assert place.git("annex", "checkpresentkey", str(key), "disk") == ""


def test_odd_keys_lie_where_git_annex_looks_for_them(place: Place, disk: Path) -> None:
    content = content_of(9, 100)
    names = [b"WORM-s100-m1--a%b&c:d e", "WORM-s100-m1--\u00e9\u20ac".encode(), b"WORM-s100--x" + b"y" * 150]
    keys = [Key.parse(name) for name in names]
    source = place.path / "source"
    for key in keys:
        source.write_bytes(content)
        place.git("annex", "setkey", os.fsdecode(key.raw), str(source))

    annexpy(place.path, "copy", ".", "disk", *(os.fsdecode(key.raw) for key in keys))

    for key in keys:
        place.git("annex", "checkpresentkey", os.fsdecode(key.raw), "disk")
