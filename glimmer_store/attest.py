"""Signed proofs that a repository had the whole content of a key: who looked, when, how, and what they found.

The log is in the dataset, ``.glimmer-store/attestations/2/PP/NNNN.log``: PP is the part of a key (``partition``), and
all lines about it are in the files of that part. They go into the last of them, until it is full; then the next
begins. So a lookup reads one part in 256, a commit rewrites little, and git's index has an entry for each file, not
for each key. What a line is stands in ``receipts``. Lines are only ever added, and merged by taking those of both
sides; which of them counts is decided when they are read: of each key and repository the newest with a good
signature, and of two with the same time the one that found something wrong. So a failed verification voids the proofs
before it.

Datasets of before have a log for each key, ``.glimmer-store/attestations/XX/KEY.log``, with lines of version 1, where
XX are the first two hex digits of the SHA-256 of the file's name. It is read, and nothing is added to it.

The public keys are PEM files in ``.glimmer-store/keys``; a key's name is the first 32 hex digits of the SHA-256 of
its 32 raw bytes. The private one is in the user's configuration folder and belongs to the user, not to a dataset.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeAlias

import annexpy as annex
from glimmer_store.entry import Part
from glimmer_store.errors import ConfigError
from glimmer_store.receipts import (
    Attestation,
    Method,
    Receipts,
    Verdict,
    fold,
    message_of,
    partition,
    root_and_paths,
    root_of,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["FOLDER", "Attestation", "Attestations", "Method", "Signer", "Verdict", "log_parts", "reader", "user_folder"]

FOLDER: Final = ".glimmer-store"
"""Folder of the dataset for logs and public keys."""
_LOGS: Final = f"{FOLDER}/attestations"
_KEY_NAME: Final = "ed25519.pem"
_ATTRIBUTES: Final = b"* annex.largefiles=nothing\nattestations/** merge=union -text\n"
_FULL: Final = 16 << 10
"""Bytes of a file that gets no more lines."""
_HELD: Final = 20_000
"""Keys whose attestations are kept while others are looked up."""

Read: TypeAlias = Callable[[bytes], bytes | None]
"""What a file of the dataset says, by its path; None: there is no such file."""


# -- signing --


def user_folder() -> Path:
    """Where the user's signing key is: ``$GLIMMER_STORE_HOME``, else ``glimmer-store`` in the configuration folder."""
    own = os.environ.get("GLIMMER_STORE_HOME")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "glimmer-store"


