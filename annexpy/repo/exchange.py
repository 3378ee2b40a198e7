"""Bring the git-annex branch from another git repository, and send it there.

Over ssh and HTTP git's own protocol is spoken (dulwich) with what every git host has; on this machine the
other object store is read and written directly. Only branches named ``git-annex`` travel.

What is sent goes to ``refs/heads/synced/git-annex``, which git-annex merges at the start of its next
command, and not to ``refs/heads/git-annex`` itself: where the journal of the other repository holds a file
that the branch gains another change of, git-annex would write the journal over it and the change were
lost (fact sheet repository-format, section 0 rule 2). Who sends unasked uses ``refs/heads/synced/UUID/git-annex``:
of two pushes to one ref at the same moment one is refused. The branch itself is only made where there is none,
and moved forward in repositories that are no annexes and so have no journal.

Calls block; ``stop`` from another thread ends them.
"""

from __future__ import annotations

import os
import re
import shlex
from binascii import unhexlify
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from annexpy.errors import AnnexError, ConnectFailed, ConnectionLost, NotARepository, Refused, RepositoryError
from annexpy.patterns import regex
from annexpy.repo.ancestry import is_ancestor
from annexpy.repo.config import GitConfig
from annexpy.repo.discovery import as_git_finds
from annexpy.repo.history import History
from annexpy.repo.refs import GIT_ANNEX, SYNCED
from annexpy.uuids import UUID

if TYPE_CHECKING:
    import subprocess

    from dulwich.client import GitClient, SubprocessWrapper
    from dulwich.object_store import DiskObjectStore
    from dulwich.objects import ObjectID, ShaFile
    from dulwich.protocol import Protocol as Lines
    from dulwich.refs import Ref

__all__ = ["SENT", "Carried", "Carrier", "Exchange", "GitPlace", "git_place", "synced_by"]

SENT: Final = SYNCED + b"git-annex"
_HEADS: Final = b"refs/heads/"
_ANNEX: Final = regex(rb"refs/heads/(synced/([0-9a-f-]{36}/)?)?git-annex")
"""What is fetched: exactly these, so that none of them can stand where another one needs a folder."""
_SCHEME: Final = regex(r"([A-Za-z][A-Za-z0-9+.-]*)(://|::)")
_SCP: Final = regex(r"(?:([^/@:\s]+)@)?(\[[^\]]+\]|[^/:\s\[\]]+):(.+)", re.DOTALL)


def synced_by(uuid: UUID) -> bytes:
    """Where the repository *uuid* alone sends its git-annex branch to. git-annex merges it as it does ``SENT``."""
    return SYNCED + uuid.encode() + b"/git-annex"


