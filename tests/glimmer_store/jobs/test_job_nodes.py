"""What a job proves, the nodes say afterwards: where the copies are, how many, and whether all are proven."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import annexpy as annex
from glimmer_store.attest import Attestations, Verdict
from glimmer_store.bids import read_node
from glimmer_store.graph import GlimmerGraph
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.plan import new_job, plan
from glimmer_store.jobs.ran import Registered
from glimmer_store.jobs.registrar import register
from glimmer_store.jobs.spec import Retry
from glimmer_store.jobs.worker import run_worker
from glimmer_store.provision import provision
from glimmer_store.verify import verify

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

VAULTS = ("vault1", "vault2", "vault3", "vault4")
BIDS = "sub-01/anat/sub-01_T1w.json"
JSON = """{
  "RepetitionTime": 2.3,
  "_x-glimmer": { "id": "scan", "type": "dataset", "name": "a scan", "datalad-relative-path": "%s" }
}
"""


class Study:
    """A dataset with four durable repositories, of which the last has nothing; nodes of a file, a folder and a scan."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def fields(self, node: str) -> dict[str, Any]:
        file = self.root / (BIDS if node == "scan" else f"rokb/derivatives/derivative-{node}.md")
        return dict(read_node(file).fields)

    def says(self, node: str) -> tuple[str, int, bool]:
        """Where a node says that it is, its copies, and whether they are proven."""
        fields = self.fields(node)
        names = " ".join(place["remote"] for place in fields["stored-at"])
        return names, fields["copies"], fields["verified"]

    def contents(self, vault: str) -> list[Path]:
        found = sorted((self.root.parent / f"{vault}.git" / "annex" / "objects").rglob("*"))
        return [path for path in found if path.is_file()]

    def content(self, vault: str, text: bytes) -> Path:
        (found,) = (path for path in self.contents(vault) if path.read_bytes() == text)
        return found

    async def job(self, type_: str, to: str, **settings: Any) -> Registered:
        """Plan it, let one worker do it, and register it."""
        number = len(list(self.root.parent.glob("job*")))
        spec = new_job(self.root, type_, [to], retry=Retry(tries=1, base=0.05), heartbeat=0.5, **settings)
        _, ledger = await plan(spec, self.root.parent / f"job{number}")
        assert ledger is not None
        self.ledger: Ledger = ledger
        await run_worker(ledger.folder)
        return await register(ledger.folder)

    def states(self) -> Counter[str]:
        shards = self.ledger.shards()
        return Counter(one.state.value for shard in shards for one in self.ledger.fold(shard).values())


@pytest.fixture
async def study(tmp_path: Path) -> Study:
    made = Study(tmp_path / "study")
    root = made.root
    provision(root, [str(tmp_path / f"{name}.git") for name in VAULTS[:3]])
    (root / "out").mkdir()
    (root / "out" / "one.txt").write_bytes(b"a result")
    for name in "ab":
        (root / "out" / "folder").mkdir(exist_ok=True)
        (root / "out" / "folder" / name).write_bytes(b"part " + name.encode())
    (root / BIDS).parent.mkdir(parents=True)
    (root / BIDS).write_text(JSON % BIDS.replace(".json", ".nii"))
    (root / BIDS).with_suffix(".nii").write_bytes(b"voxels")
    async with GlimmerGraph.open(root) as graph:
        await graph.derivative(root / "out" / "one.txt", id="derivative-one")
        await graph.derivative(root / "out" / "folder", id="derivative-folder")
        await graph.emit(root / BIDS)
    return made


def add(study: Study, name: str = "vault4") -> None:
    provision(study.root, [str(study.root.parent / f"{name}.git")])


async def test_a_backfill_enters_the_new_copy_into_every_kind_of_node(study: Study) -> None:
    three = ("vault1 vault2 vault3", 3, True)
    assert [study.says(node) for node in ("one", "folder", "scan")] == [three] * 3
    add(study)

    done = await study.job("backfill", "vault4")

    assert study.states() == {"registered": 5}
    four = ("vault1 vault2 vault3 vault4", 4, True)
    assert [study.says(node) for node in ("one", "folder", "scan")] == [four] * 3
    assert (done.present, done.absent, done.nodes, done.behind) == (5, 0, 3, {})
    assert '"RepetitionTime": 2.3,\n  "_x-glimmer": { "id": "scan"' in (study.root / BIDS).read_text()
    assert json.loads((study.root / BIDS).read_text())["_x-glimmer"]["copies"] == 4
    assert _git(study, "status", "--porcelain", "-uno") == ""
    for vault in VAULTS:
        tip = _git(study, "rev-parse", "HEAD")
        branch = _git(study, "branch", "--show-current").strip()
        there = subprocess.run(
            ["git", "-C", study.root.parent / f"{vault}.git", "rev-parse", branch], capture_output=True, text=True
        )
        assert there.stdout == tip, "the history is in every durable repository"

    assert await study.job("verify", "vault4") == Registered(present=5)
    assert [study.says(node) for node in ("one", "folder", "scan")] == [four] * 3, "nothing to say anew"


