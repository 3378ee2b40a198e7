"""ssh: a command on another host as the far side, over connections that many channels share.

asyncssh carries it, in this process. The system's own ``ssh`` is used where somebody asked for it
(GIT_SSH_COMMAND and its kin: see ``remote.address``) and on event loops that asyncssh does not know.

What is honoured: ``~/.ssh/config`` (the options asyncssh knows), ``~/.ssh/known_hosts`` and whatever
the configuration names instead, the agent, the usual key files. Host keys are always checked: an
unknown host is refused, also with ``StrictHostKeyChecking no`` and ``UserKnownHostsFile none``.

Source of the settings: fact sheet performance, section 3.7.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import os
import re
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeAlias
from weakref import WeakKeyDictionary

import anyio

from annexpy.errors import AuthFailed, ConnectFailed, ConnectionLost, InvalidInput, TimedOut
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.descriptors import on_asyncio
from annexpy.transport.pipe import MAX_COMPLAINT, DialCommand

__all__ = [
    "CIPHERS",
    "PACKET",
    "WINDOW",
    "DialSSH",
    "DialSystemSSH",
    "SSHTransport",
    "leave_out_empty",
    "load_asyncssh",
    "open_when_read",
    "write_together",
]

_AsyncSSH: TypeAlias = Any
"""The module, or a thing of it. Its types would be an import, which costs 150 ms."""
CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
"""Half again as fast as the usual default, which is the third."""
PACKET: Final = 256 * 1024
"""Doubles the rate between two asyncssh; OpenSSH caps it to 32 KiB by itself."""
WINDOW: Final = 8 * 1024 * 1024
_AHEAD: Final = 1024 * 1024  # received bytes that wait for us before the peer is held back
_AUTHENTICATED: Final = ("-gcm@openssh.com", "chacha20-poly1305@openssh.com")
_IGNORE: Final = 2  # SSH_MSG_IGNORE
_NO_TEXT: Final = bytes(4)  # an empty string on the wire
_UNSENT: Final = 1024 * 1024  # sent bytes that wait for the window before ``send`` waits too
_TOGETHER: Final = 64 * 1024  # packets that are collected before they go out
_MALLOC: Final = ((-1, 64 << 20), (-2, 4 << 20), (-3, 16 << 20))
"""M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD."""
_CLOSE_SECONDS: Final = 2.0
_DEPARTURE_SECONDS: Final = 0.5


def load_asyncssh() -> _AsyncSSH:
    """asyncssh, imported the cheap way: looking for liboqs and nettle would run ldconfig and gcc."""
    if (found := sys.modules.get("asyncssh")) is not None:
        return found
    find_library = ctypes.util.find_library
    ctypes.util.find_library = lambda name: None
    try:
        import asyncssh
    finally:
        ctypes.util.find_library = find_library
    _keep_memory()
    return asyncssh


def _keep_memory() -> None:
    """Let freed memory stay with this process: else glibc may fetch it anew from the system for every packet.

    Whether it does depends on what lies where. At its worst that are two million page faults for a gigabyte, three
    times as long as everything else together.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return  # no glibc
    for setting, size in _MALLOC:
        mallopt(setting, size)


@dataclass(frozen=True, slots=True)
class DialSSH:
    """Runs *command* on *host*. One connection per host and event loop, a channel each.

    Attributes:
        host: Name, address, or alias of ``~/.ssh/config``.
        command: For the remote shell, one string.
        user: "" for what the configuration says, or our own name.
        port: 0 for what the configuration says, or 22.
        identities: Key files, in place of the usual ones and the agent's.
        name: For messages.
        timeout: Seconds for connecting, logging in and starting the command.

    Raises:
        InvalidInput: *host* or *user* would be taken for something else by ssh.
        AuthFailed: None of our keys is accepted.
        ConnectFailed: Unreachable, an unknown host key, or no such command.
        TimedOut: No answer.
    """

    host: str
    command: str
    user: str = ""
    port: int = 0
    identities: tuple[str, ...] = ()
    name: str = ""
    timeout: float = 20.0

    def __post_init__(self) -> None:
        _check(self.host, self.user)

    async def __call__(self) -> Transport:
        if not on_asyncio():
            return await DialSystemSSH(
                self.host, self.command, self.user, self.port, self.identities, self.name, batch=True
            )()
        return await _connections(self).open(self)

    def __str__(self) -> str:
        return self.name or _address(self.host, self.user, self.port)


