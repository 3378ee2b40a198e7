"""The short form of the fuzz campaign, and that the campaign finds planted faults."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def fuzz(report: Path, *options: str) -> tuple[int, list[dict[str, object]]]:
    command = [sys.executable, "-m", "tests.fuzz", "--json", str(report), *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert report.exists(), done.stderr
    return done.returncode, json.loads(report.read_text())["parsers"]


def test_no_parser_breaks_hangs_or_keeps_memory(tmp_path: Path) -> None:
    status, parsers = fuzz(tmp_path / "report.json", "--inputs", "1000")

    assert [parser for parser in parsers if parser["problems"]] == []
    assert status == 0
    assert len(parsers) > 50
    assert {parser["inputs"] for parser in parsers} == {1000}


def test_planted_faults_are_found(tmp_path: Path) -> None:
    status, parsers = fuzz(tmp_path / "report.json", "--inputs", "1500", "--planted")

    found = {parser["name"]: parser["problems"][0]["what"] for parser in parsers if parser["problems"]}
    assert status == 1
    assert found["breaks"].startswith("breaks with ValueError")
    assert found["hangs"] == "hangs"
    assert found["keeps"].startswith("keeps ")
    assert found["takes_much"].startswith("takes ")


def test_a_campaign_goes_on_where_it_was_left(tmp_path: Path) -> None:
    for inputs in ("1000", "3000"):
        status, parsers = fuzz(tmp_path / "report.json", "--inputs", inputs, "--only", "HTTP*")

        assert status == 0
        assert {parser["inputs"] for parser in parsers} == {int(inputs)}
    assert {parser["rounds"] for parser in parsers} == {2}
