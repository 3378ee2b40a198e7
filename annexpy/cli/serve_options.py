"""What may be said about ``annexpy serve``, on the command line or in its file."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from annexpy.server.auth import APPEND_ONLY, EVERYTHING, READ_ONLY, Access, User, open_to_all, users_of_environment
from annexpy.server.authorized import AuthorizedKeys, read_authorized_keys
from annexpy.server.limits import Quota, ServerMode
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from annexpy.server.metrics import Metrics
    from annexpy.server.places import Places
    from annexpy.server.ssh import SSHServer

__all__ = ["HTTPOptions", "P2POptions", "SSHOptions", "ServeOptions"]

_MOST: Final = {
    ServerMode.READ_ONLY: READ_ONLY,
    ServerMode.APPEND_ONLY: APPEND_ONLY,
    ServerMode.WRITE: EVERYTHING,
}


@dataclass(frozen=True, slots=True)
class HTTPOptions:
    """What may be said on the command line; as git-annex p2phttp names it.

    Attributes:
        places: ``HOST:PORT``, ``:PORT`` or ``unix:PATH``, of which each is listened on.
        url: Where clients find the server, when that is not what they call it.
        users: Those of the configuration file.
        uuids: For whom pushes may speak of all other clients; None: for everybody.
    """

    places: tuple[str, ...] = ()
    wideopen: bool = False
    unauth_readonly: bool = False
    unauth_appendonly: bool = False
    unauth_nolocking: bool = False
    authenv: bool = False
    authenv_http: bool = False
    certfile: str | None = None
    chainfile: str | None = None
    privatekeyfile: str | None = None
    url: str = ""
    users: tuple[User, ...] = ()
    uuids: frozenset[UUID] | None = None

    def access(self, mode: ServerMode = ServerMode.WRITE) -> Access:
        """The rules; nobody may do more than *mode* says."""
        anonymous = open_to_all(
            wideopen=self.wideopen,
            unauth_readonly=self.unauth_readonly,
            unauth_appendonly=self.unauth_appendonly,
            unauth_nolocking=self.unauth_nolocking,
        )
        users = users_of_environment(os.environ, self.uuids) if self.authenv or self.authenv_http else []
        return Access(
            anonymous=anonymous,
            users=[*self.users, *users],
            allow_plain_http=self.authenv_http,
            uuids=self.uuids,
            most=_MOST[mode],
        )

    def tls(self) -> ssl.SSLContext | None:
        """TLS, when there is a certificate."""
        if self.certfile is None:
            if self.privatekeyfile is not None or self.chainfile is not None:
                raise click.UsageError("Give --certfile too.")
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load(context)
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Read the certificates, again when the server is told to reload."""
        assert self.certfile is not None
        try:
            if self.chainfile is None:
                context.load_cert_chain(self.certfile, self.privatekeyfile)
                return
            # OpenSSL wants them in one file, the server's own first.
            with open(self.certfile, "rb") as own, open(self.chainfile, "rb") as chain:
                both = own.read() + b"\n" + chain.read()
            fd = os.memfd_create("certificates")
            with open(fd, "wb") as file:
                file.write(both)
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{fd}", self.privatekeyfile or self.certfile)
        except (OSError, ssl.SSLError) as error:
            raise click.ClickException(f"certificate {self.certfile}: {error}") from error


@dataclass(frozen=True, slots=True)
class SSHOptions:
    """What may be said on the command line about ssh.

    Attributes:
        places: ``HOST:PORT`` or ``:PORT``, of which each is listened on.
        authorized_keys: The file that says who may log in.
        host_key: The file with our own key; made when it is not there. None: beside *authorized_keys*.
    """

    places: tuple[str, ...] = ()
    authorized_keys: str | None = None
    host_key: str | None = None

    def keys(self, mode: ServerMode = ServerMode.WRITE) -> AuthorizedKeys:
        """Who may log in, to do no more than *mode* says."""
        if self.authorized_keys is None:
            raise click.UsageError("Give --authorized-keys with --ssh.")
        return read_authorized_keys(self.authorized_keys, most=mode)

    def server(self, places: Places, keys: AuthorizedKeys, metrics: Metrics, locks: Quota) -> SSHServer:
        """The server."""
        from annexpy.server.ssh import SSHServer, host_key

        beside = os.path.join(os.path.dirname(self.authorized_keys or ""), "ssh_host_ed25519_key")
        return SSHServer(places, keys, [host_key(self.host_key or beside)], metrics=metrics, locks=locks)


@dataclass(frozen=True, slots=True)
class P2POptions:
    """Who is spoken P2P with.

    Attributes:
        sockets: ``[NAME=]PATH`` of unix sockets; NAME is that of a repository, where there are several.
        networks: Peers on the networks of ``git annex p2p --enable``.
        stdio: One client, on standard input and output, and nobody else.
        uuids: For whom pushes may speak; None: for everybody.
    """

    sockets: tuple[str, ...] = ()
    networks: bool = False
    stdio: bool = False
    uuids: frozenset[UUID] | None = None

    def __bool__(self) -> bool:
        """Anybody is."""
        return bool(self.sockets or self.networks or self.stdio)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Everything.

    Attributes:
        directories: Repositories; where there are neither HTTP nor ssh, what any REMOTE may be.
        mode: Nobody may do more than this, whatever else is said.
    """

    directories: tuple[str, ...]
    http: HTTPOptions = HTTPOptions()
    ssh: SSHOptions = SSHOptions()
    p2p: P2POptions = P2POptions()
    mode: ServerMode = ServerMode.WRITE

    @property
    def of_networks(self) -> bool:
        """HTTP or ssh is spoken, so that repositories are shown, with their names."""
        return bool(self.http.places or self.ssh.places)

    @property
    def fixed(self) -> object:
        """What cannot change while the server runs."""
        http, ssh = self.http, self.ssh
        tls = http.certfile is None
        return self.directories, http.places, http.url, tls, ssh.places, ssh.host_key, self.p2p, self.mode
