"""Links and pointers have the keys that git-annex sees in them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.keys.pointer import key_of_pointer, pointer

LINKS = {
    b".git/annex/objects/2W/V5/SHA256E-s1--aa/SHA256E-s1--aa": b"SHA256E-s1--aa",
    b"../../.git/annex/objects/abc/def/WORM-s1-m1--x&sy/WORM-s1-m1--x&sy": b"WORM-s1-m1--x%y",
    b"../.git/modules/sub/annex/objects/2W/V5/MD5--a/MD5--a": b"MD5--a",
    b".git/annex/objects/2W/V5/MD5--a/MD5--b": b"MD5--b",
    b".git/annex/objects/MD5-s1--d": b"MD5-s1--d",
    b"/abs/annex/objects/xx/MD5-s1--k": b"MD5-s1--k",
    b"annex/objects/MD5--c": None,
    b".git\\annex\\objects\\MD5--c": None,
    b".git/annex/objects/MD5--c/": None,
    b".git/annex/objects/MD5--c\n": b"MD5--c",
    b".git/annex/objects/MD5--c\r": b"MD5--c",
    b".git/annex/objects/MD5--c\n\n": None,
    b"/somewhere/else": None,
}
POINTERS = {
    b"/annex/objects/SHA256E-s1--aa\n": b"SHA256E-s1--aa",
    b"/annex/objects/SHA256E-s1--aa\r\n": b"SHA256E-s1--aa",
    b"/annex/objects/SHA256E-s1--aa": b"SHA256E-s1--aa",
    b"/annex/objects/folder/MD5--a\n": b"MD5--a",
    b"/annex/objects/URL--a%b\n/annex/ more\n": b"URL--a/b",
    b"/annex/objects/MD5--a\r\n/annex/ more\r\n": b"MD5--a",
    b"/annex/objects/MD5-s1--t other\n": b"MD5-s1--t other",
    b"x/annex/objects/MD5--a\n": b"MD5--a",
    b"\xef\xbb\xbf/annex/objects/MD5--a\n": b"MD5--a",
    b".git/annex/objects/x/y/MD5--a/MD5--a": b"MD5--a",
    b"x\n/annex/objects/MD5--a\n": None,
    b"/annex/objects/MD5--a\nother\n": None,
    b"/annex/objects/MD5--a\n/annex/ more": None,
    b"/annex/objects/MD5--a\n\n": None,
    b"/annex/objects/MD5--a\n\n/annex/ more\n": None,
    b"/annex/objects/nokey\n": None,
    b"\\annex\\objects\\MD5--a\n": None,
    b"content": None,
    b"/annex/objects/MD5--a\n" + b"/annex/" * 5000: None,
}


def key(name: bytes | None) -> Key | None:
    return None if name is None else Key.parse(name)


@pytest.mark.parametrize(("target", "name"), LINKS.items())
def test_the_key_of_a_link(target: bytes, name: bytes | None) -> None:
    assert key_of_pointer(target) == key(name)


@pytest.mark.parametrize(("content", "name"), POINTERS.items(), ids=range(len(POINTERS)))
def test_the_key_of_a_pointer(content: bytes, name: bytes | None) -> None:
    assert key_of_pointer(content) == key(name)


def test_a_pointer_leads_back_to_its_key() -> None:
    for name in filter(None, POINTERS.values()):
        assert key_of_pointer(pointer(Key.parse(name))) == Key.parse(name)


@pytest.mark.interop
def test_git_annex_sees_the_same_keys(tmp_path: Path, git_annex: str) -> None:
    def run(*words: str, given: bytes | None = None) -> bytes:
        return subprocess.run(words, cwd=tmp_path, input=given, capture_output=True, check=True, timeout=60).stdout

    run("git", "init", "--quiet")
    run(git_annex, "init")
    expected = [*LINKS.values(), *POINTERS.values()]
    for number, target in enumerate(LINKS):
        os.symlink(target, tmp_path / f"{number:02}")
    for number, content in enumerate(POINTERS, len(LINKS)):
        (tmp_path / f"{number:02}").write_bytes(content)
    run("git", "-c", "filter.annex.clean=cat", "-c", "filter.annex.process=", "add", ".")

    names = "".join(f"{number:02}\n" for number in range(len(expected)))
    found = run(git_annex, "lookupkey", "--batch", given=names.encode()).splitlines()

    assert [key(line or None) for line in found] == [key(name) for name in expected]
