"""git's own protocol inside of CONNECT: what goes out and comes in is wrapped in DATA.

Calls block, as those of ``Exchange`` do.

Source: fact sheet p2p-protocol, sections 4 and 8.
"""

from __future__ import annotations

from typing import IO, Final

from annexpy.errors import AuthFailed, ConnectionLost, PeerError, RemoteProtocolError
from annexpy.p2p.lines import parse
from annexpy.p2p.messages import (
    Auth,
    AuthFailure,
    AuthSuccess,
    Connect,
    ConnectDone,
    DataHeader,
    Error,
    Message,
    format,
)
from annexpy.repo.exchange import Carried, Carrier, GitPlace
from annexpy.repo.files import Files
from annexpy.repo.p2p_networks import parse_p2p_address, token_for
from annexpy.uuids import UUID

__all__ = ["P2PGit", "p2p_git_place"]

_MAX_LINE: Final = 32768
_PIECE: Final = 1 << 20


def p2p_git_place(name: str, url: str, files: Files, client: UUID) -> GitPlace:
    """Where git reaches a ``p2p-annex::`` address.

    Args:
        name: Of the git remote.
        url: The address.
        files: Of the repository that asks: it has the token.
        client: That repository.

    Raises:
        InvalidInput: No address.
    """
    address = parse_p2p_address(url)
    auth = format(Auth(client, token_for(files, address)))

    def open_wire(reading: IO[bytes], writing: IO[bytes], service: bytes) -> Carried:
        return P2PGit(reading, writing, name, auth, service)

    return GitPlace(name, "", address.network, carrier=Carrier(address.argv, open_wire))


class P2PGit:
    """A git service inside of CONNECT."""

    def __init__(self, reading: IO[bytes], writing: IO[bytes], name: str, auth: bytes, service: bytes) -> None:
        """Be let in, and ask for git.

        Args:
            reading, writing: From and to the peer; closed in the end.
            name: Of the peer, for messages.
            auth: The line that asks to be let in.
            service: Such as ``git-upload-pack``.

        Raises:
            AuthFailed: The token is not good.
            ConnectionLost, PeerError, RemoteProtocolError: It went wrong.
        """
        self._in, self._out, self._name = reading, writing, name
        self._buffer = b""
        self._left = 0
        self._over = False
        try:
            self._greet(auth, Connect(service))
        except BaseException:
            self.close()
            raise

    def _greet(self, auth: bytes, connect: Connect) -> None:
        self._send(auth)
        match self._message("the answer to AUTH"):
            case AuthSuccess():
                self._send(format(connect))
            case AuthFailure():
                raise AuthFailed(self._name)
            case Error(text):
                raise PeerError(self._name, text)
            case other:
                raise RemoteProtocolError(f"{self._name}: {type(other).__name__} in answer to AUTH")

    def read(self, size: int) -> bytes:
        """*size* bytes of what git says; nothing at the end.

        Raises:
            ConnectionLost: It ended in the middle. git-annex ends CONNECT when its git has ended, and now and then
                before it has carried all that this one said (measured on a busy machine).
        """
        said = b""
        while len(said) < size and self._frame():
            piece = self._receive(min(size - len(said), self._left))
            self._left -= len(piece)
            said += piece
        if said and len(said) < size:
            raise ConnectionLost(self._name, "what git says", "it ended in the middle")
        return said

    def _frame(self) -> bool:
        """There is something left of a DATA; False at the end."""
        while not self._left and not self._over:
            match self._message("what git says"):
                case DataHeader(length):
                    self._left = length
                case ConnectDone(code):
                    self._over = True
                    if code:
                        raise PeerError(self._name, f"git ended with status {code}")
                case Error(text):
                    raise PeerError(self._name, text)
                case other:
                    raise RemoteProtocolError(f"{self._name}: {type(other).__name__} inside of CONNECT")
        return not self._over

    def write(self, data: bytes) -> int:
        """Say *data* to git; its length."""
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            self._send(format(DataHeader(len(piece))) + piece)
        return len(data)

    def can_read(self) -> bool:
        """Something has come already. Not promised the other way: it is asked only in order to stop sending early."""
        return bool(self._left and self._buffer)

    def close(self) -> None:
        """Hang up."""
        self._in.close()
        self._out.close()

    def _message(self, waiting_for: str) -> Message:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _MAX_LINE:
                raise RemoteProtocolError(f"{self._name}: a line of more than {_MAX_LINE} bytes")
            self._more(waiting_for)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return parse(line)

    def _receive(self, size: int) -> bytes:
        if not self._buffer:
            self._more("DATA")
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece

    def _more(self, waiting_for: str) -> None:
        data = self._in.read(65536)
        if not data:
            raise ConnectionLost(self._name, waiting_for, "it hung up")
        self._buffer += data

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._out.write(view) :]
