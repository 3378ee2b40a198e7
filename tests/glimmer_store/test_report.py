"""The report tells what is really there, and what it tells is what git-annex tells."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import annexpy as annex
from glimmer_store.config import Adjunct, Config
from glimmer_store.errors import GraphError
from glimmer_store.explain import explain
from glimmer_store.graph import GlimmerGraph
from glimmer_store.provision import provision
from glimmer_store.report import look
from glimmer_store.report_html import page
from glimmer_store.report_text import human_size, records, screen, table
from glimmer_store.status import Cell, Report, State, Tier
from glimmer_store.verify import verify

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture
def study(tmp_path: Path, anyio_backend: str) -> Path:
    """A dataset with three durable bares."""
    provision(tmp_path / "study", [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    return tmp_path / "study"


async def store(study: Path, *names: str) -> None:
    async with GlimmerGraph.open(study) as graph:
        for name in names:
            (study / name).write_bytes(name.encode() * 100)
            await graph.dataset(study / name)


async def looked(study: Path) -> Report:
    async with GlimmerGraph.open(study) as graph:
        return await look(graph)


def lose(vault: Path, key: annex.Key) -> None:
    (lost,) = (path for path in (vault / "annex" / "objects").rglob(str(key)) if path.is_file())
    lost.parent.chmod(0o755)
    lost.unlink()


def run(line: str) -> None:
    """Run a remedy as it was given, in any folder."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = [part.strip() for part in line.split("&&")]
    for part in words:
        argv = shlex.split(part)
        module = {"annexpy": "annexpy.cli.app", "glimmer-store": "glimmer_store.cli.app"}[argv[0]]
        root = Path(__file__).parent.parent.parent
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(root)}
        subprocess.run([sys.executable, "-m", module, *argv[1:]], env=environment, cwd="/", check=True, timeout=120)


async def test_everything_that_is_there_is_safe_and_proven(study: Path) -> None:
    await store(study, "a.tsv", "b.tsv")

    report = await looked(study)

    assert report.tiles == {"safe": 2, "at risk": 0, "one copy": 0, "unverified": 0, "unreachable": 0, "drift": 0}
    assert report.exit_code == 0
    assert [entry.cells for entry in report.objects] == [(Cell.PROVEN,) * 3] * 2
    assert [entry.findings for entry in report.objects] == [(), ()]
    (event,) = report.objects[0].history
    assert set(event.got) == {"vault1", "vault2", "vault3"}
    for place in report.places:
        assert place.used == 1000
        assert place.free
        assert place.free_by == "disk"


@pytest.mark.parametrize(
    "damage",
    ["no front matter\n", "---\nid: [\n---\n", "---\nid: x\ntype: dataset\ndatalad-annex-key: nokey\n---\n", None],
    ids=["none", "not YAML", "no key", "gone"],
)
async def test_one_node_that_cannot_be_read_is_named_and_the_others_are_told_of(
    study: Path, damage: str | None
) -> None:
    await store(study, "a.tsv", "b.tsv", "c.tsv")
    file = study / "rokb" / "datasets" / "dataset-b.md"
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage)

    report = await looked(study)

    assert [entry.name for entry in report.objects] == ["a.tsv", "c.tsv"]
    assert [entry.safe for entry in report.objects] == [True, True]
    (found,) = report.findings
    assert (found.kind, found.subject) == ("graph", "rokb/datasets/dataset-b.md")
    assert found.text.startswith("cannot be read: ")
    assert report.exit_code == 1
    assert found.subject in screen(report)
    assert found.subject in page(report)
    assert [one["status"] for one in records(report)] == ["ok", "ok", "error"]
    lose(study.parent / "vault1.git", report.objects[0].node.key or annex.Key.parse(b"WORM--x"))
    assert (await looked(study)).exit_code == 3
    async with GlimmerGraph.open(study) as graph:
        with pytest.raises(annex.AnnexError):
            list(graph.nodes())


