"""git-annex and annexpy through a real OpenSSH server, as client and as server of each other, step by step.

After every step the disks are the truth. Each repository's own line has to fit at once, and after the client's sync
every reader of every branch has to say the same: ours, and the real ``git annex whereis``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from places import OURS, ROOT, Place, content_of

from annexpy.keys.key import Key

pytestmark = pytest.mark.interop

CONTENTS = {
    name: content_of(number, size) for number, (name, size) in enumerate({"a": 10, "b": 3_000, "c": 700_000}.items())
}


# -- two repositories and a wire --------------------------------------------------------------------------------------


@pytest.fixture
def ssh(sshd, monkeypatch: pytest.MonkeyPatch) -> str:
    """The host; git, git-annex and annexpy all reach it with the system's ssh."""
    monkeypatch.setenv("GIT_SSH_COMMAND", f"ssh -F {sshd.config}")
    monkeypatch.setenv("GIT_ANNEX_USE_GIT_SSH", "1")
    return str(sshd.host)


@pytest.fixture(scope="module")
def our_shell(tmp_path_factory: pytest.TempPathFactory) -> str:
    shell = tmp_path_factory.mktemp("shell") / "annexpy-shell"
    shell.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from annexpy.server.shell import main\nsys.exit(main())\n"
    )
    shell.chmod(0o755)
    return str(shell)


def git(path: Path, *words: str, fails: bool = False) -> str:
    done = subprocess.run(
        ["git", *words], cwd=path, capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL
    )
    assert (done.returncode != 0) == fails, (words, done.stdout[-3000:], done.stderr[-3000:])
    return done.stdout + done.stderr


def annexpy(place: Place, *words: object, fails: bool = False) -> list[dict]:
    """A command of ours at *place*; its results."""
    done = subprocess.run(
        [sys.executable, "-m", "annexpy.cli.app", "--json", "-C", str(place.path), *map(str, words)],
        cwd=place.path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        stdin=subprocess.DEVNULL,
        env=os.environ | dict(OURS),
    )
    assert (done.returncode != 0) == fails, (words, done.stdout[-3000:], done.stderr[-3000:])
    return [json.loads(line) for line in done.stdout.splitlines()]


def made_by_git_annex(path: Path, *, bare: bool) -> Place:
    path.mkdir()
    git(path, "init", "-q", *(["--bare"] if bare else []))
    git(path, "annex", "init", "-q", path.name)
    return Place(path)


def work_tree(path: Path) -> tuple[Place, dict[str, Key]]:
    """A work tree of the real git-annex with some files in it."""
    place = made_by_git_annex(path, bare=False)
    for name, content in CONTENTS.items():
        (path / name).write_bytes(content)
    git(path, "annex", "add", "-q", *CONTENTS)
    git(path, "commit", "-qm", "files")
    return place, {name: Key.parse(git(path, "annex", "lookupkey", name).strip()) for name in CONTENTS}


class Agreement:
    """What all views of some repositories have to say."""

    def __init__(self, places: Sequence[Place], contents: dict[Key, bytes], sync: Callable[[], object]) -> None:
        self.places, self.contents, self.sync = places, contents, sync

    def truth(self) -> dict[Key, set[str]]:
        return {
            key: {place.uuid for place in self.places if place.holds(key, content)}
            for key, content in self.contents.items()
        }

    def check(self, where: str, *, knowingly: bool = True) -> None:
        """That the keys are *where*, by the first letters of the places, and that everybody knows.

        Not *knowingly*: a repository lost something without noticing.
        """
        names = {place.uuid: place.path.name[0] for place in self.places}
        truth = self.truth()
        found = ["".join(sorted(names[uuid] for uuid in holders)) for holders in truth.values()]
        assert found == where.split(","), (found, where)
        for place in self.places:
            own = place.logged(self.contents)
            known = {key for key in own if place.uuid in own[key]}
            assert not knowingly or known == {key for key in truth if place.uuid in truth[key]}
        self.sync()
        for place in self.places:
            assert place.whereis(self.contents) == truth, place.path  # and merges what was pushed there
            assert place.logged(self.contents) == truth, place.path


