"""Recordings of how git-annex-shell was started at a gateway: annexpy-shell answers the same, in the same words.

Where it does not, ``DEVIATIONS`` says why, and so does docs/deviations.md.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from recordings import TRANSCRIPTS, Deviation, deviation, lay_object, rows

from annexpy.actions import cluster as clusters
from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.server.shell import main
from annexpy.uuids import UUID

pytestmark = pytest.mark.transcripts

FOUND = sorted([*TRANSCRIPTS.glob("gw-*.jsonl"), *TRANSCRIPTS.glob("shell-*.jsonl")])
DEVIATIONS = (
    Deviation(
        r"(notifychanges|recvkey|sendkey|dropkey|gcryptsetup) (.|\n)*", r"(.|\n)*", r"1\n[^\n]*unrecognized(.|\n)*",
        "the list of commands in error messages is shorter",
    ),
)  # fmt: skip
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


@dataclass
class Started:
    """A run of the program.

    Attributes:
        argv: Its words.
        said, heard: What went in and came out.
        told: What was said on stderr.
        code: Exit code.
    """

    argv: list[str]
    said: str = ""
    heard: str = ""
    told: str = ""
    code: int = 0

    @property
    def path(self) -> str:
        return self.argv[1]

    @property
    def own(self) -> str | None:
        """UUID of the repository, as far as that was said; "" if it has none."""
        told = re.search(f"annex.uuid=({_UUID}|)\n|but found UUID ({_UUID})", self.heard + self.told)
        if told is not None:
            return told[1] or told[2] or ""
        greeted = re.match(f"AUTH-SUCCESS ({_UUID})", self.heard)
        return greeted[1] if greeted and "--uuid" not in self.argv else None

    @property
    def proxied(self) -> str:
        """Of what it is a proxy for; "" if nothing."""
        return self.argv[-1] if "Cannot proxy" in self.told else ""

    def contents(self) -> Iterator[Key]:
        """What it has."""
        if self.argv[0] == "inannex" and self.code == 0:
            yield Key.parse(self.argv[2])
        if "\nSUCCESS\n" in self.heard:
            yield from (Key.parse(one) for one in re.findall("CHECKPRESENT (.+)\n", self.said))


def started(lines: Iterable[dict]) -> list[Started]:
    found: list[Started] = []
    for row in lines:
        comment = row.get("comment", "")
        match row["dir"]:
            case "exec":
                found.append(Started(comment.split()[1:]))
            case "C>S":
                found[-1].said += row["text"]
            case "S>C":
                found[-1].heard += row["text"]
            case "stderr":
                found[-1].told += row["text"]
            case "exit":
                found[-1].code = int(comment.removeprefix("rc="))
            case "note":
                *argv, code = comment.split()
                heard, _, told = row["text"].partition("||")
                found.append(Started(argv, heard=heard, told=told, code=int(code.removeprefix("rc="))))
    return found


def make(folder: Path, runs: list[Started]) -> None:
    """The repositories, as far as they were seen."""
    for place in {run.path for run in runs}:
        own = [run for run in runs if run.path == place]
        uuid = next((run.own for run in own if run.own is not None), str(UUID(f"{'0' * 8}-0000-4000-8000-{'0' * 12}")))
        path = folder / Path(place).name
        if not uuid:
            subprocess.run(["git", "init", "-q", str(path)], check=True)
            continue
        with Repository.init(path, bare=True, uuid=UUID(uuid)) as made:
            for number, node in enumerate({run.proxied for run in own} - {""}):
                made.config.set(f"remote.n{number}.url", str(folder / f"n{number}.git"))
                made.config.set(f"remote.n{number}.annex-uuid", node)
                made.config.set(f"remote.n{number}.annex-proxy", "true")
            anyio.run(clusters.update, made)
            for key in (key for run in own for key in run.contents()):
                lay_object(made, key)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_it_is_started_at_a_gateway_as_git_annex_shell_is(
    tmp_path: Path, path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = started(rows(path))
    make(tmp_path, runs)
    for run in runs:
        argv = [run.argv[0], str(tmp_path / Path(run.path).name), *run.argv[2:]]
        if run.said:
            command = [sys.executable, "-m", "annexpy.server.shell", *argv]
            done = subprocess.run(
                command, input=run.said, capture_output=True, text=True, timeout=60, check=False,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip
            code, heard, told = done.returncode, done.stdout, done.stderr
        else:
            code = main(argv)
            heard, told = capfd.readouterr()
        ours, theirs = f"{code}\n{heard}{told}", f"{run.code}\n{run.heard}{run.told}"
        if ours != theirs:
            known = deviation(" ".join(run.argv).encode(), theirs.encode(), ours.encode(), DEVIATIONS)
            assert known, (run, ours)


@pytest.mark.parametrize("known", DEVIATIONS, ids=lambda known: known.why[:40])
def test_every_deviation_is_in_the_manual(known: Deviation) -> None:
    assert known.why in (TRANSCRIPTS.parents[1] / "docs" / "deviations.md").read_text()
