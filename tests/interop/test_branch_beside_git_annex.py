"""Our writers and the real git-annex on one repository at the same time: no line is lost, nothing breaks."""

from __future__ import annotations

import json
import os
import random
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
path, uuid, start, together = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
keys = [Key.parse(line) for line in open(path + "/keys").read().split()]
keys = keys[start:] + keys[:start]
with Repository.open(path) as repository:
    for at, key in enumerate(keys):
        repository.branch.set_present(key, uuid, True)
        if at % 5 == 4:
            repository.branch.sync_now()
        if at % together == together - 1:
            repository.branch.commit_now(seconds=300)
    repository.branch.commit_now(seconds=300)
"""

# git gc removes folders in which another git is about to write, and finds packs gone that it had seen.
GIT_RACES = "unable to create temporary file: No such file or directory", "unable to add recent objects"


def run(path: Path, *command: str, given: str = "") -> str:
    done = subprocess.run(command, cwd=path, input=given, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (command, done.stderr, done.stdout[-500:])
    return done.stdout


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "bare.git", bare=True) as repository:
        yield repository


def start_writer(path: str, uuid: UUID, start: int, together: int = 25) -> subprocess.Popen[str]:
    """Records every key as present, from number *start* on, and commits *together* of them at once."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, path, uuid, str(start), str(together)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def present_lines(path: Path, key: Key) -> set[str]:
    shown = run(path, "git", "cat-file", "-p", f"refs/heads/git-annex:{os.fsdecode(location_log(key))}")
    return {line.split()[2] for line in shown.splitlines() if line.split()[1] == "1"}


