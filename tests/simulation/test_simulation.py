"""The short form of the simulation: some hundred schedules, every interleaving of two drops, every planted mistake."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
from trio._core import _run

ROOT = Path(__file__).parents[2]
SHORT = 600
"""A minute of both cores. CI runs more of them when the tests are done, ``--campaign`` eight minutes by the clock."""
SEEDS_OF_A_MUTANT = 400
pytestmark = pytest.mark.slow


def simulate(*arguments: str, hash_seed: str = "0", check: bool = True) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert not check or done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_nothing_is_lost_in_any_schedule_and_much_happens_in_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    how_much = ("--minutes", "8") if request.config.getoption("--campaign") else ("--seeds", str(SHORT))
    report = tmp_path / "report.json"

    shown = simulate(*how_much, "--json", str(report))

    summary = json.loads(report.read_text())
    with capsys.disabled():
        print(f"\n{shown}")
    assert summary["ok"]
    assert summary["violations"] == {}
    assert summary["schedules"] >= SHORT
    assert set(summary["faults"]) >= set(importlib.import_module("tests.simulation.campaign").FAULTS)
    assert summary["totals"]["late copies"]
    assert summary["totals"]["attested bad"]


def test_no_interleaving_of_two_drops_leaves_too_few_copies(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    shown = simulate("--exhaustive", *(["--long"] if request.config.getoption("--campaign") else []))

    with capsys.disabled():
        print(f"\n{shown}")
    assert "0 settings with violations" in shown


def test_every_planted_mistake_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    shown = simulate("--mutants", "--limit", str(SEEDS_OF_A_MUTANT))

    with capsys.disabled():
        print(f"\n{shown}")
    table = [line for line in shown.splitlines() if line.startswith("| ")]
    assert len(table) - 1 >= 20
    assert "NOBODY" not in shown


def test_a_seed_is_the_same_in_every_process() -> None:
    traces = {simulate("--seed", "12", hash_seed=hash_seed) for hash_seed in ("0", "77")}
    assert len(traces) == 1
    assert "digest" in traces.pop()


def test_a_run_in_which_little_happens_fails() -> None:
    campaign = importlib.import_module("tests.simulation.campaign")
    world = importlib.import_module("tests.simulation.world")
    summary = campaign.Summary()
    for seed in range(100):
        summary.take(world.Report(seed, counts={"succeeded": 12, "puts": 11, "drops": 1}, faults={"kill": 1}))
    summary.took("now", 1.0, 100)
    assert not summary.violations
    assert not summary.ok
    assert [text.split()[1] for text in summary.too_little] == ["drops", "removed"]


def test_a_campaign_goes_on_where_it_was_left(tmp_path: Path) -> None:
    report, kept = tmp_path / "report.json", importlib.import_module("tests.simulation.campaign").kept_seeds()
    for schedules in (3, 5):
        more = "3" if schedules == 3 else "2"
        simulate("--jobs", "1", "--seeds", more, "--first", "70", "--json", str(report), "--go-on", check=False)

        summary = json.loads(report.read_text())
        assert summary["next"] == 70 + schedules
        assert summary["schedules"] == schedules + len(kept)
        assert summary["violations"] == {}


def test_a_campaign_that_is_told_to_end_says_what_it_did(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.simulation", "--jobs", "1", "--minutes", "60", "--json", str(report)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as campaign:
        assert campaign.stdout is not None
        assert "0 with violations" in campaign.stdout.readline()
        campaign.terminate()
        campaign.communicate()

    summary = json.loads(report.read_text())
    assert summary["schedules"] == sum(summary["scenes"].values())
    assert summary["runs"][-1]["schedules"] == summary["schedules"]
    assert 0 < summary["schedules"] < 100


def test_a_schedule_that_breaks_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    run = importlib.import_module("tests.simulation.run")

    class Broken:
        def __init__(self, *_: object, **__: object) -> None:
            raise LookupError("nowhere")

    monkeypatch.setattr(run, "World", Broken)
    report = run.run_schedule(7)
    assert report.seed == 7
    assert "nowhere" in report.violations[0]


def test_a_kind_of_fault_that_never_happens_is_missed() -> None:
    campaign = importlib.import_module("tests.simulation.campaign")
    world = importlib.import_module("tests.simulation.world")
    summary = campaign.Summary()
    counts = dict.fromkeys(("succeeded", "puts", "drops", "removed"), 20)
    for seed in range(campaign._MANY):
        summary.take(world.Report(seed, counts=counts, faults=dict.fromkeys(campaign.FAULTS[1:], 1)))
    summary.took("now", 1.0, campaign._MANY)
    assert summary.too_little == ["0 kill in 200 schedules"]
    assert not summary.ok


def test_the_scheduler_can_still_be_pinned() -> None:
    """Names of trio that are not public: here is where it shows when they move."""
    assert callable(_run._hypothesis_plugin_setup)
    assert callable(_run._r.shuffle)
    assert {"queue", "idempotent_queue"} <= {field.name for field in attrs.fields(_run.EntryQueue)}
