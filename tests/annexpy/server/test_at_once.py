"""Presence checks that are answered before the server is there."""

from __future__ import annotations

from pathlib import Path

from annexpy.p2p.messages import MAX_LINE
from annexpy.repo.repository import Repository
from annexpy.server.at_once import answer_at_once


def test_a_line_that_is_too_long_is_left_to_the_server_which_refuses_it(tmp_path: Path, capfd) -> None:
    begin = b"CHECKPRESENT WORM-s1-m1--"
    longest = begin + b"x" * (MAX_LINE - len(begin)) + b"\n"
    longer = begin + b"x" * (MAX_LINE + 1 - len(begin)) + b"\n"
    with Repository.init(tmp_path / "r", bare=True) as repository:
        assert answer_at_once(repository.content, longest, lambda: True) == (b"", b"")
        assert answer_at_once(repository.content, longer, lambda: True) == (longer, b"")

    assert capfd.readouterr().out == "FAILURE\n"