@pytest.mark.parametrize(
    "count", [400, *(pytest.param(count, marks=pytest.mark.campaign) for count in (2_000, 10_000))]
)
def test_eight_of_ours_and_four_real_ones_lose_no_line(bare: Repository, git_annex: str, count: int) -> None:
    """While ``git annex merge`` and ``git gc`` run again and again."""
    path = Path(bare.path)
    keys = [Key.parse(f"SHA256E-s{size}--{size:064x}.dat") for size in range(count)]
    patience = max(600, count)  # seconds: of a machine that is busy with other things too
    (path / "keys").write_text("\n".join(map(str, keys)))
    writing = threading.Event()
    failures: list[str] = []

    def tried(arguments: list[str], given: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, cwd=path, input=given, capture_output=True, text=True, timeout=patience, check=False
        )

    def real(rounds: Sequence[tuple[list[str], str]], until_done: bool) -> None:
        while rounds:
            for arguments, given in rounds:
                for _ in range(10):
                    done = tried(arguments, given)
                    if not done.returncode or not any(race in done.stderr for race in GIT_RACES):
                        break
                if done.returncode or "recover" in done.stderr:
                    failures.append(f"{arguments}: {done.returncode} {done.stderr}")
            if not until_done or writing.is_set():
                return

    batch = "".join(f"{key} {THEIRS[0]} 1\n" for key in keys)
    urls = "".join(f"{key} http://127.0.0.1/{n}\n" for n, key in enumerate(keys))
    singles = [([git_annex, "setpresentkey", str(key), THEIRS[1], "1"], "") for key in keys[:: count // 40]]
    real_ones = [
        threading.Thread(target=real, daemon=True, args=([([git_annex, "setpresentkey", "--batch"], batch)], False)),
        threading.Thread(target=real, daemon=True, args=([([git_annex, "registerurl", "--batch"], urls)], False)),
        threading.Thread(target=real, daemon=True, args=(singles, False)),
        threading.Thread(target=real, daemon=True, args=([([git_annex, "merge", "--quiet"], "")], True)),
        threading.Thread(target=real, daemon=True, args=([(["git", "gc", "--quiet"], "")], True)),
    ]
    # A commit waits while git-annex commits, which takes the longer the more keys there are: 80 of each are enough.
    together = max(25, count // 80)
    ours = [start_writer(bare.path, uuid, count // 8 * n, together) for n, uuid in enumerate(OURS)]
    for thread in real_ones:
        thread.start()
    errors = [process.communicate(timeout=patience)[1] for process in ours]
    writing.set()
    for thread in real_ones:
        thread.join(timeout=patience)

    assert [process.returncode for process in ours] == [0] * 8, errors
    assert not failures
    run(path, git_annex, "merge", "--quiet")
    bare.branch.merge_now()  # what was taken out by a git-annex whose git died beside git gc is put back
    wanted = {*OURS, THEIRS[0], WEB}
    asked = "".join(f"{key}\n" for key in keys)
    shown = map(json.loads, run(path, git_annex, "whereis", "--json", "--batch-keys", given=asked).splitlines())
    found = {one["key"]: {entry["uuid"] for entry in (*one["whereis"], *one["untrusted"])} for one in shown}
    missing = {}
    for n, key in enumerate(keys):
        known = set(bare.branch.locations(key).present)
        assert known == found[str(key)]
        if lost := (wanted | ({THEIRS[1]} if n % (count // 40) == 0 else set())) - known:
            missing[str(key)] = lost
    assert not missing
    assert "error" not in run(path, "git", "fsck", "--strict", "--no-dangling")
    assert not os.listdir(path / "annex/journal")
    assert not list((path / "annex/annexpy/spool").iterdir())
    assert bare.branch.read(location_log(KEYS[7])[:8] + key_file(KEYS[7]) + b".log.web")


def test_the_same_records_give_the_same_bytes(tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(11)
    run(tmp_path, "git", "init", "-q", "--bare", "real.git")
    run(tmp_path / "real.git", git_annex, "init", "-q")
    keys = [*KEYS[:25], Key.parse("WORM-s3-m1--a%b&c:d_e.txt"), Key.parse("URL--http://x/y")]
    state: dict[tuple[Key, UUID], bool] = {}
    Repository.init(tmp_path / "ours.git", bare=True).close()
    for clock in ("1000", "1000", "1500", "900", "2000"):  # the clock goes back as well
        monkeypatch.setenv("GIT_ANNEX_VECTOR_CLOCK", clock)
        steps: list[tuple[Key, UUID, bool]] = []
        for _ in range(150):
            line = dice.choice(keys), dice.choice(OURS[:3])
            state[line] = not state.get(line, dice.random() < 0.4)
            steps.append((*line, state[line]))
        given = "".join(f"{key} {uuid} {present:d}\n" for key, uuid, present in steps)
        run(tmp_path / "real.git", git_annex, "setpresentkey", "--batch", given=given)
        run(tmp_path / "real.git", git_annex, "merge", "-q")
        with Repository.open(tmp_path / "ours.git") as ours:
            for number, (key, uuid, present) in enumerate(steps):
                ours.branch.set_present(key, uuid, present)
                if number % 40 == 0:
                    ours.branch.sync_now()
                if number % 70 == 0:
                    ours.branch.commit_now()
            ours.branch.commit_now()
        listed = [
            [line for line in run(repository, "git", "ls-tree", "-r", "git-annex").splitlines() if "/" in line]
            for repository in (tmp_path / "ours.git", tmp_path / "real.git")
        ]
        assert listed[0] == listed[1]
        assert len(listed[0]) > 20


def test_a_long_running_git_annex_and_we_keep_each_others_lines(bare: Repository, git_annex: str) -> None:
    with subprocess.Popen(
        [git_annex, "setpresentkey", "--batch"], cwd=bare.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as theirs:
        assert theirs.stdin is not None
        assert theirs.stdout is not None
        for number, key in enumerate(KEYS[:40]):
            for uuid in THEIRS[:2]:
                theirs.stdin.write(f"{key} {uuid} 1\n")
                theirs.stdin.flush()
                assert "ok" in theirs.stdout.readline()
                bare.branch.set_present(key, OURS[0 if uuid == THEIRS[0] else 1], True)
                if number % 3:
                    bare.branch.commit_now()
        theirs.stdin.close()
    bare.branch.commit_now()
    run(Path(bare.path), git_annex, "merge", "-q")

    for key in KEYS[:40]:
        assert present_lines(Path(bare.path), key) == {*OURS[:2], *THEIRS[:2]}


def test_records_of_git_annex_are_seen_in_its_journal_and_in_the_branch(bare: Repository, git_annex: str) -> None:
    path = Path(bare.path)
    run(path, git_annex, "setpresentkey", str(KEYS[0]), THEIRS[0], "1")
    assert list((path / "annex/journal").iterdir())
    assert bare.branch.locations(KEYS[0]).present == [THEIRS[0]]
    assert dict(bare.branch.locations_many(KEYS[:2]))[KEYS[0]].present == [THEIRS[0]]

    run(path, git_annex, "merge", "-q")
    assert bare.branch.locations(KEYS[0]).present == [THEIRS[0]]
    bare.branch.set_present(KEYS[0], OURS[0], True)
    bare.branch.commit_now()
    assert OURS[0] in run(path, git_annex, "whereis", "--key", str(KEYS[0]), "--json")
    assert run(path, git_annex, "readpresentkey", str(KEYS[0]), OURS[0]) == ""


def test_gc_and_packing_while_we_write_lose_nothing(bare: Repository) -> None:
    path = Path(bare.path)
    (path / "keys").write_text("\n".join(map(str, KEYS)))
    ours = [start_writer(bare.path, uuid, 80 * n) for n, uuid in enumerate(OURS[:4])]
    rounds = 0
    while any(process.poll() is None for process in ours):
        run(path, "git", "gc", "-q", "--prune=now")
        run(path, "git", "pack-refs", "--all", "--prune")
        rounds += 1
    errors = [process.communicate(timeout=300)[1] for process in ours]

    assert [process.returncode for process in ours] == [0] * 4, errors
    assert rounds > 2
    assert all(set(log.present) == set(OURS[:4]) for _, log in bare.branch.locations_many(KEYS))
    run(path, "git", "fsck", "--strict", "--no-dangling")
    assert not list((path / "objects/pack").glob("*.keep"))


def test_with_pidlock_git_annex_and_we_take_turns(bare: Repository, git_annex: str) -> None:
    path = Path(bare.path)
    (path / "keys").write_text("\n".join(map(str, KEYS[:60])))
    bare.config.set("annex.pidlock", "true")
    ours = [start_writer(bare.path, uuid, 20 * n) for n, uuid in enumerate(OURS[:3])]
    for key in KEYS[:12]:
        run(path, git_annex, "setpresentkey", str(key), THEIRS[0], "1")
    errors = [process.communicate(timeout=300)[1] for process in ours]
    run(path, git_annex, "merge", "-q")

    assert [process.returncode for process in ours] == [0] * 3, errors
    for number, key in enumerate(KEYS[:60]):
        assert present_lines(path, key) == {*OURS[:3], *(THEIRS[:1] if number < 12 else ())}
    assert not (path / "annex/pidlock").exists()
