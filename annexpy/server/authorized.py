r"""Who may log in to the ssh server, and what each key may do: an authorized_keys file like that of git-annex-shell.

::

    environment="GIT_ANNEX_SHELL_READONLY=1" ssh-ed25519 AAAA… alice
    restrict,command="GIT_ANNEX_SHELL_DIRECTORY=/srv/lab.git annexpy-shell -c \"$SSH_ORIGINAL_COMMAND\"" ssh-ed25519 …

``command=`` runs nothing: its settings are taken, and any other program is no good. A line that is not understood as a
whole admits nobody, because what was not understood may have been a restriction.

Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT; git-annex-shell(1), ENVIRONMENT.
"""

from __future__ import annotations

import logging
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Final

from annexpy.errors import AnnexError, InvalidInput
from annexpy.server.limits import ServerMode
from annexpy.server.refusal import Refusal
from annexpy.server.shell import NAMES, split_words
from annexpy.uuids import UUID, parse_uuid

__all__ = ["AuthorizedKeys", "Rights", "fingerprint", "read_authorized_keys"]

log = logging.getLogger(__name__)

_KINDS: Final = ("ssh-ed25519", "ecdsa-sha2-", "ssh-rsa", "sk-ssh-ed25519@", "sk-ecdsa-sha2-", "rsa-sha2-")
_HARMLESS: Final = frozenset(
    f"{no}{what}"
    for no in ("", "no-")
    for what in ("pty", "port-forwarding", "agent-forwarding", "x11-forwarding", "user-rc")
) | {"restrict"}
"""What they speak of is never given to anybody."""
_STRICTNESS: Final = (ServerMode.WRITE, ServerMode.APPEND_ONLY, ServerMode.READ_ONLY)
_OURS: Final = ("GIT_ANNEX_SHELL_", "ANNEXPY_")
_SETTINGS: Final = frozenset(
    (
        "GIT_ANNEX_SHELL_READONLY",
        "GIT_ANNEX_SHELL_APPENDONLY",
        "GIT_ANNEX_SHELL_LIMITED",
        "GIT_ANNEX_SHELL_DIRECTORY",
        "ANNEXPY_ROOT",
        "ANNEXPY_UUIDS",
        "ANNEXPY_NAME",
    )
)


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key may do.

    Attributes:
        name: Who it is, for the log: ANNEXPY_NAME, else the comment of the key.
        who: As which user its locks count: ANNEXPY_NAME, else the fingerprint of the key.
        mode: What may be changed.
        root: Only repositories below this directory, and paths are relative to it; "" is no limit.
        directory: Only this repository; "" is no limit.
        limited: git's own commands are refused.
        uuids: Whose lines of the git-annex branch a push may change; None: anybody's.
        sources: Patterns of addresses, one of which has to match; () is no limit.
    """

    name: str
    who: str = ""
    mode: ServerMode = ServerMode.WRITE
    root: str = ""
    directory: str = ""
    limited: bool = False
    uuids: frozenset[UUID] | None = None
    sources: tuple[str, ...] = ()

    def comes_from(self, address: str) -> bool:
        """Does *address* match ``from=``? Names of hosts are not looked up."""
        if not self.sources:
            return True
        matches = [(one[:1] == "!", _matches(one.removeprefix("!"), address)) for one in self.sources]
        return not any(no and found for no, found in matches) and any(found for no, found in matches if not no)


def _matches(pattern: str, address: str) -> bool:
    if "/" in pattern:
        try:
            return ip_address(address) in ip_network(pattern, strict=False)
        except ValueError:
            return False
    return fnmatchcase(address, pattern)


def fingerprint(blob: bytes) -> str:
    """Of a public key in its wire form, as ssh-keygen shows it."""
    return "SHA256:" + b64encode(sha256(blob).digest()).decode().rstrip("=")


class AuthorizedKeys:
    """The keys of a server. Replaced as a whole when they change."""

    def __init__(self, text: str, *, name: str = "authorized keys", most: ServerMode = ServerMode.WRITE) -> None:
        """Take the good lines of *text*, and warn of the others; *name* is for that. No key may do more than *most*."""
        self._keys: dict[bytes, list[Rights]] = {}
        for number, line in enumerate(text.splitlines(), 1):
            line = line.strip()
            if line and not line.startswith("#"):
                try:
                    blob, rights = _parse_line(line)
                except AnnexError as error:
                    log.warning("%s, line %d admits nobody: %s", name, number, error)
                else:
                    mode = max(rights.mode, most, key=_STRICTNESS.index)
                    self._keys.setdefault(blob, []).append(replace(rights, mode=mode))

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, blob: bytes, address: str) -> Rights | None:
        """What the first fitting line gives to this key, coming from *address*; None: it is not let in."""
        return next((one for one in self._keys.get(blob, ()) if one.comes_from(address)), None)


def read_authorized_keys(path: str, *, most: ServerMode = ServerMode.WRITE) -> AuthorizedKeys:
    """The keys in the file at *path*, none of which may do more than *most*.

    Raises:
        InvalidInput: It cannot be read, or others than its owner may write to it.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            if os.fstat(file.fileno()).st_mode & 0o022:
                raise InvalidInput("authorized keys", path, "writable by nobody but its owner (chmod go-w)")
            return AuthorizedKeys(file.read(), name=path, most=most)
    except OSError as error:
        raise InvalidInput("authorized keys", path, f"a file to read ({error.strerror})") from error


