"""A file is sent by a thread: it meets no other file, also when the task in whose name it works goes away."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from annexpy.transport.base import SendsFiles
from annexpy.transport.sendfile import Own
from annexpy.transport.sockets import over_socket

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


async def test_a_thread_that_outlives_its_task_meets_no_other_file(tmp_path: Path) -> None:
    content = tmp_path / "content"
    content.write_bytes(bytes(4 << 20))
    others = [tmp_path / f"other{number}" for number in range(6)]
    for _ in range(20):
        ours, theirs = socket.socketpair()
        transport = over_socket(ours, "peer")
        assert isinstance(transport, SendsFiles)
        with theirs, content.open("rb") as file:
            task = asyncio.ensure_future(transport.send_file(file.fileno(), 0, 4 << 20))
            await asyncio.sleep(0.0005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with ExitStack() as stack:
                for other in others:  # one of them has the number that the thread's would be
                    stack.enter_context(other.open("wb"))
                await asyncio.sleep(0.005)
                assert [other.stat().st_size for other in others] == [0] * 6
            await transport.aclose()


async def test_a_number_of_its_own_is_given_back_by_whoever_holds_it_last() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        own = Own(ours.fileno())
        ours.close()
        os.fstat(number := own.fd)
        del own

        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
