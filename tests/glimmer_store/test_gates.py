"""Gates stop what would lose something, with real pushes; and their remedies, run as they are, open them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import anyio
import pytest

import annexpy as annex
from glimmer_store.gates import Verdict, check_graph
from glimmer_store.graph import GlimmerGraph
from glimmer_store.provision import provision
from glimmer_store.teardown import check_teardown


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A dataset with three durable bares, a elsewhere that only has git, and one irreplaceable output."""
    root = tmp_path / "study"
    provision(root, [str(tmp_path / f"vault{n}.git") for n in (1, 2, 3)])
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "elsewhere.git")], check=True)
    git(root, "remote", "add", "elsewhere", str(tmp_path / "elsewhere.git"))
    emit(root, "scan.nii", b"a scan " * 99)
    save(root)
    return root


def git(root: Path, *words: str, expect: int = 0, **more: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=120, check=False, **more
    )  # type: ignore[call-overload]
    assert done.returncode == expect, (words, done.stdout, done.stderr)
    return done


def emit(root: Path, name: str, content: bytes, *, generated: bool = False) -> None:
    async def work() -> None:
        async with GlimmerGraph.open(root) as graph:
            (root / name).write_bytes(content)
            await (graph.derivative(root / name) if generated else graph.dataset(root / name))

    anyio.run(work)


def save(root: Path) -> None:
    """What is left to commit, so that only what a test does speaks against anything."""
    git(root, "add", "--", *(name for name in ("glimmer-store.toml", ".gitattributes") if (root / name).exists()))
    if git(root, "diff", "--cached", "--name-only").stdout:
        git(root, "commit", "-q", "-m", "settings")
    for vault in ("vault1", "vault2", "vault3"):
        git(root, "push", "-q", vault, "HEAD")


def lose(vault: Path, name: str = "*") -> None:
    """Every content of a vault is gone, and nobody was told."""
    for found in [path for path in (vault / "annex" / "objects").rglob(name) if path.is_file()]:
        found.parent.chmod(0o755)
        found.unlink()


def teardown(path: Path, **more: object) -> Verdict:
    return anyio.run(lambda: check_teardown(path, **more))  # type: ignore[arg-type]