# -- a line -----------------------------------------------------------------------------------------------


def _parse_line(line: str) -> tuple[bytes, Rights]:
    options: list[tuple[str, str]] = []
    if not line.startswith(_KINDS):
        options, line = _options(line)
    kind, _, rest = line.strip().partition(" ")
    coded, _, comment = rest.strip().partition(" ")
    if not kind.startswith(_KINDS) or "-cert-" in kind:
        raise InvalidInput("key type", kind, "ssh-ed25519, ecdsa-sha2-…, ssh-rsa or sk-…; certificates are not")
    try:
        blob = b64decode(coded, validate=True)
    except ValueError as error:
        raise InvalidInput("key", coded[:20], "base64") from error
    size = int.from_bytes(blob[:4], "big")
    if not coded or blob[4 : 4 + size] != kind.encode("utf-8", "surrogateescape"):
        raise InvalidInput("key", coded[:20], f"one of type {kind}")
    return blob, _rights(options, comment.strip(), blob)


def _options(line: str) -> tuple[list[tuple[str, str]], str]:
    """The options with which *line* begins, names in lower case, and the rest of it."""
    found: list[tuple[str, str]] = []
    at = 0
    while True:
        start = at
        while at < len(line) and line[at] not in '=, \t"':
            at += 1
        name, value = line[start:at].lower(), ""
        if line[at : at + 2] == '="':
            at += 2
            letters = []
            while line[at : at + 1] != '"':
                if at >= len(line):
                    raise InvalidInput("option", name, "a closing quote")
                at += line[at : at + 2] == '\\"'
                letters.append(line[at])
                at += 1
            at += 1
            value = "".join(letters)
        found.append((name, value))
        following = line[at : at + 1]
        at += 1
        if following in (" ", "\t"):
            return found, line[at:]
        if following != ",":
            raise InvalidInput("option", name, 'NAME or NAME="VALUE", separated by commas, and then a key')


def _rights(options: list[tuple[str, str]], comment: str, blob: bytes) -> Rights:
    settings: dict[str, str] = {}
    forced: dict[str, str] = {}
    sources: tuple[str, ...] = ()
    for option, value in options:
        if option == "environment":
            name, assigned, setting = value.partition("=")
            if not assigned:
                raise InvalidInput("environment", value, "NAME=VALUE")
            settings.setdefault(name, setting)
        elif option == "command":
            forced |= _assignments(value)
        elif option == "from" and value:
            sources = (*sources, *(one.strip() for one in value.split(",")))
        elif option not in _HARMLESS:
            raise InvalidInput("option", option, "one that this server knows")
    settings |= forced
    for name in settings:
        if name.startswith(_OURS) and name not in _SETTINGS:
            raise InvalidInput("environment", name, " ".join(sorted(_SETTINGS)))
    uuids = settings.get("ANNEXPY_UUIDS")
    mode = ServerMode.WRITE
    if settings.get("GIT_ANNEX_SHELL_READONLY"):
        mode = ServerMode.READ_ONLY
    elif settings.get("GIT_ANNEX_SHELL_APPENDONLY"):
        mode = ServerMode.APPEND_ONLY
    shown = fingerprint(blob)
    return Rights(
        name=settings.get("ANNEXPY_NAME") or comment or shown,
        who=settings.get("ANNEXPY_NAME") or shown,
        mode=mode,
        root=_absolute("ANNEXPY_ROOT", settings),
        directory=_absolute("GIT_ANNEX_SHELL_DIRECTORY", settings),
        limited=bool(settings.get("GIT_ANNEX_SHELL_LIMITED")),
        uuids=None if uuids is None else frozenset(map(parse_uuid, uuids.replace(",", " ").split())),
        sources=sources,
    )


def _assignments(command: str) -> dict[str, str]:
    """The settings of a forced command; it has to be git-annex-shell with what the client asked for."""
    try:
        words = split_words(command)
    except Refusal as error:
        raise InvalidInput("command", command, "words in quotes that end") from error
    if words[:1] == ["env"]:
        words = words[1:]
    found = {}
    while words and "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        found[name] = value
    if len(words) != 3 or os.path.basename(words[0]) not in NAMES or words[1:] != ["-c", "$SSH_ORIGINAL_COMMAND"]:
        raise InvalidInput("command", command, '[NAME=VALUE…] annexpy-shell -c "$SSH_ORIGINAL_COMMAND"')
    return found


def _absolute(name: str, settings: dict[str, str]) -> str:
    """A directory that exists or not; "" when it is not set. Set to nothing it is the home directory, as ever."""
    if name not in settings:
        return ""
    path = os.path.expanduser(settings[name] or "~")
    if not os.path.isabs(path):
        raise InvalidInput(name, settings[name], "an absolute path")
    return os.path.normpath(path)
