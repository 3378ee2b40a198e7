"""A bag that others made: whether it is valid, and what is in it. Nothing is fetched, and nothing is written.

BagIt 0.93 to 1.0 (RFC 8493). The verdicts are those of the conformance suite of the Library of Congress; more than
it asks, links and special files are refused, and so is every path that would lead out of the bag once it is decoded.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from glimmer_store.export.scope import out_of_scope

__all__ = ["Bag", "Fetch", "digests_of", "read_bag"]

MAX_TAG_FILE: Final = 64 << 20
"""Bytes of one tag file that are read."""
_DECLARATION: Final = re.compile(
    rb"BagIt-Version: (\d+)\.(\d+)[ \t]*\r?\nTag-File-Character-Encoding: ([A-Za-z0-9._-]+)[ \t]*(?:\r?\n)*\Z"
)
_MANIFEST: Final = re.compile(r"(tag)?manifest-([a-z0-9]+)\.txt\Z")
_LINE: Final = re.compile(r"([0-9A-Fa-f]+)[ \t]+(.*)\Z")
_OXUM: Final = re.compile(r"(\d+)\.(\d+)\Z")
_ALGORITHMS: Final = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")
_ENCODINGS: Final = re.compile(r"(utf-?8|utf-?16(le|be)?|utf-?32(le|be)?|us-ascii|ascii|iso-8859-\d+|windows-125\d)\Z")
_SYSTEM: Final = {".ds_store", "thumbs.db", "desktop.ini"}
_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Fetch:
    """One line of ``fetch.txt``."""

    url: str
    size: int | None
    path: str


@dataclass(slots=True)
class Bag:
    """What was found of a bag.

    Attributes:
        folder: Where it is.
        version: Of BagIt, as two numbers.
        payload: Path, from the bag → algorithm → hex digest, as the manifests say.
        fetch: What is to be fetched.
        missing: Payload that is not here yet, and that ``fetch.txt`` names: the bag is not complete.
        tags: Tag files that a tag manifest lists, and that are what it says when the bag is valid.
        errors: Why it is not valid, as sentences with the file they are about.
        warnings: What is odd about it.
    """

    folder: Path
    version: tuple[int, int] = (0, 0)
    payload: dict[str, dict[str, str]] = field(default_factory=dict)
    fetch: list[Fetch] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Everything is there, and is what the manifests say."""
        return not self.errors and not self.missing


def read_bag(folder: Path) -> Bag:
    """Check all of the bag in *folder*: every file in it is read once."""
    bag = Bag(folder)
    files = _walk(bag)
    encoding = _declaration(bag)
    if encoding is None:
        return bag
    manifests: dict[str, dict[str, str]] = {}
    tags: dict[str, dict[str, str]] = {}
    for name in sorted(files):
        match = _MANIFEST.match(name)
        if match is None:
            continue
        tag, algorithm = match.groups()
        if algorithm not in _ALGORITHMS:
            bag.warnings.append(f"{name}: {algorithm} is not known here, so it was not checked")
            continue
        (tags if tag else manifests)[algorithm] = _manifest(bag, name, encoding, payload=not tag)
    if not manifests:
        bag.errors.append("no payload manifest with a hash that is known here")
    for algorithm, listed in manifests.items():
        for path, digest in listed.items():
            bag.payload.setdefault(path, {})[algorithm] = digest
    if "fetch.txt" in files:
        _fetch(bag, encoding)
    _check_listed(bag, files, manifests)
    _check_digests(bag, files, bag.payload)
    named: dict[str, dict[str, str]] = {}
    for algorithm, listed in tags.items():
        for path, digest in listed.items():
            named.setdefault(path, {})[algorithm] = digest
            if path not in files:
                bag.errors.append(f"{path}: a tag manifest lists it, and it is not there")
    bag.tags = set(named)
    _check_digests(bag, files, named)
    if "bag-info.txt" in files:
        _oxum(bag, files, encoding)
    return bag


# -- reading --


