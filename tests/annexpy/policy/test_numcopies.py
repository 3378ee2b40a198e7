"""How many copies must stay, which ones count, and what proves it."""

from __future__ import annotations

import copy as copying
import inspect
import pickle
import sys
import types

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from annexpy.clock import LOCK_RETENTION, Deadline
from annexpy.errors import NotEnoughCopies
from annexpy.keys.key import Key
from annexpy.policy import numcopies
from annexpy.policy.numcopies import (
    CHECK_LIFETIME,
    CheckedCopy,
    Copies,
    DropProof,
    FileCopies,
    HeldCopy,
    TrustedCopy,
    VerifiedCopy,
    find_copies,
    not_a_copy,
    read_number,
    safe_drop,
)
from annexpy.policy.trust import TrustLevel, trust_levels
from annexpy.uuids import UUID, new_cluster_uuid

KEY = Key.parse(b"SHA256E-s3--" + b"0" * 64 + b".dat")
WORM = Key.parse(b"WORM-s3-m1--a")
A, B, C, D = (UUID(f"{letter * 8}-1111-4111-8111-111111111111") for letter in "abcd")
CLUSTER = new_cluster_uuid("12345678-1234-4234-9234-123456789012")
NOW = 1000.0


def prove(copies: Copies, *verified: VerifiedCopy, trust: dict[UUID, TrustLevel] | None = None) -> DropProof:
    return safe_drop(KEY, copies, verified, dropped_from={A}, trust=trust or {}, now=NOW)


def locked(uuid: UUID, left: float = 100.0, name: str = "") -> HeldCopy:
    return HeldCopy(uuid, name or uuid[:1], NOW + left)


# -- how many --


def test_the_order_is_command_line_attribute_log_config_default() -> None:
    file = FileCopies(b"f", num=4, min=3)
    everything = {"command_line": (6, 5), "log": (2, 7), "config": 9}

    assert find_copies([file], **everything) == Copies(6, 5, "command line", "command line")
    assert find_copies([file], log=(2, 7), config=9) == Copies(4, 3, "git attribute of f", "git attribute of f")
    assert find_copies([FileCopies(b"f")], log=(2, 7), config=9) == Copies(2, 7, "numcopies.log", "mincopies.log")
    assert find_copies(config=9) == Copies(9, 1, "git config annex.numcopies", "default")
    assert find_copies() == Copies(1, 1, "default", "default")


def test_a_key_without_a_file_has_no_attributes() -> None:
    assert find_copies(log=(3, None)).num == 3


def test_the_largest_number_over_all_files_counts_and_a_file_without_attribute_has_the_next_source() -> None:
    small, none = FileCopies(b"small", num=2), FileCopies(b"none")

    assert find_copies([small, none], log=(5, None)).num == 5
    assert find_copies([small, none], log=(1, None)).num == 2
    assert find_copies([small], log=(5, None)).num == 2


def test_values_below_one_act_as_one_and_hide_what_is_behind_them() -> None:
    assert find_copies([FileCopies(b"f", num=0, min=-1)], log=(4, 4)) == Copies(
        1, 1, "git attribute of f", "git attribute of f"
    )
    assert find_copies(command_line=(-3, 0)) == Copies(1, 1, "command line", "command line")


@given(
    st.lists(st.tuples(st.none() | st.integers(-2, 9), st.none() | st.integers(-2, 9)), max_size=4),
    st.none() | st.integers(-2, 9),
    st.none() | st.integers(-2, 9),
    st.none() | st.integers(-2, 9),
    st.none() | st.integers(-2, 9),
)
def test_find_copies_is_the_maximum_of_each_file_alone(files, log, min_log, config, command_line) -> None:  # type: ignore[no-untyped-def]
    known = [FileCopies(b"%d" % n, *pair) for n, pair in enumerate(files)]
    sources = {"command_line": (command_line, None), "log": (log, min_log), "config": config}

    together = find_copies(known, **sources)
    alone = [find_copies([file], **sources) for file in known] or [find_copies(**sources)]

    assert together.num == max(one.num for one in alone) >= 1
    assert together.min == max(one.min for one in alone) >= 1


@pytest.mark.parametrize(
    ("text", "number"),
    # found with `git annex drop` of the real git-annex, the number in .gitattributes or git config
    [
        ("3", 3),
        ("3abc", 3),
        (" 3", 3),
        ("5 ", 5),
        ("0x3", 3),
        ("007", 7),
        ("(6)", 6),
        ("-1", -1),
        ("0", 0),
        ("", None),
        ("x", None),
        ("+4", None),
        ("4.5", None),
        ("1e1", None),
    ],
)
def test_numbers_are_read_as_git_annex_reads_them(text: str, number: int | None) -> None:
    assert read_number(text) == read_number(text.encode()) == number


def test_no_attribute_is_no_number() -> None:
    assert read_number(None) is None


# -- which ones count --


def test_a_lock_on_another_copy_proves_a_drop_until_the_lock_ends() -> None:
    proof = prove(Copies(1, 1), locked(B, 100))

    assert proof.counted == (locked(B, 100),)
    assert proof.deadline == Deadline(NOW + 100)
    assert proof.verifiable


