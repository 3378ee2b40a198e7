"""Bags of others: the verdicts of the Library of Congress, and nothing that leads out of a bag."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glimmer_store.cli.app import main
from glimmer_store.export.bag import read_bag
from glimmer_store.export.importing import BagRefused, plan_import
from glimmer_store.export.scope import out_of_scope

SUITE = Path(__file__).parent.parent / "fixtures" / "bagit-conformance-suite"
BAGS = sorted(SUITE.glob("*/*/*"), key=str)


def test_the_suite_is_there() -> None:
    assert len(BAGS) == 40


@pytest.mark.parametrize("folder", BAGS, ids=lambda path: str(path.relative_to(SUITE)))
def test_the_verdict_is_that_of_the_suite(folder: Path) -> None:
    bag = read_bag(folder)

    match folder.parent.name:
        case "valid":
            assert bag.valid, bag.errors
        case "warning":
            assert bag.valid, bag.errors
            assert bag.warnings
        case _:  # invalid, and linux-only: paths that lead out
            assert not bag.valid


@pytest.mark.parametrize("folder", [b for b in BAGS if "out-of-scope" in b.name], ids=lambda path: path.name)
def test_paths_out_of_scope_are_named_as_such(folder: Path) -> None:
    words = ("leads out of its folder", "is absolute", "begins in somebody's home")
    assert any(word in error for error in read_bag(folder).errors for word in words)
    with pytest.raises(BagRefused):
        plan_import(read_bag(folder), "rokb", "here")


def test_a_bag_with_a_hole_is_not_complete_until_it_is_filled(bag: Path) -> None:
    (bag / "fetch.txt").write_text("https://example.org/a 5 data/a.txt\n")
    content = (bag / "data" / "a.txt").read_bytes()
    (bag / "data" / "a.txt").unlink()

    holey = read_bag(bag)
    assert (holey.valid, holey.errors, holey.missing) == (False, [], ["data/a.txt"])
    with pytest.raises(BagRefused, match="still to be fetched"):
        plan_import(holey, "rokb", None)

    (bag / "data" / "a.txt").write_bytes(content)
    assert read_bag(bag).valid


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """A bag of one file, without tag manifest."""
    folder = tmp_path / "bag"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a.txt").write_bytes(b"hello")
    (folder / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n")
    (folder / "manifest-md5.txt").write_text("5d41402abc4b2a76b9719d911017c592  data/a.txt\n")
    return folder


def manifest(text: str) -> Callable[[Path], None]:
    def change(bag: Path) -> None:
        with (bag / "manifest-md5.txt").open("a") as file:
            file.write(f"5d41402abc4b2a76b9719d911017c592  {text}\n")

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda bag: (bag / "data" / "b").symlink_to("/etc/passwd"), "data/b: is a symbolic link"),
        (lambda bag: (bag / "data" / "b").symlink_to("."), "data/b: is a symbolic link"),
        (lambda bag: (bag / "bag-info.txt").symlink_to("bagit.txt"), "bag-info.txt: is a symbolic link"),
        (lambda bag: os.mkfifo(bag / "data" / "b"), "data/b: is neither file nor folder"),
        (lambda bag: (bag / "data" / "\udcff").touch(), "its name is no UTF-8"),
        (manifest("data/../a.txt"), "leads out of its folder"),
        (manifest("data/%2e%2e/%2E./etc/passwd"), "leads out of its folder"),
        (manifest("data/%252e%252e/x"), "leads out of its folder"),
        (manifest("data\\..\\..\\x"), "leads out of its folder"),
        (manifest("%2Fetc/passwd"), "is absolute"),
        (manifest("%7Eroot/x"), "begins in somebody's home"),
        (manifest("C:\\x"), "names a drive"),
        (manifest("data/a%0Ab"), "holds control characters"),
        (manifest("bagit.txt"), "is not below data/"),
        (lambda bag: (bag / "bag-info.txt").write_text("Payload-Oxum: 6.1\n"), "Payload-Oxum says 6.1, there are 5.1"),
        (lambda bag: (bag / "bag-info.txt").write_text("Payload-Oxum: many\n"), "is no bytes.files"),
        (lambda bag: (bag / "fetch.txt").write_text("https://x 1 data/b\n"), "data/b is in no manifest"),
        (lambda bag: (bag / "fetch.txt").write_text("https://x\n"), "is no URL, length and path"),
        (lambda bag: (bag / "manifest-md5.txt").rename(bag / "manifest-crc.txt"), "no payload manifest"),
        (lambda bag: (bag / "manifest-md5.txt").write_bytes(b"\xff\n"), "can't decode"),
        (lambda bag: (bag / "manifest-md5.txt").write_text("hello\n"), "is no hash and path"),
        (lambda bag: (bag / "bagit.txt").write_text("BagIt-Version: 2.0\nTag-File-Character-Encoding: UTF-8\n"), "2.0"),
        (lambda bag: (bag / "bagit.txt").write_text("BagIt-Version: 1.0\nTag-File-Character-Encoding: idna\n"), "idna"),
    ],
)
def test_a_hostile_bag_is_refused_by_name(bag: Path, change: Callable[[Path], None], why: str) -> None:
    assert read_bag(bag).valid
    change(bag)

    found = read_bag(bag)

    assert any(why in error for error in found.errors), found.errors
    with pytest.raises(BagRefused):
        plan_import(found, "rokb", None)


@pytest.mark.parametrize("target", ["rokb/x.md", ".git/hooks/post-checkout", "sub/.git/config", "glimmer-store.toml"])
def test_a_bag_does_not_touch_the_set_up_of_a_dataset(bag: Path, target: str) -> None:
    (bag / "data" / "a.txt").rename(bag / "data" / "x")
    manifest_text = (bag / "manifest-md5.txt").read_text().replace("a.txt", target)
    (bag / "data" / target).parent.mkdir(parents=True, exist_ok=True)
    (bag / "data" / "x").rename(bag / "data" / target)
    (bag / "manifest-md5.txt").write_text(manifest_text)
    found = read_bag(bag)
    assert found.valid

    with pytest.raises(BagRefused):
        plan_import(found, "rokb", ".")


@given(st.text(alphabet="a./\\~%25eEfF7C:\n é", max_size=14))
@example("data/%2e%2e/x")
@example("%252e%252e")
def test_a_path_that_is_let_through_stays_in_its_folder(path: str) -> None:
    if not out_of_scope(path):
        for reading in (path, unquote(path), path.replace("\\", "/"), unquote(path).replace("\\", "/")):
            assert os.path.normpath("/top/" + reading).startswith("/top/")
            assert not reading.startswith(("/", "~"))


def test_a_check_tells_the_verdict(bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "--check", str(bag)]) == 0
    (bag / "data" / "a.txt").write_bytes(b"hullo")
    assert main(["import", "--check", str(bag)]) == 1
    assert "data/a.txt: md5 is" in capsys.readouterr().out