@dataclass(frozen=True, slots=True)
class DialSystemSSH:
    """The same through the system's ``ssh``, which reads all of the user's configuration and may ask for passwords.

    Attributes:
        program: Words of the program; ssh's own options may follow them.
        shell: *program* is one string for ``sh -c``, as GIT_SSH_COMMAND is.
        batch: Never ask anything.
    """

    host: str
    command: str
    user: str = ""
    port: int = 0
    identities: tuple[str, ...] = ()
    name: str = ""
    program: tuple[str, ...] = ("ssh",)
    shell: bool = False
    batch: bool = False

    def __post_init__(self) -> None:
        _check(self.host, self.user)

    @property
    def argv(self) -> tuple[str, ...]:
        options = ["-o", "BatchMode=yes"] if self.batch else []
        for identity in self.identities:
            options += ["-i", identity]
        if self.port:
            options += ["-p", str(self.port)]
        arguments = (*options, "-T", f"{self.user}@{self.host}" if self.user else self.host, self.command)
        if self.shell:
            return ("sh", "-c", f'{self.program[0]} "$@"', self.program[0], *arguments)
        return (*self.program, *arguments)

    async def __call__(self) -> Transport:
        return await DialCommand(self.argv, name=str(self))()

    def __str__(self) -> str:
        return self.name or _address(self.host, self.user, self.port)


def _check(host: str, user: str) -> None:
    for field, value in (("ssh host", host), ("ssh user", user)):
        if value[:1] == "-" or (not value and field == "ssh host") or not value.isprintable() or " " in value:
            raise InvalidInput(field, value, "not empty, no white space, no leading '-'")


def _reason(error: OSError) -> str:
    """What the system says; asyncio has words of its own, and several numbers where a host has several addresses."""
    numbers = re.findall(r"\[Errno (\d+)\]", str(error)) if error.errno is None else [error.errno]
    said = dict.fromkeys(os.strerror(int(number)) for number in numbers if int(number) > 0)
    return ", ".join(said) or error.strerror or str(error)


def _address(host: str, user: str, port: int) -> str:
    return f"ssh://{user + '@' if user else ''}{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"


# -- connections ------------------------------------------------------------------------------------