def test_the_deadline_is_the_earliest_end_of_a_lock_that_counts() -> None:
    proof = prove(Copies(2, 1), locked(B, 100), locked(C, 30), CheckedCopy(D, "d", NOW - 1), locked(A, 1))

    assert proof.deadline == Deadline(NOW + 30)


def test_trust_alone_gives_a_proof_without_a_deadline() -> None:
    assert prove(Copies(), TrustedCopy(B, "b"), trust={B: TrustLevel.TRUSTED}).deadline is None


def test_without_a_hash_the_proof_says_so() -> None:
    proof = safe_drop(WORM, Copies(), [locked(B)], dropped_from={A}, trust={}, now=NOW)

    assert not proof.verifiable


@pytest.mark.parametrize(
    ("copy", "why"),
    [
        (locked(A), "it is where the content would be dropped"),
        (locked(CLUSTER), "a cluster is not a copy"),
        (locked(C), "the repository is untrusted"),
        (locked(D), "the repository is dead"),
        (locked(B, 0), "its lock is over"),
        (locked(B, -1), "its lock is over"),
        (CheckedCopy(B, "b", NOW - CHECK_LIFETIME), "it was looked at too long ago"),
        (CheckedCopy(B, "b", NOW + 1), "it was looked at too long ago"),
        (TrustedCopy(B, "b"), "the repository is not trusted"),
        (TrustedCopy(CLUSTER, "cl"), "a cluster is not a copy"),
        (TrustedCopy(C, "c"), "the repository is untrusted"),
    ],
)
def test_what_must_not_count_is_refused_by_name(copy: VerifiedCopy, why: str) -> None:
    trust = {C: TrustLevel.UNTRUSTED, D: TrustLevel.DEAD}

    with pytest.raises(NotEnoughCopies) as refused:
        prove(Copies(), copy, trust=trust)

    assert (refused.value.have, refused.value.need) == (0, 1)
    assert refused.value.missing == {copy.name: why}


def test_the_same_repository_by_two_paths_counts_once() -> None:
    with pytest.raises(NotEnoughCopies) as refused:
        prove(Copies(2), locked(B, 50, "by ssh"), locked(B, 60, "by path"))

    assert refused.value.counted == {"by path": "locked"}
    assert refused.value.missing == {"by ssh": "the same repository as by path"}


def test_what_was_only_looked_at_counts_for_numcopies_but_not_for_mincopies() -> None:
    assert prove(Copies(2, 1), locked(B), CheckedCopy(C, "c", NOW)).counted

    with pytest.raises(NotEnoughCopies) as refused:
        prove(Copies(2, 2), locked(B), CheckedCopy(C, "c", NOW))

    assert (refused.value.have, refused.value.need) == (1, 2)
    assert refused.value.counted == {"b": "locked"}
    assert refused.value.missing == {"c": "present but not locked, and mincopies asks for 2 locked"}


def test_a_trusted_copy_counts_for_mincopies() -> None:
    assert prove(Copies(2, 2), locked(B), TrustedCopy(C, "c"), trust={C: TrustLevel.TRUSTED})


def test_mincopies_above_numcopies_decides() -> None:
    with pytest.raises(NotEnoughCopies) as refused:
        prove(Copies(1, 3), locked(B), locked(C))

    assert refused.value.need == 3


def test_the_refusal_is_one_sentence_with_every_place_in_it() -> None:
    with pytest.raises(NotEnoughCopies) as refused:
        safe_drop(
            KEY,
            Copies(3),
            [locked(B, name="vault1"), locked(C, name="desk"), TrustedCopy(CLUSTER, "cluster")],
            dropped_from={A},
            trust={C: TrustLevel.UNTRUSTED},
            now=NOW,
            missing={"vault3": "unreachable"},
        )

    assert str(refused.value) == (
        f"{KEY}: 1 copy verified, 3 needed; counted: vault1 (locked); "
        "not counted: vault3 (unreachable), desk (the repository is untrusted), cluster (a cluster is not a copy)"
    )


uuids = st.sampled_from([A, B, C, D, CLUSTER])
levels = st.dictionaries(uuids, st.sampled_from(list(TrustLevel)))
facts = st.one_of(
    st.builds(HeldCopy, uuids, st.just("h"), st.floats(NOW - 700, NOW + 700)),
    st.builds(CheckedCopy, uuids, st.just("c"), st.floats(NOW - 700, NOW + 10)),
    st.builds(TrustedCopy, uuids, st.just("t")),
)


