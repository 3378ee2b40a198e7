"""The list, its recordings, the page that is made of it, and the plug-in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from annexpy.p2p.transcript import parse_row, replay
from protocol_tests import REQUIREMENTS, Need
from protocol_tests.known import SHIPPED, load
from protocol_tests.specification import specification

pytest_plugins = "pytester"
ROOT = Path(__file__).parents[2]
KNOWN = load("git-annex")


def test_ids_are_unique_and_sentences_are_sentences() -> None:
    ids = [one.id for one in REQUIREMENTS]
    texts = [one.text for one in REQUIREMENTS]

    assert len(set(ids)) == len(ids) >= 180
    assert len(set(texts)) == len(texts)
    assert not [text for text in texts if not re.fullmatch(r"\S.*\.", text)]
    assert all(re.fullmatch(r"[CHMPR]-\d{3}", one) for one in ids)


def test_every_requirement_rests_on_the_documentation_or_on_a_recording() -> None:
    recordings = {path.stem for path in (ROOT / "tests" / "transcripts").glob("*.jsonl")}
    for one in REQUIREMENTS:
        for document in one.document.split("; "):
            if document.startswith("measured: "):
                assert document.removeprefix("measured: ") in recordings, f"{one.id}: {document}"
            else:
                assert document.startswith("P2P protocol") or one.id.startswith("M-"), f"{one.id}: {document}"


def test_every_known_difference_is_a_requirement_and_has_its_conversation() -> None:
    assert set(KNOWN.differences) <= {one.id for one in REQUIREMENTS}
    assert {path.stem for path in (SHIPPED / "git-annex").glob("*.jsonl")} == set(KNOWN.differences)


@pytest.mark.parametrize("number", sorted(KNOWN.differences))
def test_the_conversation_can_be_played(number: str) -> None:
    path = SHIPPED / "git-annex" / f"{number}.jsonl"

    steps = list(replay(map(parse_row, path.read_bytes().splitlines())))

    assert steps
    if not number.startswith("H"):
        assert any(step.sender for step in steps)
        assert any("AUTH-SUCCESS" in step.text for step in steps)


def test_the_page_has_every_requirement_and_every_difference() -> None:
    page = specification()

    assert all(f"| {one.id} |" in page for one in REQUIREMENTS)
    assert all(f"### {number}\n" in page for number in KNOWN.differences)


def test_nothing_needs_what_no_subject_has() -> None:
    assert {need for one in REQUIREMENTS for need in one.needs} <= set(Need)


def test_the_plug_in_gives_each_requirement_as_a_test(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests' / 'protocol_tests'}")
    pytester.makepyfile(
        """
        import pytest, tiny
        from protocol_tests import Need, streams

        store = tiny.Store()
        def lie(asked, answer):
            return answer if not asked.startswith(b"CHECKPRESENT") else b"SUCCESS"
        def connect():
            ours = tiny.start(store, tiny.Session, lie)
            return ours, ours, ours.close

        @pytest.fixture(scope="session")
        def p2p_subject():
            return streams(connect, has=frozenset([Need.REPOSITORY]))

        def test_it(p2p_requirement):
            p2p_requirement()
        """
    )

    done = pytester.runpytest_subprocess(
        "-p", "protocol_tests.plugin", "--p2p-only", "P-00,P-02", "--p2p-versions", "4", "--p2p-deadline", "2"
    )

    counted = done.parseoutcomes()
    assert counted["failed"] >= 4
    assert counted["skipped"] == 4
    done.stdout.fnmatch_lines(["*P-020 CHECKPRESENT of content that nobody stored is answered by FAILURE.*"])
