from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidExpression, InvalidInput
from annexpy.policy.expression import MAX_DEPTH, Chain, Node, Not, Step, Term, all_tests, parse
from annexpy.policy.groups import STANDARD_GROUPS
from annexpy.policy.matcher import matches
from annexpy.policy.terms import (
    Balanced,
    Copies,
    Flag,
    Include,
    LackingCopies,
    MetadataCompared,
    MetadataMatches,
    Size,
    Test,
    parse_test,
)
from annexpy.policy.trust import TrustLevel

TERMS = [
    *("anything", "nothing", "present", "include=*.txt", "exclude=a/*", "copies=nodes:2", "copies=semitrusted+:1"),
    *(
        "largerthan=1mb",
        "balanced=nodes:lackingcopies",
        "metadata=year>=2015",
        "inallgroup=x",
        "url=http://*",
        "standard",
    ),
]
WORDS = st.sampled_from([*TERMS, "and", "or", "not", "(", ")"])
BLANKS = st.sampled_from([" ", "  ", "\t", "\n", "\u00a0", "\u2003"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Any row of words; no blank is needed around a parenthesis."""
    text = draw(st.sampled_from(["", " "]))
    for word in draw(st.lists(WORDS, max_size=20)):
        glued = text[-1:] in ("", "(", ")") or word in "()"
        text += ("" if glued and draw(st.booleans()) else draw(BLANKS)) + word
    return text


TREES: st.SearchStrategy[Node] = st.recursive(
    st.sampled_from(TERMS).map(lambda text: Term(text, parse_test(text))),
    lambda inner: (
        st.builds(Not, inner)
        | st.lists(st.builds(Step, st.booleans(), inner), min_size=2, max_size=4).map(lambda s: Chain(tuple(s)))
    ),
)


def truth(text: str) -> bool:
    return matches(parse(text).root, lambda test: test is Flag.ANYTHING)


@given(texts())
def test_every_row_of_terms_is_an_expression_and_is_kept_to_the_letter(text: str) -> None:
    expression = parse(text)

    assert str(expression) == text
    assert [str(term) for term in terms(expression.root)] == [w for w in words(text) if w in TERMS]


@given(texts())
def test_a_tidy_text_is_read_to_the_same_tree(text: str) -> None:
    root = parse(text).root

    assert parse(str(root)).root == root
    assert str(parse(str(root)).root) == str(root)


@given(TREES)
def test_a_tree_that_was_built_is_written_so_that_it_means_the_same(tree: Node) -> None:
    asked: dict[str, bool] = {}

    def holds(test: Test) -> bool:
        return asked.setdefault(repr(test), len(asked) % 2 == 0)

    assert matches(parse(str(tree)).root, holds) == matches(tree, holds)


def words(text: str) -> list[str]:
    return text.replace("(", " ( ").replace(")", " ) ").split()


def terms(node: Node) -> list[Term]:
    match node:
        case Term():
            return [node]
        case Not(node=inner):
            return terms(inner)
        case Chain(steps=steps):
            return [term for step in steps for term in terms(step.node)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # from left to right, without precedence
        ("anything or anything and nothing", False),
        ("anything or (anything and nothing)", True),
        ("not nothing and nothing", False),
        ("not (nothing and nothing)", True),
        # side by side
        ("anything nothing", False),
        ("anything not nothing", True),
        ("(anything)(nothing)", False),
        # what is missing is true
        ("", True),
        ("()", True),
        ("not", False),
        ("and nothing", False),
        ("or nothing", True),
        ("nothing or", True),
        # too many parentheses and too few
        ("anything and (nothing or anything", True),
        ("anything) and nothing", False),
        (") not ) nothing", True),
        ("( not ) nothing", False),
        ("( nothing ( or", True),  # goes on with the chain it is in
        ("nothing ( or", False),  # but not at the top
    ],
)
def test_an_expression_has_the_value_that_it_has_for_git_annex(text: str, value: bool) -> None:
    assert truth(text) is value


@pytest.mark.parametrize(
    ("text", "term", "position"),
    [
        ("bogus", "bogus", 0),
        ("include=*.txt and bogus=1", "bogus=1", 18),
        ("anything AND nothing", "AND", 9),
        ("(include=[a)", "include=[a", 1),
        ("include=f[z-a]", "include=f[z-a]", 0),
        ("copies=x", "copies=x", 0),
        ("copies=1.5", "copies=1.5", 0),
        ("copies=a:1:2", "copies=a:1:2", 0),
        ("copies=1=2=3", "copies=1=2=3", 0),
        ("not lackingcopies=", "lackingcopies=", 4),
        ("largerthan=.5kb", "largerthan=.5kb", 0),
        ("largerthan=1 kb", "kb", 13),
        ("balanced=nodes:x", "balanced=nodes:x", 0),
        ("balanced=nodes:1:2", "balanced=nodes:1:2", 0),
        ("metadata==x", "metadata==x", 0),
        ("metadata=_a=x", "metadata=_a=x", 0),
        ("mimetype=text/*", "mimetype=text/*", 0),
        ("accessedwithin=1d", "accessedwithin=1d", 0),
        ("present=1", "present=1", 0),
        ("in=here", "in=here", 0),
    ],
)
def test_what_is_no_term_is_named_with_its_place(text: str, term: str, position: int) -> None:
    with pytest.raises(InvalidExpression) as caught:
        parse(text)

    assert (caught.value.term, caught.value.position) == (term, position)
    assert term in str(caught.value)
    assert text[position:].startswith(term)


@pytest.mark.parametrize(
    ("term", "test"),
    [
        ("exclude=", Include("", exclude=True)),
        ("largerthan=1.5 KiB".replace(" ", ""), Size(1536)),
        ("smallerthan=8kbit", Size(1000, smaller=True)),
        ("copies=2", Copies(2)),
        ("copies=2x", Copies(2)),
        ("copies=3:2:1", Copies(3)),
        ("copies=archive:2", Copies(2, group="archive")),
        ("copies=archive=2", Copies(2, group="archive")),
        ("copies=a=b:2=3", Copies(2, group="a=b")),
        ("copies=untrusted:1", Copies(1, trust=TrustLevel.UNTRUSTED)),
        ("copies=semitrusted+:1", Copies(1, trust=TrustLevel.SEMITRUSTED, or_more=True)),
        ("copies=archive+:1", Copies(1, group="archive+")),
        ("lackingcopies=x:2", LackingCopies(2)),
        ("approxlackingcopies=0x10", LackingCopies(16, approximate=True)),
        ("metadata=Tag=x", MetadataMatches("tag", "x")),
        ("metadata=tag", MetadataMatches("tag", "")),
        ("metadata=a>1<2", MetadataCompared("a", ">", "1<2")),
        ("metadata=a<=1", MetadataCompared("a", "<=", "1")),
        ("metadata=a=<1", MetadataMatches("a", "<1")),
        ("balanced=g", Balanced("g", 1, full=False, by_size=False)),
        ("fullysizebalanced=g:2", Balanced("g", 2, full=True, by_size=True)),
        ("balanced=g:lackingcopies=2", Balanced("g", None, full=False, by_size=False)),
        ("sizebalanced=g:lackingcopies", Balanced("g", None, full=False, by_size=True)),
    ],
)
def test_a_term_asks_what_it_asks_for_git_annex(term: str, test: Test) -> None:
    assert parse_test(term) == test


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_refused_by_name(text: str) -> None:
    read: object
    try:
        read = parse(text)
    except InvalidExpression as error:
        read = error

    if isinstance(read, InvalidExpression):
        assert text[read.position :].startswith(read.term)
    else:
        assert str(read) == text


@given(st.sampled_from(["include", "copies", "metadata", "largerthan", "balanced", "lackingcopies", "url"]), st.text())
def test_any_value_is_read_or_refused(name: str, value: str) -> None:
    try:
        parse_test(f"{name}={value}")
    except InvalidInput:
        pass


@pytest.mark.parametrize("word", ["(", "not", "and", "or"])
def test_nesting_has_an_end(word: str) -> None:
    text = f"{word} " * MAX_DEPTH

    parse(text + "anything")
    with pytest.raises(InvalidExpression):
        parse(f"{word} {word} {text} anything")


def test_a_long_chain_is_no_nesting() -> None:
    root = parse(" or ".join(["nothing"] * 10_000) + " or anything").root

    assert matches(root, lambda test: test is Flag.ANYTHING)
    assert len(all_tests(root)) == 10_001


@pytest.mark.parametrize("group", STANDARD_GROUPS)
def test_standard_expressions_are_expressions(group: str) -> None:
    root = parse(STANDARD_GROUPS[group]).root

    assert Flag.STANDARD not in all_tests(root)
    assert Flag.GROUPWANTED not in all_tests(root)