def check_the_rule(prove, verified, trust, num, least, dropped_from) -> None:  # type: ignore[no-untyped-def]
    """The rule once more, in other words than those of the code."""

    def sure(copy: VerifiedCopy) -> bool:
        if type(copy).__name__ == "HeldCopy":
            return copy.expires > NOW
        return type(copy).__name__ == "TrustedCopy" and trust.get(copy.uuid) == "trusted"

    def fine(copy: VerifiedCopy) -> bool:
        looked = type(copy).__name__ == "CheckedCopy" and 0 <= NOW - copy.at < LOCK_RETENTION
        good_place = copy.uuid not in dropped_from and copy.uuid != CLUSTER
        return good_place and trust.get(copy.uuid) not in ("untrusted", "dead") and (sure(copy) or looked)

    total = {copy.uuid for copy in verified if fine(copy)}
    certain = {copy.uuid for copy in verified if fine(copy) and sure(copy)}
    allowed = len(total) >= max(num, least) and len(certain) >= least

    try:
        proof = prove(KEY, Copies(num, least), verified, dropped_from=dropped_from, trust=trust, now=NOW)
    except NotEnoughCopies:
        assert not allowed
    else:
        assert allowed
        assert {copy.uuid for copy in proof.counted} == total
        ends = [copy.expires for copy in proof.counted if type(copy).__name__ == "HeldCopy"]
        assert all(end > NOW for end in ends)
        assert proof.deadline == (Deadline(min(ends)) if ends else None)


worlds = (st.lists(facts, max_size=6), levels, st.integers(1, 3), st.integers(1, 3), st.sets(uuids))


@given(*worlds)
def test_a_proof_stands_on_enough_sure_copies_whatever_is_claimed(verified, trust, num, least, dropped_from) -> None:  # type: ignore[no-untyped-def]
    check_the_rule(safe_drop, verified, trust, num, least, dropped_from)


@given(st.lists(facts, max_size=5), levels, st.integers(1, 3))
def test_more_facts_never_turn_a_permission_into_a_refusal(verified, trust, num) -> None:  # type: ignore[no-untyped-def]
    def allowed(known: list[VerifiedCopy]) -> bool:
        try:
            safe_drop(KEY, Copies(num), known, dropped_from={A}, trust=trust, now=NOW)
        except NotEnoughCopies:
            return False
        return True

    if any(allowed(verified[:count]) for count in range(len(verified))):
        assert allowed(verified)


# -- the proof cannot be forged --


def test_a_proof_comes_from_safe_drop_alone() -> None:
    with pytest.raises(TypeError):
        DropProof()
    with pytest.raises(TypeError):
        DropProof(KEY, Copies(), (), {}, None)  # type: ignore[call-arg]
    assert [name for name in numcopies.__all__ if "seal" in name] == []


def test_a_proof_cannot_be_changed_copied_or_carried_elsewhere() -> None:
    proof = prove(Copies(), locked(B))

    with pytest.raises(AttributeError):
        proof.deadline = None
    with pytest.raises(AttributeError):
        del proof.deadline
    for duplicate in (copying.copy, copying.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            duplicate(proof)


# -- trust --


def test_the_configuration_wins_over_the_log() -> None:
    log = {A: TrustLevel.TRUSTED, B: TrustLevel.DEAD}

    assert trust_levels(log, [(A, "untrusted"), (B, "no level"), (C, "trusted")]) == {
        A: TrustLevel.UNTRUSTED,
        B: TrustLevel.DEAD,
        C: TrustLevel.TRUSTED,
    }


def test_semitrusted_is_what_nobody_spoke_of() -> None:
    assert not_a_copy(D, {A}, {}) is None


# -- planted wrong variants: the property above must be able to fail --


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("if is_cluster(uuid):", "if False:"),
        ("if uuid in dropped_from:", "if False:"),
        ('return "the repository is dead"', "return None"),
        ('return "the repository is untrusted"', "return None"),
        ('return None if now < expires else "its lock is over"', "return None"),
        ("return None if at <= now < at + CHECK_LIFETIME else", "return None if at <= now else"),
        ("return None if trust.get(uuid) is TrustLevel.TRUSTED else", "return None if True else"),
        ("if len(sure) < copies.min:", "if False:"),
        ("if len(counted) < copies.needed:", "if len(counted) + 1 < copies.needed:"),
        ("counted = tuple(best.values())", "counted = tuple(verified)"),
        ("if not isinstance(copy, CheckedCopy)]", "]"),
        ("Deadline(min(ends)) if ends", "Deadline(max(ends)) if ends"),
        ("Deadline(min(ends)) if ends else None", "None"),
    ],
)
def test_the_property_notices_a_wrong_variant(right: str, wrong: str) -> None:
    source = inspect.getsource(numcopies)
    assert source.count(right) == 1
    variant = types.ModuleType("annexpy.policy.variant")
    sys.modules[variant.__name__] = variant
    try:
        exec(compile(source.replace(right, wrong), "variant", "exec"), variant.__dict__)
    finally:
        del sys.modules[variant.__name__]
    kinds = {kind: getattr(variant, kind.__name__) for kind in (HeldCopy, CheckedCopy, TrustedCopy)}

    @settings(max_examples=2000, database=None, derandomize=True, phases=[Phase.generate])
    @given(*worlds)
    def rule(verified, trust, num, least, dropped_from) -> None:  # type: ignore[no-untyped-def]
        same = [kinds[type(copy)](*(getattr(copy, field) for field in copy.__slots__)) for copy in verified]
        check_the_rule(variant.safe_drop, same, trust, num, least, dropped_from)

    with pytest.raises(AssertionError):
        rule()
