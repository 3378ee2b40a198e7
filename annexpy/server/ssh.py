"""The ssh server: git-annex-shell and git for many keys, in one process and without accounts on this machine.

It is no login server. A channel runs one of the commands of ``annexpy-shell``, here, or git as a child; there is no
shell, no terminal, no forwarding, no agent, no sftp. Who a client is, is a matter of its key; the name it gives for
itself is not looked at.

Only AES-GCM is offered: clients have the first word on the cipher, and OpenSSH would choose one that takes half again
as long. asyncio only, as asyncssh is.

Source: fact sheets p2p-protocol, section 7, and performance, section 3.7; git-annex-shell(1).
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import anyio
import anyio.abc

from annexpy.clock import Clock
from annexpy.errors import AnnexError, ConnectFailed, InvalidInput, ProtocolError
from annexpy.server.authorized import AuthorizedKeys
from annexpy.server.limits import LockQuota, Quota
from annexpy.server.metrics import Metrics
from annexpy.server.places import Places
from annexpy.server.refusal import Refusal
from annexpy.server.shell import parse_command
from annexpy.server.ssh_commands import Commands
from annexpy.server.ssh_session import SSHClient, SSHSession
from annexpy.system import CLOCK
from annexpy.transport.descriptors import on_asyncio
from annexpy.transport.ssh_library import PACKET, leave_out_empty, load_asyncssh, write_together
from annexpy.transport.ssh_packets import receive_quickly

__all__ = ["SSHLimits", "SSHServer", "host_key"]

log = logging.getLogger(__name__)

_AsyncSSH: TypeAlias = Any
"""The module, or a thing of it; see transport/ssh.py."""
_CIPHERS: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_CLOSE_SECONDS: Final = 2.0
_LOOK: Final = 0.1
_WINDOW: Final = 4 * 1024 * 1024
"""Bytes that may wait here for a slow disk, for each command: a quarter of what clients of ours allow a server."""
_TOO_MANY: Final = 4  # SSH_OPEN_RESOURCE_SHORTAGE
_BY_APPLICATION: Final = 11  # SSH_DISCONNECT_BY_APPLICATION
_TOO_MANY_CONNECTIONS: Final = 12  # SSH_DISCONNECT_TOO_MANY_CONNECTIONS


@dataclass(frozen=True, slots=True)
class SSHLimits:
    """How much one server takes.

    Attributes:
        connections: At the same time; and a quarter of it that have not logged in.
        sessions: Commands at the same time on one connection.
        login: Seconds until a client has logged in.
        idle: Seconds between two requests of a client, for which it may hold a lock without a word, and for a whole
            fetch or push. Stock clients fall silent for hours while they work.
        alive: Seconds between two questions whether the client is still there; four without an answer end it.
    """

    connections: int = 1000
    sessions: int = 16
    login: float = 30.0
    idle: float = 6 * 3600.0
    alive: float = 30.0


def host_key(path: str) -> _AsyncSSH:
    """The host key in the file at *path*; an Ed25519 key is made when there is none (mode 0600, ``.pub`` beside it).

    Raises:
        InvalidInput: It cannot be read or made, or others may read it.
    """
    asyncssh = load_asyncssh()
    try:
        if not os.path.lexists(path):
            key = asyncssh.generate_private_key("ssh-ed25519", "annexpy")
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(key.export_private_key())
            with open(f"{path}.pub", "wb") as file:
                file.write(key.export_public_key())
        if os.stat(path).st_mode & 0o077:
            raise InvalidInput("host key", path, "readable by nobody but its owner (chmod 600)")
        return asyncssh.read_private_key(path)
    except OSError as error:
        raise InvalidInput("host key", path, f"a file to read or to make ({error.strerror})") from error
    except asyncssh.KeyImportError as error:
        raise InvalidInput("host key", path, f"a private key without passphrase ({error})") from error


class SSHServer:
    """Answers ssh clients. An async context manager: when it is left, everything ends at once.

    Attributes:
        places: The repositories.
        limits: How much it takes.
        connections: How many there are.
        sessions: How many commands are running.
    """

    def __init__(
        self,
        places: Places,
        keys: AuthorizedKeys,
        host_keys: list[_AsyncSSH],
        *,
        limits: SSHLimits | None = None,
        locks: Quota | None = None,
        metrics: Metrics | None = None,
        allow_unverifiable: bool = True,
        clock: Clock = CLOCK,
    ) -> None:
        """Serve *places*.

        Args:
            places: Entered.
            keys: Who may log in.
            host_keys: Of ``host_key``.
            limits: How much it takes.
            locks: How many content locks a client may hold or leave behind.
            metrics: What is counted.
            allow_unverifiable: False refuses PUT of keys whose content cannot be verified.
            clock: For removals that rely on time.
        """
        self.places = places
        self.limits = SSHLimits() if limits is None else limits
        self._keys, self._host_keys = keys, host_keys
        self._metrics, self._clock = metrics, clock
        quota = LockQuota() if locks is None else locks
        self._commands = Commands(places, self.limits.idle, quota, allow_unverifiable=allow_unverifiable, clock=clock)
        self._doors: dict[_AsyncSSH, SSHClient] = {}
        self._running: set[SSHSession] = set()
        self._acceptors: list[_AsyncSSH] = []
        self._stopping = False
        self._group: anyio.abc.TaskGroup | None = None
        if metrics is not None:
            metrics.gauge("ssh_connections", "Connections over ssh that are open.", lambda: self.connections)
            metrics.gauge("ssh_sessions", "Commands over ssh that are running.", lambda: self.sessions)

    @property
    def connections(self) -> int:
        """Open ones, logged in or not."""
        return len(self._doors)

    @property
    def sessions(self) -> int:
        """Running commands."""
        return len(self._running)

    # -- serving ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._group = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None
        self._stopping = True
        for acceptor in self._acceptors:
            acceptor.close()
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)  # or what was raised inside comes in a group
        for connection in [*self._doors]:
            connection.abort()
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
            for acceptor in self._acceptors:
                await acceptor.wait_closed()

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Answer who connects to this address, which is given (port 0: a free one).

        Raises:
            ConnectFailed: The address is taken, or not ours.
            InvalidInput: On another event loop than asyncio's.
        """
        if not on_asyncio():
            raise InvalidInput("event loop", "trio", "asyncio, for ssh")
        asyncssh = load_asyncssh()
        door = _door_of(asyncssh)
        try:
            acceptor = await asyncssh.listen(
                host,
                port,
                server_factory=lambda: door(self),
                server_host_keys=self._host_keys,
                encryption_algs=_CIPHERS,
                compression_algs=None,
                encoding=None,
                window=_WINDOW,
                max_pktsize=PACKET,
                login_timeout=self.limits.login,
                keepalive_interval=self.limits.alive,
                keepalive_count_max=4,
                allow_pty=False,
                line_editor=False,  # else it puts something before each channel, whose attributes are not the channel's
                agent_forwarding=False,
                x11_forwarding=False,
                allow_scp=False,
                sftp_factory=None,
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                config=None,
                backlog=256,
                reuse_address=True,
            )
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise ConnectFailed(f"ssh:{host}:{port}", reason) from error
        self._acceptors.append(acceptor)
        address = acceptor.get_addresses()[0]
        return address[0], address[1]

    async def leave(self, grace: float) -> bool:
        """Take no new connections and commands, and wait *grace* seconds for those under way; are they all over?

        Clients that have asked for nothing are let go at once.
        """
        self._stopping = True
        for acceptor in self._acceptors:
            acceptor.close()
        with anyio.move_on_after(grace):
            while self._running:
                for session in self._running:
                    session.let_go()
                await anyio.sleep(_LOOK)
        left = len(self._running)
        if left:
            log.warning("%d ssh commands were not done within %g s", left, grace)
        for connection in [*self._doors]:
            connection.disconnect(_BY_APPLICATION, "the server stops")
        return not left

    def reload(self, keys: AuthorizedKeys) -> None:
        """Let in *keys* from now on. Who is here with a key that may no longer do the same is thrown out."""
        self._keys = keys
        for connection, here in [*self._doors.items()]:
            if here.rights is not None and keys.find(here.blob, here.address) != here.rights:
                log.warning("%s: the key of %s may no longer do the same", here.peer, here.rights.name)
                connection.abort()

    # -- connections ------------------------------------------------------------------------------------

    def _came(self, connection: _AsyncSSH) -> SSHClient:
        peer = connection.get_extra_info("peername") or ("unknown", 0)  # who has left already
        here = SSHClient(*peer[:2])
        self._doors[connection] = here
        strangers = sum(one.rights is None for one in self._doors.values())
        if self._stopping:
            connection.disconnect(_BY_APPLICATION, "the server stops")
        elif len(self._doors) > self.limits.connections or strangers > max(8, self.limits.connections // 4):
            log.warning("%s: too many connections", here.peer)
            connection.disconnect(_TOO_MANY_CONNECTIONS, "too many connections")
        else:
            write_together(connection)
        return here

    def _went(self, connection: _AsyncSSH) -> None:
        self._doors.pop(connection, None)

    def _admit(self, here: SSHClient, blob: bytes) -> bool:
        here.blob = blob
        here.candidate = self._keys.find(blob, here.address)
        return here.candidate is not None

    def _open(self, here: SSHClient) -> SSHSession | None:
        if self._stopping or here.sessions >= self.limits.sessions or here.rights is None:
            return None
        here.sessions += 1
        return SSHSession(here, here.rights, self._start)

    def _start(self, session: SSHSession) -> None:
        assert self._group is not None
        self._running.add(session)
        self._group.start_soon(self._run, session)

    # -- one command --------------------------------------------------------------------------------------

    async def _run(self, session: SSHSession) -> None:
        begun = self._clock.now()
        why, said, code, verb = "", "", 1, "other"
        try:
            asked = parse_command(["-c", session.command or "shell"], limited=session.rights.limited)
            verb = asked.name
            code = await self._commands.answer(session, asked)
        except Refusal as refusal:
            why, said, code = str(refusal), refusal.said, refusal.code
        except AnnexError as error:
            why = str(error)
            text = "protocol error" if isinstance(error, ProtocolError) else why
            said = f"git-annex: {text}\n{verb}: 1 failed\n"
        except (OSError, ExceptionGroup) as error:  # of this one command: the others go on
            log.exception("%s: %a", session.peer, session.command[:400])
            why = str(error) or type(error).__name__
            said = "git-annex: the server cannot do it; its log says why\n"
        finally:
            with anyio.CancelScope(shield=True):
                await session.finish(code, said)
            self._running.discard(session)
            seconds = self._clock.now() - begun
            if self._metrics is not None:
                self._metrics.request(f"ssh {verb}", code, seconds, session.received, session.sent)
            because = f" ({why.splitlines()[0]!a})" if why else ""
            log.info(
                "%s %s ssh %a %d %d+%d bytes %.1f ms%s",
                session.peer,
                session.rights.name,
                session.command[:400],
                code,
                session.received,
                session.sent,
                seconds * 1000,
                because,
            )


# -- what asyncssh calls ------------------------------------------------------------------------------------


def _door_of(asyncssh: _AsyncSSH) -> _AsyncSSH:
    class Door(asyncssh.SSHServer):  # type: ignore[misc]  # of no type, see _AsyncSSH
        """One connection, as asyncssh wants to see it. What is not here is refused."""

        def __init__(self, server: SSHServer) -> None:
            self._server = server

        def connection_made(self, conn: _AsyncSSH) -> None:
            self._conn = conn
            self._here = self._server._came(conn)

        def connection_lost(self, exc: Exception | None) -> None:
            self._server._went(self._conn)

        def begin_auth(self, username: str) -> bool:
            return True

        def public_key_auth_supported(self) -> bool:
            return True

        def validate_public_key(self, username: str, key: _AsyncSSH) -> bool:
            # Called once more for the request that is signed, right before the signature is checked.
            return self._server._admit(self._here, key.public_data)

        def auth_completed(self) -> None:
            self._here.rights = self._here.candidate
            leave_out_empty(self._conn)
            receive_quickly(self._conn)

        def session_requested(self) -> SSHSession:
            session = self._server._open(self._here)
            if session is None:
                raise asyncssh.ChannelOpenError(_TOO_MANY, "no more sessions")
            return session

    return Door
