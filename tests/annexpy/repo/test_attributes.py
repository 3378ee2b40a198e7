"""Attributes resolve as in git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from annexpy.repo.attributes import AttributeLine, Attributes, parse_attributes
from annexpy.repo.config import GitConfig
from annexpy.repo.files import DiskFiles

NAMES = (b"annex.numcopies", b"annex.mincopies")


def git(path: Path, *words: str, text: bytes = b"") -> bytes:
    return subprocess.run(["git", "-C", str(path), *words], input=text, capture_output=True, check=True).stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def said_by_git(tree: Path, paths: list[bytes]) -> dict[bytes, dict[bytes, bytes | bool]]:
    out = git(
        tree, "check-attr", "-z", "--stdin", *(name.decode() for name in NAMES), text=b"".join(p + b"\0" for p in paths)
    )
    found: dict[bytes, dict[bytes, bytes | bool]] = {path: {} for path in paths}
    words = out.split(b"\0")
    for path, name, value in zip(words[0::3], words[1::3], words[2::3], strict=False):
        if value != b"unspecified":
            found[path][name] = {b"set": True, b"unset": False}.get(value, value)
    return found


def said_by_us(tree: Path, paths: list[bytes]) -> dict[bytes, dict[bytes, bytes | bool]]:
    config = GitConfig(DiskFiles(tree / ".git"))
    attributes = Attributes(os.fsencode(tree), os.fsencode(tree / ".git" / "info"), config)
    try:
        return {path: attributes.values(path, NAMES) for path in paths}
    finally:
        attributes.close()


PATHS = [
    b"a",
    b"a.dat",
    b"x y",
    b"sub/a",
    b"sub/a.dat",
    b"sub/deep/a",
    b"sub/deep/b.nii.gz",
    b"other/a",
    b'q"uote',
    b"A",
]

LINES = [
    "* annex.numcopies=2",
    "*.dat annex.numcopies=3 annex.mincopies=2",
    "a annex.numcopies=4",
    "/a annex.numcopies=5",
    "sub/a annex.numcopies=6",
    "sub/** annex.numcopies=7",
    "**/deep/* annex.mincopies=3",
    "deep/ annex.numcopies=9",
    "sub annex.numcopies=9",
    "!a annex.numcopies=9",
    "# a annex.numcopies=9",
    '"x y" annex.numcopies=8',
    r'"q\"uote" annex.numcopies=8',
    r'"\141" annex.mincopies=6',
    "[ab].dat annex.numcopies=11",
    "[a annex.numcopies=9",
    "* !annex.numcopies",
    "a -annex.numcopies",
    "* annex.numcopies",
    "* annex.numcopies=",
    "* many",
    "*.dat -many",
    "*.nii.gz annex.numcopies=3 annex.numcopies=4 !annex.mincopies",
    "\t*.gz\tannex.mincopies=5",
    "* annex.numcopies=1 foo -bar !baz",
    "A annex.numcopies=12",
    "a annex.numcopies=3=4",
]


@pytest.mark.parametrize("line", LINES)
def test_each_form_of_a_line_means_what_it_means_to_git(line: str, tree: Path) -> None:
    (tree / ".gitattributes").write_text(f"[attr]many annex.numcopies=20\n{line}\n")

    assert said_by_us(tree, PATHS) == said_by_git(tree, PATHS)


SOURCES = (".gitattributes", "sub/.gitattributes", "sub/deep/.gitattributes", ".git/info/attributes", "user")
some_lines = st.lists(st.sampled_from(LINES), max_size=4)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries(dict.fromkeys(SOURCES, some_lines)))
@example(dict.fromkeys(SOURCES, ()) | {"user": ["* many", "*.dat -many"]})
@example(dict.fromkeys(SOURCES, ()) | {".gitattributes": ["* many", "*.dat many !many"]})
def test_all_sources_together_resolve_as_in_git(tree: Path, files: dict[str, list[str]]) -> None:
    (tree / "sub/deep").mkdir(parents=True, exist_ok=True)
    (tree / ".git/info").mkdir(exist_ok=True)
    git(tree, "config", "core.attributesFile", str(tree / "user"))
    for place, lines in files.items():
        (tree / place).write_text("[attr]many annex.numcopies=20\n" * (place == ".gitattributes") + "\n".join(lines))

    assert said_by_us(tree, PATHS) == said_by_git(tree, PATHS)


def test_a_link_instead_of_the_attributes_of_a_directory_is_ignored_as_in_git(tree: Path) -> None:
    (tree / "elsewhere").write_text("* annex.numcopies=9\n")
    (tree / ".gitattributes").symlink_to("elsewhere")

    assert said_by_us(tree, [b"a"]) == said_by_git(tree, [b"a"]) == {b"a": {}}


def test_whether_anybody_mentions_an_attribute_at_all(tree: Path) -> None:
    (tree / "sub").mkdir()
    (tree / "sub/.gitattributes").write_text("*.x annex.mincopies=2\n")
    attributes = Attributes(os.fsencode(tree), None, GitConfig(DiskFiles(tree / ".git")))

    assert attributes.mention(NAMES, [b"sub/a"])
    assert not attributes.mention(NAMES, [b"a", b"other/b"])
    assert not attributes.mention([b"annex.numcopies"], [b"sub/a"])
    attributes.close()


def test_lines_that_git_ignores_are_no_lines() -> None:
    assert parse_attributes(b"\xef\xbb\xbf* a\n\n#x\n!no a\n[attr]bad! a\n* =x --y a=b\r\n") == [
        AttributeLine(b"*", ((b"a", True),)),
        AttributeLine(b"*", ((b"a", b"b"),)),
    ]


def test_a_backslash_before_a_digit_that_is_not_octal_stands_for_the_digit() -> None:
    assert [line.pattern for line in parse_attributes(b'"a\\9" x\n"\\101" x\n')] == [b"a9", b"A"]
