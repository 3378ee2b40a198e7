"""The digest of a folder sees everything that the library's own does not."""

from __future__ import annotations

import json
from pathlib import Path

import datamanifest.config
import pytest
from hypothesis import given
from hypothesis import strategies as st

import annexpy as annex
from glimmer_store.manifest.digest import changed, measure, tree_digest
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.tree import Tree, TreeEntry

pytestmark = pytest.mark.anyio
CASES = json.loads((Path(__file__).parents[2] / "fixtures/derived/folder-digest-cases.json").read_text())


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


async def test_six_folders_that_the_library_takes_for_one_have_six_digests(tmp_path: Path) -> None:
    folders = [written(tmp_path / str(n), files) for n, files in enumerate(CASES["collide"])]

    assert {datamanifest.config.hash_path(str(one)) for one in folders} == {CASES["collide_concat_sha256"]}
    assert len({(await measure(one, tmp_path)).digest for one in folders}) == len(folders) == 6


async def test_the_order_of_writing_makes_no_difference(tmp_path: Path) -> None:
    first, second = [written(tmp_path / str(n), files) for n, files in enumerate(CASES["same"])]
    assert (await measure(first, tmp_path)).digest == (await measure(second, tmp_path)).digest


async def test_the_digest_is_what_the_definition_says(tmp_path: Path) -> None:
    """Computed by hand: a change of the format may not go unnoticed, since digests are kept for good."""
    folder = written(tmp_path / "one", {"a.txt": "xy", "sub/b.txt": "z"})
    (folder / "none").mkdir()
    (folder / "link").symlink_to("a.txt")
    (folder / "run").write_text("#!")
    (folder / "run").chmod(0o755)
    (folder / ".complete").touch()

    digest = (await measure(folder, tmp_path)).digest

    assert digest == "gt1:5f54eacb942fa8672e7a14dc668bacc9eab016d1e2aef32e3a6ae54dc63efea3"


async def test_an_empty_folder_a_mode_and_a_name_count(tmp_path: Path) -> None:
    folder = written(tmp_path / "one", {"a": "x"})
    digests = [(await measure(folder, tmp_path)).digest]
    for change in (
        (folder / "none").mkdir,
        lambda: (folder / "a").chmod(0o755),
        lambda: (folder / "a").rename(folder / "b"),
    ):
        change()
        digests.append((await measure(folder, tmp_path)).digest)
    assert len(set(digests)) == 4


names = st.binary(min_size=1, max_size=4).filter(lambda name: not set(name) & set(b"/\0") and name not in (b".", b".."))
folders = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map(b"/".join), st.binary(max_size=4), max_size=5
).filter(lambda files: not any(other.startswith(path + b"/") for path in files for other in files))


def tree(files: dict[bytes, bytes]) -> Tree:
    keys = {path: annex.name_content([content], b"SHA256E") for path, content in files.items()}
    return Tree(tuple(TreeEntry(path, "f", keys[path]) for path in sorted(files)))


@given(folders, folders)
def test_two_folders_have_one_digest_only_if_they_are_the_same(
    one: dict[bytes, bytes], other: dict[bytes, bytes]
) -> None:
    assert (tree_digest(tree(one)) == tree_digest(tree(other))) is (one == other)
    assert bool(changed(tree(one), tree(other))) is (one != other)


def test_a_key_without_sha256_is_refused() -> None:
    key = annex.name_content([b"x"], b"MD5E")
    with pytest.raises(ManifestError, match="SHA-256"):
        tree_digest(Tree((TreeEntry(b"a", "f", key),)))