class _Connections:
    """The connections of one event loop to one host, each with as many channels as the server lets it have."""

    def __init__(self) -> None:
        self._open: dict[_AsyncSSH, int] = {}  # how many channels are open
        self._full: dict[_AsyncSSH, int] = {}  # how many it had when it refused one more
        self._lock = asyncio.Lock()

    async def open(self, dial: DialSSH) -> SSHTransport:
        asyncssh = load_asyncssh()
        name = str(dial)
        try:
            with anyio.fail_after(dial.timeout):
                return await self._channel(dial, asyncssh)
        except TimeoutError as error:
            raise TimedOut(name, "ssh connection", dial.timeout) from error
        except asyncssh.PermissionDenied as error:
            raise AuthFailed(name, error.reason) from error
        except asyncssh.HostKeyNotVerifiable as error:
            reason = f"{error.reason}; connect once with ssh to check and keep the host key"
            raise ConnectFailed(name, reason) from error
        except asyncssh.Error as error:
            raise ConnectFailed(name, getattr(error, "reason", "") or str(error)) from error
        except OSError as error:
            raise ConnectFailed(name, _reason(error)) from error
        except (asyncssh.KeyImportError, asyncssh.ConfigParseError, ValueError) as error:
            raise ConnectFailed(name, str(error)) from error

    async def _channel(self, dial: DialSSH, asyncssh: _AsyncSSH) -> SSHTransport:
        while True:
            connection = await self._connection(dial, asyncssh)
            session = SSHTransport(str(dial), partial(self._left, connection))
            try:
                await connection.create_session(
                    lambda session=session: session,
                    dial.command,
                    encoding=None,
                    window=WINDOW,
                    max_pktsize=PACKET,
                )
            except asyncssh.ChannelOpenError:
                others = self._open[connection] - 1
                await self._left(connection)
                if not others:
                    raise
                self._full[connection] = others
            except BaseException:
                session.abandon()
                await self._left(connection)
                raise
            else:
                return session

    async def _connection(self, dial: DialSSH, asyncssh: _AsyncSSH) -> _AsyncSSH:
        """One with room for another channel, which is counted already. They are opened one at a time."""
        async with self._lock:
            for connection, channels in self._open.items():
                if channels < self._full.get(connection, sys.maxsize) and not connection.is_closed():
                    self._open[connection] += 1
                    return connection
            connection = await asyncssh.connect(**_options(dial, asyncssh))
            write_together(connection)
            leave_out_empty(connection)
            self._open[connection] = 1
            return connection

    async def _left(self, connection: _AsyncSSH) -> None:
        """A channel is over. A connection without any is closed: the wires above keep what is worth keeping."""
        self._open[connection] -= 1
        if not self._open[connection]:
            del self._open[connection]
            self._full.pop(connection, None)
            connection.close()
            with anyio.CancelScope(shield=True), anyio.move_on_after(_CLOSE_SECONDS):
                await connection.wait_closed()


_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[object, ...], _Connections]] = WeakKeyDictionary()


def _connections(dial: DialSSH) -> _Connections:
    hosts = _LOOPS.setdefault(asyncio.get_running_loop(), {})
    key = (dial.host, dial.user, dial.port, dial.identities)
    if key not in hosts:
        hosts[key] = _Connections()
    return hosts[key]


def _options(dial: DialSSH, asyncssh: _AsyncSSH) -> dict[str, object]:
    """What to connect with: the user's configuration wins, except where it would trust everybody."""
    wanted: dict[str, object] = {"host": dial.host, "config": ()}  # (): ~/.ssh/config
    if dial.user:
        wanted["username"] = dial.user
    if dial.port:
        wanted["port"] = dial.port
    if dial.identities:
        wanted["client_keys"] = list(dial.identities)
    read = asyncssh.SSHClientConnectionOptions(**wanted)
    if not read.config.get("Ciphers"):
        wanted["encryption_algs"] = CIPHERS
    if not read.config.get("ServerAliveInterval"):
        wanted |= {"keepalive_interval": 30, "keepalive_count_max": 4}
    if read.known_hosts is None:
        wanted["known_hosts"] = b""  # "none" would trust everybody; so it is the usual file
    return wanted


