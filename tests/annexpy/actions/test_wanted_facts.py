"""What is gathered for preferred content, and where keys are sent by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from annexpy.actions.wanted import Wanted
from annexpy.keys.key import Key
from annexpy.logs.line import SECOND, VectorClock
from annexpy.logs.metadata import set_metadata
from annexpy.logs.paths import Log, key_log
from annexpy.logs.preferred import GROUP_PREFERRED_CONTENT, PREFERRED_CONTENT
from annexpy.logs.repos import GROUPS, MAXSIZES
from annexpy.logs.settings import NUMCOPIES
from annexpy.policy.facts import KeyFacts
from annexpy.policy.placement import Unwanted
from annexpy.repo.branch import Branch
from annexpy.repo.held import HeldSizes
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

KEY = Key.parse("SHA256E-s100--abc.txt")
NODES = [UUID(f"{letter * 8}-0000-4000-8000-000000000000") for letter in "abcd"]
A, B, C, D = NODES
NOW = VectorClock(1_000_000 * SECOND)
LATER = VectorClock(2_000_000 * SECOND)
NOBODY: frozenset[UUID] = frozenset()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "gateway", bare=True) as made:
        yield made


def say(
    branch: Branch,
    wanted: Mapping[UUID, str],
    groups: Mapping[UUID, str] | None = None,
    maxsizes: Mapping[UUID, int] | None = None,
    *,
    now: VectorClock = NOW,
) -> None:
    for uuid, text in wanted.items():
        branch.change(Log.PREFERRED_CONTENT.value, lambda old, u=uuid, t=text: PREFERRED_CONTENT.set(old, u, t, now))
    for uuid, group in (groups or {}).items():
        branch.change(Log.GROUP.value, lambda old, u=uuid, g=group: GROUPS.set(old, u, frozenset({g}), now))
    for uuid, size in (maxsizes or {}).items():
        branch.change(Log.MAXSIZE.value, lambda old, u=uuid, s=size: MAXSIZES.set(old, u, s, now))
    branch.commit_now()


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_archives_of_a_cluster_get_exactly_the_copies_they_ask_for(repository: Repository, copies: int) -> None:
    branch = repository.branch
    text = f"not copies=archive:{copies}"
    branch.change(Log.GROUP_PREFERRED_CONTENT.value, lambda old: GROUP_PREFERRED_CONTENT.set(old, "archive", text, NOW))
    say(branch, dict.fromkeys(NODES, "groupwanted"), dict.fromkeys(NODES, "archive"))

    choice = Wanted(repository).choose(NODES, KEY, holders=NOBODY)

    assert choice.nodes == tuple(NODES[:copies])


def test_a_full_node_is_passed_over_and_one_that_refuses_is_replaced(repository: Repository) -> None:
    say(repository.branch, dict.fromkeys(NODES, "standard"), dict.fromkeys(NODES, "archive"), {A: 99, B: 100})
    wanted = Wanted(repository)

    assert wanted.choose(NODES, KEY, holders=NOBODY).nodes == (B,)
    assert wanted.choose(NODES, KEY, holders=NOBODY, refused=frozenset({B})).nodes == (C,)


def test_balanced_nodes_stop_when_they_are_full(repository: Repository) -> None:
    say(repository.branch, dict.fromkeys(NODES, "balanced=g"), dict.fromkeys(NODES, "g"), dict.fromkeys(NODES, 1000))
    wanted = Wanted(repository, held=HeldSizes(repository, fresh=0))
    for n in range(40):
        key = Key.parse(f"SHA256-s100--{n:064x}")
        (node,) = wanted.choose(NODES, key, holders=NOBODY, unwanted=Unwanted.REFUSE).nodes
        repository.branch.set_present(key, node, True)

    assert [wanted.free(node) for node in NODES] == [0, 0, 0, 0]
    assert wanted.choose(NODES, KEY, holders=NOBODY, unwanted=Unwanted.REFUSE).nodes == ()


def test_the_associated_file_counts_where_there_is_one(repository: Repository) -> None:
    say(repository.branch, {A: "include=docs/*", B: "exclude=docs/*", C: "anything", D: "nothing"})
    wanted = Wanted(repository)

    assert wanted.choose(NODES, KEY, "docs/file", holders=NOBODY).nodes == (A, C)
    assert wanted.choose(NODES, KEY, "file", holders=NOBODY).nodes == (B, C)
    assert wanted.choose(NODES, KEY, "", holders=NOBODY).nodes == (C,)


def test_settings_are_read_once_and_a_change_shows(repository: Repository) -> None:
    say(repository.branch, {A: "nothing"})
    wanted = Wanted(repository)
    assert not wanted.wants(A, KEY)
    assert not wanted.changed

    say(repository.branch, {A: "anything"}, now=LATER)

    assert wanted.changed
    assert not wanted.wants(A, KEY)
    assert Wanted(repository).wants(A, KEY)


def test_only_what_expressions_ask_for_is_read(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    say(repository.branch, {A: "include=* and copies=1"})
    wanted = Wanted(repository)
    wanted.policy  # noqa: B018 reads the settings
    read: list[bytes] = []
    real = Branch.read
    monkeypatch.setattr(Branch, "read", lambda self, path: read.append(path) or real(self, path))
    monkeypatch.setattr(HeldSizes, "sizes", None)

    wanted.wants(A, KEY, b"file")

    assert read == [key_log(KEY)]
    assert wanted.wants(A, KEY, b"file", holders=[B])
    assert not wanted.wants(A, KEY, b"file", holders=[])
    assert read == [key_log(KEY)]  # who has it was said


def test_what_expressions_ask_for_is_found(repository: Repository) -> None:
    branch = repository.branch
    say(branch, {A: "metadata=tag=x and url=http://* and lackingcopies=2 and unused and securehash"})
    branch.change(Log.NUMCOPIES.value, lambda old: NUMCOPIES.set(old, 3, NOW))
    vurl = Key.parse("VURL--http://example.com/x")
    for key in (KEY, vurl):
        branch.set_present(key, B, True)
        branch.change(key_log(key, Log.METADATA), lambda old: set_metadata(old, {"Tag": {"X": True}}, NOW))
        branch.set_presence(key_log(key, Log.URL), b"http://example.com/x", b"1")
    branch.set_presence(key_log(vurl, Log.EQUIVALENT_KEY), b"MD5-s1--x", b"1")
    Path(repository.path, "annex/unused").write_text(f"1 {KEY} 17s\n2 SHA256--other 17s\n")
    wanted = Wanted(repository)

    assert wanted.facts(KEY) == KeyFacts(
        KEY, None, frozenset({B}), None, {"tag": frozenset({"X"})}, ("http://example.com/x",), unused=True
    )
    assert wanted.wants(A, KEY)
    assert not wanted.wants(A, KEY, b"file")  # a file is not unused
    assert wanted.facts(vurl).equivalent == (Key.parse("MD5-s1--x"),)
    assert not wanted.wants(A, vurl)


def test_many_keys_are_answered_in_their_order(repository: Repository) -> None:
    say(repository.branch, {A: "not copies=1"})
    keys = [Key.parse(f"SHA256-s1--{n:064x}") for n in range(2000)]
    for key in keys[::3]:
        repository.branch.set_present(key, B, True)
    repository.branch.commit_now()

    answers = list(Wanted(repository).wants_many(A, ((key, None) for key in keys)))

    assert [key for key, _, _ in answers] == keys
    assert [wants for _, _, wants in answers] == [n % 3 != 0 for n in range(2000)]
