"""Clients that do nothing or little cost a server next to nothing, and those that are at work do not notice them."""

from __future__ import annotations

import hashlib
import os
import resource
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from statistics import quantiles
from typing import TypeAlias

import pytest
from places import Place, content_of, key_of
from server_under_load import Served, SlowClients, locks_below, serve_http, serve_unix

from annexpy.keys.key import Key
from annexpy.keys.layout import object_paths

pytestmark = pytest.mark.slow

Serve: TypeAlias = Callable[[Place, Path], AbstractContextManager[Served]]
PIECE = bytes(range(256)) * 1024

WAYS = [pytest.param(serve_unix, id="unix"), pytest.param(serve_http, id="http")]


def new_key(number: int) -> Key:
    return Key(b"SHA256", b"%064x" % number, 1 << 20)


@pytest.mark.alone
@pytest.mark.parametrize("serve", WAYS)
@pytest.mark.parametrize(
    ("idle", "slow", "checks"), [(300, 60, 500), pytest.param(1000, 200, 5000, marks=pytest.mark.campaign)]
)
def test_idle_and_slow_clients_cost_little_and_nobody_waits_for_them(
    serve: Serve, idle: int, slow: int, checks: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    small, large = content_of(1), content_of(2, 4 << 20)
    place = Place.make(tmp_path / "place", [small, large])
    there, absent = key_of(small), new_key(9999)
    with serve(place, tmp_path / "socket") as served, ExitStack() as after:
        served.warm_up()
        descriptors, threads, before = served.descriptors(), served.threads(), served.kibibytes()

        waiting: list[socket.socket] = []
        for _ in range(idle):
            waiting.append(after.enter_context(served.connect()))
            assert served.is_present(waiting[-1], there)
        each = (served.kibibytes() - before) / idle
        with SlowClients(served, slow, there=key_of(large), new=new_key) as others, served.connect() as busy:
            times = []
            for number in range(checks):
                begun = time.perf_counter()
                assert served.is_present(busy, absent if number % 2 else there) == (number % 2 == 0)
                times.append(time.perf_counter() - begun)
                time.sleep(0.005)  # a load that is even, and not a race with oneself
            assert others.failure is None
            assert others.moved > slow
            resident = served.kibibytes()
            connections = served.descriptors() - descriptors
        for connected in (waiting[0], waiting[-1]):
            assert served.is_present(connected, there), "who was idle is still served"
        after.close()

        p99 = quantiles(times, n=100)[98]
        record_property("p99 ms", p99 * 1000)
        record_property("KiB each", each)
        record_property("KiB", resident)
        print(f"p99 {p99 * 1000:.2f} ms, {each:.1f} KiB an idle connection, {resident / 1024:.0f} MiB in all")
        assert connections >= idle + slow
        assert p99 < 0.1
        assert each <= 40
        assert resident < 256 * 1024
        served.back_to(descriptors)
        assert served.threads() <= threads + 40  # a pool of them may stay
        assert not locks_below(place.git_dir)


def in_threads(works: list[Callable[[], object]]) -> None:
    """All of them at once; the first failure."""
    failures: list[BaseException] = []

    def one(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("serve", WAYS)
@pytest.mark.parametrize("size", [24 << 20, pytest.param(256 << 20, marks=pytest.mark.campaign)])
def test_sixteen_large_transfers_at_once_do_not_take_much_memory(serve: Serve, size: int, tmp_path: Path) -> None:
    place = Place.make(tmp_path / "place")
    unhashed, hashing = Key(b"WORM", b"large", size, mtime=1), hashlib.sha256()
    file = place.git_dir / "annex" / "objects" / object_paths(unhashed)[0].decode()
    file.parent.mkdir(parents=True)
    with file.open("wb") as out:
        for _ in range(size // len(PIECE)):
            out.write(PIECE)
            hashing.update(PIECE)
    hashed = Key(b"SHA256", hashing.hexdigest().encode(), size)
    other = place.git_dir / "annex" / "objects" / object_paths(hashed)[0].decode()
    other.parent.mkdir(parents=True)
    other.hardlink_to(file)

    with serve(place, tmp_path / "socket") as served:
        served.warm_up()
        descriptors = served.descriptors()
        lengths: list[int] = []
        in_threads([lambda key=key: lengths.append(served.get(key)) for key in [hashed, unhashed] * 8])
        assert lengths == [size] * 16
        got = served.kibibytes("VmHWM")
        new = [Key(b"WORM", b"new-%d" % number, size // 4, mtime=1) for number in range(16)]
        quarter = size // 4 // len(PIECE)
        in_threads([lambda key=key: served.put(key, iter([PIECE] * quarter)) for key in new])
        stored = served.kibibytes("VmHWM")
        print(f"{got / 1024:.0f} MiB after 16 gets, {stored / 1024:.0f} MiB after 16 puts")
        assert got <= 64 * 1024
        assert stored <= 64 * 1024
        for key in new:
            path = place.object(key)
            assert path is not None
            assert path.stat().st_size == key.size
        served.back_to(descriptors)
        assert not locks_below(place.git_dir)


def test_content_that_is_cut_while_it_is_sent_is_called_invalid_and_the_session_goes_on(tmp_path: Path) -> None:
    content = content_of(3, 16 << 20)
    place, key = Place.make(tmp_path / "place", [content]), key_of(content)
    path = place.object(key)
    assert path is not None
    with serve_unix(place, tmp_path / "socket") as served, served.connect() as connected:
        connected.sendall(served.get_request(key))
        with connected.makefile("rb") as lines:
            assert lines.readline() == b"DATA %d\n" % len(content)
            assert lines.read(1000) == content[:1000]
            os.truncate(path, 8 << 20)
            assert len(lines.read(len(content) - 1000)) == len(content) - 1000
            assert lines.readline() == b"INVALID\n"
            connected.sendall(b"FAILURE\n" + served.presence_request(new_key(1)))
            assert lines.readline() == b"FAILURE\n"
