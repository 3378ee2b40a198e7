"""Our writers and the real git-annex on one repository at the same time: no line is lost, nothing breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.keys.layout import key_file, location_log
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID, WEB

pytestmark = pytest.mark.interop

KEYS = [Key.parse(f"SHA256E-s{size}--{size:064x}.dat") for size in range(400)]
OURS = [UUID(f"aaaaaaaa-0000-4000-8000-{n:012x}") for n in range(8)]
THEIRS = [UUID(f"bbbbbbbb-0000-4000-8000-{n:012x}") for n in range(3)]

WRITER = """
import sys
from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
path, uuid, start = sys.argv[1], sys.argv[2], int(sys.argv[3])
keys = [Key.parse(line) for line in open(path + "/keys").read().split()]
keys = keys[start:] + keys[:start]
with Repository.open(path) as repository:
    for at, key in enumerate(keys):
        repository.branch.set_present(key, uuid, True)
        if at % 5 == 4:
            repository.branch.sync_now()
        if at % 25 == 24:
            repository.branch.commit_now(seconds=60)
    repository.branch.commit_now(seconds=60)
"""


def run(path: Path, *command: str, given: str = "") -> str:
    done = subprocess.run(command, cwd=path, input=given, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (command, done.stderr, done.stdout[-500:])
    return done.stdout


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "bare.git", bare=True) as repository:
        yield repository


def start_writer(path: str, uuid: UUID, start: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, path, uuid, str(start)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def present_lines(path: Path, key: Key) -> set[str]:
    shown = run(path, "git", "cat-file", "-p", f"refs/heads/git-annex:{os.fsdecode(location_log(key))}")
    return {line.split()[2] for line in shown.splitlines() if line.split()[1] == "1"}


def test_eight_of_ours_and_four_real_ones_lose_no_line(bare: Repository, git_annex: str) -> None:
    path = Path(bare.path)
    (path / "keys").write_text("\n".join(map(str, KEYS)))
    writing = threading.Event()
    failures: list[str] = []

    def real(rounds: Sequence[tuple[list[str], str]], until_done: bool) -> None:
        while rounds:
            for arguments, given in rounds:
                done = subprocess.run(
                    [git_annex, *arguments],
                    cwd=path,
                    input=given,
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                if done.returncode or "recover" in done.stderr:
                    failures.append(f"{arguments}: {done.returncode} {done.stderr}")
            if not until_done or writing.is_set():
                return

    batch = "".join(f"{key} {THEIRS[0]} 1\n" for key in KEYS)
    urls = "".join(f"{key} http://127.0.0.1/{n}\n" for n, key in enumerate(KEYS))
    singles = [(["setpresentkey", str(key), THEIRS[1], "1"], "") for key in KEYS[::10]]
    real_ones = [
        threading.Thread(target=real, daemon=True, args=([(["setpresentkey", "--batch"], batch)], False)),
        threading.Thread(target=real, daemon=True, args=([(["registerurl", "--batch"], urls)], False)),
        threading.Thread(target=real, daemon=True, args=(singles, False)),
        threading.Thread(target=real, daemon=True, args=([(["merge", "--quiet"], "")], True)),
    ]
    ours = [start_writer(bare.path, uuid, 50 * n) for n, uuid in enumerate(OURS)]
    for thread in real_ones:
        thread.start()
    errors = [process.communicate(timeout=120)[1] for process in ours]
    writing.set()
    for thread in real_ones:
        thread.join(timeout=120)

    assert [process.returncode for process in ours] == [0] * 8, errors
    assert not failures
    run(path, git_annex, "merge", "--quiet")
    missing = {}
    for n, key in enumerate(KEYS):
        wanted = {*OURS, THEIRS[0], WEB} | ({THEIRS[1]} if n % 10 == 0 else set())
        if lost := wanted - present_lines(path, key):
            missing[str(key)] = lost
    assert not missing
    assert "error" not in run(path, "git", "fsck", "--strict", "--no-dangling")
    asked = "".join(f"{key}\n" for key in KEYS)
    for line in run(path, git_annex, "whereis", "--json", "--batch-keys", given=asked).splitlines():
        shown = json.loads(line)
        known = {entry["uuid"] for entry in (*shown["whereis"], *shown["untrusted"])}
        assert known == set(bare.branch.locations(Key.parse(shown["key"])).present)
        assert known >= {*OURS, THEIRS[0], WEB}
    assert not os.listdir(path / "annex/journal")
    assert not list((path / "annex/annexpy/spool").iterdir())
    assert bare.branch.read(location_log(KEYS[7])[:8] + key_file(KEYS[7]) + b".log.web")