# -- git-annex as the client ------------------------------------------------------------------------------------------


@pytest.fixture
def stock(tmp_path: Path, ssh: str, our_shell: str, git_annex: str) -> tuple[Place, Place, dict[str, Key]]:
    """A work tree of git-annex, a bare repository of ours, and the keys of the files."""
    work, keys = work_tree(tmp_path / "work")
    bare = Place.make(tmp_path / "server.git")
    git(work.path, "remote", "add", "srv", f"ssh://{ssh}{bare.path}")
    git(work.path, "config", "remote.srv.annex-shell", our_shell)
    return work, bare, keys


@pytest.mark.slow
def test_testremote_passes_every_check(stock: tuple[Place, Place, dict[str, Key]]) -> None:
    said = git(stock[0].path, "annex", "testremote", "srv")

    passed = re.search(r"All (\d+) tests passed", said)
    assert passed, said[-3000:]
    assert int(passed[1]) > 500
    assert "FAIL" not in said


def test_after_every_step_of_git_annex_everybody_says_the_same(stock: tuple[Place, Place, dict[str, Key]]) -> None:
    work, bare, keys = stock
    contents = {keys[name]: content for name, content in CONTENTS.items()}
    agreement = Agreement([work, bare], contents, lambda: git(work.path, "annex", "sync", "-q", "srv"))

    def annex(*words: str, fails: bool = False) -> str:
        return git(work.path, "annex", *words, fails=fails)

    annex("copy", "--to", "srv", "a", "b")
    agreement.check("sw,sw,w")
    annex("drop", "a", "b")
    annex("drop", "c", fails=True)
    agreement.check("s,s,w")
    annex("get", ".")
    annex("move", "--to", "srv", "b", "c")
    agreement.check("sw,s,s")
    annex("move", "--from", "srv", "c")
    annex("drop", "--from", "srv", "b", fails=True)
    annex("drop", "--from", "srv", "a")
    agreement.check("w,s,w")
    annex("get", "-J4", ".")
    annex("copy", "-J4", "--to", "srv", ".")
    assert "failed" not in annex("fsck", "--from", "srv", ".")
    assert "failed" not in annex("fsck", "--fast", "--from", "srv", ".")
    annex("drop", "--force", ".")
    annex("sync", "-q", "--content", "srv")
    agreement.check("sw,sw,sw")
    # What our repository lost behind everybody's back is found by fsck, and then everybody knows.
    bare.lose([keys["b"]])
    annex("fsck", "--from", "srv", "b", fails=True)
    agreement.check("sw,w,sw", knowingly=False)
    assert "failed" not in git(bare.path, "annex", "fsck", "--all")
    agreement.check("sw,w,sw")
    bare.git("fsck", "--strict", "--no-dangling")


def test_bytes_that_rotted_at_our_server_are_not_taken_for_content(stock: tuple[Place, Place, dict[str, Key]]) -> None:
    work, bare, keys = stock
    git(work.path, "annex", "move", "--to", "srv", "c")
    file = bare.object(keys["c"])
    assert file is not None
    file.chmod(0o644)
    file.write_bytes(CONTENTS["c"][:-1] + b"!")
    file.chmod(0o444)

    git(work.path, "annex", "get", "c", fails=True)
    git(work.path, "annex", "fsck", "--from", "srv", "c", fails=True)
    assert work.object(keys["c"]) is None
    git(bare.path, "annex", "fsck", "--all", fails=True)  # moves it to annex/bad
    assert bare.object(keys["c"]) is None
    assert bare.uuid not in bare.logged([keys["c"]])[keys["c"]]


# -- annexpy as the client --------------------------------------------------------------------------------------------


