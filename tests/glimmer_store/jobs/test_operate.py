"""What an operator sees of a job and does to it, with real repositories and the real git-annex beside."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import anyio
import pytest
from backfilling import Backfill, git, make_backfill, many
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from rich.console import Console

from glimmer_store.cli.app import main
from glimmer_store.errors import ConfigError
from glimmer_store.jobs import live_drawn
from glimmer_store.jobs.control import ControlFile
from glimmer_store.jobs.event import Event
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.live import follow
from glimmer_store.jobs.operate import cancel, pause, resume, retry, set_limits
from glimmer_store.jobs.plan import new_job, plan
from glimmer_store.jobs.registrar import register
from glimmer_store.jobs.run import run_job
from glimmer_store.jobs.spec import JobError, Retry
from glimmer_store.jobs.states import FailureKind, JobState, State
from glimmer_store.jobs.survey import Survey
from glimmer_store.jobs.worker import run_worker

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
PLENTY = 120


class Operator:
    """Types commands about one job, and reads what they say as JSON."""

    def __init__(self, backfill: Backfill, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
        self.backfill, self.ledger, self._capsys = backfill, ledger, capsys

    def type(self, *words: str, expect: int = 0) -> str:
        self._capsys.readouterr()
        code = main(["backfill", *words, "--job", str(self.ledger.folder), "-C", str(self.backfill.dataset)])
        said = self._capsys.readouterr()
        assert code == expect, said
        return said.out

    def ask(self, *words: str, expect: int = 0) -> dict[str, object]:
        told: dict[str, object] = json.loads(self.type(*words, "--json", expect=expect))
        return told


async def planned(backfill: Backfill, **settings: object) -> Ledger:
    fields: dict[str, object] = {"retry": Retry(tries=3, base=0.05), "heartbeat": 0.5, **settings}
    _, ledger = await plan(new_job(backfill.dataset, "backfill", ["new"], **fields), backfill.root / "job")
    assert ledger is not None
    return ledger


async def work(ledger: Ledger) -> None:
    with anyio.fail_after(PLENTY):
        await run_worker(ledger.folder)
        await register(ledger.folder)


async def until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(PLENTY):
        while not true():  # another task's work, on disk
            await anyio.sleep(0.02)


def missing(backfill: Backfill, git_annex: str) -> set[str]:
    argv = [git_annex, "findkeys", "--not", "--in", "new"]
    return set(subprocess.run(argv, cwd=backfill.dataset, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.interop
def test_an_operator_follows_a_job_from_its_plan_to_its_end(
    tmp_path: Path, git_annex: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backfill = anyio.run(make_backfill, tmp_path, many(30))
    operator = Operator(backfill, anyio.run(planned, backfill), capsys)

    before = operator.ask("status")
    assert before["job"]["state"] == "accepted"
    assert before["progress"]["states"]["planned"]["keys"] == 30
    lacking = operator.ask("report", "--missing", expect=3)
    assert lacking["missing"] == len(missing(backfill, git_annex)) == 30
    assert lacking["by"]["node"]["(no node)"]["bytes"] == sum(key.size or 0 for key in backfill.keys)

    anyio.run(run_worker, operator.ledger.folder)
    assert operator.ask("status")["job"]["state"] == "processing", "verified, and not registered"
    assert operator.ask("report", "--missing", expect=3)["missing"] == len(missing(backfill, git_annex))
    anyio.run(register, operator.ledger.folder)

    assert operator.ask("report", "--missing")["missing"] == len(missing(backfill, git_annex)) == 0
    files = [str(tmp_path / name) for name in ("job.html", "job.prom")]
    told = operator.ask("report", "--html", files[0], "--metrics", files[1])
    assert told["job"]["state"] == "succeeded"
    assert told["progress"]["percent"] == {"bytes": 100.0, "keys": 100.0, "nodes": 100.0}
    assert told["speed"]["copying"]["keys"] == told["speed"]["verifying"]["keys"] == 30
    assert told["speed"]["methods"] == {"reread": 30}
    assert told["resources"]["dest"]["new"]["bytes-to-come"] == 0
    assert json.loads((operator.ledger.folder / "report.json").read_text()) == told
    assert "# backfill" in (operator.ledger.folder / "report.md").read_text()
    check_metrics(Path(files[1]).read_text(), backfill)
    check_html(Path(files[0]).read_text())
    assert "succeeded" in operator.type("status")
    watched = [json.loads(line) for line in operator.type("status", "--watch", "--json").splitlines()]
    assert [one["job"]["state"] for one in watched] == ["succeeded"]


def check_metrics(text: str, backfill: Backfill) -> None:
    families = {family.name: family for family in text_string_to_metric_families(text)}
    keys = {sample.labels["state"]: sample.value for sample in families["glimmer_store_job_keys"].samples}
    assert keys["registered"] == 30
    assert sum(keys.values()) == 30
    copied = [s for s in families["glimmer_store_job_copied_bytes"].samples if s.labels["role"] == "dest"]
    assert sum(sample.value for sample in copied) == sum(key.size or 0 for key in backfill.keys)
    states = {s.labels["state"]: s.value for s in families["glimmer_store_job_state"].samples}
    assert [state for state, value in states.items() if value] == ["succeeded"]
    assert {s.labels["type"] for family in families.values() for s in family.samples} == {"backfill"}


def check_html(page: str) -> None:
    opened: list[str] = []

    class Balanced(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            names = {name for name, _ in attrs}
            assert not names & {"src", "onclick"}, "a page that needs no network, and runs nothing"
            if tag not in ("meta", "br"):
                opened.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert opened.pop() == tag

    Balanced().feed(page)
    assert opened == []
    assert "registered" in page
    assert "$" not in page.partition("<body>")[2]


@ASYNCIO
@pytest.mark.anyio
async def test_limits_and_pauses_hold_from_the_next_chunk_on(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(bytes(400_000), "a")])
    ledger = await planned(backfill, limits={"bandwidth": "100B/s"})  # more than an hour

    async with anyio.create_task_group() as group:
        group.start_soon(run_worker, ledger.folder)
        await until(lambda: any(True for _ in ledger.holdings()))
        assert Survey(ledger).look().around.state is JobState.PROCESSING
        pause(ledger, reason="backup")
        assert Survey(ledger).look().around.state is JobState.PAUSED
        await until(lambda: not any(True for _ in ledger.holdings()))  # the shard is given back
        assert not any(event.state is State.COPIED for shard in ledger.shards() for event in ledger.events(shard))
        set_limits(ledger, {"bandwidth": "none"})
        resume(ledger)
        await until(lambda: bool(ledger.settled()))
    await register(ledger.folder)

    figures = Survey(ledger).look()
    assert figures.around.state is JobState.SUCCEEDED
    assert figures.retries() == {}, "to be held is no failure"
    assert backfill.holds("new") == set(backfill.keys)


@ASYNCIO
@pytest.mark.anyio
async def test_what_failed_is_explained_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backfill = await make_backfill(tmp_path, many(2))
    address = str(backfill.bare("new"))
    backfill.lie("new", "drop")
    ledger = await planned(backfill)
    await work(ledger)
    key = str(backfill.keys[0])

    def ask(*words: str, expect: int = 0) -> str:
        return Operator(backfill, ledger, capsys).type(*words, expect=expect)

    def in_thread() -> None:
        assert "failed: dest-bad at new" in ask("status", expect=1)
        told = json.loads(ask("explain", key, "--json"))
        assert (told["state"], told["error"]["kind"]) == ("failed", "dest-bad")
        assert told["remedy"].endswith("backfill retry --kind dest-bad")
        assert {proof["verdict"] for proof in told["proofs"]} <= {"missing", "bad"}
        assert [one["state"] for one in told["history"]][-1] == "failed"
        assert "remedy" in ask("explain", key)
        assert "no task of this job" in capsys_error("explain", "SHA256E-s1--0")
        assert json.loads(ask("retry", "--kind", "cold", "--json")) == {"retried": {}}
        ask("retry", expect=2)
        assert json.loads(ask("retry", "--kind", "dest-bad", "--json")) == {"retried": {"dest-bad": 2}}

    def capsys_error(*words: str) -> str:
        capsys.readouterr()
        assert main(["backfill", *words, "--job", str(ledger.folder)]) == 1
        return capsys.readouterr().err

    await anyio.to_thread.run_sync(in_thread)
    spec = ledger.folder / "job.toml"
    spec.write_text(spec.read_text().replace(ledger.spec.dests[0].url, address))
    backfill.address("new", address)
    ledger = Ledger.open(ledger.folder)
    await work(ledger)

    figures = Survey(ledger).look()
    assert figures.around.state is JobState.SUCCEEDED
    assert figures.bad_copies()["new"] >= 2
    assert backfill.holds("new") == set(backfill.keys)
    assert retry(ledger, [FailureKind.DEST_BAD]) == {}


@ASYNCIO
@pytest.mark.anyio
async def test_one_repository_is_paused_and_a_cancelled_job_does_nothing_more(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, many(4))
    ledger = await planned(backfill)

    pause(ledger, places=["new"], reason="disk swap")
    assert set(ControlFile(ledger.folder).read().held) == {backfill.uuids["new"]}
    assert (await run_job(ledger.folder, workers=1)).states == {"planned": 4}
    assert ControlFile(ledger.folder).read().held == {backfill.uuids["new"]: "paused: disk swap"}
    resume(ledger, places=["new"])
    cancel(ledger, reason="wrong place")
    assert (await run_worker(ledger.folder)).copied == 0

    assert Survey(ledger).look().around.state is JobState.CANCELLED
    assert backfill.holds("new") == set()
    with pytest.raises(ConfigError, match="cancelled"):
        resume(ledger)
    with pytest.raises(JobError, match="cancelled"):
        pause(ledger)
    with pytest.raises(JobError, match="nobody"):
        set_limits(ledger, {"bandwidth": "1MB/s"}, place="nobody")


@ASYNCIO
@pytest.mark.anyio
async def test_a_view_that_is_drawn_again_reads_only_what_changed(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, many(6))
    ledger = await planned(backfill)
    survey = Survey(ledger, keep=True)
    assert survey.look().group("planned")[0] == 6
    (shard, *_) = ledger.shards()
    task = next(ledger.tasks(shard))
    with ledger.writer("me") as writer:
        now = survey.look().around.now
        writer.write(shard, [Event(now, "j", task.key, task.dest, State.PLANNED, State.COPIED, 1, "me", size=5)])

        assert survey.look().group("copied")[0] == 1

    fresh = Survey(ledger).look()
    assert survey.look().to_json()["progress"] == fresh.to_json()["progress"]


@ASYNCIO
@pytest.mark.anyio
async def test_a_terminal_is_drawn_by_rich_and_plainly_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await planned(await make_backfill(tmp_path, many(2)))
    survey = Survey(ledger, keep=True)
    console = Console(width=100, height=40, file=io.StringIO(), force_terminal=True)
    console.print(live_drawn.drawn(survey.look()))
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # it is the one above
    assert "accepted" in shown
    assert "workers alive" in shown

    def end_it(seconds: float) -> None:
        cancel(ledger)

    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setitem(sys.modules, "rich.live", None)
    monkeypatch.delitem(sys.modules, "glimmer_store.jobs.live_drawn")
    assert follow(survey, every=1.0, sleep=end_it).around.state is JobState.CANCELLED
    said = capsys.readouterr().out
    assert said.count("\x1b[H\x1b[J") == 2
    assert "accepted" in said
    assert "cancelled" in said


@pytest.mark.interop
def test_nodes_and_safety_are_told_of_a_dataset_with_a_graph(
    tmp_path: Path, own_home: None, git_annex: str, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study"

    def store(*words: str) -> None:
        with contextlib.chdir(study if study.exists() else tmp_path):
            assert main(list(words)) == 0, capsys.readouterr().err

    places = [word for n in range(3) for word in ("--durable", str(tmp_path / f"vault{n}.git"))]
    store("init", "study", "--yes", *places)
    for n in range(2):
        (study / f"scan{n}.nii").write_text(f"scan {n}\n" * 50)
    store("archive", "scan0.nii", "scan1.nii", "--type", "dataset")
    git(tmp_path, "init", "-q", "--bare", "new.git")
    git(tmp_path / "new.git", "annex", "init", "-q", "new")
    git(study, "remote", "add", "new", str(tmp_path / "new.git"))
    git(study, "config", "remote.new.annex-uuid", git(tmp_path / "new.git", "config", "annex.uuid").strip())

    store("backfill", "plan", "--to", "new", "--freeze")
    lacking = json.loads(run_for(capsys, study, "report", "--missing", "--json", expect=3))
    assert lacking["by"]["class"] == {"irreplaceable": {"missing": 2, "bytes": lacking["bytes"], "unproven": 0}}
    assert {name: group["missing"] for name, group in lacking["by"]["node"].items()} == dict.fromkeys(
        ("dataset-scan0", "dataset-scan1"), 1
    )
    before = json.loads(run_for(capsys, study, "report", "--json"))
    assert before["safety"]["objects"]["by-copies"] == {"3": 2}
    assert before["safety"]["irreplaceable-unproven"] == 2
    assert before["progress"]["nodes"] == {"complete": 0, "all": 2}
    store("backfill", "run", "--json")

    after = json.loads(run_for(capsys, study, "report", "--json"))
    assert after["first"].startswith("all 2 irreplaceable objects")
    assert after["safety"]["objects"]["by-copies"] == {"3": 2}, "new is no durable repository of the dataset"
    assert after["progress"]["nodes"] == {"complete": 2, "all": 2}
    assert "every copy is proven" in run_for(capsys, study, "report", "--missing")
    argv = [git_annex, "findkeys", "--not", "--in", "new"]
    assert subprocess.run(argv, cwd=study, capture_output=True, text=True, check=True).stdout == ""


def run_for(capsys: pytest.CaptureFixture[str], study: Path, *words: str, expect: int = 0) -> str:
    capsys.readouterr()
    code = main(["backfill", *words, "-C", str(study)])
    said = capsys.readouterr()
    assert code == expect, said
    return said.out
