"""``kill -9`` of real ``annexpy`` and ``annexpy-shell`` processes at their file operations, with strace.

Afterwards there is nothing or the whole content; what was acknowledged is there and recorded; the record speaks of
nothing that is not there; and the same command again completes. (tests/crash/test_kill_sweep.py does this to the
repository alone, at every system call; here it is the commands as they are run.)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from places import OURS, Place, content_of, key_of, over_pipe, remote_at

from annexpy.actions.destination import partial_name
from annexpy.actions.put import put
from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop

CONTENT = content_of(1, 2_500_000)
KEY = key_of(CONTENT)
MANY = [content_of(10 + number, 300) for number in range(40)]
KEYS = [key_of(content) for content in MANY]
MOST = 300


def annexpy(*words: object) -> tuple[str, ...]:
    return (sys.executable, "-m", "annexpy.cli.app", *map(str, words))


def killed_at(name: str, number: int) -> tuple[str, ...]:
    """Before a command: each of its threads is killed, and it with them, at its *number*-th call of *name*."""
    return (
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        f"trace={name}",
        "-e",
        f"inject={name}:signal=KILL:when={number}",
    )


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | dict(OURS),
        stdin=subprocess.DEVNULL,
    )


@dataclass(frozen=True)
class Try:
    """One process in a fresh folder.

    Attributes:
        done: It came to its end before the kill.
        told: It said that the content is stored; or of which of many it said that it is done.
    """

    done: bool
    told: bool | set[Key]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert shutil.which("strace"), "strace is not installed: apt install strace"
    folder = tmp_path_factory.mktemp("template")
    Place.make(folder / "empty.git")
    Place.make(folder / "full.git", [CONTENT])
    (folder / "file").write_bytes(CONTENT)
    for name in ("many.git", "spare.git"):
        Place.make(folder / name, MANY)
    return folder


def put_by_command(folder: Path, prefix: tuple[str, ...] = ()) -> Try:
    done = run(*prefix, *annexpy("put", "--key", KEY, folder / "empty.git", folder / "file"))
    return Try(done.returncode == 0, "ok" in done.stdout)


def put_through_shell(folder: Path, prefix: tuple[str, ...] = ()) -> Try:
    """The client lives; the server is killed."""

    status = folder / "status"
    noting = ("sh", "-c", '"$@"; echo $? >"$0"', str(status), *prefix)

    async def work() -> bool:
        place = Place(folder / "empty.git")
        async with remote_at(over_pipe(place, prefix=noting), place, "shell") as remote:
            try:
                return place.uuid in (await put(remote, KEY, CONTENT)).copies
            except AnnexError:
                return False

    # The shell commits what it recorded when its client has left, so it may have been killed after it answered.
    told = anyio.run(work)
    return Try(status.read_text() == "0\n", told)


def get_by_command(folder: Path, prefix: tuple[str, ...] = ()) -> Try:
    done = run(*prefix, *annexpy("get", "-o", folder / "got", folder / "full.git", KEY))
    return Try(done.returncode == 0, "ok" in done.stdout)


def check_store(folder: Path, told: bool) -> None:
    place = Place(folder / "empty.git")
    recorded = place.uuid in place.logged([KEY])[KEY]
    if place.holds(KEY, CONTENT):
        assert recorded or not told, "acknowledged and not recorded"
    else:
        assert not told, "acknowledged and lost"
        assert not recorded, "recorded and not there"


def check_stored(folder: Path) -> None:
    place = Place(folder / "empty.git")
    assert place.holds(KEY, CONTENT)
    assert place.logged([KEY])[KEY] == {place.uuid}
    assert place.whereis([KEY])[KEY] == {place.uuid}
    assert not place.partial(KEY).exists()
    place.git("fsck", "--strict", "--no-dangling")
    assert "failed" not in place.git("annex", "fsck", "--all", "--quiet")


def check_file(folder: Path, told: bool) -> None:
    file = folder / "got"
    assert file.read_bytes() == CONTENT if file.exists() else not told


def check_got(folder: Path) -> None:
    assert (folder / "got").read_bytes() == CONTENT
    assert not (folder / os.fsdecode(partial_name(KEY))).exists()


def told_keys(said: str) -> set[Key]:
    """Those of which a whole line says that it is done."""
    lines = [json.loads(line) for line in said.splitlines(keepends=True) if line.endswith("\n")]
    return {Key.parse(line["key"]) for line in lines if line["success"]}


def copy_many(folder: Path, prefix: tuple[str, ...] = ()) -> Try:
    """Some at once, with one write of their records."""
    places = folder / "many.git", folder / "empty.git"
    done = run(*prefix, *annexpy("--json", "--durability", "fast", "copy", *places, *KEYS))
    return Try(done.returncode == 0, told_keys(done.stdout))


def drop_many(folder: Path, prefix: tuple[str, ...] = ()) -> Try:
    done = run(*prefix, *annexpy("--json", "drop", "--other", folder / "spare.git", folder / "many.git", *KEYS))
    return Try(done.returncode == 0, told_keys(done.stdout))


def held_and_logged(place: Place) -> tuple[set[Key], set[Key]]:
    held = {key for key, content in zip(KEYS, MANY, strict=True) if place.holds(key, content)}
    return held, {key for key, holders in place.logged(KEYS).items() if place.uuid in holders}


def check_copies(folder: Path, told: set[Key]) -> None:
    held, logged = held_and_logged(Place(folder / "empty.git"))
    assert told <= held, "acknowledged and lost"
    assert told <= logged, "acknowledged and not recorded"
    assert logged <= held, "recorded and not there"
    assert held_and_logged(Place(folder / "many.git")) == (set(KEYS), set(KEYS))


def check_copied(folder: Path) -> None:
    place = Place(folder / "empty.git")
    assert held_and_logged(place) == (set(KEYS), set(KEYS))
    assert "failed" not in place.git("annex", "fsck", "--all", "--quiet")


def check_drops(folder: Path, told: set[Key]) -> None:
    held, logged = held_and_logged(Place(folder / "many.git"))
    assert not told & held, "said to be gone and still there"
    assert logged <= held, "recorded and not there"
    assert held_and_logged(Place(folder / "spare.git"))[0] == set(KEYS), "the last copy is gone"


def check_dropped(folder: Path) -> None:
    assert held_and_logged(Place(folder / "many.git")) == (set(), set())
    with Repository.open(folder / "spare.git") as spare:
        assert all(spare.content.remove(key) for key in KEYS)  # no lock keeps them


@dataclass(frozen=True)
class Scenario:
    attempt: Callable[..., Try]
    after_kill: Callable[..., None]
    after_retry: Callable[[Path], None]


SCENARIOS = {
    "put": Scenario(put_by_command, check_store, check_stored),
    "shell": Scenario(put_through_shell, check_store, check_stored),
    "get": Scenario(get_by_command, check_file, check_got),
    "copy": Scenario(copy_many, check_copies, check_copied),
    "drop": Scenario(drop_many, check_drops, check_dropped),
}


def sweep(scenario: Scenario, template: Path, work: Path, name: str, numbers: Callable[[int], int]) -> int:
    """Kill at the calls of *name* with the numbers 1, 2 … of *numbers*; how many kills there were."""

    def one(number: int) -> bool:
        folder = work / f"{name}{number}"
        shutil.copytree(template, folder, symlinks=True)
        tried = scenario.attempt(folder, killed_at(name, number))
        scenario.after_kill(folder, tried.told)
        if not tried.done:
            again = scenario.attempt(folder)
            assert again.done
            assert again.told
        scenario.after_retry(folder)
        shutil.rmtree(folder)
        return not tried.done

    kills = 0
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, MOST, 2):
            killed = list(pool.map(one, map(numbers, range(start, start + 2))))
            kills += sum(killed)
            if not any(killed):
                return kills
    raise AssertionError(f"more than {MOST} calls of {name}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "name"),
    [
        *(("put", name) for name in ("renameat", "fsync", "unlinkat", "write")),
        *(("shell", name) for name in ("renameat", "fsync", "write")),
        ("get", "write"),
    ],
)
def test_what_is_killed_left_nothing_or_the_whole_and_can_be_run_again(
    scenario: str, name: str, template: Path, tmp_path: Path, git_annex: str
) -> None:
    assert sweep(SCENARIOS[scenario], template, tmp_path, name, lambda n: n + 1 if n < 4 else 2 * n - 2) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "name"), [("copy", "renameat"), ("copy", "write"), ("drop", "unlinkat"), ("drop", "write")]
)
def test_many_at_once_that_are_killed_left_each_as_the_records_say(
    scenario: str, name: str, template: Path, tmp_path: Path, git_annex: str
) -> None:
    assert sweep(SCENARIOS[scenario], template, tmp_path, name, lambda n: n + 1 if n < 3 else 29 * n - 83) > 0


def spread(scenario: Scenario, template: Path, work: Path, name: str) -> Callable[[int], int]:
    """Numbers of calls of *name*, from the first that has to do with what a kill may spoil to the last.

    Starting Python opens and closes hundreds of files before. Where there are too many calls, because forty keys need
    the same ones, every second or third.
    """
    folder, calls = work / "traced", work / "calls"
    shutil.copytree(template, folder, symlinks=True)
    assert scenario.attempt(folder, ("strace", "-f", "-qq", "-y", "-o", str(calls), "-e", f"trace={name}")).done
    made: Counter[str] = Counter()
    first = 0
    for line in calls.read_text(errors="replace").splitlines():
        thread, call = line.split(maxsplit=1)
        if call.startswith(f"{name}("):
            made[thread] += 1
            if not first and str(folder) in line:
                first = made[thread]
    shutil.rmtree(folder)
    step = 1 + (max(made.values(), default=0) - first) // (MOST - 50)
    return lambda number: max(first, 1) + number * step


@pytest.mark.campaign
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    "name",
    ["openat", "write", "mkdirat", "renameat", "unlinkat", "linkat", "fchmod", "fsync", "syncfs", "close", "fcntl"],
)
def test_every_kill_point_of_the_commands(scenario: str, name: str, template: Path, tmp_path: Path) -> None:
    numbers = spread(SCENARIOS[scenario], template, tmp_path, name)
    print(scenario, name, sweep(SCENARIOS[scenario], template, tmp_path, name, numbers), "from", numbers(0))
