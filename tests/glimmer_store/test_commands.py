"""The glimmer-store command, as a stranger runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def store(*words: str, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "glimmer_store.cli.app", *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == expect, (words, done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture
def study(tmp_path: Path) -> Path:
    vaults = [word for n in (1, 2, 3) for word in ("--durable", str(tmp_path / f"vault{n}.git"))]
    store("init", "study", "--yes", *vaults, cwd=tmp_path)
    return tmp_path / "study"


def test_init_archive_and_status_tell_the_same_story(study: Path) -> None:
    (study / "scan.nii").write_bytes(b"scan" * 500)

    archived = json.loads(store("archive", "scan.nii", "--type", "dataset", "--json", cwd=study).stdout)
    status = json.loads(store("status", "--json", cwd=study).stdout)

    assert archived["success"] is True
    (entry,) = status["objects"]
    for field in ("id", "key", "stored-at", "copies", "numcopies-required", "verified", "storage-class"):
        assert entry[field] == archived[field]
    assert entry["copies"] == 3
    assert entry["live"] == ["vault1", "vault2", "vault3"]
    assert status["under-replicated"] == []


def test_init_again_changes_nothing(study: Path) -> None:
    before = (study / "glimmer-store.toml").read_bytes(), (study / ".git" / "config").read_bytes()
    store("init", ".", "--yes", "--durable", "../vault1.git", cwd=study)
    assert ((study / "glimmer-store.toml").read_bytes(), (study / ".git" / "config").read_bytes()) == before


def test_a_dataset_that_is_not_set_up_is_a_usage_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    refused = store("archive", "x", cwd=tmp_path, expect=2)
    assert "remedy: glimmer-store init" in refused.stderr


def test_too_few_copies_end_with_three_and_a_remedy(study: Path) -> None:
    (study / "scan.nii").write_bytes(b"scan")
    (study.parent / "vault3.git").rename(study.parent / "away")

    refused = store("archive", "scan.nii", "--class", "irreplaceable", cwd=study, expect=3)

    assert "2 of 3 copies proven" in refused.stderr
    assert "vault3" in refused.stderr
    assert "remedy:" in refused.stderr


def test_status_ends_with_four_while_a_remote_cannot_be_asked_and_three_when_copies_are_gone(study: Path) -> None:
    (study / "scan.nii").write_bytes(b"scan")
    store("archive", "scan.nii", "--class", "irreplaceable", cwd=study)
    (study.parent / "vault3.git").rename(study.parent / "away")
    assert "no answer" in store("status", cwd=study, expect=4).stdout
    (study.parent / "away").rename(study.parent / "vault3.git")

    (lost,) = (path for path in (study.parent / "vault1.git" / "annex" / "objects").rglob("*.nii") if path.is_file())
    lost.parent.chmod(0o755)
    lost.unlink()

    assert "recorded at vault1, not there" in store("status", cwd=study, expect=3).stdout


def test_an_existing_repository_with_a_work_tree_is_no_durable_copy(tmp_path: Path) -> None:
    store("init", "other", "--yes", "--durable", str(tmp_path / "v.git"), cwd=tmp_path)
    refused = store("init", "study", "--yes", "--durable", str(tmp_path / "other"), cwd=tmp_path, expect=2)
    assert "has a work tree" in refused.stderr


@pytest.mark.interop
@pytest.mark.slow
def test_the_demo_holds_everything_it_claims(tmp_path: Path, git_annex: str) -> None:
    own = tmp_path / "mine.tsv"
    own.write_bytes(b"a\tb\n" * 100)

    shown = store("demo", "--dir", "demo", str(own), cwd=tmp_path).stdout

    assert "NOT SO" not in shown
    assert "git-annex knows the same three copies" in shown
    assert shown.count("clean") == 3


def test_a_forge_gets_the_history_and_no_contents(study: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "forge.git")], check=True)
    store("init", ".", "--yes", "--forge", str(tmp_path / "forge.git"), cwd=study)
    (study / "scan.nii").write_bytes(b"scan" * 500)
    store("archive", "scan.nii", cwd=study)
    history = ["git", "rev-parse", "HEAD"]
    here, there = (
        subprocess.run(history, cwd=path, capture_output=True, text=True, check=True).stdout
        for path in (study, tmp_path / "forge.git")
    )
    assert here == there
    assert not (tmp_path / "forge.git" / "annex").exists()
    assert "glimmer-store.toml" in subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD"], cwd=study, capture_output=True, text=True, check=True
    ).stdout  # fmt: skip


@pytest.mark.interop
def test_an_adjunct_directory_gets_copies_that_the_real_git_annex_finds(
    study: Path, tmp_path: Path, git_annex: str
) -> None:
    box = tmp_path / "box"
    for _ in range(2):
        said = store("init", ".", "--yes", "--adjunct", f"directory:{box}", cwd=study).stdout
        assert said.count("adjunct  box") == 1
    (study / "scan.nii").write_bytes(b"scan" * 500)
    key = json.loads(store("archive", "scan.nii", "--json", cwd=study).stdout)["key"]
    for words in (["fsck", "-q", "--from", "box", "--key", key], ["checkpresentkey", key, "box"]):
        done = subprocess.run([git_annex, *words], cwd=study, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
