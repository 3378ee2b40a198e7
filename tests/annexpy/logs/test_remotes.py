"""What git-annex 10.20261026 made of these logs when another line of them was changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.logs.line import SECOND, VectorClock
from annexpy.logs.remotes import (
    CHUNKS,
    CONTENT_IDENTIFIERS,
    EXPORTS,
    REMOTE_STATES,
    SPECIAL_REMOTES,
    Chunking,
    Exported,
    decode_value,
    encode_value,
)
from annexpy.uuids import UUID

NOW = VectorClock(150 * SECOND)
U = UUID("u0")


@pytest.mark.parametrize(
    ("value", "rewritten"),
    [
        ("type=directory name=foo  encryption=none", "encryption=none name=foo type=directory"),
        ("name=b&32;c x=&38;amp y=&9; z=&10; w=&x; v=&", "name=b&32;c v=&38; w=&38;x; x=&38;amp y=&9; z=&10;"),
        ("noequals", "noequals="),
        ("a=b=c", "a=b=c"),
        ("=v", "=v"),
        ("k=1 k=2", "k=2"),
        ("good=1 bad", "bad= good=1"),
        ("&32;k&32;=v", "&32;k&32;=v"),
        ("p=&32 q=&; r=&32x; s=&-1; aa=&00032;", "aa=&32; p=&38;32 q=&38;; r=&38;32x; s=&38;-1;"),
        ("a=b\tc", "a=b c="),
        ("a=&160;&8195; b=\u00a0", "a=&160;&8195; b="),
        ("Z=1 a=2 é=3 B=4", "B=4 Z=1 a=2 é=3"),
        ("a=x&32;&32;y&38;#38;", "a=x&32;&32;y&38;#38;"),
        ("a=&65; c=&233; d=&38;38; e=&128; f=&56575;", "a=A c=é d=&38;38; e=\u0080 f=\udcff"),
        ("t=&1114111; u=&33;&9999;", "t=\U0010ffff u=!✏"),
        ("u=&1114112; v=&55296;", "u=&38;1114112; v=&38;55296;"),  # git-annex stops at such a number
        ("", ""),
    ],
)
def test_remote_log(value: str, rewritten: str) -> None:
    content = b"u " + value.encode("utf-8", "surrogateescape") + b" timestamp=1s\n"

    assert SPECIAL_REMOTES.compact(content) == b"u " + rewritten.encode("utf-8", "surrogateescape") + b" timestamp=1s\n"


@given(
    st.dictionaries(
        st.sampled_from(["name", "type", "é"]), st.text(st.characters(exclude_categories=["Cs"])), max_size=3
    )
)
def test_any_value_of_a_special_remote_is_read_back(config: dict[str, str]) -> None:
    content = SPECIAL_REMOTES.set(b"", U, config, NOW)

    assert content.count(b"\n") == 1
    assert SPECIAL_REMOTES.parse(content) == {U: config}


def test_remote_state_is_any_text() -> None:
    content = b"100s u1 state  x \n100s u2 a\n100s u3\n100s u4 \n100s  u5 q\n100 u6 q\n100s u1 tie\n"

    assert REMOTE_STATES.set(content, U, " my  state ", NOW) == (
        b"100s  u5 q\n150s u0  my  state \n100s u1 tie\n100s u2 a\n100s u4 \n100s u6 q\n"
    )


def test_content_identifiers() -> None:
    content = (
        b"100s u1 a:b c:d\n100s u2 b:a:a\n100s u3\n100s u4 \n100s u5 :a\n100s u6 a:\n100s u7 !YTpi:!bad!:!YQ==\n"
        b"100s u8 a::b\n100s  u9 x\n100s u10 x\n90s u10 y\n100s u11 b:a\n100s u11 c\n"
    )

    assert CONTENT_IDENTIFIERS.set(content, U, (b"2408605 300 1795239209 354360321",), NOW) == (
        b"100s  u9 x\n150s u0 2408605 300 1795239209 354360321\n100s u1 a:b c:d\n100s u10 x\n100s u11 c\n"
        b"100s u2 b:a:a\n100s u4 \n100s u5 :a\n100s u6 a:\n100s u7 !YTpi:!IWJhZCE=:a\n100s u8 a::b\n"
    )


@given(st.binary())
def test_an_odd_value_is_read_back(value: bytes) -> None:
    encoded = encode_value(value, b": \r\n")

    assert decode_value(encoded) == value
    assert not {*b": \r\n"} & {*encoded}


def test_chunk_log() -> None:
    content = (
        b"100s u1:100 3\n100s u1:20 4\n100s u1:x 3\n100s u1:-5 3\n100s u1: 9\n100s u1:3x 2\n100s u1:003 1\n"
        b"100s u1:3 7\n100s u:1 1\n100s u1!:1 1\n100s u1:20:1 1\n100s v2:3x 2\n100s v3:x:y 3\n100s v4:0x10 3\n"
        b"100s v6:1.5 3\n100s v9:9 007\n100s w0:9 -1\n100s w1:9 +1\n100s w2:9 1 \n100s w6:- 3\n100s w8:+3 4\n"
        b"100s nocolon 3\n"
        b"100s x1:50\n100s x2:10  2\n100s  x3:10 2\n100s x4:99999999999999999999 99999999999999999999\n"
    )

    assert CHUNKS.set(content, Chunking(U, 100), 3, NOW) == (
        b"100s u:1 1\n150s u0:100 3\n100s u1:3 7\n100s u1:20 4\n100s u1:100 3\n100s u1: 9\n100s u1:-5 3\n100s u1:x 3\n"
        b"100s u1!:1 1\n100s v3:x:y 3\n100s v9:9 7\n100s w6:- 3\n100s w8:+3 4\n"
        b"100s x4:7766279631452241919 99999999999999999999\n"
    )


def test_a_chunk_size_that_wrapped_is_no_number_when_it_is_read_again() -> None:
    once = CHUNKS.compact(b"100s b:0 1\n100s b:18446744073709551615 2\n100s b:x 03\n")

    assert once == b"100s b:-1 2\n100s b:0 1\n100s b:x 3\n"
    assert CHUNKS.compact(once) == b"100s b:0 1\n100s b:-1 2\n100s b:x 3\n"


def test_export_log() -> None:
    content = (
        b"100s a:b t1\n100s a:b t2 t3\n100s c:d\n100s e:f \n100s nocolon t\n100s g:h:i t\n100s  x:y t\n"
        b"100s z:y  t1   t2 \n90s q:r t t\n"
    )

    assert EXPORTS.set(content, Exported(UUID("1"), UUID("2")), ("tree",), NOW) == (
        b"150s 1:2 tree\n100s a:b t2 t3\n100s g:h:i t\n90s q:r t t\n"
    )
