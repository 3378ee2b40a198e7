"""Merging sibling refs: as git-annex does it, and never what may not be merged."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from annexpy.errors import BranchConflict
from annexpy.keys.key import Key
from annexpy.repo.ancestry import is_ancestor
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

KEYS = [Key.parse(f"SHA256E-s{n}--{n:064x}") for n in range(300)]


def git(where: Path | str, *arguments: str, fails: bool = False) -> str:
    done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=False)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stdout.strip()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Repository, Repository]:
    """Two repositories with the same branch, and the remote of the first named ``other``."""
    one = Repository.init(tmp_path / "one.git", bare=True, description="one")
    git(tmp_path, "clone", "-q", "--bare", "one.git", "two.git")
    two = Repository.init(tmp_path / "two.git", description="two")
    git(one.path, "remote", "add", "other", two.path)
    git(one.path, "fetch", "-q", "other")
    one.branch.merge_now()
    git(two.path, "fetch", "-q", one.path, "git-annex:refs/heads/synced/git-annex")
    two.branch.merge_now()
    assert one.branch.tip == two.branch.tip
    return one, two


def fetch(one: Repository) -> None:
    git(one.path, "fetch", "-q", "other")


def record(repository: Repository, keys: list[Key], uuid: UUID | None = None, present: bool = True) -> None:
    for key in keys:
        repository.branch.set_present(key, uuid or repository.uuid, present)
    repository.branch.commit_now()


def test_what_is_ahead_is_taken_over_without_a_commit(pair: tuple[Repository, Repository]) -> None:
    one, two = pair
    record(two, KEYS[:3])
    fetch(one)

    assert one.branch.merge_now() == ["refs/remotes/other/git-annex"]

    assert one.branch.tip == two.branch.tip
    assert one.branch.merge_now() == []


def test_what_is_not_merged_yet_is_named(pair: tuple[Repository, Repository]) -> None:
    one, two = pair
    record(one, KEYS[:1])
    assert one.branch.unmerged() == []
    record(two, KEYS[1:2])
    fetch(one)
    assert one.branch.unmerged() == ["refs/remotes/other/git-annex"]
    one.branch.merge_now()
    assert one.branch.unmerged() == []
    record(two, KEYS[2:3])
    fetch(one)
    one.files.replace(b"annex/ignoredrefs", f"{two.branch.tip}\n".encode())
    assert one.branch.unmerged() == []


def test_both_sides_are_kept_and_the_commit_has_both_parents(pair: tuple[Repository, Repository]) -> None:
    one, two = pair
    record(one, KEYS[:4])
    record(two, KEYS[2:6])
    before, theirs = one.branch.tip, two.branch.tip
    fetch(one)

    one.branch.merge_now()

    assert git(one.path, "rev-list", "--parents", "-1", "git-annex").split()[1:] == [before, theirs]
    assert git(one.path, "log", "-1", "--format=%s", "git-annex") == "merging other/git-annex into git-annex"
    present = [one.branch.locations(key).present for key in KEYS[:6]]
    assert present == [[one.uuid]] * 2 + [sorted([one.uuid, two.uuid])] * 2 + [[two.uuid]] * 2
    git(one.path, "fsck", "--strict")


def test_what_waits_is_committed_with_the_merge(pair: tuple[Repository, Repository]) -> None:
    one, two = pair
    record(two, KEYS[:1])
    fetch(one)
    one.branch.set_present(KEYS[0], one.uuid, True)
    one.branch.sync_now()
    one.branch.change(b"numcopies.log", lambda content: content + b"1s 3\n")

    one.branch.merge_now()

    assert git(one.path, "show", "git-annex:numcopies.log") == "1s 3"
    assert one.branch.locations(KEYS[0]).present == sorted([one.uuid, two.uuid])
    assert one.branch.queued == 0


def test_several_siblings_are_merged_one_after_the_other(pair: tuple[Repository, Repository]) -> None:
    one, two = pair
    for number, name in enumerate(("refs/heads/synced/git-annex", "refs/remotes/a/git-annex", "refs/tags/x/git-annex")):
        record(two, KEYS[number : number + 1])
        git(one.path, "fetch", "-q", two.path, f"+git-annex:{name}")
        git(two.path, "update-ref", "refs/heads/git-annex", "git-annex~1")
    record(one, KEYS[5:6])

    assert len(one.branch.merge_now()) == 3

    assert [bool(one.branch.locations(key).present) for key in KEYS[:6]] == [True] * 3 + [False] * 2 + [True]


def test_commits_that_shall_be_ignored_are(pair: tuple[Repository, Repository]) -> None:
    one, two = pair
    record(two, KEYS[:1])
    fetch(one)
    (Path(one.path) / "annex/ignoredrefs").write_text(f"{two.branch.tip}\n")
    before = one.branch.tip

    assert one.branch.merge_now() == []

    assert one.branch.tip == before


def test_a_branch_with_other_transitions_is_refused_and_the_rest_merged(pair: tuple[Repository, Repository]) -> None:
    one, two = pair
    record(one, KEYS[:1])
    git(one.path, "fetch", "-q", two.path, "git-annex:refs/remotes/fine/git-annex")
    record(two, KEYS[1:2])
    git(one.path, "fetch", "-q", two.path, "+git-annex:refs/remotes/fine/git-annex")
    two.branch.change(b"transitions.log", lambda _: b"ForgetGitHistory 1795219727s\n")
    record(two, KEYS[2:3])
    fetch(one)
    one.branch.set_present(KEYS[4], one.uuid, True)

    with pytest.raises(BranchConflict, match="refs/remotes/other/git-annex: its transitions differ"):
        one.branch.merge_now()

    assert [bool(one.branch.locations(key).present) for key in KEYS[:5]] == [True, True, False, False, True]
    assert one.branch.queued == 0


def test_a_branch_of_another_tuning_is_refused(pair: tuple[Repository, Repository]) -> None:
    one, two = pair
    two.branch.change(b"difference.log", lambda _: b"U fromList [ObjectHashLower] timestamp=1s\n")
    record(two, KEYS[:1])
    fetch(one)

    with pytest.raises(BranchConflict, match="tuned differently"):
        one.branch.merge_now()

    assert not one.branch.locations(KEYS[0]).present


def test_ancestry_is_that_of_git(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "r")
    path = tmp_path / "r"
    dice = random.Random(7)
    commits: list[str] = []
    tree = git(path, "mktree")
    for number in range(60):
        parents = [
            ["-p", commit] for commit in dice.sample(commits[-8:], min(len(commits), dice.choice((0, 1, 1, 1, 2, 3))))
        ]
        date = f"{1_000_000_000 + (number if number % 9 else number - 5) * 100} +0000"
        commits.append(
            subprocess.run(
                ["git", "commit-tree", tree, "-m", str(number), *[word for parent in parents for word in parent]],
                cwd=path,
                env={"PATH": "/usr/bin:/bin", "GIT_COMMITTER_DATE": date, "GIT_AUTHOR_DATE": date}
                | {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
        )
    with Repository.init(path) as repository:
        ancestors = {commit: set(git(path, "rev-list", commit).split()) for commit in commits}
        for new in commits[::3]:
            for old in commits[::2]:
                found = is_ancestor(repository.branch._history, old.encode(), new.encode())
                assert found == (old in ancestors[new])


def lines(dice: random.Random) -> bytes:
    """A log of the odd kinds that exist: unsorted, doubled, without a last newline, with carriage returns."""
    some = [
        f"{dice.randrange(3)}s {dice.choice('01X')} u{dice.randrange(4)}".encode() for _ in range(dice.randrange(1, 6))
    ]
    match dice.randrange(6):
        case 0:
            return b"\n".join(some)
        case 1:
            return b"\n".join(some) + b"\n\n"
        case 2:
            return b"\r\n".join(some) + b"\r\n"
        case 3:
            return b"".join(sorted(line + b"\n" for line in {*some}))
        case _:
            return b"".join(line + b"\n" for line in some)


@pytest.mark.interop
@pytest.mark.parametrize("seed", range(3))
def test_the_merged_tree_is_the_one_git_annex_makes(
    pair: tuple[Repository, Repository], git_annex: str, tmp_path: Path, seed: int
) -> None:
    one, two = pair
    dice = random.Random(seed)
    paths = [f"{n % 16:03x}/{n % 7:03x}/k{n}.log".encode() for n in range(200)] + [
        b"uuid.log",
        b"group.log",
        b"new.log",
    ]

    def write(repository: Repository, share: float) -> None:
        for path in paths:
            if dice.random() < share and path != b"uuid.log":
                content = lines(dice)
                repository.branch.change(path, constantly(content))
        repository.branch.commit_now()

    for _ in range(2):
        write(one, 0.6)
        write(two, 0.6)
    fetch(one)
    shutil.copytree(one.path, tmp_path / "real.git", symlinks=True)
    subprocess.run([git_annex, "merge", "-q"], cwd=tmp_path / "real.git", check=True)

    one.branch.merge_now()

    assert git(one.path, "ls-tree", "-r", "git-annex") == git(tmp_path / "real.git", "ls-tree", "-r", "git-annex")
    assert len(git(one.path, "ls-tree", "-r", "git-annex").splitlines()) > 150


def constantly(content: bytes) -> Callable[[bytes], bytes]:
    return lambda _: content


@pytest.mark.parametrize("count", [30, 3000])
def test_reading_a_repository_that_cannot_be_written_sees_what_was_fetched(
    pair: tuple[Repository, Repository], count: int
) -> None:
    one, two = pair
    keys = [Key.parse(f"SHA256E-s{n}--{n:064x}") for n in range(count)]
    record(two, keys)
    record(one, keys[:10])
    fetch(one)
    from annexpy.repo.branch import Branch

    branch = Branch(one.files, one.config, clock=one.clock, uuid=one.uuid, writable=False)

    assert branch.locations(keys[0]).present == sorted([one.uuid, two.uuid])
    assert branch.locations(keys[20]).present == [two.uuid]
    found = dict(branch.locations_many(keys))
    assert found[keys[0]].present == sorted([one.uuid, two.uuid])
    assert all(found[key].present == [two.uuid] for key in keys[10:])
    assert sum(path.endswith(b".log") and path.count(b"/") == 2 for path, _ in branch.scan()) == count
    assert not one.branch.locations(keys[20]).present
