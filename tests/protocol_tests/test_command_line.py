"""``python -m protocol_tests``, as a stranger runs it: against broken servers, and with wrong words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest
from broken_shell import FAULTS

from protocol_tests import place

ROOT = Path(__file__).parents[2]
BROKEN = Path(__file__).with_name("broken_shell.py")
SHELL = f"{sys.executable} -c 'from annexpy.server.shell import main; import sys; sys.exit(main())'"
WORDS = "p2pstdio {path} {client} --uuid {uuid}"


def harness(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "protocol_tests", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(("fault", "requirement"), FAULTS.items(), ids=FAULTS)
def test_a_broken_server_exits_1_and_is_named_with_a_transcript(fault: str, requirement: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    began = time.monotonic()

    done = harness(
        *("--command", f"{sys.executable} -S {BROKEN} '{fault}' {SHELL} {WORDS}", "--versions", "4"),
        *("--only", requirement, "--deadline", "3", "--json", report, "--junit", tmp_path / "report.xml"),
        *("--transcripts", tmp_path / "talks"),
    )

    assert done.returncode == 1, done.stdout + done.stderr
    (only,) = json.loads(report.read_text())["requirements"]
    assert only["id"] == requirement
    assert only["status"] == "fail"
    assert only["reason"]
    assert only["transcript"]
    assert (tmp_path / "talks" / f"{requirement}.jsonl").read_text().count("\n") == len(only["transcript"])
    suite = ElementTree.parse(tmp_path / "report.xml").getroot()
    assert suite.get("failures") == "1"
    assert time.monotonic() - began < 60


def test_the_command_that_makes_a_repository_ready_is_run_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uuid = "11111111-1111-4111-8111-111111111111"

    assert place.fresh(tmp_path / "it.git", Random(1), f"git config annex.uuid {uuid}").uuid == uuid


def test_a_server_that_hangs_does_not_hang_the_harness(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    began = time.monotonic()

    done = harness(
        "--command", f"{sys.executable} -S {BROKEN} 'says nothing' true {WORDS}", "--deadline", "1", "--json", report
    )

    assert done.returncode == 1
    statuses = {one["status"] for one in json.loads(report.read_text())["requirements"]}
    assert statuses == {"fail", "skip"}
    assert time.monotonic() - began < 60


def test_a_server_that_is_right_exits_0(tmp_path: Path) -> None:
    report = tmp_path / "report.json"

    done = harness("--command", f"{SHELL} {WORDS}", "--versions", "3-4", "--only", "P-02,P-12", "--json", report)

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())["requirements"]
    assert {one["status"] for one in found} == {"pass"}
    assert all(one["transcript"] and one["text"] and one["document"] for one in found)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--command",),
        ("--command", "git-annex-shell p2pstdio"),
        ("--command", "x {path}", "--unix", "y"),
        ("--command", "x {path}", "--versions", "0-9"),
        ("--command", "x {path}", "--versions", "4-0"),
        ("--command", "x {path}", "--deadline", "0"),
        ("--command", "x {path}", "--role", "root"),
        ("--command", "x {path} '"),
        ("--command", "x {path}", "--init", "false"),
        ("--command", "x {path}", "--known", "nobody"),
        ("--command", "x {path}", "--only", "Q-1"),
        ("--command", "x {path}", "--json", "/nowhere/at/all.json"),
        ("--http", "http://127.0.0.1/"),
        ("--http", "http://127.0.0.1/git-annex/x", "--ca", "/nowhere/at/all.pem"),
        ("--command", "x {path}", "--http-server", "y {port}"),
        ("--ssh", "host"),
        ("--nonsense",),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(words: tuple[str, ...]) -> None:
    done = harness(*words)

    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr
    assert "Traceback" not in done.stderr