async def test_a_spoilt_index_costs_no_node(study: Path) -> None:
    await store(study, "a.tsv", "b.tsv")
    (study / "rokb" / "_glimmer-index.json").write_text("[")

    report = await looked(study)

    assert [entry.name for entry in report.objects] == ["a.tsv", "b.tsv"]
    assert [found.subject for found in report.findings] == ["rokb/_glimmer-index.json"]
    assert report.exit_code == 1


async def test_a_node_in_a_bids_sidecar_is_reported_verified_repaired_and_emitted(study: Path) -> None:
    await store(study, "a.tsv")
    folder = study / "sub-01" / "anat"
    folder.mkdir(parents=True)
    (folder / "sub-01_T1w.nii").write_bytes(b"brain" * 50)
    sidecar = folder / "sub-01_T1w.json"
    sidecar.write_text('{\n  "EchoTime": 0.03,\n  "_x-glimmer": {"id": "t1w", "type": "dataset", "name": "T1"}\n}\n')
    report = await looked(study)
    assert [(entry.node.id, entry.safe) for entry in report.objects] == [("dataset-a", True), ("t1w", False)]
    (copies,) = report.findings
    assert report.objects[1].name == "sub-01/anat/sub-01_T1w.nii"

    run(copies.command)

    report = await looked(study)
    assert [(entry.node.id, entry.safe, entry.findings) for entry in report.objects][1] == ("t1w", True, ())
    said = json.loads(sidecar.read_text())
    assert said["EchoTime"] == 0.03
    assert (said["_x-glimmer"]["copies"], said["_x-glimmer"]["verified"]) == (3, True)
    key = report.objects[1].node.key
    assert key is not None
    lose(study.parent / "vault2.git", key)
    (found,) = (await looked(study)).findings[:1]
    run(found.command)
    assert (await looked(study)).exit_code == 0
    assert "t1w" not in (study / "rokb" / "_glimmer-index.json").read_text()


async def test_a_lost_copy_is_drift_and_a_risk_and_its_command_puts_it_back(study: Path) -> None:
    await store(study, "a.tsv")
    (before,) = (await looked(study)).objects
    assert before.node.key is not None
    lose(study.parent / "vault2.git", before.node.key)

    report = await looked(study)
    (entry,) = report.objects
    assert (entry.state, entry.cells[1], report.exit_code) == (State.AT_RISK, Cell.LOST, 3)
    assert entry.drift == ("recorded at vault2, not there",)
    (found,) = entry.findings
    assert found.kind == "copies"
    run(found.command)

    mended = await looked(study)
    assert mended.exit_code == 0
    assert mended.objects[0].drift == ()


async def test_what_was_never_asked_for_is_named_apart_and_never_counted(study: Path) -> None:
    await store(study, "a.tsv")
    with annex.Repository.open(study) as repository:
        stranger = annex.UUID("12345678-0000-4000-8000-000000000000")
        annex.configure(repository, descriptions={stranger: "ada's laptop"})
        (node,) = (await looked(study)).objects
        assert node.node.key is not None
        repository.branch.set_present(node.node.key, stranger, True)
        await repository.branch.commit()

    report = await looked(study)

    (entry,) = report.objects
    assert (report.places[-1].name, report.places[-1].tier) == ("ada's laptop", Tier.OTHER)
    assert entry.cells[-1] is Cell.CLAIMED
    assert len(entry.live) == 3
    assert stranger in entry.logged


async def test_a_place_that_does_not_answer_leaves_the_question_open(study: Path) -> None:
    await store(study, "a.tsv")
    (study.parent / "vault3.git").rename(study.parent / "away")

    report = await looked(study)

    (entry,) = report.objects
    assert (entry.state, report.exit_code, report.unreachable) == (State.UNREACHABLE, 4, ("vault3",))
    assert entry.cells[2] is Cell.UNREACHABLE
    assert report.tiles["unreachable"] == 1
    (record,) = records(report)
    assert (record["status"], record["refds"]) == ("impossible", str(study))
    assert "no answer" in screen(report)
    async with GlimmerGraph.open(study) as graph:
        told = "\n".join((await explain(graph, "a.tsv"))[0].lines())
    assert "remedy: try again when vault3 answers" in told
    assert "remedy: glimmer-store explain" not in told  # that is what was run


