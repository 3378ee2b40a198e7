from __future__ import annotations

from dataclasses import replace

import pytest

from annexpy.keys.key import Key
from annexpy.policy.expression import parse
from annexpy.policy.facts import KeyFacts, Repositories
from annexpy.policy.matchexpression import Lacking, match_expression
from annexpy.policy.trust import TrustLevel
from annexpy.policy.wanted import Needs, Policy
from annexpy.uuids import UUID

A, B, C = (UUID(letter * 8) for letter in "abc")
KEY = Key.parse("SHA256E-s100--abc.txt")
FILE = KeyFacts(KEY, b"docs/file.txt", frozenset({B}))
GROUPS = {A: frozenset({"client"}), B: frozenset({"archive"}), C: frozenset({"archive", "redundant"})}


def wants(text: str, facts: KeyFacts = FILE, *, uuid: UUID = A, **others: object) -> bool:
    repositories = replace(Repositories(groups=GROUPS, preferred={uuid: text}), **others)
    return Policy(repositories).wants(uuid, facts)


def test_a_path_or_its_lack_decides() -> None:
    assert wants("include=docs/*")
    assert not wants("exclude=docs/*")
    bare = replace(FILE, file=None)
    assert not wants("include=*", bare)
    assert not wants("exclude=*.mp3", bare)


def test_unused_is_asked_of_keys_without_a_file_only() -> None:
    unused = replace(FILE, unused=True)

    assert not wants("unused", unused)
    assert wants("unused", replace(unused, file=None))


def test_where_nothing_is_said_the_caller_decides() -> None:
    policy = Policy(Repositories(preferred={A: "", B: "()", C: "nothing"}))

    for uuid in (A, B):
        assert not policy.configured(uuid)
        assert policy.wants(uuid, FILE)
        assert not policy.wants(uuid, FILE, default=False)
        assert not policy.wants_drop(uuid, FILE)
        assert policy.wants_drop(uuid, FILE, default=False)
    assert policy.configured(C)
    assert not policy.wants(C, FILE)


@pytest.mark.parametrize("text", ["bogus", "anything or bogus", "include=[", "groupwanted"])
def test_what_cannot_be_read_keeps_what_is_there(text: str) -> None:
    others = {"groupwanted": {"client": "copies=x"}}

    assert not wants(text, **others)
    assert wants(text, replace(FILE, holders=frozenset({A})), **others)


def test_what_cannot_be_read_spoils_what_can() -> None:
    policy = Policy(Repositories(preferred={A: "anything"}, required={A: "bogus"}))

    assert not policy.wants(A, FILE)
    assert policy.requires(A, replace(FILE, holders=frozenset({A, B})))


@pytest.mark.parametrize(
    "text",
    [
        "not present",
        "anything or not present",
        "not (present and include=*)",
        "not not not present",
        "not balanced=client",
        "not sizebalanced=client:2 or anything",
        "not groupwanted",
        "groupwanted",
    ],
)
def test_what_would_be_got_and_dropped_for_ever_is_never_wanted(text: str) -> None:
    others = {"groupwanted": {"client": "not present" if text == "groupwanted" else "present"}}

    assert not wants(text, **others)
    assert not wants(text, replace(FILE, holders=frozenset({A})), **others)


@pytest.mark.parametrize(
    "text", ["not not present or anything", "not (not present) or anything", "not fullybalanced=x"]
)
def test_what_is_negated_twice_is_stable(text: str) -> None:
    assert wants(text)


def test_standard_is_what_the_one_standard_group_wants() -> None:
    assert wants("standard")
    assert not wants("standard", uuid=C)  # an archive has it, and C is one
    assert wants("standard", uuid=C, groups={C: frozenset({"archive"})})
    two = {A: frozenset({"client", "backup"})}
    assert not wants("standard", groups=two)
    assert not wants("standard", groups={})


def test_groupwanted_leads_to_the_one_group_that_says_something() -> None:
    said = {"client": "include=*.txt", "redundant": "groupwanted or include=*", "archive": ""}

    assert wants("groupwanted", groupwanted=said)
    assert wants("groupwanted", uuid=C, groupwanted=said)  # what leads back is "present"
    assert not wants("groupwanted", groupwanted={})
    assert wants("groupwanted", groupwanted={"client": "standard"})
    assert not wants("groupwanted", uuid=C, groupwanted={"archive": "anything", "redundant": "anything"})


def test_what_is_required_is_wanted_and_kept() -> None:
    policy = Policy(Repositories(preferred={A: "nothing"}, required={A: "include=docs/*"}))
    held = replace(FILE, holders=frozenset({A, B}))

    assert policy.wants(A, FILE)
    assert policy.requires(A, held)
    assert not policy.wants_drop(A, held)
    assert not policy.requires(A, replace(held, file=b"other"))
    assert not policy.requires(B, held)


def test_a_copy_more_than_wanted_may_go_but_not_the_last_that_is() -> None:
    policy = Policy(Repositories(preferred={A: "not copies=2"}))

    assert not policy.wants_drop(A, replace(FILE, holders=frozenset({A, B})))
    assert policy.wants_drop(A, replace(FILE, holders=frozenset({A, B, C})))


def test_dead_repositories_and_clusters_are_no_copies() -> None:
    cluster = UUID("ac702100-873f-876c-a12c-4026b11e785c")
    held = replace(FILE, holders=frozenset({B, cluster}))

    assert wants("not copies=2", held)
    assert wants("not copies=1", held, trust={B: TrustLevel.DEAD})
    assert wants("approxlackingcopies=1", held, trust={B: TrustLevel.UNTRUSTED})
    assert not wants("present", replace(FILE, holders=frozenset({A})), trust={A: TrustLevel.DEAD})


def test_as_if_others_had_it() -> None:
    policy = Policy(Repositories(groups=GROUPS, preferred={C: "standard"}))

    assert policy.wants(C, FILE, holders=frozenset({A}))
    assert not policy.wants(C, FILE, holders=frozenset({A, B}))


def test_only_what_is_asked_for_is_needed() -> None:
    preferred = {
        A: "metadata=a=b or url=* or not unused",
        B: "lackingcopies=1 and balanced=x:lackingcopies",
        C: "standard or securehash or include=*",
    }
    policy = Policy(Repositories(groups=GROUPS, preferred=preferred))

    assert policy.needs([A]) == Needs.METADATA | Needs.URLS | Needs.UNUSED
    assert policy.needs([B]) == Needs.NUMCOPIES | Needs.SIZES
    assert policy.needs([C]) == Needs.EQUIVALENT
    assert policy.needs([UUID("other")]) == Needs(0)


def test_matchexpression_says_what_it_was_not_told() -> None:
    def match(text: str, facts: KeyFacts = FILE, *, without_key: bool = False) -> bool | Lacking:
        return match_expression(parse(text), facts, Repositories(groups=GROUPS), A, without_key=without_key)

    unsized = replace(FILE, key=Key.parse("URL--x"))
    assert match("standard and groupwanted and include=*.txt") is True
    assert match("not present or anything") is False
    assert match("include=a", replace(FILE, file=None)) is Lacking.FILE
    assert match("largerthan=1", unsized) is Lacking.SIZE
    assert match("anything or largerthan=1", unsized) is True
    assert match("copies=1", without_key=True) is Lacking.KEY
    assert match("largerthan=99", without_key=True) is True
    assert match("inallgroup=nosuch", without_key=True) is True
    assert match("") is True
