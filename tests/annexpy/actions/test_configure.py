"""Settings are written as git-annex writes them, and it agrees."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import annexpy as annex

THIS, THAT = annex.UUID("11111111-1111-4111-8111-111111111111"), annex.UUID("22222222-2222-4222-8222-222222222222")


@pytest.mark.interop
def test_git_annex_reads_every_setting_that_was_configured(tmp_path: Path, git_annex: str) -> None:
    with annex.Repository.init(tmp_path, bare=False) as repository:
        annex.configure(
            repository,
            numcopies=3,
            mincopies=2,
            descriptions={THIS: "vault one", THAT: "vault two"},
            groups={THIS: ("backup", "lab")},
            wanted={THIS: "standard"},
            required={THAT: "anything"},
            maxsizes={THAT: 5_000_000},
        )
        repository.branch.commit_now()

    def ask(*words: str) -> str:
        done = subprocess.run([git_annex, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert ask("numcopies") == "3"
    assert ask("mincopies") == "2"
    assert ask("group", THIS) == "backup lab"
    assert ask("wanted", THIS) == "standard"
    assert ask("required", THAT) == "anything"
    assert ask("maxsize", THAT) == "5.0 MB"
    assert "vault two" in ask("info", THAT)


def test_what_is_configured_already_is_not_written_again(tmp_path: Path) -> None:
    def settle(repository: annex.Repository) -> None:
        annex.configure(
            repository, numcopies=2, groups={THIS: ["backup"], THAT: []}, wanted={THAT: ""}, maxsizes={THIS: 0}
        )

    with annex.Repository.init(tmp_path, bare=True) as repository:
        settle(repository)
        repository.branch.commit_now()
        before = repository.branch.tip
        settle(repository)
        assert repository.branch.queued == 0
        repository.branch.commit_now()

        assert repository.branch.tip == before
        assert annex.Facts(repository).logged_copies == (2, None)
        assert annex.Wanted(repository).repositories.maxsizes == {THIS: 0}


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"numcopies": 0}, annex.InvalidInput),
        ({"mincopies": 2**63}, annex.InvalidInput),
        ({"groups": {THIS: ["two words"]}}, annex.InvalidInput),
        ({"required": {THIS: "whatever"}}, annex.InvalidExpression),
        ({"maxsizes": {THIS: -1}}, annex.InvalidInput),
    ],
)
def test_what_cannot_be_read_back_is_refused_before_anything_is_queued(
    tmp_path: Path, wrong: dict[str, object], error: type[Exception]
) -> None:
    with annex.Repository.init(tmp_path, bare=True) as repository:
        with pytest.raises(error):
            annex.configure(repository, descriptions={THIS: "x"}, **wrong)  # type: ignore[arg-type]
        assert repository.branch.queued == 0