class Carried(Protocol):
    """A git service somewhere else, as bytes to read and to write. Calls block."""

    def read(self, size: int) -> bytes:
        """*size* bytes, fewer only at the end."""
        ...

    def write(self, data: bytes) -> int:
        """Send all of *data*; its length."""
        ...

    def can_read(self) -> bool:
        """``read`` would not wait."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


@dataclass(frozen=True, slots=True)
class Carrier:
    """A program that leads to git.

    Attributes:
        argv: The command.
        open_wire: Asks over its stdout and stdin for a service, such as ``git-upload-pack``.
    """

    argv: tuple[str, ...]
    open_wire: Callable[[IO[bytes], IO[bytes], bytes], Carried]


@dataclass(frozen=True, slots=True)
class GitPlace:
    """Where another git repository is.

    Attributes:
        name: For messages, and for the refs that remember what was there.
        path: On the host, or on this machine.
        host: ``[user@]host``; None for this machine.
        port: Of ssh.
        ssh: How to run ssh, as words.
        carrier: How to get there where it is not ssh; *path* means nothing then.
        http: The URL, where that is how to get there.
    """

    name: str
    path: str
    host: str | None = None
    port: int | None = None
    ssh: tuple[str, ...] = ("ssh",)
    carrier: Carrier | None = None
    http: str | None = field(default=None, repr=False)


def git_place(name: str, url: str, base: str, config: GitConfig, environ: Mapping[str, str] = os.environ) -> GitPlace:
    """The place that the URL of a git remote means.

    Args:
        name: Of the remote.
        url: A path, ``file://``, ``ssh://``, ``http://``, ``https://`` or ``[user@]host:path``.
        base: What a relative path is relative to.
        config, environ: For the ssh to run: ``GIT_SSH_COMMAND``, ``core.sshCommand``, ``GIT_SSH``.

    Raises:
        Refused: Another carrier.
    """
    scheme = _SCHEME.match(url)
    if scheme is not None:
        parts = urlsplit(url)
        match scheme[1].lower() + scheme[2]:
            case "file://":
                return GitPlace(name, as_git_finds(unquote(parts.path)))
            case "http://" | "https://":
                return GitPlace(name, unquote(parts.path), parts.hostname or "", http=url)
            case "ssh://" | "git+ssh://" | "ssh+git://":
                user = f"{unquote(parts.username)}@" if parts.username else ""
                path = unquote(parts.path)
                return _over_ssh(
                    name, f"{user}{parts.hostname or ''}", parts.port, path[path.startswith("/~") :], config, environ
                )
        raise Refused("remote", url, "git-annex branches travel over ssh and HTTP, and between paths")
    scp = _SCP.fullmatch(url)
    if scp is not None and not os.path.exists(os.path.join(base, url)):
        user, host, path = scp.groups()
        return _over_ssh(name, (f"{user}@" if user else "") + host.strip("[]"), None, path, config, environ)
    return GitPlace(name, as_git_finds(os.path.join(base, url)))


def _over_ssh(
    name: str, host: str, port: int | None, path: str, config: GitConfig, environ: Mapping[str, str]
) -> GitPlace:
    if not host or host.startswith("-"):
        raise Refused("ssh host", host, "not empty, and not an option of ssh")
    command = environ.get("GIT_SSH_COMMAND") or config.get("core.sshcommand")
    program = environ.get("GIT_SSH")
    ssh = tuple(shlex.split(command)) if command else (program,) if program else ("ssh",)
    return GitPlace(name, path, host, port, ssh)


class Exchange:
    """One other repository, to fetch from and to push to."""

    def __init__(self, history: History, place: GitPlace) -> None:
        """Connect to nothing yet.

        Args:
            history: Of the branch here.
            place: Where the other one is.
        """
        self._history, self._place = history, place
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Lines] = []
        self._stopped = False

    def stop(self) -> None:
        """End whatever runs now, from another thread."""
        self._stopped = True
        for process in self._processes:
            process.kill()

    # -- fetching --

    def fetch(self) -> dict[bytes, bytes]:
        """Bring what is new, and remember it below ``refs/remotes/NAME/``.

        Returns:
            Ref there → commit, of the branches named ``git-annex``.

        Raises:
            ConnectFailed, ConnectionLost: The other repository cannot be reached.
            RepositoryError: It, or what it sent, is broken.
        """
        from dulwich.object_store import ObjectStoreGraphWalker
        from dulwich.objects import ObjectID

        found: dict[bytes, bytes] = {}
        store = self._store()
        try:

            def wanted(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
                said: dict[bytes, ObjectID] = {ref: sha for ref, sha in refs.items() if _ANNEX.fullmatch(ref)}
                found.update(said)
                return [sha for sha in dict.fromkeys(said.values()) if sha not in store]

            known = [ObjectID(sha) for sha in self._history.refs.named(b"git-annex").values()]
            walker = ObjectStoreGraphWalker([sha for sha in known if sha in store], lambda sha: _parents(store[sha]))
            try:
                pack, commit, abort = store.add_pack()
            except OSError as error:
                raise RepositoryError(
                    f"cannot store what is fetched from {self._place.name}: {error.strerror}"
                ) from error
            try:
                self._talk(
                    lambda client, path: client.fetch_pack(path, wanted, walker, pack.write, protocol_version=0),
                    "the git-annex branch",
                )
                self._talked("the git-annex branch", commit)
            except BaseException:
                if not pack.closed:
                    abort()
                raise
        finally:
            store.close()
        self._history.objects.close()
        try:
            for ref, sha in found.items():
                self._remember(ref, sha)
        except OSError as error:
            raise RepositoryError(f"cannot note what {self._place.name} has: {error.strerror}") from error
        return found

    def _remember(self, ref: bytes, sha: bytes) -> None:
        refs = self._history.refs
        tracking = b"refs/remotes/" + os.fsencode(self._place.name) + b"/" + ref.removeprefix(_HEADS)
        while (old := refs.read(tracking)) != sha:
            if refs.swap(tracking, old, sha):
                break

    # -- pushing --

    def push(self, tip: bytes, *, annex: bool = True, into: bytes = SENT) -> bool:
        """Send the history of *tip*.

        Args:
            tip: The commit, 40 hex digits.
            annex: The other repository is an annex, or may be one: its own branch is not moved.
            into: The ref that waits there to be merged.

        Returns:
            False when there is something new over there: fetch and merge first.

        Raises:
            As ``fetch``; RepositoryError too when the other side refuses it.
        """
        moved = self._send(tip, lambda refs: [into, *([] if annex and GIT_ANNEX in refs else [GIT_ANNEX])])
        if not moved:
            self._remember(into, tip)
        return not moved

    def push_branch(self, ref: bytes, tip: bytes) -> bool:
        """Send the history of *tip* and let *ref* there be *tip*; returns and raises as ``push``. Never forces."""
        return not self._send(tip, lambda refs: [ref])

    def _send(self, tip: bytes, which: Callable[[Collection[bytes]], list[bytes]]) -> bool:
        """Let the refs that *which* names, told those that are there, be *tip*; True when one has something new."""
        from dulwich.objects import ObjectID
        from dulwich.refs import Ref

        moved: list[bytes] = []

        def update(refs: dict[Ref, ObjectID]) -> dict[Ref, ObjectID]:
            changes: dict[Ref, ObjectID] = {}
            for ref in map(Ref, which(refs)):
                old = refs.get(ref)
                if old is not None and not self._is_behind(old, tip):
                    moved.append(ref)
                elif old != tip:
                    changes[ref] = ObjectID(tip)
            return {} if moved else changes

        store = self._store()
        try:
            result = self._talk(
                lambda client, path: client.send_pack(path, update, store.generate_pack_data),
                "the answer to a push",
            )
        finally:
            store.close()
        refused = {ref: why for ref, why in (result.ref_status or {}).items() if why}
        if refused and not moved:
            if any("fetch first" in str(why) or "non-fast-forward" in str(why) for why in refused.values()):
                return True
            reasons = ", ".join(f"{ref.decode('utf-8', 'replace')}: {why}" for ref, why in refused.items())
            raise RepositoryError(f"{self._place.name} refused the push: {reasons}")
        return bool(moved)

    def _is_behind(self, old: bytes, tip: bytes) -> bool:
        """*old* is part of the history of *tip*, as far as we have it."""
        try:
            self._history.objects.get(unhexlify(old))
        except RepositoryError:
            return False
        return is_ancestor(self._history, old, tip)

    # -- talking --

    def _store(self) -> DiskObjectStore:
        from dulwich.object_store import DiskObjectStore

        return DiskObjectStore(os.fsdecode(self._history.objects.git_dir + b"/objects"))

    def _client(self) -> tuple[GitClient, bytes]:
        from dulwich.client import LocalGitClient, SSHGitClient, SSHVendor, SubprocessWrapper

        place, exchange = self._place, self
        if place.carrier is not None:
            return self._carried(place.carrier), b""
        if place.host is None:
            return LocalGitClient(thin_packs=False), os.fsencode(place.path)

        class Ssh(SSHVendor):
            def run_command(
                self,
                host: str,
                command: bytes,
                username: str | None = None,
                port: int | None = None,
                password: str | None = None,
                key_filename: str | None = None,
                ssh_command: str | None = None,
                protocol_version: int | None = None,
            ) -> SubprocessWrapper:
                return SubprocessWrapper(exchange._run(host, command, port))

        class Client(SSHGitClient):
            def _connect(
                self, cmd: bytes, path: str | bytes, protocol_version: int | None = None
            ) -> tuple[Lines, Callable[[], bool], IO[bytes] | None]:
                connected = super()._connect(cmd, path, protocol_version)
                exchange._connections.append(connected[0])  # dulwich leaves it open when it meets an error
                return connected

        return Client(place.host, place.port, vendor=Ssh(), thin_packs=False), os.fsencode(place.path)

    def _carried(self, carrier: Carrier) -> GitClient:
        from dulwich.client import TraditionalGitClient
        from dulwich.protocol import Protocol as Lines

        exchange = self

        class Client(TraditionalGitClient):
            def _connect(
                self, cmd: bytes, path: str | bytes, protocol_version: int | None = None
            ) -> tuple[Lines, Callable[[], bool], IO[bytes] | None]:
                process = exchange._start(carrier.argv)
                assert process.stdin is not None
                assert process.stdout is not None
                wire = carrier.open_wire(process.stdout, process.stdin, b"git-" + cmd.removeprefix(b"git-"))
                protocol = Lines(wire.read, wire.write, wire.close)
                exchange._connections.append(protocol)
                return protocol, wire.can_read, None

            def get_url(self, path: str) -> str:
                return exchange._place.name

        return Client(thin_packs=False)

    def _run(self, host: str, command: bytes, port: int | None) -> subprocess.Popen[bytes]:
        import subprocess

        return self._start(
            [*self._place.ssh, *(["-p", str(port)] if port is not None else []), host, command], subprocess.PIPE
        )

    def _start(self, words: Sequence[str | bytes], stderr: int | None = None) -> subprocess.Popen[bytes]:
        import subprocess

        try:
            process = subprocess.Popen(words, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
        except OSError as error:
            raise ConnectFailed(self._place.name, f"{os.fsdecode(words[0])}: {error.strerror}") from error
        self._processes.append(process)
        if self._stopped:
            process.kill()
        return process

    def _talk(self, request: Callable[[GitClient, bytes], Any], waiting_for: str) -> Any:  # the client's own results
        try:
            if self._place.http is not None:
                return self._over_http(self._place.http, request, waiting_for)
            return self._talked(waiting_for, lambda: request(*self._client()))
        finally:
            self._hang_up()

    def _over_http(self, url: str, request: Callable[[GitClient, bytes], Any], waiting_for: str) -> Any:
        from annexpy.repo.exchange_http import over_http

        folder = os.fsdecode(self._history.objects.git_dir)
        return over_http(url, self._place.name, folder, lambda *at: self._talked(waiting_for, lambda: request(*at)))

    def _hang_up(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
        while self._connections:
            self._connections.pop().close()
        for process in self._processes:
            process.wait()  # killed, at the latest now
        self._processes.clear()

    def _talked(self, waiting_for: str, talk: Callable[[], Any]) -> Any:
        from dulwich.errors import GitProtocolError, HangupException, NotGitRepository

        place = self._place
        try:
            return talk()
        except AnnexError:
            raise
        except HangupException as error:
            said = b" ".join(line.strip() for line in error.stderr_lines or ()).decode("utf-8", "replace")
            raise ConnectionLost(place.name, waiting_for, said) from error
        except NotGitRepository as error:
            raise NotARepository(place.path, "not a git repository") from error
        except GitProtocolError as error:
            if type(error.__cause__).__module__.startswith("urllib3"):
                raise ConnectionLost(place.name, waiting_for, str(error)) from error
            raise RepositoryError(f"{place.name}: {error}") from error
        except OSError as error:
            raise ConnectionLost(place.name, waiting_for, error.strerror or str(error)) from error
        except Exception as error:
            library = type(error).__module__.partition(".")[0]
            if library == "urllib3":
                raise ConnectionLost(place.name, waiting_for, str(error)) from error
            if library not in ("dulwich", "zlib", "builtins") or type(error).__name__ == "HTTPUnauthorized":
                raise
            raise RepositoryError(f"{place.name}: broken git data: {error}") from error


def _parents(commit: ShaFile) -> list[ObjectID]:
    from dulwich.objects import Commit

    return commit.parents if isinstance(commit, Commit) else []
