from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidKey
from annexpy.keys.backend import name_content, worm_key
from annexpy.keys.key import Key
from annexpy.keys.layout import key_file, location_log
from annexpy.keys.storable import MAX_FILE_NAME, check_storable

SHA = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(
    "key",
    [
        b"SHA256E-s0--" + SHA + b".tar.gz",
        b"SHA256--" + SHA,
        b"MD5E-s1--0cc175b9c0f1b6a831c399e269772661.txt",
        b"XXH3-s6--99fc819aaba2462a",
        b"SKEIN256-s6--960005f5dfd54a29fd8c2ed5514664d3d746c32a97db1b01505b32eae6bfe4ad",
        b"GITBUNDLE-s6--u-" + SHA,
        b"GITMANIFEST--e605dca6-446a-11e0-8b2a-002170d25c55",
        b"WORM-s3-m1--../../x",
        b"WORM-s3-m1--/etc/passwd",
        b"URL--http://a/b?c",
        b"XFOO-s1--abc",
        b"FOO-s1--abc",
        b"SHA256-s9223372036854775807--" + SHA,
        b"SHA256-s9-S3-C3--" + SHA,
        "WORM-s1-m1--é".encode(),
        b"WORM-s1-m1--\xff",
    ],
)
def test_these_may_be_stored(key: bytes) -> None:
    check_storable(Key.parse(key))


@pytest.mark.parametrize(
    ("key", "field"),
    [
        (b"../../x-s3--foo", "key backend"),
        (b"/etc/passwd-s3--foo", "key backend"),
        (b"sha256-s3--foo", "key backend"),
        (b"A.B-s3--foo", "key backend"),
        (b"A B-s3--foo", "key backend"),
        (b"WORM-s1-m1--a\x00", "key"),
        (b"WORM-s1-m1--a\nb", "key"),
        (b"WORM-s1-m1--a\r", "key"),
        (b"WORM-s1-m1--a\tb", "key"),
        (b"WORM-s1-m1--a\x1b[0m", "key"),
        (b"WORM-s1-m1--a\x7f", "key"),
        (b"A\x01-s1--a", "key"),
        (b"WORM-s1-m1--", "key name"),
        (b"SHA256--", "key name"),
        (b"SHA256-s1--short", "key digest"),
        (b"SHA256-s1--" + SHA + b"0", "key digest"),
        (b"SHA256-s1--" + SHA.upper(), "key digest"),
        (b"SHA256-s1--" + SHA[:-1] + b"g", "key digest"),
        (b"SHA256-s1--\\" + SHA, "key digest"),
        (b"SHA256E-s1--.txt", "key digest"),
        (b"MD5-s1--" + SHA, "key digest"),
        (b"SKEIN512-s1--" + SHA, "key digest"),
        (b"BLAKE2SP224-s1--" + SHA, "key digest"),
        (b"GITBUNDLE-s1--u-short", "key digest"),
        (b"SHA256-s9223372036854775808--" + SHA, "key size"),
        (b"SHA256-s99999999999999999999999999--" + SHA, "key size"),
        (b"WORM-s1-m9223372036854775808--a", "key mtime"),
        (b"SHA256-s1-S1--" + SHA, "key chunk"),
        (b"SHA256-s1-C1--" + SHA, "key chunk"),
        (b"SHA256-s1-S1-C0--" + SHA, "key chunk"),
        (b"SHA256-s1-S9223372036854775808-C1--" + SHA, "key chunk"),
        (b"WORM-s1-m1--" + b"a" * 240, "key file name"),
        (b"WORM-s1-m1--" + b"%" * 120, "key file name"),
    ],
)
def test_these_may_not_and_the_error_names_what_is_wrong(key: bytes, field: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        check_storable(Key.parse(key))
    assert caught.value.field == field
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "key",
    [
        *(b"WORM-s3-m1--a", b"URL--http://a/", b"VURL--http://a/", b"GITMANIFEST--u", b"XFOO-s1--a", b"FOO-s1--a"),
        b"SHA256-s9-S3-C3--" + SHA,
        b"BLAKE2SP224-s0--c26167059e1d0f5c4d38e0baf1763410a974e427fe0dc3d61b7bdb71",
    ],
)
def test_a_store_may_insist_on_proof(key: bytes) -> None:
    check_storable(Key.parse(key))
    with pytest.raises(InvalidKey, match="verified"):
        check_storable(Key.parse(key), allow_unverifiable=False)


def test_hash_keys_pass_where_proof_is_needed() -> None:
    for backend in (b"SHA256E", b"SHA1", b"BLAKE2BP512", b"BLAKE3_256"):
        check_storable(name_content([b"x"], backend, b".dat"), allow_unverifiable=False)


@given(st.binary(min_size=1, max_size=260))
def test_what_passes_fits_into_every_file_name_that_git_annex_makes_of_it(name: bytes) -> None:
    key = Key(b"WORM", name, 1, mtime=1)
    try:
        check_storable(key)
    except InvalidKey:
        return
    assert len(key_file(key) + b".lck") <= MAX_FILE_NAME
    assert len(location_log(key).replace(b"_", b"__")) <= MAX_FILE_NAME
    assert b"\n" not in key.raw


@given(st.binary(min_size=1, max_size=100) | st.binary(max_size=64).map(lambda path: path + b"\xff" * (64 - len(path))))
def test_every_worm_key_that_we_make_may_be_stored_unless_it_is_too_long(path: bytes) -> None:
    key = worm_key(path, 1, 1)
    try:
        check_storable(key)
    except InvalidKey:
        # six characters stand for one odd byte, and only a path of more than 64 bytes is cut
        assert len(key_file(key)) > 200
