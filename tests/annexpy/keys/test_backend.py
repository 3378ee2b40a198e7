from __future__ import annotations

import hashlib
import json
import sys
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidKey, Refused
from annexpy.keys.backend import (
    BACKENDS,
    Hasher,
    extension,
    is_secure,
    is_verifiable,
    name_content,
    url_key,
    verifier,
    worm_key,
)
from annexpy.keys.hashes import COMPUTABLE, DIGESTS, new_hash
from annexpy.keys.key import Key

VECTORS = Path(__file__).parents[2] / "vectors"
HASHES = json.loads((VECTORS / "hash_backends.json").read_text("utf-8"))
INPUTS = {name: b64decode(content) for name, content in HASHES["inputs"].items()}
EXTENSIONS = json.loads((VECTORS / "extensions.json").read_text("utf-8"))
HELLO = b"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
CARRIED = {b"SKEIN256", b"SKEIN512", b"BLAKE2SP224"}


@pytest.mark.vectors
@pytest.mark.parametrize("case", HASHES["keys"], ids=lambda case: f"{case['backend']}-{case['file']}")
def test_hash_backend_vectors(case: dict[str, str]) -> None:
    key, content = Key.parse(case["key"]), INPUTS[case["file"]]
    backend = BACKENDS[key.backend]
    if key.backend == b"WORM":
        assert key.size is not None
        assert key.mtime is not None
        assert worm_key(case["file"].encode(), key.size, key.mtime) == key
        return
    if backend.hash in CARRIED:
        assert not is_verifiable(key)
        assert verifier(key) is None
        with pytest.raises(Refused, match="not computed"):
            Hasher(key.backend)
        return

    assert name_content([content], key.backend, extension(case["file"].encode())) == key
    for step in (1, 7, 64, 1000):
        checked = verifier(key)
        assert checked is not None
        for at in range(0, len(content), step):
            checked.update(memoryview(content)[at : at + step])
        assert checked.matches()
        checked.update(b"x")
        assert not checked.matches()


@pytest.mark.vectors
@pytest.mark.parametrize("case", EXTENSIONS, ids=lambda case: f"{case['filename']} {case['config']}")
def test_extension_vectors(case: dict[str, object]) -> None:
    config = {str(name): int(value) for name, value in case["config"].items()}  # type: ignore[attr-defined]
    found = extension(
        str(case["filename"]).encode("utf-8", "surrogateescape"),
        config.get("annex.maxextensionlength", 4),
        config.get("annex.maxextensions", 2),
    )

    assert found == str(case["extension"]).encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", [b"BLAKE2BP512", b"BLAKE2SP256"])
@given(content=st.binary(max_size=2500), cuts=st.lists(st.integers(0, 2500), max_size=4))
def test_a_tree_hash_does_not_depend_on_how_the_content_is_cut(name: bytes, content: bytes, cuts: list[int]) -> None:
    whole, pieces = new_hash(name), new_hash(name)
    whole.update(content)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 2500], strict=True):
        pieces.update(bytearray(content[start:end]))

    assert pieces.hexdigest() == whole.hexdigest() == pieces.hexdigest()


def test_every_digest_has_its_length() -> None:
    assert {name: len(new_hash(name).hexdigest()) for name in COMPUTABLE} == {
        name: digits for name, digits in DIGESTS.items() if name not in CARRIED
    }


@pytest.mark.parametrize(
    ("key", "content", "matches"),
    [
        (b"SHA256-s6--" + HELLO, b"hello\n", True),
        (b"SHA256--" + HELLO, b"hello\n", True),
        (b"SHA256-s7--" + HELLO, b"hello\n", False),
        (b"SHA256-s6--" + HELLO, b"hellO\n", False),
        (b"SHA256-s6--" + HELLO, b"", False),
        (b"SHA256-s6--\\" + HELLO, b"hello\n", True),
        (b"SHA256E-s6--\\" + HELLO + b".txt", b"hello\n", True),
        (b"SHA256E-s6--\\\\" + HELLO + b".txt", b"hello\n", False),
        (b"SHA256E-s6--" + HELLO, b"hello\n", True),
        (b"SHA256-s6--" + HELLO + b".txt", b"hello\n", True),
        (b"SHA256E-s6--" + HELLO + b"-x.txt", b"hello\n", False),
        (b"SHA256-s6--" + HELLO.upper(), b"hello\n", False),
        (b"SHA256-s6--short", b"hello\n", False),
        (b"SHA256-s0--", b"", False),
        (b"GITBUNDLE-s6--u-u-" + HELLO, b"hello\n", True),
        (b"GITBUNDLE-s6--u-u-" + HELLO, b"hellO\n", False),
        (b"GITBUNDLE-s6--" + HELLO, b"hello\n", True),
    ],
)
def test_a_content_is_what_the_real_git_annex_takes_it_for(key: bytes, content: bytes, matches: bool) -> None:
    checked = verifier(Key.parse(key))

    assert checked is not None
    checked.update(content)
    assert checked.matches() is matches
    assert checked.received == len(content)


