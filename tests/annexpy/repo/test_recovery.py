"""What a git-annex that died took out of the branch is put back by our next commit."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.keys.layout import location_log
from annexpy.logs.line import SECOND
from annexpy.logs.paths import Format, Log, key_log
from annexpy.repo.branch import Branch
from annexpy.repo.recovery import Recovery, put_back
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

KEYS = [Key.parse(f"SHA256E-s{n}--{n:064x}") for n in range(6)]
U1, U2 = UUID("u1"), UUID("u2")


class Clock:
    at = 1000.0

    def now(self) -> float:
        return self.at

    wall = now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def repository(tmp_path: Path, clock: Clock) -> Iterator[Repository]:
    with Repository.init(tmp_path / "r.git", bare=True, clock=clock) as repository:
        yield repository


def git(repository: Repository, *arguments: str, given: str | None = None) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=repository.path, input=given, capture_output=True, text=True, check=True
    ).stdout.strip()


def commit_index(repository: Repository, index: str, added: dict[bytes, str] | None = None) -> None:
    """As git-annex does with an index that is as old as *index*: the branch gets its tree, and what is *added*."""
    where = {"GIT_INDEX_FILE": os.path.join(repository.path, "annex/old.index")}
    lines = []
    for path, content in (added or {}).items():
        lines.append(f"100644 {git(repository, 'hash-object', '-w', '--stdin', given=content)}\t{os.fsdecode(path)}\n")
    for arguments, given in ((["read-tree", index], ""), (["update-index", "--index-info"], "".join(lines))):
        subprocess.run(
            ["git", *arguments], cwd=repository.path, env=os.environ | where, input=given, text=True, check=True
        )
    tree = subprocess.run(
        ["git", "write-tree"], cwd=repository.path, env=os.environ | where, capture_output=True, text=True, check=True
    ).stdout.strip()
    commit = git(repository, "commit-tree", tree, "-p", "refs/heads/git-annex", "-m", "update")
    git(repository, "update-ref", "refs/heads/git-annex", commit)


def tip(repository: Repository) -> str:
    return git(repository, "rev-parse", "git-annex")


def another(repository: Repository) -> Branch:
    """As another process has it."""
    return Repository.open(repository.path, clock=repository.clock).branch


def committed(repository: Repository, path: bytes) -> str:
    return git(repository, "show", f"git-annex:{os.fsdecode(path)}")


def record(branch: Branch, key: Key, uuid: UUID, present: bool = True) -> None:
    branch.set_present(key, uuid, present)
    branch.commit_now()


def test_lines_that_a_git_annex_took_out_are_back_after_the_next_commit_of_any_of_us(
    repository: Repository, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    record(repository.branch, KEYS[0], U1)
    old = tip(repository)
    record(repository.branch, KEYS[0], U2)
    record(repository.branch, KEYS[1], U1)
    # it has a line of its own in the one log, and knows nothing of the other
    commit_index(repository, old, {location_log(KEYS[0]): "1000s 1 u1\n1001s 1 u3\n"})
    assert repository.branch.locations(KEYS[0]).present == [U1, UUID("u3")]
    assert not repository.branch.locations(KEYS[1]).present

    clock.at += 5
    record(another(repository), KEYS[2], U1)

    assert committed(repository, location_log(KEYS[0])) == "1000s 1 u1\n1000s 1 u2\n1001s 1 u3"
    assert committed(repository, location_log(KEYS[1])) == "1000s 1 u1"
    assert "2 logs" in caplog.text
    commits = git(repository, "rev-list", "--count", "git-annex")
    repository.branch.merge_now()
    assert git(repository, "rev-list", "--count", "git-annex") == commits


def test_lines_that_came_and_went_since_our_last_commit_are_put_back(repository: Repository, clock: Clock) -> None:
    """Committed by one git-annex and taken out by the next: no commit of ours has had them."""
    log, url = location_log(KEYS[0]), key_log(KEYS[5], Log.URL)
    record(repository.branch, KEYS[1], U1)
    commit_index(repository, tip(repository), {log: "1000s 1 u2\n", url: "1000s 1 a\n"})
    commit_index(repository, tip(repository), {log: "1000s 1 u2\n1001s 1 u3\n", b"trust.log": "u2 1 timestamp=1s\n"})
    commit_index(repository, tip(repository), {log: "1000s 1 u4\n", b"trust.log": ""})  # it took it to be empty
    commit_index(repository, tip(repository), {log: "1002s 0 u3\n1000s 1 u4\n", url: "1003s 0 a\n"})

    clock.at += 5
    repository.branch.merge_now()

    assert committed(repository, log).split("\n") == ["1000s 1 u2", "1002s 0 u3", "1000s 1 u4"]
    assert committed(repository, url) == "1003s 0 a"  # replaced, not lost
    assert committed(repository, b"trust.log") == "u2 1 timestamp=1s"
    commits = git(repository, "rev-list", "--count", "git-annex")
    repository.branch.merge_now()
    assert git(repository, "rev-list", "--count", "git-annex") == commits


@pytest.mark.parametrize("limit", ["_COMMITS", "_CHANGES"])
def test_of_very_much_only_the_ends_are_compared(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(f"annexpy.repo.recovery.{limit}", 2)
    record(repository.branch, KEYS[0], U1)
    without = git(repository, "rev-parse", "git-annex^")
    for key in KEYS[1:4]:
        commit_index(repository, without, {location_log(key): "1000s 1 u2\n"})

    repository.branch.merge_now()

    found = [repository.branch.locations(key).present for key in KEYS[:4]]
    assert found == [[U1], [], [], [U2]]


def test_an_object_that_is_gone_from_between_leaves_the_ends(repository: Repository) -> None:
    record(repository.branch, KEYS[0], U1)
    commit_index(repository, git(repository, "rev-parse", "git-annex^"))
    commit_index(repository, tip(repository), {location_log(KEYS[1]): "1000s 1 u2\n"})
    gone = git(repository, "rev-parse", f"git-annex:{os.fsdecode(location_log(KEYS[1]))}")
    commit_index(repository, git(repository, "rev-parse", "git-annex^"), {location_log(KEYS[2]): "1001s 1 u2\n"})
    os.unlink(os.path.join(repository.path, "objects", gone[:2], gone[2:]))

    repository.branch.merge_now()

    assert [repository.branch.locations(key).present for key in KEYS[:3]] == [[U1], [], [U2]]


def test_what_a_remote_took_out_before_we_met_stays_out(repository: Repository) -> None:
    """Its branch, which came to have our last commit as a second parent, becomes ours."""
    began = tip(repository)
    commit_index(repository, began, {location_log(KEYS[0]): "1000s 1 u2\n"})
    commit_index(repository, began)
    theirs = tip(repository)
    git(repository, "update-ref", "refs/heads/git-annex", began)
    record(repository.branch, KEYS[1], U1)
    ours = tip(repository)
    merged = git(repository, "commit-tree", f"{ours}^{{tree}}", "-p", theirs, "-p", ours, "-m", "merge")
    git(repository, "update-ref", "refs/heads/git-annex", merged)
    commit_index(repository, began, {location_log(KEYS[2]): "1000s 1 u2\n"})

    repository.branch.merge_now()

    assert [repository.branch.locations(key).present for key in KEYS[:3]] == [[], [U1], [U2]]


@pytest.mark.parametrize("where", ["queue", "spool", "journal"])
def test_lines_that_are_put_back_stand_beside_what_is_new_in_the_same_commit(
    repository: Repository, where: str
) -> None:
    commit_index(repository, tip(repository), {b"trust.log": "u2 1 timestamp=1s\n"})
    commit_index(repository, git(repository, "rev-parse", "git-annex^"))
    branch = repository.branch
    if where == "journal":
        os.makedirs(os.path.join(repository.path, "annex/journal"), exist_ok=True)
        Path(repository.path, "annex/journal/trust.log").write_text("u3 1 timestamp=2s\n")
    else:
        branch.change(b"trust.log", lambda content: content + b"u3 1 timestamp=2s\n")
    if where == "spool":
        branch.sync_now()
        branch = another(repository)

    branch.merge_now()

    assert committed(repository, b"trust.log") == "u2 1 timestamp=1s\nu3 1 timestamp=2s"


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize("settings", [{}, {"annex.alwayscommit": "false"}], ids=["committed", "journaled"])
def test_what_we_record_is_judged_by_the_log_as_it_was(
    repository: Repository, clock: Clock, present: bool, settings: dict[str, str]
) -> None:
    """By what git-annex left of it, the record says nothing new; and what comes back would be newer."""
    clock.at = 1000
    record(repository.branch, KEYS[0], U1, present)
    old = tip(repository)
    clock.at = 1500
    record(repository.branch, KEYS[0], U1, not present)
    commit_index(repository, old)
    for name, value in settings.items():
        repository.config.set(name, value)
    clock.at = 1600

    repository.branch.set_present(KEYS[0], U1, present)
    repository.branch.commit_now()

    found = another(repository).locations(KEYS[0])
    assert (found.present == [U1]) is present
    assert found.entries[U1][0] == 1600 * SECOND


def test_a_record_follows_a_line_that_comes_back_from_a_clock_ahead(repository: Repository, clock: Clock) -> None:
    old = tip(repository)
    clock.at = 5000
    record(repository.branch, KEYS[0], U1)
    commit_index(repository, old)
    clock.at = 1600

    record(another(repository), KEYS[0], U1, False)

    assert not repository.branch.locations(KEYS[0]).present


def test_a_record_from_before_does_not_overrule_a_line_that_comes_back(repository: Repository, clock: Clock) -> None:
    repository.branch.set_present(KEYS[0], U1, True)
    repository.branch.sync_now()
    commit_index(repository, tip(repository), {location_log(KEYS[0]): "1500s 0 u1\n"})
    commit_index(repository, git(repository, "rev-parse", "git-annex^"))
    clock.at = 2000

    another(repository).merge_now()

    assert committed(repository, location_log(KEYS[0])) == "1500s 0 u1"


def test_after_an_error_of_the_system_the_next_commit_looks_again(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptors(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    old = tip(repository)
    record(repository.branch, KEYS[0], U1)
    commit_index(repository, old)
    with monkeypatch.context() as broken:
        broken.setattr(Recovery, "_commits", no_descriptors)
        record(another(repository), KEYS[1], U1)

    record(another(repository), KEYS[2], U1)

    assert [repository.branch.locations(key).present for key in KEYS[:3]] == [[U1], [U1], [U1]]


def test_of_several_versions_of_a_log_each_line_comes_back(repository: Repository) -> None:
    old = tip(repository)
    for uuid in ("ua", "ub"):
        commit_index(repository, old, {b"trust.log": f"{uuid} 1 timestamp=1s\n"})
        commit_index(repository, old)

    repository.branch.merge_now()

    assert committed(repository, b"trust.log") == "ua 1 timestamp=1s\nub 1 timestamp=1s"


def test_a_note_that_cannot_be_read_stops_no_commit(repository: Repository, caplog: pytest.LogCaptureFixture) -> None:
    note = Path(repository.path, "annex/annexpy/branch")
    note.unlink()
    note.symlink_to("elsewhere")

    record(repository.branch, KEYS[0], U1)

    assert committed(repository, location_log(KEYS[0])) == "1000s 1 u1"
    assert "cannot be compared" in caplog.text


def test_a_merge_puts_them_back_where_nothing_else_waits(repository: Repository) -> None:
    old = tip(repository)
    record(repository.branch, KEYS[0], U1)
    described = committed(repository, b"uuid.log")
    commit_index(repository, old)
    empty = git(repository, "hash-object", "-t", "tree", "-w", "/dev/null")
    commit_index(repository, empty)
    assert repository.branch.read(b"uuid.log") == b""

    repository.branch.merge_now()

    assert repository.branch.locations(KEYS[0]).present == [U1]
    assert committed(repository, b"uuid.log") == described != ""


def test_what_was_said_later_stands(repository: Repository, clock: Clock) -> None:
    """By git-annex after its death, and by us in the commit that puts the rest back."""
    old = tip(repository)
    for key in KEYS[:4]:
        record(repository.branch, key, U1)
    gone = {location_log(KEYS[0]): "1005s 0 u1\n", location_log(KEYS[1]): "1005s X u1\n"}
    commit_index(repository, old, gone)
    clock.at += 10

    record(repository.branch, KEYS[2], U1, False)

    assert committed(repository, location_log(KEYS[0])) == "1005s 0 u1"
    assert committed(repository, location_log(KEYS[1])) == "1005s X u1"
    assert committed(repository, location_log(KEYS[2])) == "1010s 0 u1"
    assert committed(repository, location_log(KEYS[3])) == "1000s 1 u1"


def test_without_commits_to_the_branch_it_goes_to_the_journal(repository: Repository) -> None:
    old = tip(repository)
    record(repository.branch, KEYS[0], U1)
    commit_index(repository, old)
    repository.config.set("annex.alwayscommit", "false")

    record(repository.branch, KEYS[1], U1)

    assert another(repository).locations(KEYS[0]).present == [U1]
    assert len(os.listdir(os.path.join(repository.path, "annex/journal"))) == 2


def test_what_was_forgotten_stays_forgotten(repository: Repository) -> None:
    record(repository.branch, KEYS[0], U1)
    empty = git(repository, "hash-object", "-t", "tree", "-w", "/dev/null")
    git(repository, "update-ref", "refs/heads/git-annex", git(repository, "commit-tree", empty, "-m", "new root"))

    record(repository.branch, KEYS[1], U1)

    assert not repository.branch.locations(KEYS[0]).present
    assert git(repository, "rev-list", "--count", "git-annex") == "2"


def test_what_is_no_log_is_not_put_back(repository: Repository) -> None:
    """Such as the tree of an export, which git-annex puts there for one commit only."""
    old = tip(repository)
    commit_index(repository, old, {b"export.tree/a.txt": "a", b"000/000/" + str(KEYS[0]).encode() + b".log": "1s 1 u"})
    record(repository.branch, KEYS[0], U1)
    commit_index(repository, old)

    repository.branch.merge_now()

    names = git(repository, "ls-tree", "-r", "--name-only", "git-annex").split("\n")
    assert sorted(names) == sorted(["uuid.log", os.fsdecode(location_log(KEYS[0]))])


@pytest.mark.parametrize("noted", [b"", b"x" * 40 + b"\n", b"1" * 40 + b"\n", b"1" * 10])
def test_without_a_note_that_can_be_used_it_goes_on(repository: Repository, noted: bytes) -> None:
    record(repository.branch, KEYS[0], U1)
    (Path(repository.path) / "annex/annexpy/branch").write_bytes(noted)

    record(repository.branch, KEYS[1], U1)
    old = tip(repository)
    record(repository.branch, KEYS[2], U1)
    commit_index(repository, old)
    repository.branch.merge_now()

    assert all(repository.branch.locations(key).present == [U1] for key in KEYS[:3])


@pytest.mark.parametrize(
    ("before", "now", "after"),
    [
        (b"1s a 1\n2s b 2\n", b"1s a 1\n", b"1s a 1\n2s b 2\n"),
        (b"1s a 1\n2s b 2\n", b"3s a 2\n2s b 2\n", b"3s a 2\n2s b 2\n"),  # replaced
        (b"1s a 1\n", b"1s a 1\n", b"1s a 1\n"),
        (b"1s a 1\n", b"", b"1s a 1\n"),
    ],
)
def test_of_other_logs_old_lines_come_back_where_nothing_new_was_said(before: bytes, now: bytes, after: bytes) -> None:
    assert put_back(before, now, Format.MAP) == after