def follow(verdict: Verdict, programs: dict[str, str]) -> None:
    """Run every remedy as it stands, from anywhere, in order."""
    for refusal in verdict.refusals:
        assert refusal.runs, refusal
        done = subprocess.run(
            refusal.remedy, shell=True, cwd="/", env=programs, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (refusal.remedy, done.stdout, done.stderr)


# -- push --


def install(study: Path, programs: dict[str, str]) -> None:
    subprocess.run(["glimmer-store", "hook", "install"], cwd=study, env=programs, check=True, capture_output=True)


def test_a_push_with_too_few_copies_is_stopped_and_its_remedy_lets_it_through(
    study: Path, programs: dict[str, str]
) -> None:
    install(study, programs)
    lose(study.parent / "vault2.git")

    refused = git(study, "push", "elsewhere", "HEAD:refs/heads/main", expect=1, env=programs)
    assert "scan.nii: irreplaceable, 2 of 3 copies are there" in refused.stderr
    assert git(study.parent / "elsewhere.git", "for-each-ref").stdout == ""
    (remedy,) = (line for line in refused.stderr.splitlines() if "  remedy: " in line)
    subprocess.run(remedy.split("remedy: ")[1], shell=True, env=programs, check=True, cwd="/", capture_output=True)

    git(study, "push", "elsewhere", "HEAD:refs/heads/main", env=programs)
    assert "refs/heads/main" in git(study.parent / "elsewhere.git", "for-each-ref").stdout


def test_what_can_be_made_again_is_noted_and_passes(study: Path, programs: dict[str, str]) -> None:
    install(study, programs)
    emit(study, "mean.nii", b"a mean " * 50, generated=True)
    for n in (1, 2):
        lose(study.parent / f"vault{n}.git", "SHA256E-s350-*")

    passed = git(study, "push", "elsewhere", "HEAD:refs/heads/main", env=programs)

    assert "note: mean.nii: 1 of 2 copies; it can be made again" in passed.stderr


def test_the_durable_remotes_and_the_git_annex_branch_may_always_be_pushed_to(
    study: Path, programs: dict[str, str]
) -> None:
    install(study, programs)
    lose(study.parent / "vault2.git")

    git(study, "push", "vault1", "HEAD:refs/heads/other", env=programs)
    git(study, "push", "elsewhere", "git-annex", env=programs)
    git(study, "push", "elsewhere", "git-annex:refs/heads/x", ":refs/heads/git-annex", env=programs)


def test_a_place_that_does_not_answer_stops_a_push_and_is_named(study: Path, programs: dict[str, str]) -> None:
    install(study, programs)
    (study.parent / "vault3.git").rename(study.parent / "away")

    refused = git(study, "push", "elsewhere", "HEAD:refs/heads/main", expect=1, env=programs)
    assert "vault3 cannot be asked" in refused.stderr
    assert "remedy: try again when vault3 answers" in refused.stderr

    (study.parent / "away").rename(study.parent / "vault3.git")
    git(study, "push", "elsewhere", "HEAD:refs/heads/main", env=programs)


def test_without_glimmer_store_the_hook_refuses_in_one_clear_line(study: Path, programs: dict[str, str]) -> None:
    install(study, programs)
    bare = {**programs, "PATH": "/usr/bin:/bin"}
    if shutil.which("glimmer-store", path=bare["PATH"]):
        pytest.fail("glimmer-store is installed in the system: this cannot be tried")

    refused = git(study, "push", "elsewhere", "HEAD:refs/heads/main", expect=1, env=bare)

    assert "glimmer-store is not in PATH" in refused.stderr
    assert "remedy: install glimmer-store" in refused.stderr


def test_a_hook_that_was_there_is_asked_first_with_the_same_words(study: Path, programs: dict[str, str]) -> None:
    git(study, "config", "core.hooksPath", "team-hooks")  # docs/gates.md runs it beside git-annex's own, without that
    folder = study / "team-hooks"
    folder.mkdir(exist_ok=True)
    before = folder / "pre-push"
    before.write_text(
        '#!/bin/sh\ncat > "$(git rev-parse --git-dir)/seen"\nexit $(cat "$(git rev-parse --git-dir)/answer")\n'
    )
    before.chmod(0o755)
    text = before.read_text()
    install(study, programs)
    install(study, programs)

    (study / ".git" / "answer").write_text("7")
    git(study, "push", "elsewhere", "HEAD:refs/heads/main", expect=1, env=programs)
    assert "refs/heads/main" in (study / ".git" / "seen").read_text()
    (study / ".git" / "answer").write_text("0")
    git(study, "push", "elsewhere", "HEAD:refs/heads/main", env=programs)
    lose(study.parent / "vault1.git")
    git(study, "commit", "-q", "--allow-empty", "-m", "more")
    git(study, "push", "elsewhere", "HEAD:refs/heads/main", expect=1, env=programs)

    subprocess.run(["glimmer-store", "hook", "uninstall"], cwd=study, env=programs, check=True)
    assert before.read_text() == text


def test_the_committed_script_is_the_installed_one(study: Path, programs: dict[str, str]) -> None:
    install(study, programs)

    assert (study / ".glimmer-store/hooks/pre-push").read_bytes() == (study / ".git/hooks/pre-push").read_bytes()
    subprocess.run(["sh", "-n", str(study / ".git/hooks/pre-push")], check=True)
    assert subprocess.run(["glimmer-store", "hook", "status"], cwd=study, env=programs, check=False).returncode == 0
    (study / ".git/hooks/pre-push").unlink()
    assert subprocess.run(["glimmer-store", "hook", "status"], cwd=study, env=programs, check=False).returncode == 1


# -- CI --


def test_ci_goes_by_the_files_and_with_live_by_the_places(study: Path) -> None:
    assert anyio.run(lambda: check_graph(study)).open
    lose(study.parent / "vault2.git")
    assert anyio.run(lambda: check_graph(study)).open

    refused = anyio.run(lambda: check_graph(study, live=True))

    assert (refused.exit_code, [r.kind for r in refused.refusals]) == (3, ["copies"])


# -- teardown --


def test_a_dataset_of_which_everything_is_elsewhere_may_go(study: Path) -> None:
    assert teardown(study).refusals == ()


def test_a_lost_copy_keeps_a_dataset_until_the_remedy_was_run(study: Path, programs: dict[str, str]) -> None:
    lose(study.parent / "vault3.git")

    refused = teardown(study)
    assert (refused.exit_code, [r.kind for r in refused.refusals]) == (3, ["copies"])
    follow(refused, programs)

    assert teardown(study).refusals == ()


def test_files_commits_branches_and_lines_that_are_nowhere_else_keep_it(study: Path, programs: dict[str, str]) -> None:
    (study / "results.tsv").write_bytes(b"a result of many days\n")
    (study / "empty").write_bytes(b"")
    git(study, "checkout", "-q", "-b", "idea")
    (study / "notes.txt").write_text("an idea")
    git(study, "add", "notes.txt")
    git(study, "commit", "-q", "-m", "an idea")
    (study / "notes.txt").write_text("a better idea")
    git(study, "stash", "-q")
    git(study, "tag", "v1")
    with annex.Repository.open(study) as repository:
        (key,) = (found.key for found in annex.whereis_all(repository))
        repository.branch.set_present(key, annex.UUID("12345678-0000-4000-8000-000000000000"), True)
        anyio.run(repository.branch.sync)

    refused = teardown(study)
    kinds = {refusal.kind for refusal in refused.refusals}
    assert kinds == {"unarchived", "unpushed", "waiting"}
    assert not any("empty" in refusal.subject for refusal in refused.refusals)
    follow(refused, programs)
    again = teardown(study)
    follow(again, programs)  # what was archived meanwhile is a new commit of the branch

    assert teardown(study).refusals == ()


def test_an_output_that_is_changed_after_it_was_archived_is_not_stored(study: Path) -> None:
    (study / "scan.nii").write_bytes(b"a scam " * 99)

    (refusal,) = teardown(study).refusals

    assert (refusal.kind, refusal.subject) == ("unarchived", str(study / "scan.nii"))


def test_copies_inside_the_folder_do_not_count(study: Path) -> None:
    refused = teardown(study.parent)

    kinds = [(refusal.kind, Path(refusal.subject).name) for refusal in refused.refusals]
    assert ("copies", "scan.nii") in kinds
    assert {name for kind, name in kinds if kind == "unpushed"} >= {"study", "vault1.git"}
    assert refused.exit_code == 3


def test_a_scratch_folder_keeps_what_is_in_no_dataset(study: Path, tmp_path: Path, programs: dict[str, str]) -> None:
    scratch = tmp_path / "scratch"
    (scratch / "deep").mkdir(parents=True)
    (scratch / "deep" / "result.nii").write_bytes(b"three days of work")
    (scratch / "job.log").write_bytes(b"a log")
    (scratch / "copy-of-scan.dat").write_bytes((study / "scan.nii").read_bytes())

    alone = teardown(scratch)
    assert {Path(refusal.subject).name for refusal in alone.refusals} == {"result.nii", "job.log", "copy-of-scan.dat"}
    refused = teardown(scratch, dataset=study, ignore=["*.log"])
    assert [Path(refusal.subject).name for refusal in refused.refusals] == ["result.nii"]
    follow(refused, programs)

    assert teardown(scratch, dataset=study, ignore=["*.log"]).refusals == ()


def test_a_folder_of_a_dataset_only_answers_for_itself(study: Path, programs: dict[str, str]) -> None:
    (study / "work").mkdir()
    (study / "work" / "draft.nii").write_bytes(b"a draft")
    (study / "other.nii").write_bytes(b"not in that folder")

    refused = teardown(study / "work")
    assert [Path(refusal.subject).name for refusal in refused.refusals] == ["draft.nii"]
    follow(refused, programs)

    assert teardown(study / "work").refusals == ()


@pytest.mark.interop
def test_annexed_contents_of_a_dataset_of_others_are_kept_until_they_are_copied(
    tmp_path: Path, programs: dict[str, str], git_annex: str
) -> None:
    theirs, usb = tmp_path / "theirs", tmp_path / "usb.git"
    subprocess.run(["git", "init", "-q", str(theirs)], check=True)
    subprocess.run(["git", "init", "-q", "--bare", str(usb)], check=True)
    for root in (theirs, usb):
        subprocess.run([git_annex, "init", "-q", root.name], cwd=root, check=True)
    (theirs / "data.bin").write_bytes(b"annexed" * 100)
    subprocess.run([git_annex, "add", "-q", "data.bin"], cwd=theirs, check=True)
    git(theirs, "commit", "-q", "-m", "data")
    git(theirs, "remote", "add", "usb", str(usb))
    subprocess.run([git_annex, "sync", "-q", "--no-content", "usb"], cwd=theirs, check=True, capture_output=True)

    refused = teardown(theirs)
    assert [refusal.kind for refusal in refused.refusals] == ["copies"]
    follow(refused, programs)
    follow(teardown(theirs), programs)  # the location log says so now, and has to go along

    assert teardown(theirs).refusals == ()


def test_the_command_ends_with_the_code_of_the_worst(study: Path, programs: dict[str, str]) -> None:
    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["glimmer-store", "gate", *words], env=programs, capture_output=True, text=True, check=False, timeout=120
        )

    assert ask("teardown", str(study)).returncode == 0
    lose(study.parent / "vault1.git")
    refused = ask("teardown", str(study))
    assert refused.returncode == 3
    assert "remedy: glimmer-store verify --repair" in refused.stderr
    assert json.loads(ask("teardown", str(study), "--json").stdout)["open"] is False
    (study.parent / "vault1.git").rename(study.parent / "away")
    assert ask("ci", str(study), "--live").returncode == 4
