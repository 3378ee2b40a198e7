"""A network for tests, as ``git-annex-p2p-test``: an address is the name of a link to a socket in $P2P_TEST_NET.

Where there is a file ``cut`` in it, the first answer to a push loses all but a byte of what git says, as the
answers of git-annex do now and then on a busy machine.
"""

import os
import socket
import sys
import threading

ROOM = 65536


def pump_in(peer: socket.socket) -> None:
    """From stdin to *peer*."""
    try:
        while data := os.read(0, ROOM):
            peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
    except OSError:
        os._exit(1)


def cut(said: bytes, mark: str) -> bytes:
    """*said* up to the first byte of git's report, and the end, if it is in there and *mark* is still there."""
    if b"unpack ok" not in said or not os.path.exists(mark):
        return said
    os.unlink(mark)
    before, _, frame = said[: said.index(b"unpack ok")].rpartition(b"DATA ")
    return before + b"DATA 1\n" + frame.partition(b"\n")[2][:1] + b"CONNECTDONE 0\n"


def main() -> None:
    """What is asked for on the command line."""
    if sys.argv[1] == "address":
        print("at-" + os.path.basename(os.getcwd()))
        return
    place = os.path.join(os.environ["P2P_TEST_NET"], sys.argv[1])
    if len(sys.argv) > 2:
        if os.path.lexists(place):
            os.unlink(place)
        os.symlink(os.path.abspath(sys.argv[2]), place)
        threading.Event().wait()
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(place)
    threading.Thread(target=pump_in, args=(peer,), daemon=True).start()
    try:
        while data := peer.recv(ROOM):
            data = cut(data, os.path.join(os.environ["P2P_TEST_NET"], "cut"))
            while data:
                data = data[os.write(1, data) :]
    except OSError:
        pass  # one of the two has left
    os._exit(0)


if __name__ == "__main__":
    main()
