"""What git-annex 10.20261026 made of these logs when another line of them was changed."""

from __future__ import annotations

import pytest

from annexpy.logs.line import SECOND, VectorClock
from annexpy.logs.number import leading_integer
from annexpy.logs.repos import (
    ACTIVITIES,
    CLUSTERS,
    DIFFERENCES,
    GROUPS,
    MAXSIZES,
    PROXIES,
    SCHEDULES,
    TRUST,
    Proxied,
    TrustLevel,
    clusters,
)
from annexpy.uuids import UUID

NOW = VectorClock(150 * SECOND)
A, B = UUID("aaaaaaaa-0000-4000-8000-000000000001"), UUID("bbbbbbbb-0000-4000-8000-000000000002")
CLUSTER = UUID("ac702100-873f-876c-a12c-4026b11e785c")


def test_trust_log() -> None:
    content = (
        b"u1 1 timestamp=1s\nu2 0 timestamp=1s\nu3 X timestamp=1s\nu4 ? timestamp=1s\nu5 z timestamp=1s\n"
        b"u6 timestamp=1s\nu7\nu8 01 timestamp=1s\nu9  0 timestamp=1s\nu10 1 \nu11 0  timestamp=1s\nu12 \n"
        b"u13  timestamp=1s\n"
        b"u14 1\nu15 x timestamp=5s\nu15 01 timestamp=6s\nu16 0 extra timestamp=1s\nu17 \xc3\xa9 timestamp=1s\n"
    )

    assert TRUST.set(content, A, TrustLevel.UNTRUSTED, NOW) == (
        A.encode() + b" 0 timestamp=150s\nu1 1 timestamp=1s\nu12 1\nu13 1 timestamp=1s\nu14 1\nu15 ? timestamp=5s\n"
        b"u2 0 timestamp=1s\nu3 X timestamp=1s\nu4 ? timestamp=1s\nu5 ? timestamp=1s\nu6 1 timestamp=1s\nu7 1\n"
    )


@pytest.mark.parametrize("level", TrustLevel)
def test_every_trust_level_is_read_back(level: TrustLevel) -> None:
    assert TRUST.parse(TRUST.set(b"", A, level, NOW)) == {A: level}


def test_group_log() -> None:
    content = (
        b"u1 b a timestamp=1s\nu2  b   a  timestamp=1s\nu3  timestamp=1s\nu4 timestamp=1s\nu5\nu6 a\tb c\n"
        b"u7 a a b timestamp=1s\nu8 B a \xc3\xa9 Z timestamp=2s\n"
    )

    assert GROUPS.set(content, A, frozenset(["backup"]), NOW) == (
        A.encode() + b" backup timestamp=150s\nu1 a b timestamp=1s\nu2 a b timestamp=1s\nu3  timestamp=1s\n"
        b"u4  timestamp=1s\nu5 \nu6 a\tb c\nu7 a b timestamp=1s\nu8 B Z a \xc3\xa9 timestamp=2s\n"
    )


def test_maxsize_log() -> None:
    content = (
        b"100s u1 10gb\n100s u2 1.5\n100s u3  7\n100s u4 -3\n100s u5 +3\n100s u6 007\n100s u7\n100s u8 5 6\n"
        b"100s u9 \n50s u10 0\n"
    )

    assert MAXSIZES.set(content, A, 10_000_000_000, NOW) == (
        b"150s %b 10000000000\n100s u1 10\n50s u10 0\n100s u3 7\n100s u4 -3\n100s u6 7\n100s u8 5\n" % A.encode()
    )


def test_proxy_log() -> None:
    content = (
        b"100s u1 n1:a n2:b\n100s u2\n100s u3 \n100s u4 noname\n100s u5 n:with:colon\n50s u5 n:a\n"
        b"100s u6 n1:bad/na me n2:..\n100s u7 n2:b n1:a\n100s u8  n1:a  n2:b \n100s u9 n1:a n1:b\n100s u10 :x\n"
        b"100s u11 n: \n100s u12 n1:a n2:b\tc\n100s u13 n1:b n1:a n1:b\n100s v1 n1:a noname\n100s v2 n1:a  \n"
        b"100s v3 n1:a  n2\n100s v4  \n100s v5 n1:a n1:b:\n100s v6 a b:c d:e\n100s v7 x:y \n100s v8 :a n:b\n"
        b"100s v9 n:a :b\n100s w0 n: b\n100s w1 n:\xc3\xa9 \xff:\xff\n"
    )

    assert PROXIES.set(content, A, frozenset([Proxied(B, "n1")]), NOW) == (
        b"150s %b %b:n1\n100s u1 n1:a n2:b\n100s u12 n1:a n2:b\tc\n100s u13 n1:a n1:b\n100s u3 \n"
        b"100s u5 n:with:colon\n100s u6 me n2:.. n1:bad/na\n100s u7 n1:a n2:b\n100s u8  n1:a  n2:b\n"
        b"100s u9 n1:a n1:b\n100s v5 n1:a n1:b:\n100s v6 a b:c d:e\n100s v7 x:y\n100s w1 n:\xc3\xa9 \xff:\xff\n"
    ) % (A.encode(), B.encode())


