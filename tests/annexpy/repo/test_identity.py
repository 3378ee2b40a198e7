"""Commits carry the identity git would have chosen."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from annexpy.repo.config import GitConfig
from annexpy.repo.files import DiskFiles
from annexpy.repo.identity import Identity, can_be_guessed, login_name

NOBODY = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "HOME": "/nonexistent"}


def config_of(path: Path, text: str) -> GitConfig:
    if not (path / "objects").exists():
        subprocess.run(["git", "init", "-q", "--bare", path], check=True)
    (path / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tbare = true\n" + text)
    return GitConfig(DiskFiles(path), environ={})


@pytest.mark.parametrize(
    ("config", "environ"),
    [
        ("[user]\n name = A. B.\n email = a@b\n", {}),
        ('[user]\n name = "  <A> ,"\n email = "<a@b> "\n', {}),
        ("[user]\n name = U\n email = u@x\n[author]\n name = Author\n[committer]\n email = c@x\n", {}),
        ("[user]\n name = U\n email = u@x\n", {"GIT_AUTHOR_NAME": "E", "GIT_COMMITTER_EMAIL": "e@x"}),
        ("[user]\n name = U\n", {"EMAIL": "mail@x"}),
        ("[user]\n name = Jörg 日本\n email = j@x\n", {}),
    ],
)
def test_it_is_the_one_of_git(tmp_path: Path, config: str, environ: dict[str, str]) -> None:
    ours = Identity.of(config_of(tmp_path, config), environ)

    for role, mine in (("AUTHOR", ours.author), ("COMMITTER", ours.committer)):
        said = subprocess.run(
            ["git", "var", f"GIT_{role}_IDENT"], cwd=tmp_path, env=NOBODY | environ, capture_output=True, check=True
        ).stdout
        assert said.rpartition(b"> ")[0] + b">" == mine


def test_without_any_there_is_one_all_the_same(tmp_path: Path) -> None:
    ours = Identity.of(config_of(tmp_path, ""), {})

    assert ours.author == ours.committer
    assert ours.author.endswith(f" <{login_name()}@{os.uname().nodename}>".encode())


@pytest.mark.parametrize(
    ("config", "environ", "known"),
    [
        ("[user]\n email = a@b\n", {}, True),
        ("", {"EMAIL": "a@b"}, True),
        ("", {"GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_EMAIL": "a@b"}, True),
        ("[author]\n email = a@b\n", {"GIT_COMMITTER_EMAIL": "a@b"}, True),
        ("[user]\n useConfigOnly = true\n", {}, False),
    ],
)
def test_whether_git_finds_one_is_known(tmp_path: Path, config: str, environ: dict[str, str], known: bool) -> None:
    assert can_be_guessed(config_of(tmp_path, config), environ) == known