class Signer:
    """Signs in the name of this user. Its key is made when it is first needed."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._private = private
        public = private.public_key()
        self.name = _name(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
        self.public = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self._host = os.uname().nodename

    @classmethod
    def of_user(cls) -> Self:
        """The user's; made, readable by nobody else, when there is none.

        Raises:
            ConfigError: It cannot be read or made, or others may read it.
        """
        path = user_folder() / _KEY_NAME
        try:
            if not path.exists():
                _make(path)
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"{path}: others may read the signing key", remedy=f"chmod 600 {path}")
            return cls(_load(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{path}: {error}", remedy="make it readable, or name another folder in GLIMMER_STORE_HOME"
            ) from error

    def attest(
        self, key: annex.Key, uuid: str, remote: str, verdict: Verdict, method: Method, *, when: datetime | None = None
    ) -> Attestation:
        """What was just found; ``sign`` puts a signature to it."""
        time = (when or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        return Attestation(str(key), uuid, remote, method, f"{time}Z", self._host, verdict, self.name)

    def sign(self, attestations: Iterable[Attestation]) -> list[Receipts]:
        """Sign *attestations*, which are of this signer: one signature, and a line for each part of the log."""
        parts: dict[str, list[Attestation]] = {}
        for one in attestations:
            assert (one.signer, one.host) == (self.name, self._host)
            parts.setdefault(partition(one.key), []).append(one)
        if not parts:
            return []
        root, paths = root_and_paths([root_of(some) for some in parts.values()])
        message = message_of(root)
        sig = self._private.sign(message)
        return [Receipts.make(some, path, message, sig) for some, path in zip(parts.values(), paths, strict=True)]

    def parts(self, attestations: Iterable[Attestation], read: Read) -> list[Part]:
        """What enters them into a dataset, signed, with all that is needed to check them there."""
        return log_parts(self.sign(attestations), {self.name: self.public}, read)


def log_parts(receipts: Iterable[Receipts], publics: Mapping[str, bytes], read: Read) -> list[Part]:
    """What enters lines into the log of a dataset that does not have them yet.

    Args:
        receipts: The lines.
        publics: Name → PEM of everybody who may have signed them.
        read: Reads the dataset's files.
    """
    by_part: dict[str, list[Receipts]] = {}
    for one in receipts:
        by_part.setdefault(one.partition, []).append(one)
    parts = []
    signers: set[str] = set()
    for name, some in by_part.items():
        there: set[bytes] = set()
        for path, content in _files(name, read):
            there.update((content or b"").splitlines(keepends=True))
            if content is None or len(content) < _FULL:
                new = [one for one in some if one.line not in there]
                signers.update(one.signer for one in new)
                if new:
                    parts.append(Part(path, "lines", b"".join(one.line for one in new)))
                break
    if parts:
        parts.append(Part(f"{FOLDER}/.gitattributes".encode(), "once", _ATTRIBUTES))
        parts += [Part(f"{FOLDER}/keys/{n}.pem".encode(), "once", publics[n]) for n in sorted(signers) if n in publics]
    return parts


def _files(name: str, read: Read) -> Iterator[tuple[bytes, bytes | None]]:
    """Path and content of each file of a part, and the first that is not there."""
    for number in count(1):
        path = f"{_LOGS}/2/{name}/{number:04}.log".encode()
        content = read(path)
        yield path, content
        if content is None:
            return


def reader(root: Path) -> Read:
    """Reads the files of a work tree."""

    def read(path: bytes) -> bytes | None:
        try:
            return (root / os.fsdecode(path)).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    return read


def _name(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]


def _make(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        pass  # another process was quicker: theirs it is
    finally:
        aside.unlink(missing_ok=True)


def _load(pem: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(pem, None)
    if not isinstance(private, Ed25519PrivateKey):
        raise TypeError("no Ed25519 key")
    return private


# -- reading --


class Attestations:
    """The attestations in the work tree of a dataset, as they are when they are first asked for.

    Keys that follow each other by ``partition``, as those of the location log do, are looked up fastest, and memory
    does not grow with their number.

    Args:
        root: Top of the dataset.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._read = root, reader(root)
        self._parts: OrderedDict[str, dict[str, dict[str, Attestation]]] = OrderedDict()
        self._held = 0
        self._checked: dict[tuple[str, bytes, bytes], bool] = {}

    @cached_property
    def _keys(self) -> dict[str, Ed25519PublicKey]:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

        found = {}
        for path in sorted((self._root / FOLDER / "keys").glob("*.pem")):
            try:
                public = load_pem_public_key(path.read_bytes())
            except (OSError, ValueError):
                continue  # whoever relies on it gets "unsigned"
            if isinstance(public, Ed25519PublicKey):
                found[_name(public.public_bytes(Encoding.Raw, PublicFormat.Raw))] = public
        return found

    @cached_property
    def _old(self) -> frozenset[str]:
        """Folders with logs of before."""
        try:
            return frozenset(os.listdir(self._root / _LOGS)) - {"2"}
        except FileNotFoundError:
            return frozenset()

    def valid(self, one: Receipts) -> bool:
        """It is signed by one of the dataset's keys."""
        from cryptography.exceptions import InvalidSignature

        signed = one.signer, one.message, one.sig
        if (known := self._checked.get(signed)) is not None:
            return known
        if len(self._checked) >= _HELD:
            self._checked.clear()
        try:
            self._keys[one.signer].verify(one.sig, one.message)
        except (InvalidSignature, KeyError):
            self._checked[signed] = False
        else:
            self._checked[signed] = True
        return self._checked[signed]

    def newest(self, key: annex.Key) -> dict[str, Attestation]:
        """UUID → the one that counts about *key*."""
        text = str(key)
        name = partition(text)
        part = self._parts.get(name)
        if part is None:
            part = self._part(name)
        else:
            self._parts.move_to_end(name)
        found = part.get(text, {})
        if self._old and (before := self._before(text)):
            return {uuid: one for (_, uuid), one in fold([*found.values(), *before]).items()}
        return found

    def newest_many(self, keys: Iterable[annex.Key]) -> dict[annex.Key, dict[str, Attestation]]:
        """Key → what ``newest`` says; for many keys in any order."""
        return {key: self.newest(key) for key in sorted(keys, key=lambda key: partition(str(key)))}

    def receipts(self, key: annex.Key) -> list[bytes]:
        """Of each repository the line that counts about *key*, alone: to be given away, and checked by itself."""
        newest, text, found = self.newest(key), str(key), dict[str, bytes]()
        for receipts in self._lines(partition(text), self._before_file(text)):
            for one in receipts.attestations:
                if newest.get(one.uuid) == one and self.valid(receipts):
                    found[one.uuid] = receipts.receipt(one).line
        return [found[uuid] for uuid in sorted(found)]

    def _part(self, name: str) -> dict[str, dict[str, Attestation]]:
        while self._held > _HELD:
            self._held -= len(self._parts.popitem(last=False)[1])
        every = (one for receipts in self._lines(name) if self.valid(receipts) for one in receipts.attestations)
        part: dict[str, dict[str, Attestation]] = {}
        for (key, uuid), one in fold(every).items():
            part.setdefault(key, {})[uuid] = one
        self._parts[name] = part
        self._held += len(part)
        return part

    def _lines(self, name: str, *more: bytes) -> Iterator[Receipts]:
        files = (content for _, content in _files(name, self._read) if content is not None)
        for content in (*more, *files):
            for line in content.splitlines(keepends=True):
                if (receipts := Receipts.from_line(line)) is not None:
                    yield receipts

    def _before(self, key: str) -> list[Attestation]:
        """Every valid one about *key* in its log of before."""
        found = map(Receipts.from_line, self._before_file(key).splitlines())
        each = [
            one for receipts in found if receipts is not None and self.valid(receipts) for one in receipts.attestations
        ]
        return [one for one in each if one.key == key]

    def _before_file(self, key: str) -> bytes:
        name = os.fsencode(key.replace("&", "&a").replace("%", "&s").replace("/", "%"))
        folder = hashlib.sha256(name).hexdigest()[:2]
        if folder not in self._old:
            return b""
        return self._read(b"%b/%b/%b.log" % (_LOGS.encode(), folder.encode(), name)) or b""
