from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.policy.placement import Candidate, Choice, Unwanted, choose
from annexpy.uuids import UUID

A, B, C, D = (UUID(letter * 8) for letter in "abcd")
NODES = [Candidate(uuid) for uuid in (A, B, C, D)]
NOBODY: frozenset[UUID] = frozenset()


def fewer_than(copies: int) -> Callable[[UUID, frozenset[UUID]], bool]:
    """As archives want: not (copies=archive:N), where all four are archives."""
    return lambda uuid, holders: len(holders - {uuid}) < copies


def only(*wanting: UUID) -> Callable[[UUID, frozenset[UUID]], bool]:
    return lambda uuid, holders: uuid in wanting


@pytest.mark.parametrize("copies", [1, 2, 3, 4])
def test_archives_get_exactly_the_copies_they_ask_for(copies: int) -> None:
    choice = choose(NODES, fewer_than(copies), holders=NOBODY)

    assert choice.nodes == (A, B, C, D)[:copies]
    assert choice.spare == (A, B, C, D)[copies:]


def test_who_would_give_it_up_for_another_does_not_get_it() -> None:
    def wants(uuid: UUID, holders: frozenset[UUID]) -> bool:
        return {A: not holders, B: True, C: not holders & {A, B}, D: D in holders}[uuid]

    assert choose(NODES, wants, holders=NOBODY).nodes == (B,)


def test_who_is_content_with_one_that_is_left_out_gets_it() -> None:
    def wants(uuid: UUID, holders: frozenset[UUID]) -> bool:
        return {A: not holders, B: A not in holders, C: True, D: False}[uuid]

    assert choose(NODES, wants, holders=NOBODY).nodes == (C, B)


def test_a_copy_elsewhere_counts() -> None:
    assert choose(NODES, fewer_than(2), holders=frozenset({UUID("client")})).nodes == (A,)


def test_whoever_has_it_is_never_chosen() -> None:
    assert choose(NODES, fewer_than(3), holders=frozenset({A, C})).nodes == (B,)


def test_when_all_that_want_it_have_it_nobody_else_gets_it() -> None:
    assert choose(NODES, only(A, B), holders=frozenset({A, B})) == Choice(())


@pytest.mark.parametrize("unwanted", Unwanted)
def test_an_unwanted_key_that_a_node_has_stays_where_it_is(unwanted: Unwanted) -> None:
    assert choose(NODES, only(), holders=frozenset({B}), unwanted=unwanted) == Choice(())


@pytest.mark.parametrize(
    ("unwanted", "nodes", "spare"),
    [(Unwanted.ALL, (A, B, C, D), ()), (Unwanted.ONE, (A,), (B, C, D)), (Unwanted.REFUSE, (), ())],
)
def test_what_nobody_wants_goes_where_it_is_configured(
    unwanted: Unwanted, nodes: tuple[UUID, ...], spare: tuple[UUID, ...]
) -> None:
    assert choose(NODES, only(), holders=frozenset({UUID("client")}), unwanted=unwanted) == Choice(
        nodes, spare, wanted=False
    )


def test_a_full_node_is_passed_over() -> None:
    nodes = [Candidate(A, 0), Candidate(B, 99), Candidate(C, 100), Candidate(D)]

    assert choose(nodes, fewer_than(1), holders=NOBODY, size=100).nodes == (C,)
    assert choose(nodes, fewer_than(9), holders=NOBODY, size=None).nodes == (B, C, D)


def test_when_only_full_nodes_want_it_one_other_takes_it() -> None:
    nodes = [Candidate(A, 0), Candidate(B), Candidate(C)]

    assert choose(nodes, only(A), holders=NOBODY, unwanted=Unwanted.ALL) == Choice((B,), (C, A))
    assert choose(nodes, only(A), holders=NOBODY, unwanted=Unwanted.REFUSE) == Choice((A,))


def test_after_a_refusal_the_next_archive_takes_it() -> None:
    choice = choose(NODES, fewer_than(1), holders=NOBODY, refused=frozenset({A}))

    assert choice.nodes == (B,)


def test_after_a_refusal_nobody_takes_it_who_would_be_too_many() -> None:
    wants = fewer_than(1)

    assert choose(NODES, wants, holders=frozenset({B}), refused=frozenset({A})) == Choice(())


def test_when_the_only_taker_refuses_one_other_takes_it() -> None:
    assert choose(NODES, only(A), holders=NOBODY, refused=frozenset({A})) == Choice((B,), (C, D))
    assert choose(NODES, only(A), holders=NOBODY, refused=frozenset({A}), unwanted=Unwanted.REFUSE) == Choice(())


def test_spares_that_want_it_come_first_and_others_only_where_allowed() -> None:
    wants = lambda uuid, holders: uuid in (A, C) and len(holders) == 0  # noqa: E731

    assert choose(NODES, wants, holders=NOBODY).spare == (C, B, D)
    assert choose(NODES, wants, holders=NOBODY, unwanted=Unwanted.REFUSE).spare == (C,)


def test_nobody_at_all_is_no_choice() -> None:
    assert choose([], only(), holders=NOBODY) == Choice((), wanted=False)


UUIDS = st.sampled_from([A, B, C, D])


@given(
    st.lists(st.builds(Candidate, UUIDS, st.none() | st.integers(-1, 3))),
    st.sets(UUIDS | st.just(UUID("client"))).map(frozenset),
    st.sets(UUIDS).map(frozenset),
    st.integers(0, 5),
    st.sampled_from(Unwanted),
    st.integers(0, 3),
)
def test_a_choice_is_sound(
    candidates: list[Candidate],
    holders: frozenset[UUID],
    refused: frozenset[UUID],
    copies: int,
    unwanted: Unwanted,
    size: int,
) -> None:
    wants = fewer_than(copies)

    choice = choose(candidates, wants, holders=holders, refused=refused, unwanted=unwanted, size=size)

    offered = [*choice.nodes, *choice.spare]
    assert len(set(offered)) == len(offered)
    assert not (holders | refused).intersection(offered)
    assert {candidate.uuid for candidate in candidates}.issuperset(offered)
    # nobody who was not chosen still wants it, unless there is no room
    last = {candidate.uuid: candidate for candidate in candidates}
    roomy = {c.uuid for c in last.values() if c.free is None or c.free >= max(1, size)}
    if choice.wanted:
        having = holders | set(choice.nodes)
        assert not [u for u in roomy - having - refused if wants(u, having)]
    if choice.nodes and choice.wanted and roomy.issuperset(choice.nodes) and not refused:
        assert all(wants(u, holders) for u in choice.nodes) or not any(wants(u, holders) for u in roomy - holders)
