"""A folder is an output: its list says everything about it, and the same everywhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import annexpy as annex
from glimmer_store.errors import SidecarError, SourceRefused
from glimmer_store.graph import GlimmerGraph
from glimmer_store.provision import provision
from glimmer_store.sidecar import Sidecar
from glimmer_store.tree import Tree, TreeEntry, list_path, tree_of
from glimmer_store.verify import verify

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "study" / "out"
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "nothing").mkdir()
    (folder / "a b%.txt").write_bytes(b"one")
    (folder / "sub" / "deep" / "c").write_bytes(b"two")
    (folder / "run.sh").write_bytes(b"three")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("sub/deep/c")
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff\n"))).write_bytes(b"one")
    return folder


async def seen(folder: Path) -> Tree:
    return await tree_of(folder, folder.parent, "SHA256E")


async def test_the_list_is_what_the_documentation_says(output: Path) -> None:
    tree = await seen(output)

    one, two, three = [await annex.key_of(output / n) for n in ("a b%.txt", "sub/deep/c", "run.sh")]
    bare = str(one).removesuffix(".txt")
    assert tree.to_bytes().decode().splitlines() == [
        "glimmer-store tree 1",
        f"f {one} a%20b%25.txt",
        "l sub/deep/c link",
        "d - nothing",
        f"x {three} run.sh",
        f"f {two} sub/deep/c",
        f"f {bare} %FF%0A",
    ]
    assert Tree.from_bytes(tree.to_bytes()) == tree
    assert tree.size == 3 + 3 + 5 + 3


async def test_times_and_owners_change_nothing_content_and_mode_do(output: Path) -> None:
    before = (await seen(output)).digest
    os.utime(output / "run.sh", (1, 1))
    (output / "sub" / "deep" / "c").chmod(0o600)
    assert (await seen(output)).digest == before

    (output / "run.sh").chmod(0o644)
    assert (await seen(output)).digest != before


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "sub/../../outside"])
async def test_a_link_that_leads_out_is_refused_by_name(output: Path, target: str) -> None:
    (output / "bad").symlink_to(target)
    with pytest.raises(SourceRefused, match=rf"out/bad: is a link to {target}"):
        await seen(output)


async def test_what_is_no_output_is_refused(output: Path) -> None:
    os.mkfifo(output / "pipe")
    with pytest.raises(SourceRefused, match="neither file, folder nor link"):
        await seen(output)
    (output / "pipe").unlink()
    (output / "sub" / ".git").mkdir()
    with pytest.raises(SourceRefused, match="another git repository"):
        await seen(output)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"glimmer-store tree 2\n",
        b"glimmer-store tree 1\nz a b\n",
        b"glimmer-store tree 1\nf x",
        b"glimmer-store tree 1\nf nokey a\n",
        b"glimmer-store tree 1\nl a %zz\n",
    ],
)
async def test_what_is_no_list_is_refused(raw: bytes) -> None:
    with pytest.raises(SidecarError):
        Tree.from_bytes(raw)


names = st.binary(min_size=1, max_size=12).filter(lambda name: b"\0" not in name)


@given(st.dictionaries(names, names, max_size=6))
async def test_any_names_survive(links: dict[bytes, bytes]) -> None:
    tree = Tree(tuple(TreeEntry(path, "l", None, target) for path, target in sorted(links.items())))
    assert Tree.from_bytes(tree.to_bytes()) == tree


async def test_a_folder_is_archived_whole_verified_whole_and_repaired(output: Path, tmp_path: Path) -> None:
    root = tmp_path / "study"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    async with GlimmerGraph.open(root) as graph:
        node = await graph.derivative(output)
        again = await graph.derivative(output)

        assert (node.copies, again) == (3, node)
        fields = Sidecar.read(root / node.file).fields
        tree = await seen(output)
        assert fields["output-hash"] == tree.digest
        kept = root / os.fsdecode(list_path(tree.digest))
        assert kept.read_bytes() == tree.to_bytes()
        for key in [*tree.keys, node.key]:
            for _, remote in graph.archive.remotes:
                assert key is not None
                assert await remote.check_present(key)

        (lost,) = (p for p in (tmp_path / "vault2.git" / "annex").rglob(str(tree.keys[1])) if p.is_file())
        lost.chmod(0o644)
        lost.write_bytes(b"ruined")
        (found,) = [one async for one in verify(graph, graph.nodes())]
        assert found.found == {"vault1": "good", "vault2": "bad", "vault3": "good"}
        assert graph.node(node.id).copies == 2
        (found,) = [one async for one in verify(graph, graph.nodes(), repair=True)]
        assert found.found["vault2"] == "repaired"
        assert graph.node(node.id) == node


async def test_a_file_that_git_annex_has_put_away_is_archived_as_the_key_it_has(tmp_path: Path, git_annex: str) -> None:
    root = tmp_path / "study"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2)])
    (root / "out").mkdir()
    for name in ("scan.nii", "out/inside.nii"):
        (root / name).write_bytes(name.encode())
        subprocess.run([git_annex, "add", "--quiet", name], cwd=root, check=True, timeout=60)
    assert (root / "scan.nii").is_symlink()

    async with GlimmerGraph.open(root) as graph:
        node = await graph.derivative(root / "scan.nii")
        folder = await graph.derivative(root / "out")

    assert str(node.key) in os.readlink(root / "scan.nii")
    assert (node.output, node.copies, folder.copies) == (Path("scan.nii"), 2, 2)
    assert (root / "scan.nii").is_symlink()