def _walk(bag: Bag) -> dict[str, int]:
    """Path → size of every regular file; anything but files and folders is an error."""
    files: dict[str, int] = {}

    def unreadable(error: OSError) -> None:
        bag.errors.append(f"{os.fsencode(str(error.filename))!r}: {error.strerror}")

    for folder, folders, names in os.walk(bag.folder, onerror=unreadable):
        for name in [*folders, *names]:
            path = Path(folder, name)
            status = path.lstat()
            relative = path.relative_to(bag.folder).as_posix()
            if out_of_scope(relative) == "is no UTF-8":
                bag.errors.append(f"{os.fsencode(relative)!r}: its name is no UTF-8")
            elif stat.S_ISREG(status.st_mode):
                files[relative] = status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "neither file nor folder"
                bag.errors.append(f"{relative}: is {what}, which a bag may not hold")
    return files


def _bytes(bag: Bag, name: str) -> bytes:
    path = bag.folder / name
    try:
        if path.is_symlink() or not path.is_file():
            bag.errors.append(f"{name}: is missing")
            return b""
        if path.stat().st_size > MAX_TAG_FILE:
            bag.errors.append(f"{name}: more than {MAX_TAG_FILE} bytes")
            return b""
        return path.read_bytes()
    except OSError as error:
        bag.errors.append(f"{name}: {error.strerror}")
        return b""


def _declaration(bag: Bag) -> str | None:
    """The encoding of the tag files; None when there is no bag at all."""
    raw = _bytes(bag, "bagit.txt")
    if not raw:
        return None
    match = _DECLARATION.match(raw)
    if match is None:
        bag.errors.append("bagit.txt: must be the lines BagIt-Version: M.N and Tag-File-Character-Encoding: NAME")
        return None
    bag.version = int(match[1]), int(match[2])
    if not (0, 93) <= bag.version <= (1, 0):
        bag.errors.append(f"bagit.txt: BagIt {match[1].decode()}.{match[2].decode()} is not known here")
        return None
    encoding = match[3].decode().lower()
    if not _ENCODINGS.match(encoding):
        bag.errors.append(f"bagit.txt: the encoding {encoding} is not known here")
        return None
    return encoding


def _lines(bag: Bag, name: str, encoding: str) -> list[str]:
    try:
        text = _bytes(bag, name).decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        bag.errors.append(f"{name}: {error}")
        return []
    return [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]


def _decoded(bag: Bag, path: str) -> str:
    """A path as a manifest or fetch.txt wrote it."""
    for code, byte in (("%0A", "\n"), ("%0a", "\n"), ("%0D", "\r"), ("%0d", "\r")):
        path = path.replace(code, byte)
    return path.replace("%25", "%") if bag.version >= (1, 0) else path


def _manifest(bag: Bag, name: str, encoding: str, *, payload: bool) -> dict[str, str]:
    listed: dict[str, str] = {}
    for number, line in enumerate(_lines(bag, name, encoding), 1):
        match = _LINE.match(line)
        if match is None:
            bag.errors.append(f"{name}: line {number} is no hash and path")
            continue
        digest, written = match[1].lower(), match[2]
        if written.startswith("*"):
            bag.warnings.append(f"{name}: line {number} was written by md5sum or its like")
            written = written[1:]
        path = _in_scope(bag, name, number, written, payload=payload)
        if path is None:
            continue
        if path not in listed:
            listed[path] = digest
        elif listed[path] != digest or bag.version >= (1, 0):
            bag.errors.append(f"{name}: {path} stands there twice")
        else:
            bag.warnings.append(f"{name}: {path} stands there twice")
    return listed


def _in_scope(bag: Bag, name: str, number: int, written: str, *, payload: bool) -> str | None:
    path = _decoded(bag, written)
    if path.startswith("./"):
        bag.warnings.append(f"{name}: line {number}: {written} begins with ./")
        path = path[2:]
    why = out_of_scope(path)
    if not why and payload and not path.startswith("data/"):
        why = "is not below data/"
    if why:
        bag.errors.append(f"{name}: line {number}: {written!r} {why}")
        return None
    return path


