"""Children as the far side: their words in errors, always reaped, and a server's own stdin and stdout."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from annexpy.errors import ConnectFailed, ConnectionLost
from annexpy.transport.pipe import Child, DialCommand, dial_command

pytestmark = pytest.mark.anyio


async def child(code: str, *args: str) -> Child:
    found = await dial_command([sys.executable, "-Sc", code, *args])
    assert isinstance(found, Child)
    return found


def gone(pid: int) -> bool:
    """Not running, and not a zombie either."""
    return not Path(f"/proc/{pid}").exists()


async def test_a_command_talks_through_its_stdin_and_stdout() -> None:
    cat = await dial_command(["cat"])
    try:
        await cat.send(b"meow\n")
        assert await cat.receive() == b"meow\n"
    finally:
        await cat.aclose()
    assert isinstance(cat, Child)
    assert gone(cat.pid)


async def test_a_program_that_is_not_there_is_a_failed_connection_naming_it() -> None:
    with pytest.raises(ConnectFailed, match="no-such-annex-shell: No such file"):
        await dial_command(["no-such-annex-shell"])


async def test_what_a_child_says_on_stderr_and_how_it_left_can_be_told() -> None:
    sad = await child("import sys; print('first', file=sys.stderr); sys.exit('permission denied')")
    try:
        assert await sad.receive() == b""
        assert sad.complaint == "first; permission denied; exit status 1"
        assert sad.at_eof
        with pytest.raises(ConnectionLost):
            await sad.send(b"anybody?")
    finally:
        await sad.aclose()


async def test_a_killed_child_says_by_what() -> None:
    victim = await child("import os; os.kill(os.getpid(), 9)")
    try:
        assert await victim.receive() == b""
        assert victim.complaint == "killed by SIGKILL"
    finally:
        await victim.aclose()


async def test_a_talkative_child_never_blocks_and_only_its_last_words_are_kept() -> None:
    chatty = await child(
        "import sys\nfor n in range(20000): print('complaint number', n, file=sys.stderr)\nsys.stdout.write('done\\n')"
    )
    try:
        with anyio.fail_after(20):
            assert await chatty.receive() == b"done\n"
            assert await chatty.receive() == b""
        assert "complaint number 19999" in chatty.complaint
        assert len(chatty.complaint) < 10_000
    finally:
        await chatty.aclose()


async def test_a_child_that_ignores_the_end_of_its_input_is_killed_within_two_seconds() -> None:
    stubborn = await child(
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.write(1, b'up\\n'); time.sleep(60)"
    )
    assert await stubborn.receive() == b"up\n"
    before = time.monotonic()
    await stubborn.aclose()

    assert 1.5 < time.monotonic() - before < 4
    assert gone(stubborn.pid)


async def test_a_cancelled_owner_still_reaps_the_child() -> None:
    with anyio.CancelScope() as scope:
        cat = await dial_command(["cat"])
        assert isinstance(cat, Child)
        try:
            scope.cancel()
            await cat.receive()
        finally:
            await cat.aclose()
    assert gone(cat.pid)


async def test_no_descriptor_is_left_by_children() -> None:
    cat = await dial_command(["cat"])
    await cat.aclose()  # the loop's own descriptors exist from here on
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        cat = await dial_command(["cat"])
        await cat.send(b"x")
        await cat.receive()
        await cat.aclose()
        with pytest.raises(ConnectFailed):
            await dial_command(["no-such-annex-shell"])

    assert len(os.listdir("/proc/self/fd")) == before


async def test_the_environment_is_added_to_ours() -> None:
    one = await DialCommand(("sh", "-c", 'echo "$ONE $HOME"'), env=(("ONE", "1"),))()
    try:
        assert await one.receive() == f"1 {os.environ['HOME']}\n".encode()
    finally:
        await one.aclose()


def test_a_command_dial_is_a_value_that_pickles() -> None:
    dial = DialCommand(("git-annex-shell", "p2pstdio", b"/srv/\xff"))
    assert pickle.loads(pickle.dumps(dial)) == dial
    assert str(dial) == "exec:git-annex-shell p2pstdio /srv/\udcff"


ECHO = """
import anyio, sys
from annexpy.transport.pipe import stdio
async def main():
    transport = stdio(b"prefix ")
    print("a stray print", flush=True)
    while data := await transport.receive():
        await transport.send(data)
    await transport.aclose()
anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize("kind", ["pipe", "file", "null", "socket"])
def test_a_server_takes_whatever_stdin_and_stdout_it_was_given(kind: str, anyio_backend: str, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", ECHO, anyio_backend]
    out = tmp_path / "out"
    match kind:
        case "pipe":
            done = subprocess.run(argv, input=b"hello", capture_output=True, check=True)
            assert done.stdout == b"prefix hello"
            assert done.stderr == b"a stray print\n"
            return
        case "file":
            (tmp_path / "in").write_bytes(b"x" * 200_000)
            with open(tmp_path / "in", "rb") as source, open(out, "wb") as sink:
                subprocess.run(argv, stdin=source, stdout=sink, stderr=subprocess.DEVNULL, check=True)
            assert out.read_bytes() == b"prefix " + b"x" * 200_000
        case "null":
            with open(out, "wb") as sink:
                subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.DEVNULL, check=True)
            assert out.read_bytes() == b"prefix "
        case _:

            async def through_a_socket() -> None:
                server = await DialCommand(tuple(argv))()
                try:
                    found = b""
                    await server.send(b"hello")
                    while len(found) < 12:
                        found += await server.receive()
                    assert found == b"prefix hello"
                finally:
                    await server.aclose()

            anyio.run(through_a_socket, backend=anyio_backend)
