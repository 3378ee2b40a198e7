from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidKey
from annexpy.keys.key import MAX_EXTENSION, Key
from annexpy.keys.layout import file_key, hash_dir_lower, hash_dir_mixed, key_file, location_log, object_paths

VECTORS = Path(__file__).parents[2] / "vectors"
CASES = json.loads((VECTORS / "keys.json").read_text("utf-8"))
ESCAPING = json.loads((VECTORS / "escaping.json").read_text("utf-8"))["cases"]

numbers = st.none() | st.integers(0, 2**70)
backends = st.sampled_from([b"SHA256E", b"SHA256", b"WORM", b"URL", b"XFOOE", b"sha256"]) | (
    st.binary(min_size=1, max_size=6).filter(lambda b: b"-" not in b)
)
names = st.binary(max_size=40) | st.sampled_from([b"", b"--", b"-s3--x", b"a.tar.gz", b"\n", b"a/b:c&d%e", b"&a&s&c%"])
keys = st.builds(
    lambda backend, name, size, mtime, chunk_size, chunk_number: Key(
        backend, name, size, mtime=mtime, chunk_size=chunk_size, chunk_number=chunk_number
    ),
    backends,
    names,
    numbers,
    st.none() | st.integers(0, 2**63 - 1),
    numbers,
    numbers,
)


@pytest.mark.vectors
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"][:50])
def test_key_vectors(case: dict[str, object]) -> None:
    given_key = str(case["key"]).encode(str(case["encoding"]))
    if not case["valid"]:
        with pytest.raises(InvalidKey):
            Key.parse(given_key)
        return

    key = Key.parse(given_key)

    assert key.raw == str(case["canonical"]).encode(str(case["encoding"]))
    assert hash_dir_lower(key).decode() == case["hashdirlower"]
    assert hash_dir_mixed(key).decode() == case["hashdirmixed"]
    assert key_file(key) == str(case["keyfile"]).encode(str(case["encoding"]))
    assert file_key(key_file(key)) == key
    assert key.backend == str(case["backend"]).encode(str(case["encoding"]))
    assert (key.size, key.mtime) == (case["size"], case["mtime"])


@pytest.mark.vectors
@pytest.mark.parametrize("case", ESCAPING, ids=lambda case: case["key"][:50])
def test_escaping_vectors(case: dict[str, str]) -> None:
    key = Key.parse(case["key"].encode("latin-1"))

    assert key_file(key) == case["keyfile"].encode("latin-1")
    assert location_log(key) == case["branch_log"].encode("latin-1")


@given(keys)
def test_every_key_comes_back_from_its_bytes_its_text_and_its_file_name(key: Key) -> None:
    for again in (Key.parse(key.raw), Key.parse(str(key)), file_key(key_file(key)), pickle.loads(pickle.dumps(key))):
        assert again == key
        assert (again.backend, again.name, again.size, again.mtime) == (key.backend, key.name, key.size, key.mtime)
        assert (again.chunk_size, again.chunk_number) == (key.chunk_size, key.chunk_number)
    assert bytes(key) == key.raw
    assert hash(again) == hash(key)


@given(keys, keys)
def test_escaping_is_a_bijection_into_file_names(a: Key, b: Key) -> None:
    assert b"/" not in key_file(a)
    assert (key_file(a) == key_file(b)) == (a == b)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_key_or_refused(raw: bytes) -> None:
    try:
        key = Key.parse(raw)
    except InvalidKey:
        return
    assert Key.parse(key.raw) == key


@pytest.mark.parametrize("digits", [1, 2, 4000])
def test_leading_zeros_are_dropped(digits: int) -> None:
    assert Key.parse(b"A-s" + b"0" * (digits - 1) + b"7--x").raw == b"A-s7--x"


def test_a_number_that_python_cannot_read_is_refused() -> None:
    with pytest.raises(InvalidKey, match="4000"):
        Key.parse(b"A-s" + b"9" * 4001 + b"--x")


def test_mtime_wraps_to_64_bits_as_in_git_annex() -> None:
    assert Key.parse(b"WORM-m9223372036854775808--x").raw == b"WORM-m-9223372036854775808--x"
    assert Key.parse(b"WORM-m18446744073709551615--x").mtime == -1


def test_the_extension_of_a_key_is_limited_in_bytes() -> None:
    longest = b"." + b"x" * (MAX_EXTENSION - 1)

    assert Key.parse(b"SHA256E--aa" + longest).name == b"aa" + longest
    assert Key.parse(b"SHA256--aa" + longest + b"x")
    for backend in (b"SHA256E", b"XFOOE"):
        with pytest.raises(InvalidKey, match="extension"):
            Key.parse(backend + b"--aa" + longest + b"x")


def test_chunks_share_the_directories_of_their_key() -> None:
    chunk, whole = Key.parse(b"SHA256E-s3-S1048576-C1--aaaa.tar.gz"), Key.parse(b"SHA256E-s3--aaaa.tar.gz")

    assert chunk.is_chunk
    assert chunk.without_chunk() == whole
    assert whole.without_chunk() is whole
    assert hash_dir_lower(chunk) == hash_dir_lower(whole)


def test_objects_are_looked_for_in_two_places() -> None:
    key = Key.parse(b"SHA256E-s0--e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    below = key.raw + b"/" + key.raw

    assert object_paths(key) == (b"f87/4d5/" + below, b"pX/ZJ/" + below)
    assert object_paths(key, levels=1) == (b"f87/" + below, b"pX/" + below)


def test_a_key_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Key.parse(b"A--x").size = 3