class _Together:
    """The socket under a connection of asyncssh, which would write packet by packet, and each one alone.

    What the tasks of one turn of the event loop say goes out in one write, or sshd wakes up for every packet
    (and for the empty one that asyncssh puts before each of them).
    """

    def __init__(self, socket: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._socket, self._loop = socket, loop
        self._packets: list[bytes] = []
        self._size = 0

    def write(self, packet: bytes) -> None:
        if not self._packets:
            self._loop.call_soon(self._flush)
        self._packets.append(packet)
        self._size += len(packet)
        if self._size > _TOGETHER:
            self._flush()

    def _flush(self) -> None:
        if self._packets:
            packets, self._packets, self._size = self._packets, [], 0
            self._socket.write(b"".join(packets))

    def close(self) -> None:
        self._flush()
        self._socket.close()

    def abort(self) -> None:
        self._packets.clear()
        self._socket.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def write_together(connection: _AsyncSSH) -> None:
    """Put ``_Together`` under *connection*. There is no public way, so where it has no such socket nothing is done."""
    socket = getattr(connection, "_transport", None)
    if isinstance(socket, asyncio.Transport):
        connection._transport = _Together(socket, asyncio.get_running_loop())


def leave_out_empty(connection: _AsyncSSH) -> None:
    """Spare both ends the empty packet that asyncssh sends before each one, where the cipher does not need it.

    It keeps the initial vector of ciphers in CBC mode unknown (RFC 4251, section 9.3.1). Authenticated ciphers
    have none that depends on what was sent before. Where asyncssh has no such method, nothing is done.
    """
    send = getattr(connection, "send_packet", None)
    if send is None or not str(connection.get_extra_info("send_cipher")).endswith(_AUTHENTICATED):
        return

    def send_packet(kind: int, *parts: bytes, **named: object) -> None:
        if kind != _IGNORE or parts != (_NO_TEXT,):
            send(kind, *parts, **named)

    connection.send_packet = send_packet


def open_when_read(channel: Any) -> None:
    """Have *channel* let the peer send more only when everything that came has been read.

    asyncssh opens the whole window again with the first piece it delivers, however much it still holds back for a
    reader that has paused: the faster the peer, the more of the content stood in memory (measured: 360 of 512 MiB).
    There is no public way, so where it has no such method nothing is done.
    """
    deliver = getattr(channel, "_deliver_data", None)
    if deliver is None or not hasattr(channel, "_init_recv_window"):
        return

    def deliver_data(data: bytes, datatype: int | None) -> None:
        window = channel._init_recv_window
        if channel._recv_buf:
            channel._init_recv_window = 0  # never less than half open, so it is left as it is
        try:
            deliver(data, datatype)
        finally:
            channel._init_recv_window = window

    channel._deliver_data = deliver_data


# -- one channel ------------------------------------------------------------------------------------


class _Channel(Protocol):
    """What is used of an ``asyncssh.SSHClientChannel``."""

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int) -> None: ...
    async def wait_closed(self) -> None: ...