@pytest.mark.parametrize(
    "key",
    [
        *(b"WORM-s1-m1--a", b"URL--http://a/", b"VURL--http://a/", b"GITMANIFEST--u", b"XFOO-s1--a", b"FOO--a"),
        *(b"sha256--a", b"GIT--4b825dc", b"SKEIN256-s1--a", b"BLAKE2SP224E-s1--a", b"SHA256-s6-S3-C1--" + HELLO),
    ],
)
def test_what_nothing_here_can_prove(key: bytes) -> None:
    assert not is_verifiable(Key.parse(key))
    assert verifier(Key.parse(key)) is None


@pytest.mark.parametrize(("package", "name"), [("blake3", b"BLAKE3_256"), ("xxhash", b"XXH3")])
def test_a_hash_without_its_package_is_refused_by_the_name_of_the_extra(
    package: str, name: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    for make in (lambda: Hasher(name), lambda: verifier(Key(name + b"E", b"a", 1))):
        with pytest.raises(Refused, match=rf"{package}.*annexpy\[hashes\]"):
            make()
    # it can be proved, only not now: nothing may be taken for unverifiable because a package is missing
    assert is_verifiable(Key(name, b"a", 1))


@pytest.mark.parametrize(
    "backend", [b"WORM", b"URL", b"VURL", b"GITBUNDLE", b"GITMANIFEST", b"XFOO", b"sha256", b"", b"E"]
)
def test_what_is_no_hash_backend_makes_no_keys(backend: bytes) -> None:
    with pytest.raises(Refused):
        Hasher(backend)


def test_secure_backends_are_those_of_git_annex() -> None:
    # measured: git annex matchexpression securehash --key=…
    insecure = {b"SHA1", b"SHA1E", b"MD5", b"MD5E", b"XXH3", b"XXH3E", b"WORM", b"URL", b"GITMANIFEST"}

    for name in BACKENDS:
        assert is_secure(Key(name, b"x", 1)) == (name not in insecure)
    for name in (b"XFOO", b"FOO", b"GIT", b"sha256"):
        assert not is_secure(Key(name, b"x", 1))


def test_vurl_is_as_secure_as_the_keys_it_stands_for() -> None:
    key, sha, md5 = (Key.parse(raw) for raw in (b"VURL--http://a/", b"SHA256-s6--a", b"MD5-s6--b"))

    assert is_secure(key)
    assert is_secure(key, [sha])
    assert not is_secure(key, [sha, md5])


def test_a_key_in_one_go_and_in_pieces() -> None:
    hasher = Hasher()
    hasher.update(b"hel")
    hasher.update(memoryview(b"lo\n"))

    assert hasher.key(6, b".txt").raw == b"SHA256E-s6--" + HELLO + b".txt"
    assert name_content([b"hel", b"lo\n"], b"SHA256", b".txt").raw == b"SHA256-s6--" + HELLO
    assert name_content([], b"MD5E").raw == b"MD5E-s0--d41d8cd98f00b204e9800998ecf8427e"


@given(st.binary(max_size=300))
def test_the_key_of_a_content_verifies_it(content: bytes) -> None:
    for name in (b"SHA256E", b"SHA3_512", b"BLAKE2SP256E", b"XXH3", b"BLAKE3_256"):
        checked = verifier(name_content([content], name, b".dat"))
        assert checked is not None
        checked.update(content)
        assert checked.matches()


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"w/x/file:name", b"w/x/file:name"),
        (b"a b", b"a,32b"),
        (b"a,b", b"a,,b"),
        ("café.txt".encode(), b"caf,233.txt"),
        ("日本".encode(), b",26085,26412"),
        (b"\xff\xfe", b",56575,56574"),
        (b"a\xc3(b", b"a,56515,40b"),
        (b"\xf0\x9f\x98\x80x", b",128512x"),
        (b"\xed\xa0\x80", b",56557,56480,56448"),
        (b"a%b&c", b"a%b,38c"),
        (b"-_.:", b"-_.:"),
        (b"tab\tx", b"tab,9x"),
        (b"x" * 64, b"x" * 64),
        (b"x" * 65, b"x" * 31 + b"-1bc932052302d074bdec39795fe00cf6"),
        (b" " * 65, b",32" * 10 + b",-b20dbcc8fac2de6758c7312173ffaf40"),
        ("é".encode() * 32, b",233" * 32),
        ("é".encode() * 33, b",233" * 7 + b",23-077487916da57cf9188bbd0c5e604050"),
    ],
)
def test_the_name_of_a_worm_key_is_sanitised_as_measured(path: bytes, name: bytes) -> None:
    assert worm_key(path, 2, 1000).raw == b"WORM-s2-m1000--" + name
    assert url_key(path).raw == b"VURL--" + name


def test_url_keys() -> None:
    assert url_key(b"http://example.com/a?b=1&c=2%20").raw == b"VURL--http://example.com/a,63b,611,38c,612%20"
    assert url_key(b"http://a/", 3, backend=b"URL").raw == b"URL-s3--http://a/"


def test_a_file_older_than_1970_has_no_worm_key() -> None:
    with pytest.raises(InvalidKey, match="1970"):
        worm_key(b"a", 1, -1)


def test_a_hasher_hands_its_bytes_straight_to_the_hash() -> None:
    # no call of ours between a chunk and the digest
    hasher = Hasher(b"SHA256")

    assert type(hasher.update.__self__) is type(hashlib.sha256())  # type: ignore[attr-defined]
