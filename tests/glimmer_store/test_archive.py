"""Creating a node stores its output, and only proven copies are counted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import annexpy as annex
from glimmer_store.errors import GraphError, HashMismatch, Shortfall, SourceRefused
from glimmer_store.graph import GlimmerGraph
from glimmer_store.provision import provision
from glimmer_store.report import look
from glimmer_store.sidecar import Sidecar

pytestmark = pytest.mark.anyio


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A dataset with three durable bares and two outputs."""
    root = tmp_path / "study"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    (root / "derivatives").mkdir()
    (root / "derivatives" / "brain.nii.gz").write_bytes(b"brain" * 1000)
    (root / "raw.tsv").write_bytes(b"id\n01\n")
    return root


@pytest.fixture
async def graph(study: Path) -> AsyncIterator[GlimmerGraph]:
    async with GlimmerGraph.open(study) as opened:
        yield opened


def object_of(vault: Path, key: annex.Key) -> Path:
    (found,) = (path for path in (vault / "annex" / "objects").rglob(str(key)) if path.is_file())
    return found


async def test_a_node_names_every_proven_copy(study: Path, graph: GlimmerGraph) -> None:
    node = await graph.derivative(study / "derivatives" / "brain.nii.gz")

    assert [place.remote for place in node.stored_at] == ["vault1", "vault2", "vault3"]
    assert (node.copies, node.numcopies_required) == (3, 2)
    fields = Sidecar.read(study / node.file).fields
    assert fields["verified"] is True
    assert fields["storage-class"] == "generated"
    assert fields["output-path"] == "derivatives/brain.nii.gz"
    assert node.key is not None
    for vault in (1, 2, 3):
        assert object_of(study.parent / f"vault{vault}.git", node.key).read_bytes() == b"brain" * 1000


async def test_acquired_data_is_irreplaceable_and_needs_three_copies(study: Path, graph: GlimmerGraph) -> None:
    node = await graph.dataset(study / "raw.tsv")
    assert node.record is not None
    assert (node.record.storage_class.value, node.numcopies_required, node.copies) == ("irreplaceable", 3, 3)


async def test_a_second_emit_of_the_same_bytes_changes_nothing(study: Path, graph: GlimmerGraph) -> None:
    first = await graph.dataset(study / "raw.tsv")
    before = {path: path.read_bytes() for path in (study / "rokb").rglob("*") if path.is_file()}

    assert await graph.dataset(study / "raw.tsv") == first

    assert {path: path.read_bytes() for path in (study / "rokb").rglob("*") if path.is_file()} == before


async def test_too_few_copies_create_no_node_but_keep_what_was_stored(study: Path) -> None:
    (study.parent / "vault3.git").rename(study.parent / "away")
    async with GlimmerGraph.open(study) as graph:
        with pytest.raises(Shortfall, match="2 of 3 copies proven") as error:
            await graph.dataset(study / "raw.tsv")
        assert "vault3" in error.value.failed
        assert list(graph.nodes()) == []
    (study.parent / "away").rename(study.parent / "vault3.git")

    async with GlimmerGraph.open(study) as graph:
        assert (await graph.dataset(study / "raw.tsv")).copies == 3


async def test_a_copy_that_rotted_is_not_counted(study: Path) -> None:
    async with GlimmerGraph.open(study) as graph:
        node = await graph.dataset(study / "raw.tsv")
    assert node.key is not None
    rotten = object_of(study.parent / "vault2.git", node.key)
    rotten.chmod(0o644)
    rotten.write_bytes(b"id\n02\n")

    async with GlimmerGraph.open(study) as graph:
        with pytest.raises(Shortfall) as error:
            await graph.dataset(study / "raw.tsv")

    assert error.value.copies == 2
    assert "vault2" in error.value.failed


async def test_outputs_outside_the_dataset_create_no_node(study: Path, graph: GlimmerGraph) -> None:
    (study.parent / "elsewhere.nii").write_bytes(b"x")
    with pytest.raises(SourceRefused):
        await graph.derivative(study.parent / "elsewhere.nii")
    assert list(graph.nodes()) == []


async def test_an_edge_to_a_node_that_does_not_exist_stops_before_anything_is_stored(
    study: Path, graph: GlimmerGraph
) -> None:
    with pytest.raises(GraphError, match="method-fsl-bet"):
        await graph.derivative(study / "derivatives" / "brain.nii.gz", produced_by="method-fsl-bet")
    assert not list((study.parent / "vault1.git" / "annex").rglob("SHA256E*.nii.gz"))


async def test_a_changed_output_is_not_passed_off_as_the_one_of_the_node(study: Path, graph: GlimmerGraph) -> None:
    output = study / "derivatives" / "brain.nii.gz"
    await graph.derivative(output)
    output.write_bytes(b"another brain")
    with pytest.raises(HashMismatch):
        await graph.derivative(output)