class SSHTransport:
    """The stdin and stdout of a command on another host; also the ``asyncssh.SSHClientSession`` behind it.

    Args:
        peer: For messages.
        leave: Awaited when the channel is over.
    """

    def __init__(self, peer: str, leave: Callable[[], Awaitable[None]]) -> None:
        self.peer = peer
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._channel: _Channel | None = None
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False  # nothing more is to be read
        self._gone = False  # the channel is closed
        self._held_back = False  # the peer takes no more for now
        self._closed = False
        self._unsendable = ""
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._soon = b""
        self._said = b""
        self._status = ""
        self._failure = ""

    def abandon(self) -> None:
        """Starting the command was given up; the server may have started it all the same."""
        if self._channel is not None:
            self._channel.abort()

    # -- Transport --------------------------------------------------------------------------------------

    @property
    def at_eof(self) -> bool:
        return self._ended or self._closed

    @property
    def has_input(self) -> bool:
        return bool(self._chunks) or self._ended or self._closed

    @property
    def complaint(self) -> str:
        """What the command said on stderr, how it ended, and what ssh had to say."""
        lines = self._said.decode("utf-8", "replace").replace("\r", "\n").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return "; ".join([*said, *filter(None, (self._status, self._failure))])

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        while not self._chunks:
            if self._closed:
                raise ConnectionLost(self.peer, "data", "closed on this side")
            if self._ended:
                await self._departure()
                return b""
            reader = self._reader = self._loop.create_future()
            try:
                await reader
            finally:
                self._reader = None
        data = self._chunks.popleft()
        if self._chunks and len(data) + len(self._chunks[0]) <= max_bytes:
            some, size = [data], len(data)
            while self._chunks and size + len(self._chunks[0]) <= max_bytes:
                some.append(self._chunks.popleft())
                size += len(some[-1])
            data = b"".join(some)
        elif len(data) > max_bytes:
            self._chunks.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self._size -= len(data)
        if self._paused and self._size < _AHEAD // 2 and self._channel is not None:
            self._paused = False
            self._channel.resume_reading()
        return data

    async def _departure(self) -> None:
        """The exit status and the last words come after the end of the stream."""
        if not self._gone and self._channel is not None:
            with anyio.move_on_after(_DEPARTURE_SECONDS):
                await self._channel.wait_closed()

    def send_soon(self, data: bytes) -> None:
        if not self._soon:
            # In the turn after the next: whoever is to use the wire next has woken up then and takes this along.
            self._loop.call_soon(self._loop.call_soon, self._flush_soon)
        self._soon += data

    def _flush_soon(self) -> None:
        if self._soon and self._channel is not None and not (self._gone or self._unsendable):
            data, self._soon = self._soon, b""
            try:
                self._channel.write(data)
            except OSError as error:
                self._unsendable = error.strerror or str(error)

    async def send(self, data: bytes) -> None:
        if self._soon:
            data, self._soon = self._soon + data, b""
        if self._unsendable or self._closed or self._gone or self._channel is None:
            raise ConnectionLost(self.peer, "the peer to read", self._unsendable or self._failure)
        try:
            self._channel.write(data)
        except OSError as error:
            self._unsendable = error.strerror or str(error)
            raise ConnectionLost(self.peer, "the peer to read", self._unsendable) from error
        while self._held_back:
            self._unsendable = "cancelled while sending"
            writer = self._writer = self._loop.create_future()
            try:
                await writer
            finally:
                self._writer = None
            self._unsendable = ""

    async def aclose(self) -> None:
        if self._closed:
            return
        self._flush_soon()
        self._closed = True
        held_back, self._held_back = self._held_back, False
        self._wake()
        channel = self._channel
        with anyio.CancelScope(shield=True):
            if channel is not None and not self._gone:
                if self._paused:
                    channel.resume_reading()
                if not (held_back or self._unsendable):
                    # As with a child: the end of its stdin tells it to leave. Closing at once could cost it
                    # what we said last.
                    channel.write_eof()
                    with anyio.move_on_after(_CLOSE_SECONDS):
                        await channel.wait_closed()
                if not self._gone:
                    channel.abort()
            await self._leave()

    def _wake(self) -> None:
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    # -- asyncssh.SSHClientSession --------------------------------------------------------------------

    def connection_made(self, chan: _Channel) -> None:
        """The channel is open; the command is not running yet."""
        self._channel = chan
        open_when_read(chan)
        chan.set_write_buffer_limits(_UNSENT)

    def session_started(self) -> None:
        """The command runs."""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Bytes of stdout, or of stderr when *datatype* is set."""
        if datatype is not None:
            self._said = (self._said + data)[-MAX_COMPLAINT:]
            return
        if self._closed:
            return
        self._chunks.append(data)
        self._size += len(data)
        if self._size > _AHEAD and not self._paused and self._channel is not None:
            self._paused = True
            self._channel.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        """Stdout is over; ours may go on until we close."""
        self._ended = True
        self._wake()
        return True

    def exit_status_received(self, status: int) -> None:
        """The command ended by itself."""
        self._status = f"exit status {status}"

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """The command was killed."""
        self._status = f"killed by SIG{signal}"

    def pause_writing(self) -> None:
        """More waits for the window than we like to keep."""
        self._held_back = True

    def resume_writing(self) -> None:
        """There is room again."""
        self._held_back = False
        self._wake()

    def xon_xoff_requested(self, client_can_do: bool) -> None:
        """Nothing that concerns bytes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed, with *exc* when the connection broke."""
        if exc is not None:
            self._failure = getattr(exc, "reason", "") or str(exc)
        self._ended = self._gone = True
        self._held_back = False
        self._wake()
