"""What a push may do to the git-annex branch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.keys.key import Key
from annexpy.logs.line import union_merge
from annexpy.logs.paths import FORMATS, Log, key_log
from annexpy.logs.presence import present
from annexpy.server.push_rules import LOCKED, PushRules, is_annex_branch, ref_objection, tree_objection
from annexpy.uuids import UUID, WEB

MINE = UUID("11111111-1111-4111-8111-111111111111")
OTHER = UUID("22222222-2222-4222-8222-222222222222")
HOST = UUID("33333333-3333-4333-8333-333333333333")
RULES = PushRules(frozenset((MINE,)), frozenset((HOST,)))
NOW = 1_000_000.0
PATH = key_log(Key.parse(b"WORM-s3-m1--a"))


def line(clock: int, status: int, uuid: str) -> bytes:
    return f"{clock}s {status} {uuid}\n".encode()


def said(known: bytes, new: bytes, path: bytes = PATH, *, replaces: bool = True, rules: PushRules = RULES) -> str:
    return tree_objection(path, known, new, rules, now=NOW, replaces=replaces)


def test_one_s_own_lines_may_come_change_and_go() -> None:
    assert said(b"", line(1, 1, MINE)) == ""
    assert said(line(1, 1, MINE), line(2, 0, MINE)) == ""
    assert said(line(1, 1, MINE) + line(1, 1, OTHER), line(1, 1, OTHER)) == ""


@pytest.mark.parametrize("replaces", [True, False])
@pytest.mark.parametrize("known", [b"", line(5, 1, OTHER), line(5, 0, OTHER)])
@pytest.mark.parametrize("status", [0, 1])
def test_nothing_new_may_be_said_about_others(known: bytes, status: int, replaces: bool) -> None:
    assert OTHER in said(known, known + line(6, status, OTHER), replaces=replaces)


def test_lines_of_others_may_not_be_missing() -> None:
    assert "missing" in said(line(5, 1, OTHER), b"")
    assert "missing" in said(line(5, 1, OTHER) + line(5, 1, HOST), line(5, 1, OTHER))
    assert said(line(5, 1, OTHER), b"", replaces=False) == ""  # a merge brings it back


def test_lines_that_a_merge_or_a_compaction_leaves_are_nobody_s_business() -> None:
    old, new = line(4, 1, OTHER), line(5, 0, OTHER)
    assert said(new, old + new) == ""  # a clone that has not compacted them
    assert said(old + new, new) == ""  # and one that has
    assert said(old + new, old) != ""


def test_what_a_client_notes_about_a_host_has_to_be_what_the_host_knows() -> None:
    stored, gone = line(5, 1, HOST), line(5, 0, HOST)
    assert said(stored, line(9, 1, HOST)) == ""
    assert said(gone, line(9, 0, HOST)) == said(b"", line(9, 0, HOST)) == ""
    assert "knows better" in said(stored, stored + line(9, 0, HOST))
    assert "knows better" in said(gone, gone + line(9, 1, HOST))
    assert "knows better" in said(b"", line(9, 1, HOST))
    assert "future" in said(stored, stored + line(int(NOW) + 1000, 1, HOST))


@pytest.mark.parametrize(
    "junk",
    [
        b"5s 1 " + MINE.encode() + b"\r5s 0 " + OTHER.encode(),
        b"5s 1  " + OTHER.encode(),
        b"5s 1 " + OTHER.encode() + b" ",
        b"5s 2 " + MINE.encode(),
        b"junk",
        b"\x00",
    ],
)
def test_what_is_no_line_is_refused(junk: bytes) -> None:
    assert said(b"", junk + b"\n") != ""
    assert said(b"", junk) != ""


@pytest.mark.parametrize("log", sorted(LOCKED, key=lambda log: log.value))
def test_settings_of_all_may_not_change(log: Log) -> None:
    text = b"1s 5\n"
    assert said(b"", text, log.value) != ""
    assert said(text, b"", log.value) != ""
    assert said(text, text, log.value) == ""
    assert said(b"", MINE.encode() + b" 1 timestamp=1s\n", log.value) != ""


@pytest.mark.parametrize("log", [Log.UUID, Log.GROUP, Log.PREFERRED_CONTENT, Log.REQUIRED_CONTENT, Log.SCHEDULE])
def test_settings_of_a_repository_are_its_own(log: Log) -> None:
    own, others = (f"{uuid} a value timestamp=5s\n".encode() for uuid in (MINE, OTHER))
    assert said(others, own + others, log.value) == ""
    assert OTHER in said(own, own + others, log.value)
    assert said(own + others, own, log.value) != ""
    assert said(others, others.replace(b"value", b"thing"), log.value) != ""
    assert said(others, others.replace(b"5s", b"6s"), log.value) != ""


def test_fields_that_name_a_repository_are_its_own() -> None:
    assert said(b"", f"5s {MINE} 100\n".encode(), Log.MAXSIZE.value) == ""
    assert said(b"", f"5s {OTHER} 100\n".encode(), Log.MAXSIZE.value) != ""
    assert said(b"", f"5s {MINE}:{OTHER} {'a' * 40}\n".encode(), Log.EXPORT.value) != ""
    chunks = PATH.removesuffix(b".log") + b".log.cnk"
    assert said(b"", f"5s {MINE}:1000 3\n".encode(), chunks) == ""
    assert said(b"", f"5s {OTHER}:1000 3\n".encode(), chunks) != ""
    remote_metadata = PATH.removesuffix(b".log") + b".log.rmet"
    assert said(b"", f"5s {MINE}:V +x\n".encode(), remote_metadata) == ""
    assert said(b"", f"5s {MINE}:V +x {OTHER}:V +y\n".encode(), remote_metadata) != ""


def test_urls_and_metadata_are_everybody_s_but_are_not_forgotten() -> None:
    urls, metadata = PATH + b".web", PATH + b".met"
    assert said(b"", b"5s 1 http://example.org/\n", urls) == ""
    assert said(b"", line(5, 1, WEB)) == ""
    assert said(b"5s 1 http://example.org/\n", b"", urls) != ""
    assert said(b"5s 1 http://example.org/\n", b"6s 0 http://example.org/\n", urls) == ""
    assert said(b"", b"5s author +me\n", metadata) == ""
    assert said(b"5s author +me\n", b"5s author +me\n6s author -me +you\n", metadata) == ""
    assert said(b"5s author +me\n", b"", metadata) != ""


def test_files_that_are_no_logs_may_not_be_there() -> None:
    assert said(b"", line(1, 1, MINE), b"000/000/WORM-s3-m1--a.log") != ""  # not the directory of its key
    assert said(b"", b"x", b"README") != ""
    assert said(b"", line(1, 1, MINE), PATH, rules=PushRules(RULES.uuids, levels=1)) != ""


def test_who_may_speak_for_everybody_may() -> None:
    assert said(line(5, 1, OTHER), line(6, 0, OTHER), rules=PushRules(None)) == ""
    assert said(b"", b"1s 0\n", Log.NUMCOPIES.value, rules=PushRules(None)) == ""


def test_every_log_is_judged() -> None:
    for log in FORMATS:
        path = PATH.removesuffix(b".log") + log.value if log.per_key else log.value
        assert said(b"", b"\x01 no line of any log\n", path) != "", log


LINES = st.lists(
    st.builds(line, st.integers(1, 9), st.sampled_from([0, 1]), st.sampled_from([MINE, OTHER, HOST])), max_size=6
).map(lambda lines: b"".join(dict.fromkeys(lines)))


# In a branch a log has one line for each repository, or those of a merge, which are sorted. (In another order the
# first of two lines of the same time counts, and any merge would change that.)
KNOWN = LINES.map(lambda log: b"".join(sorted(log.splitlines(keepends=True))))


@given(KNOWN, LINES, st.booleans())
def test_whatever_is_let_in_nobody_else_is_elsewhere_than_before(known: bytes, new: bytes, replaces: bool) -> None:
    if said(known, new, replaces=replaces) == "":
        after = new if replaces else union_merge(known, new)
        for content in (after, union_merge(known, after)):  # also when a clone brings the old lines back

            def others(content: bytes) -> set[bytes]:
                return set(present(content)) - {MINE.encode()}

            assert others(content) == others(known)


def test_refs_that_git_annex_merges_are_branches_of_it() -> None:
    assert all(map(is_annex_branch, (b"refs/heads/git-annex", b"refs/heads/synced/git-annex", b"refs/tags/git-annex")))
    assert not is_annex_branch(b"refs/heads/my-git-annex")
    assert ref_objection(b"refs/replace/" + b"a" * 40) != ""
    assert ref_objection(b"refs/heads/main") == ref_objection(b"refs/synced/x/main") == ""