def _fetch(bag: Bag, encoding: str) -> None:
    for number, line in enumerate(_lines(bag, "fetch.txt", encoding), 1):
        words = line.split(None, 2)
        if len(words) < 3 or not (words[1] == "-" or (words[1].isascii() and words[1].isdigit())):
            bag.errors.append(f"fetch.txt: line {number} is no URL, length and path")
            continue
        path = _in_scope(bag, "fetch.txt", number, words[2].rstrip(), payload=True)
        if path is not None:
            bag.fetch.append(Fetch(words[0], None if words[1] == "-" else int(words[1][:20]), path))


# -- checking --


def _check_listed(bag: Bag, files: Mapping[str, int], manifests: Mapping[str, Mapping[str, str]]) -> None:
    for path in files:
        if path.startswith("data/") and path not in bag.payload:
            bag.errors.append(f"{path}: no manifest lists it")
    if bag.version >= (1, 0):
        for algorithm, listed in manifests.items():
            for path in sorted(set(bag.payload) - set(listed)):
                bag.errors.append(f"manifest-{algorithm}.txt: does not list {path}")
    to_fetch = {entry.path for entry in bag.fetch}
    for path in sorted(to_fetch - set(bag.payload)):
        bag.errors.append(f"fetch.txt: {path} is in no manifest")
    there: dict[str, list[str]] = {}
    for path in bag.payload:
        there.setdefault(_folded(path), []).append(path)
    for path in bag.payload:
        twins = [other for other in there[_folded(path)] if other != path]
        if twins:
            bag.warnings.append(f"{path}: differs from {twins[0]} in case or Unicode form only")
        if path.rpartition("/")[2].lower() in _SYSTEM:
            bag.warnings.append(f"{path}: is a file of the system that somebody's desktop made")
        if path in files:
            continue
        if path in to_fetch:
            bag.missing.append(path)
        elif any(twin in files and bag.payload[twin] == bag.payload[path] for twin in twins):
            pass  # a file system that takes both for one kept one
        elif path.rpartition("/")[2].lower() not in _SYSTEM:
            bag.errors.append(f"{path}: is missing")


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _check_digests(bag: Bag, files: Mapping[str, int], listed: Mapping[str, Mapping[str, str]]) -> None:
    for path, digests in listed.items():
        if path not in files:
            continue
        try:
            found = digests_of(bag.folder / path, digests)
        except OSError as error:
            bag.errors.append(f"{path}: {error.strerror}")
            continue
        for algorithm, digest in digests.items():
            if found[algorithm] != digest:
                bag.errors.append(f"{path}: {algorithm} is {found[algorithm]}, listed is {digest}")


def digests_of(path: Path, algorithms: Mapping[str, str]) -> dict[str, str]:
    """Algorithm → hex digest of a file that is read once, and not through a link."""
    hashers = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            for hasher in hashers.values():
                hasher.update(piece)
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}


def _oxum(bag: Bag, files: Mapping[str, int], encoding: str) -> None:
    told = [value for label, value in _info(bag, encoding) if label.lower() == "payload-oxum"]
    payload = [size for path, size in files.items() if path.startswith("data/")]
    absent = [path for path in bag.payload if path not in files]
    for value in told:
        match = _OXUM.match(value)
        if match is None:
            bag.errors.append(f"bag-info.txt: Payload-Oxum {value!r} is no bytes.files")
        elif not absent and (int(match[1][:20]), int(match[2][:20])) != (sum(payload), len(payload)):
            bag.errors.append(f"bag-info.txt: Payload-Oxum says {value}, there are {sum(payload)}.{len(payload)}")


def _info(bag: Bag, encoding: str) -> Iterator[tuple[str, str]]:
    """(label, value), lines of continuation joined."""
    label, value = "", ""
    for line in _lines(bag, "bag-info.txt", encoding):
        if line[0] in " \t" and label:
            value += " " + line.strip()
            continue
        if label:
            yield label, value
        name, _, rest = line.partition(":")
        label, value = name.strip(), rest.strip()
    if label:
        yield label, value