async def test_maxsize_says_what_is_free(study: Path) -> None:
    await store(study, "a.tsv")
    with annex.Repository.open(study) as repository:
        vault = annex.Repository.open(study.parent / "vault1.git")
        annex.configure(repository, maxsizes={vault.uuid: 800})
        vault.close()
        await repository.branch.commit()

    place = (await looked(study)).places[0]

    assert (place.used, place.maxsize, place.free, place.free_by) == (500, 800, 300, "maxsize")


async def test_of_a_place_that_does_not_say_what_is_free_nothing_is_claimed(study: Path) -> None:
    await store(study, "a.tsv")
    (study.parent / "vault3.git").rename(study.parent / "away")

    report = await looked(study)

    assert [(place.free is None, place.free_by) for place in report.places] == [
        (False, "disk"), (False, "disk"), (True, "")]  # fmt: skip
    assert re.search(r"vault3 +durable +500 B +unknown +–", table(report))
    assert "unknown</span>" in page(report)


async def test_result_records_are_those_of_datalad(study: Path) -> None:
    await store(study, "a.tsv")

    (record,) = records(await looked(study))

    assert {"action", "path", "type", "status", "message", "refds"} <= record.keys()
    assert (record["status"], record["path"]) == ("ok", str(study / "a.tsv"))


@pytest.mark.interop
async def test_every_row_is_what_git_annex_whereis_says(study: Path, git_annex: str) -> None:
    names = [f"sub-{n:02}.tsv" for n in range(12)]
    await store(study, *names)

    def annexed(*words: str) -> str:
        done = subprocess.run([git_annex, *words], cwd=study, capture_output=True, text=True, check=False, timeout=120)
        return done.stdout

    # git-annex changes its mind about some of them: gone here, dead there, untrusted, and one that only it knows of
    keys = {str(entry.node.key): entry for entry in (await looked(study)).objects}
    some = list(keys)
    with annex.Repository.open(study) as repository:
        places = {place.name: place.uuid for place in (await looked(study)).places}
        annexed("setpresentkey", some[0], places["vault1"], "0")
        annexed("setpresentkey", some[1], "99999999-0000-4000-8000-000000000000", "1")
        annexed("untrust", places["vault3"])
        assert repository.uuid
    report = await looked(study)

    for entry in report.objects:
        shown = json.loads(annexed("whereis", "--json", "--key", str(entry.node.key)))
        assert [place["uuid"] for place in shown["whereis"]] == list(entry.logged)
        assert [place["uuid"] for place in shown["untrusted"]] == list(entry.untrusted)
    told = report.to_json()["objects"]
    assert isinstance(told, list)
    assert len(told) == 12
    for field in ("id", "key", "stored-at", "copies", "numcopies-required", "verified", "storage-class", "drift"):
        assert all(field in entry for entry in told)
    assert report.objects[0].drift == ("at vault1, not in the location log",)


def test_sizes_are_for_people(anyio_backend: str) -> None:
    assert [human_size(size) for size in (None, 0, 999, 1500, 2 * 10**12)] == ["–", "0 B", "999 B", "1.5 kB", "2.0 TB"]