def test_cluster_log() -> None:
    a, b, c = (x.encode() for x in (A, B, CLUSTER))
    content = (
        b"100s " + c + b" " + b + b"\n100s notcluster " + a + b"\n50s ac002100-873f-876c-a12c-4026b11e785c\n"
        b"60s ac012100-873f-876c-a12c-4026b11e785c \n70s ac022100-873f-876c-a12c-4026b11e785c  "
        + a
        + b"   "
        + b
        + b"\n"
        b"80s ac032100-873f-876c-a12c-4026b11e785c " + b + b" " + a + b" " + b + b"\n"
    )
    after = CLUSTERS.set(content, CLUSTER, frozenset([A]), NOW)

    assert after == (
        b"60s ac012100-873f-876c-a12c-4026b11e785c \n80s ac032100-873f-876c-a12c-4026b11e785c " + a + b" " + b + b"\n"
        b"150s " + c + b" " + a + b"\n100s notcluster " + a + b"\n"
    )
    assert clusters(after) == {
        UUID("ac012100-873f-876c-a12c-4026b11e785c"): frozenset(),
        UUID("ac032100-873f-876c-a12c-4026b11e785c"): frozenset([A, B]),
        CLUSTER: frozenset([A]),
    }


def test_activity_log_keeps_the_activity_alone() -> None:
    content = b"u1 Fsck timestamp=1s\nu2 Other timestamp=1s\nu3\nu4 Fsck extra timestamp=1s\nu5 Fsck timestamp=5s\n"

    assert ACTIVITIES.compact(content) == (
        b"u1 Fsck timestamp=1s\nu2 Other timestamp=1s\nu3 \nu4 Fsck timestamp=1s\nu5 Fsck timestamp=5s\n"
    )


def test_schedule_log_keeps_any_text() -> None:
    content = (
        b"u1 junk timestamp=1s\nu2 fsck self 30m every day at any time;bad timestamp=1s\nu3  timestamp=1s\n"
        b"u4 fsck self 1800s every day at any time timestamp=2s\n"
    )

    assert SCHEDULES.compact(content) == content


def test_differences_are_read_and_what_is_not_understood_is_one() -> None:
    content = b"u1 fromList [ObjectHashLower,OneLevelObjectHash,OneLevelBranchHash] timestamp=1s\n"
    read = DIFFERENCES.parse(content)[UUID("u1")]

    assert read == {"ObjectHashLower", "OneLevelObjectHash", "OneLevelBranchHash"}
    assert DIFFERENCES.compact(content) == content
    assert DIFFERENCES.parse(b"u1 fromList [] timestamp=1s\n") == {"u1": frozenset()}
    assert DIFFERENCES.parse(b"u1 something else timestamp=1s\n")[UUID("u1")]
    assert DIFFERENCES.compact(b"u1 something else timestamp=1s\n") == b"u1 something else timestamp=1s\n"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"7", 7),
        (b"007", 7),
        (b" 7", 7),
        (b"\t7 ", 7),
        (b"\xc2\xa07", 7),
        (b"10gb", 10),
        (b"3 4", 3),
        (b"3.", 3),
        (b"3.x", 3),
        (b"3e", 3),
        (b"3.e1", 3),
        (b"3_0", 3),
        (b"-3", -3),
        (b"- 3", -3),
        (b"(3)", 3),
        (b"( 3 )x", 3),
        (b"((-3))", -3),
        (b"0x10", 16),
        (b"0X1F", 31),
        (b"0o17", 15),
        (b"0x", 0),
        (b"0b11", 0),
        (b"+4", None),
        (b"1.5", None),
        (b"35.0", None),
        (b"3e2", None),
        (b"30e-1", None),
        (b"(3", None),
        (b"x3", None),
        (b"", None),
        (b"\xef\xbc\x93", None),
        (b"9" * 5000, None),
    ],
)
def test_numbers_are_read_as_git_annex_reads_them(value: bytes, number: int | None) -> None:
    assert leading_integer(value) == number
