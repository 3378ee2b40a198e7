"""A repository we make is the one git-annex would have made, and git-annex finds nothing left to do in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.interop

UUID_1 = UUID("11111111-1111-4111-8111-111111111111")


def run(where: Path, *command: str, fails: bool = False, **environ: str) -> str:
    done = subprocess.run(
        command, cwd=where, capture_output=True, text=True, timeout=60, check=False, env=os.environ | environ
    )
    assert (done.returncode != 0) == fails, (command, done.stdout, done.stderr)
    return done.stdout + done.stderr


def outfit(git_dir: Path) -> dict[str, tuple[int, bytes]]:
    """Configuration, hooks and attributes: (mode, content) of each file."""
    files = [git_dir / "config", *(git_dir / "hooks").glob("*"), git_dir / "info/attributes"]
    return {
        str(path.relative_to(git_dir)): (path.stat().st_mode & 0o777, path.read_bytes())
        for path in files
        if path.is_file() and path.suffix != ".sample"
    }


def git_dir(path: Path, bare: bool) -> Path:
    return path if bare else path / ".git"


@pytest.mark.parametrize("bare", [True, False])
def test_the_outfit_is_that_of_git_annex_init(tmp_path: Path, git_annex: str, bare: bool) -> None:
    run(tmp_path, "git", "init", "-q", *(["--bare"] if bare else []), "real")
    run(tmp_path / "real", git_annex, "init", "-q")

    with Repository.init(tmp_path / "ours", bare=bare) as ours:
        real = Repository.open(tmp_path / "real")
        described = ours.branch.read(b"uuid.log").replace(b"/ours", b"/real").replace(ours.uuid.encode(), b"U")

        theirs = outfit(git_dir(tmp_path / "real", bare))
        theirs["config"] = (theirs["config"][0], theirs["config"][1].replace(real.uuid.encode(), ours.uuid.encode()))
        assert outfit(git_dir(tmp_path / "ours", bare)) == theirs
        assert described.split()[:2] == real.branch.read(b"uuid.log").replace(real.uuid.encode(), b"U").split()[:2]


@pytest.mark.parametrize("bare", [True, False])
def test_git_annex_finds_nothing_left_to_do(tmp_path: Path, git_annex: str, bare: bool) -> None:
    path = tmp_path / "ours"
    with Repository.init(path, bare=bare, description="made here") as ours:
        tip, before = ours.branch.tip, outfit(git_dir(path, bare))

        info = run(path, git_annex, "info", "--fast")
        assert "made here [here]" in info
        run(path, git_annex, "fsck", *(["--all"] if bare else []))
        run(path, git_annex, "whereis", *(["--all"] if bare else []))
        run(path, git_annex, "merge")
        run(path, git_annex, "configremote", fails=True)
        if not bare:
            run(path, git_annex, "sync", "--no-content", "-q")

        assert outfit(git_dir(path, bare)) == before
        assert ours.branch.read(b"uuid.log").split()[0] == ours.uuid.encode()
        # fsck notes its own activity; nothing else is new in the branch
        changed = run(path, "git", "diff", "--name-only", str(ours.branch.tip), str(tip)).split()
        assert set(changed) <= {"activity.log"}


def test_git_annex_copies_to_and_from_and_drops(tmp_path: Path, git_annex: str) -> None:
    with Repository.init(tmp_path / "bare.git", bare=True) as bare, Repository.init(tmp_path / "work") as work:
        before = outfit(tmp_path / "bare.git")
        (tmp_path / "work/file").write_bytes(b"content\n")
        run(tmp_path / "work", git_annex, "add", "-q", "file")
        run(tmp_path / "work", "git", "commit", "-q", "-m", "add")
        run(tmp_path / "work", "git", "remote", "add", "bare", str(tmp_path / "bare.git"))
        run(tmp_path / "work", git_annex, "copy", "-q", "--to", "bare", "file")
        run(tmp_path / "work", git_annex, "drop", "-q", "file")
        run(tmp_path / "work", git_annex, "sync", "-q", "--no-content")

        key = Key.parse(run(tmp_path / "work", git_annex, "lookupkey", "file").strip())
        assert bare.branch.locations(key).present == [bare.uuid]
        work.branch.merge_now()
        assert work.branch.locations(key).present == [bare.uuid]
        assert outfit(tmp_path / "bare.git") == before
        run(tmp_path / "work", git_annex, "get", "-q", "file")
        run(tmp_path / "bare.git", git_annex, "fsck", "-q", "--all")
        assert set(work.branch.locations(key).present) == {bare.uuid, work.uuid}


def test_a_git_repository_becomes_an_annex_and_keeps_what_it_has(tmp_path: Path, git_annex: str) -> None:
    run(tmp_path, "git", "init", "-q", "r")
    hook = tmp_path / "r/.git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "r/.git/info/attributes").write_text("*.x foo=bar\n")
    (tmp_path / "r/.git/config").write_text((tmp_path / "r/.git/config").read_text() + "[user]\n\tname = Kept\n")

    with Repository.init(tmp_path / "r", uuid=UUID_1) as repository:
        assert repository.uuid == UUID_1
        assert repository.config.get("user.name") == "Kept"
        assert hook.read_text() == "#!/bin/sh\nexit 0\n"
        assert (tmp_path / "r/.git/info/attributes").read_text() == "*.x foo=bar\n\n* filter=annex\n"
        before = outfit(tmp_path / "r/.git")
        run(tmp_path / "r", git_annex, "info", "--fast")
        assert outfit(tmp_path / "r/.git") == before


def test_init_again_repairs_and_keeps_the_description(tmp_path: Path) -> None:
    Repository.init(tmp_path / "r", uuid=UUID_1, description="first").close()
    before = outfit(tmp_path / "r/.git")
    (tmp_path / "r/.git/hooks/pre-push").unlink()

    with Repository.init(tmp_path / "r") as again:
        assert outfit(tmp_path / "r/.git") == before
        assert b"first" in again.branch.read(b"uuid.log")
        tip = again.branch.tip
    with Repository.init(tmp_path / "r", description="second") as third:
        assert b"second" in third.branch.read(b"uuid.log")
        assert third.branch.tip != tip


def test_a_clone_that_is_initialised_knows_what_its_origin_knows(tmp_path: Path, git_annex: str) -> None:
    with Repository.init(tmp_path / "origin", description="origin here") as origin:
        key = Key.parse("SHA256E-s1--aa")
        origin.branch.set_present(key, origin.uuid, True)
        origin.branch.commit_now()
        run(tmp_path / "origin", "git", "commit", "-q", "--allow-empty", "-m", "x")
        run(tmp_path, "git", "clone", "-q", "origin", "clone")

        with Repository.init(tmp_path / "clone", description="clone here") as clone:
            assert clone.uuid != origin.uuid
            assert clone.branch.locations(key).present == [origin.uuid]
            uuids = clone.branch.read(b"uuid.log")
            assert b"origin here" in uuids
            assert b"clone here" in uuids
            tip = clone.branch.tip
            run(tmp_path / "clone", git_annex, "merge", "-q")
            assert clone.branch.tip == tip


def test_a_private_repository_stays_unknown(tmp_path: Path, git_annex: str) -> None:
    with Repository.init(tmp_path / "r.git", bare=True, private=True, description="secret") as repository:
        key = Key.parse("SHA256E-s1--aa")
        repository.branch.set_present(key, repository.uuid, True)
        repository.branch.sync_now()
        repository.branch.commit_now()

        assert repository.branch.locations(key).present == [repository.uuid]
        assert repository.branch.tip is None or repository.uuid not in run(
            tmp_path / "r.git", "git", "grep", "-e", repository.uuid, "git-annex", "--", fails=True
        )
        assert repository.uuid in run(tmp_path / "r.git", git_annex, "whereis", "--key", str(key))
        assert "secret" in run(tmp_path / "r.git", git_annex, "info", "--fast")


def test_without_an_identity_git_annex_can_still_commit(tmp_path: Path, git_annex: str) -> None:
    nobody = {"HOME": str(tmp_path / "nobody"), **dict.fromkeys(
        ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL"], "")}  # fmt: skip
    (tmp_path / "nobody").mkdir()
    script = "import sys; from annexpy.repo.repository import Repository; Repository.init(sys.argv[1], bare=True)"
    root = str(Path(__file__).parents[2])
    run(tmp_path, str(Path(git_annex).parent / "python"), "-c", script, "r.git", PYTHONPATH=root, **nobody)
    env = {name: value for name, value in (os.environ | nobody).items() if value}

    for command in (["setpresentkey", "SHA256E-s1--aa", UUID_1, "1"], ["merge"]):
        done = subprocess.run(
            [git_annex, *command], cwd=tmp_path / "r.git", env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    with Repository.open(tmp_path / "r.git") as repository:
        assert repository.branch.locations(Key.parse("SHA256E-s1--aa")).present == [UUID_1]