async def test_a_copy_that_a_verification_found_bad_is_no_longer_counted_until_it_is_made_again(study: Study) -> None:
    for text in (b"a result", b"part b"):
        path = study.content("vault2", text)
        path.chmod(0o644)
        path.write_bytes(text.upper())

    done = await study.job("verify", "vault2")

    assert (done.present, done.absent, done.nodes) == (3, 2, 2)
    assert study.says("one") == study.says("folder") == ("vault1 vault3", 2, True)
    assert study.says("scan") == ("vault1 vault2 vault3", 3, True)

    done = await study.job("backfill", "vault2")
    assert (done.present, done.nodes) == (2, 2)
    assert [study.says(node) for node in ("one", "folder", "scan")] == [("vault1 vault2 vault3", 3, True)] * 3


async def test_a_source_that_was_found_bad_is_no_copy_either(study: Study) -> None:
    add(study)
    path = study.content("vault1", b"a result")
    path.chmod(0o644)
    path.write_bytes(b"A RESULT")

    done = await study.job("backfill", "vault4", sources=["vault1", "vault2"])

    assert (done.present, done.absent, done.nodes) == (5, 1, 3)
    assert study.says("one") == ("vault2 vault3 vault4", 3, True)


async def test_a_folder_is_stored_where_all_of_it_is(study: Study) -> None:
    add(study)
    for vault in ("vault1", "vault2", "vault3"):
        path = study.content(vault, b"part a")
        path.parent.chmod(0o755)
        path.unlink()

    await study.job("backfill", "vault4")

    assert study.states() == {"registered": 4, "failed": 1}
    assert study.says("folder")[1] < 3
    assert "vault4" not in study.says("folder")[0]
    assert study.says("one") == ("vault1 vault2 vault3 vault4", 4, True)


async def test_a_repository_that_is_none_of_the_durable_ones_is_no_durable_copy(study: Study) -> None:
    bare = study.root.parent / "other.git"
    other = annex.Repository.init(bare, bare=True, description="other")
    other.close()
    _git(study, "remote", "add", "other", str(bare))
    _git(study, "config", "remote.other.annex-uuid", other.uuid)

    done = await study.job("backfill", "other")

    assert (done.present, done.nodes) == (5, 0)
    assert study.says("one") == ("vault1 vault2 vault3", 3, True)
    key = annex.Key.parse(study.fields("one")["datalad-annex-key"])
    newest = Attestations(study.root).newest(key)[other.uuid]
    assert newest.verdict is Verdict.GOOD, "but it is proven"


async def test_a_node_that_cannot_be_read_or_is_gone_holds_nobody_up(study: Study) -> None:
    add(study)
    gone = study.root / "rokb" / "derivatives" / "derivative-one.md"
    spec = new_job(study.root, "backfill", ["vault4"])
    _, ledger = await plan(spec, study.root.parent / "job")
    assert ledger is not None
    gone.unlink()
    (study.root / "rokb" / "derivatives" / "derivative-folder.md").write_text("---\n: [\n---\n")

    await run_worker(ledger.folder)
    done = await register(ledger.folder)

    assert (done.present, done.nodes) == (5, 1)
    assert study.says("scan") == ("vault1 vault2 vault3 vault4", 4, True)
    assert not gone.exists()


async def test_what_was_not_all_proven_is_once_everything_is(study: Study) -> None:
    hidden = study.root.parent / "elsewhere.git"
    (study.root.parent / "vault3.git").rename(hidden)
    async with GlimmerGraph.open(study.root) as graph:
        async for _ in verify(graph, [graph.node("derivative-one")]):
            pass
    assert study.says("one") == ("vault1 vault2 vault3", 3, False)
    hidden.rename(study.root.parent / "vault3.git")

    await study.job("verify", "vault3")

    assert study.says("one") == ("vault1 vault2 vault3", 3, True)


def _git(study: Study, *words: str) -> str:
    return subprocess.run(["git", "-C", study.root, *words], capture_output=True, text=True, check=True).stdout


async def test_a_drain_takes_the_copy_out_of_the_nodes_that_can_spare_it(study: Study) -> None:
    three, two = ("vault1 vault2 vault3", 3, True), ("vault1 vault2", 2, True)

    done = await study.job("drain", "vault3")

    assert study.states() == {"registered": 4, "failed": 1}, "acquired data needs three copies"
    assert [study.says(node) for node in ("one", "folder", "scan")] == [two, two, three]
    assert (done.present, done.absent, done.nodes) == (0, 4, 2)
    assert [path.read_bytes() for path in study.contents("vault3")] == [b"voxels"]
