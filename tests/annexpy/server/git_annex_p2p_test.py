"""A network for tests, as ``git-annex-p2p-test``: an address is the name of a link to a socket in $P2P_TEST_NET."""

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
            while data:
                data = data[os.write(1, data) :]
    except OSError:
        pass  # one of the two has left
    os._exit(0)


if __name__ == "__main__":
    main()
