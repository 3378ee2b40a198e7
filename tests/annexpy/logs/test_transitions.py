from __future__ import annotations

from annexpy.logs.line import SECOND
from annexpy.logs.transitions import (
    FORGET_DEAD_REMOTES,
    FORGET_GIT_HISTORY,
    Transition,
    compact_transitions,
    parse_transitions,
)


def test_transitions_are_a_set_whatever_their_spelling() -> None:
    content = b"ForgetGitHistory 100s\nForgetGitHistory 100\nForgetDeadRemotes 90.50s\n"

    assert parse_transitions(content) == {
        Transition(FORGET_GIT_HISTORY, 100 * SECOND),
        Transition(FORGET_DEAD_REMOTES, 905 * SECOND // 10),
    }
    assert compact_transitions(content) == b"ForgetDeadRemotes 90.5s\nForgetGitHistory 100s\n"


def test_at_one_time_the_history_comes_first() -> None:
    assert compact_transitions(b"ForgetDeadRemotes 150s\nForgetGitHistory 150s\n") == (
        b"ForgetGitHistory 150s\nForgetDeadRemotes 150s\n"
    )


def test_what_cannot_be_read_is_a_transition_of_its_own() -> None:
    assert parse_transitions(b"Junk\n") != parse_transitions(b"")
    assert parse_transitions(b"Junk 3s\n") != parse_transitions(b"Junk x\n")
    assert compact_transitions(b"Junk x\n") == b"Junk x\n"
