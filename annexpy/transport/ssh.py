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
import os
import re
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

import anyio

from annexpy.errors import AuthFailed, ConnectFailed, InvalidInput, TimedOut
from annexpy.transport.base import Transport
from annexpy.transport.descriptors import on_asyncio
from annexpy.transport.pipe import DialCommand
from annexpy.transport.ssh_channel import AHEAD, CLOSE_SECONDS, WINDOW, SSHTransport
from annexpy.transport.ssh_library import (
    PACKET,
    AsyncSSH,
    acknowledging,
    keep_alive_cheaply,
    leave_out_empty,
    load_asyncssh,
    write_together,
)
from annexpy.transport.ssh_packets import receive_quickly

__all__ = ["CIPHERS", "DialSSH", "DialSystemSSH"]

CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
"""Half again as fast as the usual default, which is the third."""


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
        window: Bytes that may be on their way to us.

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
    window: int = WINDOW

    def __post_init__(self) -> None:
        _check(self.host, self.user)

    def narrow(self, window: int) -> DialSSH:
        """As ``transport.base.Narrow``; not on event loops that asyncssh does not know."""
        return replace(self, window=window)

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
        self._open: dict[AsyncSSH, int] = {}  # how many channels are open
        self._full: dict[AsyncSSH, int] = {}  # how many it had when it refused one more
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

    async def _channel(self, dial: DialSSH, asyncssh: AsyncSSH) -> SSHTransport:
        while True:
            connection = await self._connection(dial, asyncssh)
            ahead = AHEAD if dial.window == WINDOW else 0
            session = SSHTransport(str(dial), partial(self._left, connection), ahead)
            try:
                with acknowledging(connection):
                    await connection.create_session(
                        lambda session=session: session,
                        dial.command,
                        encoding=None,
                        window=dial.window,
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

    async def _connection(self, dial: DialSSH, asyncssh: AsyncSSH) -> AsyncSSH:
        """One with room for another channel, which is counted already. They are opened one at a time."""
        async with self._lock:
            for connection, channels in self._open.items():
                if channels < self._full.get(connection, sys.maxsize) and not connection.is_closed():
                    self._open[connection] += 1
                    return connection
            connection = await asyncssh.connect(**_options(dial, asyncssh))
            write_together(connection)
            leave_out_empty(connection)
            receive_quickly(connection)
            keep_alive_cheaply(connection)
            self._open[connection] = 1
            return connection

    async def _left(self, connection: AsyncSSH) -> None:
        """A channel is over. A connection without any is closed: the wires above keep what is worth keeping."""
        self._open[connection] -= 1
        if not self._open[connection]:
            del self._open[connection]
            self._full.pop(connection, None)
            connection.close()
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_SECONDS):
                await connection.wait_closed()


_LOOPS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[object, ...], _Connections]] = WeakKeyDictionary()


def _connections(dial: DialSSH) -> _Connections:
    hosts = _LOOPS.setdefault(asyncio.get_running_loop(), {})
    key = (dial.host, dial.user, dial.port, dial.identities)
    if key not in hosts:
        hosts[key] = _Connections()
    return hosts[key]


def _options(dial: DialSSH, asyncssh: AsyncSSH) -> dict[str, object]:
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