async def test_status_names_drift_and_unreachable_remotes(study: Path) -> None:
    async with GlimmerGraph.open(study) as graph:
        node = await graph.derivative(study / "derivatives" / "brain.nii.gz")
    assert node.key is not None
    lost = object_of(study.parent / "vault1.git", node.key)
    lost.parent.chmod(0o755)
    lost.unlink()
    (study.parent / "vault2.git").rename(study.parent / "away")

    async with GlimmerGraph.open(study) as graph:
        status = await look(graph)

    (entry,) = status.objects
    assert (entry.live, entry.unreachable, entry.safe) == (("vault3",), ("vault2",), False)
    assert entry.drift == ("recorded at vault1, not there",)


@pytest.mark.interop
async def test_the_real_git_annex_finds_the_copies_that_the_node_names(study: Path, git_annex: str) -> None:
    async with GlimmerGraph.open(study) as graph:
        node = await graph.dataset(study / "raw.tsv")

    shown = subprocess.run(
        [git_annex, "whereis", "--key", str(node.key)], cwd=study, capture_output=True, text=True, check=True
    )
    assert "(3 copies)" in shown.stdout
    for place in node.stored_at:
        assert f"{place.uuid} -- {place.remote}" in shown.stdout
        checked = subprocess.run(
            [git_annex, "fsck", "--all", "--quiet"],
            cwd=study.parent / f"{place.remote}.git",
            capture_output=True,
            text=True,
            check=False,
        )
        assert (checked.returncode, checked.stderr) == (0, "")


async def test_a_journal_that_others_keep_locked_does_not_undo_an_emit_that_is_done(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def held(_: object) -> None:
        raise annex.LockHeld("vault1.git/annex/journal.lck", "two hundred others", 30.0)

    async with GlimmerGraph.open(study) as graph:
        node = await graph.derivative(study / "derivatives" / "brain.nii.gz")
        monkeypatch.setattr("annexpy.remote.local.Local.aclose", held)
    monkeypatch.undo()

    assert node.copies == 3
    async with GlimmerGraph.open(study) as graph:
        (entry,) = (await look(graph)).objects
    assert (entry.safe, entry.drift) == (True, ())


async def test_what_git_annex_has_put_away_by_md5_is_stored_by_its_sha256(study: Path, graph: GlimmerGraph) -> None:
    inner = study / "inner"
    annex.Repository.init(inner, bare=False).close()
    nodes = []
    for folder in (study, inner):
        kept = folder / ".git/annex/objects/x2/pM/MD5E-s6--b1946ac92492d2347c6235b4d2611184.tsv"
        kept.mkdir(parents=True)
        (kept / kept.name).write_bytes(b"hello\n")
        (folder / "sub-01").mkdir()
        (folder / "sub-01" / f"of-{folder.name}.tsv").symlink_to(f"../.git/annex/objects/x2/pM/{kept.name}/{kept.name}")
        nodes.append(await graph.derivative(folder / "sub-01" / f"of-{folder.name}.tsv"))
    key = "SHA256E-s6--5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03.tsv"
    assert [str(node.key) for node in nodes] == [key, key]
    assert [str(node.output) for node in nodes] == ["sub-01/of-study.tsv", "inner/sub-01/of-inner.tsv"]
    assert object_of(study.parent / "vault1.git", annex.Key.parse(key)).read_bytes() == b"hello\n"
    whole = await graph.archive.look(study / "sub-01")
    assert whole.tree is not None
    assert [str(one) for one in whole.tree.keys] == [key]


async def test_a_content_that_is_not_here_is_not_stood_for_by_its_pointer(study: Path, graph: GlimmerGraph) -> None:
    key = "SHA256E-s6--5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03.tsv"
    (study / "sub").mkdir()
    (study / "sub" / "-unlocked.tsv").write_text(f"/annex/objects/{key}\n")
    (study / "locked.tsv").symlink_to(f".git/annex/objects/x2/pM/{key}/{key}")
    for path in ("sub/-unlocked.tsv", "sub", "locked.tsv"):
        with pytest.raises(SourceRefused, match="its content is not here") as refused:
            await graph.derivative(study / path)
        assert "annex get -- " in refused.value.remedy


async def test_a_name_that_is_not_utf8_is_refused_and_a_list_of_a_folder_can_say_it(
    study: Path, graph: GlimmerGraph
) -> None:
    (study / "odd").mkdir()
    odd = study / "odd" / os.fsdecode(b"n\xffx.nii")
    odd.write_bytes(b"odd")
    with pytest.raises(SourceRefused, match=r"odd/n\\xffx.nii: its name is not UTF-8"):
        await graph.derivative(odd)
    assert not any((study.parent / "vault1.git/annex/objects").glob("*"))
    assert (await graph.derivative(study / "odd")).copies == 3


async def test_the_graph_itself_is_no_output(study: Path, graph: GlimmerGraph) -> None:
    await graph.derivative(study / "derivatives" / "brain.nii.gz")
    for folder in (graph.folder, graph.folder / "derivatives", study / ".glimmer-store"):
        with pytest.raises(SourceRefused, match="changes with every emit"):
            await graph.derivative(folder)