async def test_explain_tells_of_every_place_why_it_counts_or_does_not(study: Path) -> None:
    await store(study, "a.tsv")
    (before,) = (await looked(study)).objects
    assert before.node.key is not None
    lose(study.parent / "vault1.git", before.node.key)
    (study.parent / "vault3.git").rename(study.parent / "away")

    async with GlimmerGraph.open(study) as graph:
        by_id, by_key, by_output, by_file = [
            (await explain(graph, name))[0].lines()
            for name in ("dataset-a", str(before.node.key), "a.tsv", str(study / "rokb/datasets/dataset-a.md"))
        ]
        with pytest.raises(GraphError, match="no node, output or key"):
            await explain(graph, "nothing")

    assert by_id == by_key == by_output == by_file
    told = "\n".join(by_id)
    for sentence in (
        "irreplaceable: 3 copies are needed",
        "not counted  vault1: it answered that it does not have it; the node names it",
        "counted      vault2: it answered that it has it now; the node names it; the location log says so; read again",
        "not counted  vault3: it cannot be asked",
        "2 more copies are needed",
        "remedy: glimmer-store verify --repair",
    ):
        assert sentence in told


async def test_a_copy_that_was_found_bad_is_not_counted_although_something_is_there(study: Path) -> None:
    await store(study, "a.tsv")
    (before,) = (await looked(study)).objects
    assert before.node.key is not None
    (rotten,) = (p for p in (study.parent / "vault2.git/annex/objects").rglob(str(before.node.key)) if p.is_file())
    rotten.chmod(0o644)
    rotten.write_bytes(b"A.tsv" * 100)
    async with GlimmerGraph.open(study) as graph:
        assert len((await look(graph, full=False)).objects[0].live) == 3  # nobody has read it so far
        async for _ in verify(graph, graph.nodes()):
            pass

    for full in (False, True):
        async with GlimmerGraph.open(study) as graph:
            report = await look(graph, full=full)
        (entry,) = report.objects
        assert (entry.cells[1], entry.live, report.exit_code) == (Cell.BAD, ("vault1", "vault3"), 3)
    run(entry.findings[0].command)
    assert (await looked(study)).exit_code == 0


async def test_a_folder_has_a_copy_where_all_of_it_is(study: Path) -> None:
    (study / "bet").mkdir()
    for n in range(3):
        (study / "bet" / f"{n}.nii").write_bytes(b"%d" % n * 40)
    async with GlimmerGraph.open(study) as graph:
        await graph.derivative(study / "bet", storage_class="irreplaceable")
    assert (await looked(study)).exit_code == 0
    (part,) = (
        p
        for p in (study.parent / "vault3.git/annex/objects").rglob("SHA256E-s40-*")
        if p.is_file() and p.read_bytes()[:1] == b"1"
    )
    part.parent.chmod(0o755)
    part.unlink()

    (entry,) = (await looked(study)).objects

    assert (entry.live, entry.cells[2]) == (("vault1", "vault2"), Cell.LOST)
    run(entry.findings[0].command)
    assert (await looked(study)).exit_code == 0


@pytest.mark.parametrize("counts", [False, True])
async def test_a_store_without_history_is_shown_apart_and_counts_only_when_configured(
    study: Path, counts: bool
) -> None:
    folder = study.parent / "shelf"
    folder.mkdir()
    config = Config.load(study)
    uuid = annex.UUID("5e1f0000-0000-4000-8000-000000000000")
    shelf = Adjunct("shelf", uuid, "directory", {"directory": str(folder)}, counts)
    lost = Adjunct("lost", annex.UUID("10570000-0000-4000-8000-000000000000"), "s3", {"bucket": "b", "host": "h"})
    replace(config, durable=config.durable[:2], adjuncts=(shelf, lost)).save(study)
    async with GlimmerGraph.open(study) as graph:
        (study / "a.tsv").write_bytes(b"a" * 50)
        await graph.derivative(study / "a.tsv")

    report = await looked(study)

    (entry,) = report.objects
    place = next(place for place in report.places if place.name == "shelf")
    assert place.tier is (Tier.BARE if counts else Tier.ADJUNCT)
    assert entry.adjuncts == (() if counts else ("shelf",))
    assert len(entry.live) == (3 if counts else 2)
    assert entry.cells[report.places.index(place)] is Cell.PROVEN
    assert next(place.error for place in report.places if place.name == "lost")
