"""Keys against the real git-annex: hundreds in one process each."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import pytest

from annexpy.errors import InvalidKey, Refused
from annexpy.keys.backend import BACKENDS, extension, is_verifiable, name_content, url_key, verifier, worm_key
from annexpy.keys.key import Key
from annexpy.keys.layout import hash_dir_lower, hash_dir_mixed, key_file
from annexpy.keys.storable import check_storable

pytestmark = pytest.mark.interop

SIZES = (0, 1, 2, 63, 64, 65, 127, 128, 129, 448, 511, 512, 513, 576, 1023, 1024, 1025, 4096, 5000, 70_001)


@pytest.fixture(scope="module")
def repository(git_annex: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys")
    subprocess.run(["git", "init", "-q", path], check=True)
    subprocess.run([git_annex, "init", "-q", "keys"], cwd=path, check=True, capture_output=True)
    return path


def batch(git_annex: str, repository: Path, *arguments: str, lines: list[bytes]) -> list[bytes]:
    done = subprocess.run(
        [git_annex, *arguments], cwd=repository, input=b"".join([line + b"\n" for line in lines]), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(b"\n")[:-1]


def random_key(dice: random.Random) -> Key:
    letters = bytes({*range(0x21, 0x7F)}) + "éü日\U0001f600".encode() + b"....--//&%:"
    while True:
        backend = dice.choice([*BACKENDS, b"XFOO", b"XBARE", b"FOO", b"sha256", b"a.b_c", b"E", b"X"])
        name = bytes(dice.choices(letters, k=dice.choice([0, 1, 5, 30, 64, 90])))
        size, mtime, chunk_size, chunk_number = (
            None if dice.random() < 0.5 else dice.choice([0, 1, 7, 1000, 2**31, 2**62]) for _ in range(4)
        )
        try:
            return Key(backend, name, size, mtime=mtime, chunk_size=chunk_size, chunk_number=chunk_number)
        except InvalidKey:  # too long an extension
            continue


def test_git_annex_reads_and_places_our_keys_as_we_do(git_annex: str, repository: Path) -> None:
    dice = random.Random(1)
    keys = [random_key(dice) for _ in range(600)]
    form = "${backend} ${bytesize} ${hashdirlower} ${hashdirmixed} ${key}\\n"

    answers = batch(git_annex, repository, "examinekey", "--batch", f"--format={form}", lines=[k.raw for k in keys])

    assert answers == [
        b" ".join(
            [
                key.backend,
                b"unknown" if key.size is None else b"%d" % key.size,
                hash_dir_lower(key),
                hash_dir_mixed(key),
                key.raw,
            ]
        )
        for key in keys
    ]


def test_git_annex_finds_the_file_of_a_key_where_we_put_it(git_annex: str, repository: Path) -> None:
    dice = random.Random(2)
    keys = [key for key in (random_key(dice) for _ in range(150)) if len(key_file(key)) < 200 and b"\\" not in key.raw]

    answers = batch(
        git_annex, repository, "examinekey", "--batch", "--format=${objectpath}\\n", lines=[key.raw for key in keys]
    )

    assert answers == [
        b".git/annex/objects/" + hash_dir_mixed(key) + key_file(key) + b"/" + key_file(key) for key in keys
    ]


def offered(git_annex: str) -> list[str]:
    version = subprocess.run([git_annex, "version"], capture_output=True, text=True, check=True).stdout
    listed = re.search(r"key/value backends: (.*)", version)
    assert listed
    return [name for name in listed[1].split() if name != "X*"]


def test_we_know_every_backend_that_git_annex_has(git_annex: str) -> None:
    assert {name.encode() for name in offered(git_annex)} == set(BACKENDS)


def test_every_digest_is_the_one_of_git_annex(git_annex: str, repository: Path) -> None:
    dice = random.Random(3)
    contents = {b"c%d.tar.d%d" % (i, i): dice.randbytes(size) for i, size in enumerate(SIZES)}
    for name, content in contents.items():
        (repository / os.fsdecode(name)).write_bytes(content)
    carried = set()

    for backend in offered(git_annex):
        if BACKENDS[backend.encode()].hash is None or backend == "GITBUNDLE":
            continue
        answers = batch(git_annex, repository, "calckey", f"--backend={backend}", "--batch", lines=list(contents))
        for (name, content), answer in zip(contents.items(), answers, strict=True):
            key = Key.parse(answer)
            check_storable(key)
            try:
                assert name_content([content], backend.encode(), extension(name)) == key
            except Refused:
                carried.add(backend)
                assert not is_verifiable(key)
                continue
            checked = verifier(key)
            assert checked is not None
            checked.update(content)
            assert checked.matches()

    assert carried == {name + e for name in ("SKEIN256", "SKEIN512", "BLAKE2SP224") for e in ("", "E")}


def random_filename(dice: random.Random, length: int) -> bytes:
    parts = [b".", b"..", b"a", b"Z", b"7", b" ", b",", b"-", b"_", b"%", b"&", b":", b"\t", "é".encode(), b"\xff"]
    parts += [b"gz", b"tar", b"json", b"abcde", "日本".encode(), b"\xf0\x9f\x98\x80", b"\xc3", b"+", b"'", b"\\"]
    return b"f" + b"".join(dice.choices(parts, k=length))[:200]


def test_names_of_files_become_keys_as_in_git_annex(git_annex: str, repository: Path) -> None:
    dice = random.Random(4)
    names = sorted({random_filename(dice, dice.choice([2, 4, 6, 9, 30, 60])) for _ in range(300)})
    where = os.fsencode(repository)
    for name in names:
        descriptor = os.open(where + b"/" + name, os.O_CREAT | os.O_WRONLY)
        os.close(descriptor)
        os.utime(where + b"/" + name, (1000, 1000))

    worm = batch(git_annex, repository, "calckey", "--backend=WORM", "--batch", lines=names)
    md5e = batch(git_annex, repository, "calckey", "--backend=MD5E", "--batch", lines=names)

    assert worm == [worm_key(name, 0, 1000).raw for name in names]
    assert md5e == [name_content([], b"MD5E", extension(name)).raw for name in names]


def test_addresses_become_keys_as_in_git_annex(git_annex: str, repository: Path) -> None:
    dice = random.Random(5)
    characters = b"abcXYZ019.-_/%:?&=,~+!*'()#@"
    urls = [b"http://h/" + bytes(dice.choices(characters, k=dice.choice([3, 40, 56, 70]))) for _ in range(60)]
    urls = [re.sub(rb"%(?![0-9a-f]{2})|[:#@?]", b"x", url[9:]) for url in urls]
    urls = [b"http://h/" + url for url in urls]

    batch(
        git_annex,
        repository,
        "fromkey",
        "--force",
        "--batch",
        lines=[b"%b u%d" % (url, i) for i, url in enumerate(urls)],
    )

    for i, url in enumerate(urls):
        assert os.path.basename(os.readlink(os.fsencode(repository / f"u{i}"))) == key_file(url_key(url))