def test_after_every_step_of_annexpy_everybody_says_the_same(tmp_path: Path, ssh: str, git_annex: str) -> None:
    """In a work tree of git-annex, with a repository of git-annex behind the real ``git-annex-shell``."""
    work, keys = work_tree(tmp_path / "work")
    stock = made_by_git_annex(tmp_path / "server.git", bare=True)
    git(work.path, "remote", "add", "srv", f"ssh://{ssh}{stock.path}")
    contents = {keys[name]: content for name, content in CONTENTS.items()}
    agreement = Agreement([work, stock], contents, lambda: annexpy(work, "sync", "srv"))
    a, b, c = keys.values()

    annexpy(work, "put", "srv", "a")
    annexpy(work, "copy", ".", "srv", a, b)
    agreement.check("sw,sw,w")
    annexpy(work, "drop", "--other", "srv", ".", a, b)
    annexpy(work, "drop", "--other", "srv", ".", c, fails=True)
    annexpy(work, "drop", "srv", a, fails=True)
    agreement.check("s,s,w")
    annexpy(work, "get", "srv", a, b)
    annexpy(work, "move", ".", "srv", b, c)
    agreement.check("sw,s,s")
    annexpy(work, "move", "srv", ".", c)
    annexpy(work, "drop", "--other", ".", "srv", a)
    agreement.check("w,s,w")
    annexpy(work, "get", "-o", tmp_path / "out", "srv", b)
    assert (tmp_path / "out").read_bytes() == CONTENTS["b"]
    annexpy(work, "get", "srv", b)
    annexpy(work, "copy", ".", "srv", a, b, c)
    assert all(one["success"] for one in annexpy(work, "fsck", "srv", a, b, c))
    assert all(one["success"] for one in annexpy(work, "check", "srv", a, b, c))
    for line in annexpy(work, "whereis", a, b, c):
        assert {one["uuid"] for one in line["whereis"]} == {work.uuid, stock.uuid}
    for place in (work, stock):
        assert "failed" not in git(place.path, "annex", "fsck", "--all")
        place.git("fsck", "--strict", "--no-dangling")
    agreement.check("sw,sw,sw")
    git(work.path, "annex", "drop", "a")
    git(work.path, "annex", "get", "a")
    assert (work.path / "a").read_bytes() == CONTENTS["a"]


def test_our_own_ssh_does_as_the_system_s_does(
    tmp_path: Path, ssh: str, git_annex: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_SSH_COMMAND")
    work, keys = work_tree(tmp_path / "work")
    stock = made_by_git_annex(tmp_path / "server.git", bare=True)
    git(work.path, "remote", "add", "srv", f"ssh://{ssh}{stock.path}")
    a, b, c = keys.values()

    annexpy(work, "copy", ".", "srv", a, b, c)
    annexpy(work, "drop", "--other", "srv", ".", a, b)
    annexpy(work, "drop", "srv", a, fails=True)
    annexpy(work, "get", "srv", a)
    annexpy(work, "move", "srv", ".", c)

    holders = {a: {work.uuid, stock.uuid}, b: {stock.uuid}, c: {work.uuid}}
    assert work.logged(keys.values()) == work.whereis(keys.values()) == holders
    for key, content in zip(keys.values(), CONTENTS.values(), strict=True):
        assert {place.uuid for place in (work, stock) if place.holds(key, content)} == holders[key]


def test_what_is_found_there_is_recorded_without_being_sent(tmp_path: Path, ssh: str, git_annex: str) -> None:
    """Fact sheet users, section 0, N4: git-annex leaves such copies out of the log."""
    work, _ = work_tree(tmp_path / "work")
    stock = made_by_git_annex(tmp_path / "server.git", bare=True)
    git(work.path, "remote", "add", "srv", f"ssh://{ssh}{stock.path}")
    many = {}
    for number in range(8):
        (work.path / f"n{number}").write_bytes(content_of(100 + number))
    git(work.path, "annex", "add", "-q", ".")
    for number in range(8):
        many[Key.parse(git(work.path, "annex", "lookupkey", f"n{number}").strip())] = content_of(100 + number)
    git(work.path, "commit", "-qm", "more")
    git(work.path, "annex", "copy", "--to", "srv", *(f"n{number}" for number in range(8)))
    for key in many:
        git(work.path, "annex", "setpresentkey", str(key), stock.uuid, "0")
    assert all(stock.uuid not in holders for holders in work.logged(many).values())

    assert all(one["success"] for one in annexpy(work, "copy", ".", "srv", *many))

    assert all(holders == {work.uuid, stock.uuid} for holders in work.logged(many).values())
    assert work.whereis(many) == work.logged(many)
