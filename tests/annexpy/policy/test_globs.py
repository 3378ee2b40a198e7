from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidInput
from annexpy.policy.globs import compile_glob

# each pair was put to git annex matchexpression
MATCHING = [
    *(("*", "a/b"), ("**", "abc"), ("f*", "f\no"), ("*o", "f\no"), ("a/b", "a//b"), ("a/*/b", "a//b"), ("?", "é")),
    *(("[]]", "]"), ("[]]", "\\"), ("[[:digit:]]", "5"), ("[[:digit:]]", "\\"), ("[!]]", "a"), ("[%--]", "'")),
    *(("[[a]", "["), ("[[:alpha]", ":"), ("[a\\]", "\\"), ("[a\\]b]", "\\b]"), ("[]-a]", "^"), ("[z[:foo:]]", "z")),
    *(("[[=a=]]", "a"), ("[[.a.]]", "\\"), ("[a-c-e]", "-"), ("*[[]a]*", "ten [a] b.c"), ("f[!x]o", "f/o")),
    *(
        ("b>", "b"),
        ("<b>", "b"),
        ("`b", "b"),
        ("b'", "b"),
        ("é>", "é"),
        ("a.<b", "a.b"),
        ("{a}", "{a}"),
        ("\\d", "\\d"),
    ),
    *(("[[:space:]]", "\n"), ("[^[:alpha:]]", "é"), ("", ""), ("//", "///"), ("a/?", "a//"), ("[+--/]", ",")),
]
DIFFERENT = [
    *(("A", "a"), ("a//b", "a/b"), ("?", "ab"), ("f?o", "f\no"), ("f*o", "f\no"), ("f[!x]o", "f\no"), ("a<b", "a<b")),
    *(("a'b", "a'b"), ("a`b", "a`b"), (">b", "b"), ("b_<", "b_"), ("[!]]", "\\"), ("[!]]", "]"), ("[[.a.]]", "a")),
    *(("[[:foo:]]", "f"), ("[[:digit:]-z]", "-"), ("[a-c-e]", "d"), ("[*]", "."), ("[!*]", "*"), ("[/]", "//")),
    *(("a/b", "./a/b"), ("f{o,x}o", "foo"), ("f[[.o.]]o", "foo"), ("a.b", "axb"), ("f+", "ff")),
]
UNUSABLE = ["[", "[a", "f[z-a]", "[]", "[!]", "[^]", "[a-[:digit:]]", "[a-\\]", "[[:alpha:]", "[a--]"]


@pytest.mark.parametrize(("glob", "text"), MATCHING)
def test_a_glob_matches_what_it_matches_for_git_annex(glob: str, text: str) -> None:
    assert compile_glob(glob).matches(text)


@pytest.mark.parametrize(("glob", "text"), DIFFERENT)
def test_a_glob_does_not_match_what_it_does_not_match_for_git_annex(glob: str, text: str) -> None:
    assert not compile_glob(glob).matches(text)


@pytest.mark.parametrize("glob", UNUSABLE)
def test_what_git_annex_cannot_use_is_refused(glob: str) -> None:
    with pytest.raises(InvalidInput, match="glob"):
        compile_glob(glob)


@given(st.text(st.characters(exclude_characters="*?[/<>'`\n"), max_size=20))
def test_a_plain_name_matches_itself_alone(name: str) -> None:
    assert compile_glob(name).matches(name)
    assert not compile_glob(name).matches(name + "x")


@given(st.lists(st.sampled_from(["a", "b", "/", "."])).map("".join), st.data())
def test_a_star_stands_for_anything(text: str, data: st.DataObject) -> None:
    text = text.replace("//", "/")
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))

    assert compile_glob(f"{text[:start]}*{text[end:]}").matches(text)


@given(st.text("ab*?[]!^-:/\\.=", max_size=12), st.text("ab/]\\-:", max_size=12))
def test_any_glob_is_used_or_refused(glob: str, text: str) -> None:
    try:
        compile_glob(glob).matches(text)
    except InvalidInput:
        pass


def test_case_can_be_ignored() -> None:
    assert compile_glob("[a-f]*X", ignore_case=True).matches("Box")


@pytest.mark.parametrize(
    ("glob", "text"),
    [
        ("*a" * 30 + "b", "a" * 5000),
        ("*/" * 30 + "x", "/" * 5000),
        ("/?" * 30 + "x", "/" * 5000),
        ("*/?" + "*a" * 9 + "x", "//a" * 1500),
        ("[/]*" * 30 + "x", "/" * 5000),
        ("?*" * 30 + "x", "y" * 5000),
        ("/a" * 30 + "x", "//a" * 1500),
        ("//*//" * 10 + "x", "/" * 5000),
    ],
)
def test_no_text_keeps_a_glob_busy(glob: str, text: str) -> None:
    start = time.process_time()

    assert not compile_glob(glob).matches(text)

    assert time.process_time() - start < 1
