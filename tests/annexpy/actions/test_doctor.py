"""The doctor finds what is wrong, changes nothing, and the command it names really mends it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from annexpy.actions.doctor import Finding, Problem, examine_repositories
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.keys.layout import location_log, object_paths
from annexpy.repo.repository import Repository


class Lab:
    """Two bare repositories and one with a work tree, made by git-annex, that know each other."""

    def __init__(self, folder: Path, git_annex: str) -> None:
        self.folder, self.git_annex = folder, git_annex
        self.one, self.two, self.work = (folder / name for name in ("one", "two", "work"))
        for path in (self.one, self.two, self.work):
            bare = [] if path is self.work else ["--bare"]
            subprocess.run(["git", "init", "-q", *bare, str(path)], check=True)
            self.annex(path, "init", "-q", path.name)
        for path, remotes in ((self.work, (self.one, self.two)), (self.one, (self.two,)), (self.two, (self.one,))):
            for remote in remotes:
                subprocess.run(["git", "-C", path, "remote", "add", remote.name, remote], check=True)
        self.key = self.add("good.txt", b"good\n")
        self.annex(self.work, "copy", "-q", "--key", str(self.key), "--to", "one")
        self.annex(self.work, "copy", "-q", "--key", str(self.key), "--to", "two")
        self.sync()

    def annex(self, path: Path, *words: str) -> None:
        subprocess.run([self.git_annex, *words], cwd=path, check=True, capture_output=True)

    def add(self, name: str, content: bytes) -> Key:
        (self.work / name).write_bytes(content)
        self.annex(self.work, "add", "-q", name)
        subprocess.run(["git", "-C", self.work, "commit", "-qm", name], check=True)
        return name_content([content], extension=os.fsencode(Path(name).suffix))

    def sync(self) -> None:
        for _ in range(2):
            for path in (self.work, self.one, self.two):
                subprocess.run(
                    [self.git_annex, "sync", "-q", "--only-annex", "--no-content"], cwd=path, capture_output=True
                )

    def find(self, *paths: Path) -> list[Finding]:
        opened = [Repository.open(path) for path in paths or (self.work, self.one, self.two)]
        try:
            return list(examine_repositories(opened))
        finally:
            for repository in opened:
                repository.close()

    def inject(self, path: Path, log: bytes, line: str) -> None:
        """Append *line* to a log of the branch, as a careless writer would."""

        def git(*words: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> bytes:
            command = ["git", "-C", str(path), *words]
            return subprocess.run(command, input=stdin, capture_output=True, check=True, env=env).stdout.strip()

        name = log.decode()
        env = {**os.environ, "GIT_INDEX_FILE": str(self.folder / "index")}
        git("read-tree", "git-annex", env=env)
        before = git("cat-file", "-p", f"git-annex:{name}") + b"\n"
        blob = git("hash-object", "-w", "--stdin", stdin=before + line.encode() + b"\n").decode()
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}", env=env)
        tree = git("write-tree", env=env).decode()
        commit = git("commit-tree", tree, "-p", "git-annex", "-m", "careless").decode()
        git("update-ref", "refs/heads/git-annex", commit)
        (self.folder / "index").unlink()


@pytest.fixture
def lab(tmp_path: Path, git_annex: str) -> Lab:
    return Lab(tmp_path, git_annex)


def snapshot(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file below *folder*: size, time of change, digest."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def bare_object(path: Path, key: Key) -> Path:
    lower, mixed = (path / "annex/objects" / os.fsdecode(place) for place in object_paths(key))
    return lower if lower.exists() else mixed


def remove_object(path: Path, key: Key) -> None:
    place = bare_object(path, key)
    place.parent.chmod(0o755)
    shutil.rmtree(place.parent)


@pytest.mark.interop
def test_a_healthy_lab_has_no_findings_and_nothing_is_touched(lab: Lab) -> None:
    before = snapshot(lab.folder)

    assert lab.find() == []
    assert snapshot(lab.folder) == before


@pytest.mark.interop
def test_each_problem_is_found_and_the_named_command_mends_it(lab: Lab) -> None:
    stale = lab.add("stale.txt", b"stale\n")
    damaged = lab.add("damaged.txt", b"damaged\n")
    sole = lab.add("sole.txt", b"sole\n")
    unrecorded = lab.add("unrecorded.txt", b"unrecorded\n")
    for key in (stale, damaged, unrecorded):
        lab.annex(lab.work, "copy", "-q", "--key", str(key), "--to", "one")
    lab.annex(lab.work, "copy", "-q", "--key", str(damaged), "--to", "two")
    lab.annex(lab.work, "copy", "-q", "--key", str(stale), "--to", "two")
    lab.sync()
    remove_object(lab.one, stale)
    place = bare_object(lab.one, damaged)
    place.parent.chmod(0o755)
    place.chmod(0o644)
    place.write_bytes(b"dam")
    lower, _ = object_paths(unrecorded)
    copied = lab.two / "annex/objects" / os.fsdecode(lower)
    copied.parent.mkdir(parents=True)
    shutil.copy(bare_object(lab.one, unrecorded), copied)
    lab.inject(lab.work, location_log(lab.key), "this is no line")
    uuid = subprocess.run(["git", "-C", lab.one, "config", "annex.uuid"], capture_output=True, text=True).stdout.strip()
    lab.inject(lab.work, b"uuid.log", f"{uuid} timestamp=12s the first")

    before = snapshot(lab.folder)
    found = lab.find()
    assert snapshot(lab.folder) == before

    assert {(finding.problem, Path(finding.path).name, finding.key) for finding in found} == {
        (Problem.UNRECORDED, "two", unrecorded),
        (Problem.STALE, "one", stale),
        (Problem.DAMAGED, "one", damaged),
        (Problem.SOLE, "work", sole),
        (Problem.MALFORMED, "work", lab.key),
        (Problem.MALFORMED, "work", None),
    }

    for finding in found:
        # fsck exits 1 when it found what it was asked to find
        subprocess.run(finding.command, shell=True, capture_output=True, timeout=60, cwd=lab.folder)
    lab.sync()
    assert lab.find() == []


@pytest.mark.interop
def test_a_copy_that_every_log_missed_still_makes_a_key_less_alone(lab: Lab) -> None:
    key = lab.add("twice.txt", b"twice\n")
    lower, _ = object_paths(key)
    copied = lab.one / "annex/objects" / os.fsdecode(lower)
    copied.parent.mkdir(parents=True)
    copied.write_bytes(b"twice\n")

    assert [finding.problem for finding in lab.find()] == [Problem.UNRECORDED]


@pytest.mark.interop
def test_what_nobody_has_is_said_and_what_is_given_up_is_not(lab: Lab) -> None:
    key = lab.add("lost.txt", b"lost\n")
    lab.annex(lab.work, "drop", "--force", "-q", "lost.txt")

    (finding,) = lab.find(lab.work)
    assert (finding.problem, finding.key) == (Problem.LOST, key)

    subprocess.run(finding.command, shell=True, check=True, capture_output=True)
    assert lab.find(lab.work) == []
