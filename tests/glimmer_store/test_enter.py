"""Emits of many processes into one dataset: none is lost, whoever dies, and few commits are made."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import annexpy as annex
from glimmer_store.enter import Entering
from glimmer_store.entry import Entry, Part, Row, Spool, changes
from glimmer_store.errors import GraphError, Shortfall
from glimmer_store.graph import GlimmerGraph
from glimmer_store.provision import provision
from glimmer_store.sidecar import Sidecar

WRITERS = Path(__file__).parent / "emitter.py"
POINTS = ("spooled", "committed, the index not written", "checked out", "committed", "pushed", "told")


def git(*words: str, at: Path) -> str:
    done = subprocess.run(["git", *words], cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.fixture
def study(tmp_path: Path) -> Path:
    root = tmp_path / "study"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    return root


class Writers:
    """Processes that emit; see ``emitter``."""

    def __init__(self, root: Path, process: subprocess.Popen[str]) -> None:
        self.root, self._process = root, process

    def run(self, *writers: dict[str, Any], kill: list[float] | None = None) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = {"root": str(self.root), "writers": writers, "kill": kill or []}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def emitted(self, *writers: dict[str, Any]) -> None:
        """All of them came to their end."""
        assert set(self.run(*writers)["ended"].values()) == {0}


@pytest.fixture
def writers(study: Path) -> Iterator[Writers]:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, WRITERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        yield Writers(study, process)
        assert process.stdin is not None
        process.stdin.close()


def check_all_is_there(study: Path, emitted: dict[int, int]) -> int:
    """Every node is committed, indexed, located, and in every bare; the number of commits."""
    expected = sorted(f"rokb/derivatives/derivative-w{w}-{n}.md" for w, each in emitted.items() for n in range(each))
    tip = git("rev-parse", "HEAD", at=study)
    git("fsck", "--strict", at=study)
    for vault in (1, 2, 3):
        bare = study.parent / f"vault{vault}.git"
        git("fsck", "--strict", at=bare)
        assert git("rev-parse", "HEAD", at=bare) == tip
    assert git("ls-tree", "-r", "--name-only", "HEAD", "rokb/derivatives", at=study).split() == expected
    index = json.loads(git("show", "HEAD:rokb/_glimmer-index.json", at=study))
    assert sorted("rokb/" + node["path"] for node in index["nodes"]) == expected
    assert index["node-count"] == len(expected)
    changed = git("-c", "filter.annex.process=", "-c", "filter.annex.clean=cat", "status", "--porcelain", at=study)
    assert {line[:2] for line in changed.splitlines()} <= {"??"}
    with annex.Repository.open(study) as repository:
        repository.branch.commit_now()
        for path in expected:
            fields = Sidecar.read(study / path).fields
            key = annex.Key.parse(fields["datalad-annex-key"])
            assert len(repository.branch.locations(key).present) == fields["copies"] == 3, path
    assert not list((study / ".git" / "glimmer-store").glob("*.ready"))
    return int(git("rev-list", "--count", "HEAD", at=study))


def test_many_writers_share_commits_and_none_is_lost_though_some_are_killed(study: Path, writers: Writers) -> None:
    crowd = [{"id": number, "each": 10} for number in range(12)]

    ended = writers.run(*crowd, kill=[0.3, 0.3, 0.3])["ended"]
    killed = [writer for writer in crowd if ended[str(writer["id"])] == signal.SIGKILL]
    assert all(status in (0, signal.SIGKILL) for status in ended.values())
    writers.emitted(*killed or crowd[:1])

    commits = check_all_is_there(study, dict.fromkeys(range(12), 10))
    assert commits < 120


def test_a_kill_anywhere_is_completed_by_the_same_emit_and_by_any_other(study: Path, writers: Writers) -> None:
    emitted = {}
    for number, point in enumerate(POINTS):
        again, other = 3 * number, 3 * number + 1
        killed = writers.run({"id": again, "each": 1, "die": point})["ended"]
        assert killed == {str(again): signal.SIGKILL}, point
        writers.emitted({"id": again, "each": 1})
        killed = writers.run({"id": other, "each": 1, "die": point})["ended"]
        assert killed == {str(other): signal.SIGKILL}, point
        writers.emitted({"id": other + 1, "each": 1})
        emitted |= {again: 1, other: 1, other + 1: 1}
        assert git("rev-parse", "HEAD", at=study) == git("rev-parse", "HEAD", at=study.parent / "vault3.git"), point
    check_all_is_there(study, emitted)


@pytest.mark.parametrize("fault", [{"nolocks": True}, {"stale": True}], ids=["no locks", "stale attributes"])
def test_a_network_file_system_loses_nothing(study: Path, writers: Writers, fault: dict[str, Any]) -> None:
    writers.emitted(*({"id": number, "each": 4, **fault} for number in range(4)))

    check_all_is_there(study, dict.fromkeys(range(4), 4))
    locks = git("config", "--get", "--default=false", "annex.pidlock", at=study).strip()
    assert locks == ("true" if "nolocks" in fault else "false")


@pytest.mark.campaign
@pytest.mark.parametrize("fault", [{}, {"nolocks": True}, {"stale": True}], ids=["sound", "no locks", "stale"])
def test_two_hundred_writers_cost_the_same_at_the_end_as_at_the_beginning(
    study: Path, writers: Writers, fault: dict[str, Any]
) -> None:
    """Five of them are killed meanwhile, and run again."""
    count, each = int(os.environ.get("EMIT_WRITERS", "200")), int(os.environ.get("EMIT_EACH", "50"))
    crowd = [{"id": number, "each": each, **fault} for number in range(count)]

    answer = writers.run(*crowd, kill=[2.0] * 5)

    killed = [writer for writer in crowd if answer["ended"][str(writer["id"])] == signal.SIGKILL]
    assert set(answer["ended"].values()) <= {0, signal.SIGKILL}
    seconds = [seconds for _, seconds in answer["times"]]
    wall = answer["times"][-1][0] - answer["began"]
    if killed:
        writers.emitted(*killed)
    commits = check_all_is_there(study, dict.fromkeys(range(count), each))
    tenth = len(seconds) // 10
    medians = [statistics.median(seconds[at : at + tenth]) for at in range(0, len(seconds) - tenth + 1, tenth)]
    shown = ", ".join(f"{median:.2f}" for median in medians)
    print(
        f"\n{len(seconds)} emits, {len(killed)} killed, {commits} commits, {wall:.0f} s; median of each tenth: {shown}"
    )
    if not fault:
        assert medians[-1] <= 1.5 * min(medians)


# -- one process --

pytest_anyio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.mark.anyio
@pytest_anyio
async def test_a_second_emit_of_the_same_bytes_makes_no_commit(study: Path) -> None:
    (study / "a.txt").write_text("a")
    async with GlimmerGraph.open(study) as graph:
        await graph.derivative(study / "a.txt")
    before = git("rev-parse", "HEAD", at=study)

    async with GlimmerGraph.open(study) as graph:
        await graph.derivative(study / "a.txt")

    assert git("rev-parse", "HEAD", at=study) == before


@pytest.mark.anyio
@pytest_anyio
async def test_a_bare_that_missed_a_push_gets_it_with_the_next_emit(study: Path) -> None:
    (study / "a.txt").write_text("a")
    (study / "b.txt").write_text("b")
    vault = study.parent / "vault3.git"
    vault.rename(study.parent / "away")
    async with GlimmerGraph.open(study) as graph:
        assert (await graph.derivative(study / "a.txt")).copies == 2
    (study.parent / "away").rename(vault)

    async with GlimmerGraph.open(study) as graph:
        await graph.derivative(study / "b.txt")

    assert git("rev-parse", "HEAD", at=vault) == git("rev-parse", "HEAD", at=study)


@pytest.mark.anyio
@pytest_anyio
async def test_a_copy_without_the_history_is_no_durable_copy(study: Path) -> None:
    (study / "a.txt").write_text("a")
    (study / "b.txt").write_text("b")
    async with GlimmerGraph.open(study) as graph:
        await graph.dataset(study / "a.txt")
    vault = study.parent / "vault3.git"
    theirs = git("commit-tree", "-m", "theirs", "HEAD^{tree}", "-p", "HEAD", at=vault).strip()
    git("update-ref", "HEAD", theirs, at=vault)

    async with GlimmerGraph.open(study) as graph:
        with pytest.raises(Shortfall, match=r"2 of 3 copies proven.*vault3: does not have the history") as error:
            await graph.dataset(study / "b.txt")

    assert "commits that are not here" in error.value.failed["vault3"]
    assert git("rev-parse", "HEAD", at=vault).strip() == theirs


@pytest.mark.anyio
@pytest_anyio
async def test_a_node_file_that_somebody_wrote_is_filled_in_and_committed(study: Path) -> None:
    (study / "a.txt").write_text("a")
    file = study / "rokb" / "derivatives" / "by-hand.md"
    file.parent.mkdir(parents=True)
    fields = b"# mine\nid: by-hand\ntype: derivative\nname: A\nprovenance-mode: stochastic\noutput-path: a.txt\n"
    written = b"---\n" + fields + b"---\nBody\n"
    file.write_bytes(written)

    async with GlimmerGraph.open(study) as graph:
        node = await graph.emit(file)

        assert (node.id, node.copies) == ("by-hand", 3)
        assert file.read_bytes().startswith(b"---\n" + fields)
        assert file.read_bytes().endswith(b"---\nBody\n")
        assert git("show", f"HEAD:{node.file}", at=study).encode() == file.read_bytes()
        file.write_bytes(written.replace(b"output-path: a.txt\n", b""))
        with pytest.raises(GraphError, match="has no output-path"):
            await graph.emit(file)


@pytest.mark.anyio
@pytest_anyio
async def test_one_entry_that_cannot_be_committed_holds_up_nobody_else(study: Path) -> None:
    with annex.Repository.open(study) as repository:
        entering = Entering(repository, "rokb", ["vault1"])
        await entering.enter(Entry("a file", (Part(b"file", "whole", b"1"),)))
        spool = Spool(study / ".git" / "glimmer-store")
        waiting = spool.add(Entry("good", (Part(b"good", "whole", b"2"),)))
        with pytest.raises(GraphError, match="cannot be committed"):
            await entering.enter(Entry("bad", (Part(b"file/below", "whole", b"3"),)))

        assert git("show", "HEAD:good", at=study) == "2"
        assert spool.done(waiting)
        assert spool.waiting() == {}


def test_an_entry_that_is_seen_in_part_is_left_for_later(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    name = spool.add(Entry("t", (Part(b"\xff a", "whole", b"\0body\n", b"old"),), (Row("i", "derivative", "d/i.md"),)))
    file = tmp_path / "spool" / f"{name}.ready"
    whole = file.read_bytes()

    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        assert spool.waiting() == {}
    file.write_bytes(whole)
    (entry,) = spool.waiting().values()

    assert entry.parts[0] == Part(b"\xff a", "whole", b"\0body\n", b"old")
    assert entry.rows == (Row("i", "derivative", "d/i.md"),)


def test_what_is_entered_together_is_one_change_of_each_file() -> None:
    parts = (Part(b"log", "lines", b"b\n"), Part(b"log", "lines", b"a\nb\n"), Part(b"key", "once", b"k"))
    made = changes([Entry("1", parts), Entry("2", (Part(b"key", "once", b"other"), Part(b"n", "whole", b"2")))])

    assert made[b"log"].change(b"c\n") == b"a\nb\nc\n"
    assert (made[b"key"].change(None), made[b"key"].change(b"had")) == (b"k", b"had")
    assert made[b"n"].change(b"1") == b"2"
