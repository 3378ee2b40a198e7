"""annexpy without an event loop."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

import annexpy.sync as annex
from annexpy import errors
from annexpy.actions.results import DropResult
from annexpy.errors import ConnectFailed, KeyNotPresent, NotEnoughCopies, NotLocked
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.remote.cluster import Cluster
from annexpy.repo.repository import Repository

CONTENT = b"0123456789" * 1000
KEY = name_content([CONTENT])


def content(number: int) -> bytes:
    return b"content %d" % number


@pytest.fixture
def vaults(tmp_path: Path) -> Iterator[list[annex.Handle]]:
    handles = []
    for name in ("one", "two"):
        Repository.init(tmp_path / name, bare=True, description=name).close()
        handles.append(annex.connect(tmp_path / name, durability="fast"))
    yield handles
    for handle in handles:
        handle.close()


def test_put_and_get_without_an_event_loop(vaults: list[annex.Handle], tmp_path: Path) -> None:
    one, _ = vaults
    (tmp_path / "file.bin").write_bytes(CONTENT)
    key = annex.key_of(tmp_path / "file.bin")

    stored = annex.put(one, key, tmp_path / "file.bin")
    annex.get(one, key, str(tmp_path / "again"))

    assert stored.uuids == {one.uuid}
    assert annex.check_present(one, key)
    assert (tmp_path / "again").read_bytes() == CONTENT


def test_results_of_many_come_one_by_one_and_may_be_left(vaults: list[annex.Handle]) -> None:
    one, two = vaults
    keys = [name_content([content(number)]) for number in range(50)]

    results = list(annex.put_many(one, [(key, content(number)) for number, key in enumerate(keys)]))
    first = next(iter(annex.copy(one, two, keys)))

    assert all(result.ok for result in results)
    assert {result.key for result in results} == set(keys)
    assert first.ok
    assert annex.has_many(one, keys) == [True] * 50
    assert annex.has_many(one, iter([KEY])) == [False]


def test_a_generator_of_keys_may_itself_ask_remotes(vaults: list[annex.Handle]) -> None:
    one, two = vaults
    keys = [name_content([content(number)]) for number in range(5)]
    list(annex.put_many(one, [(key, content(number)) for number, key in enumerate(keys)]))

    def there() -> Iterator[Key]:
        for key in [*keys, KEY]:
            if annex.check_present(one, key):
                yield key

    assert {result.key for result in annex.copy(one, two, there())} == set(keys)


def test_a_cluster_of_handles_is_a_remote(vaults: list[annex.Handle]) -> None:
    cluster = Cluster(vaults)

    stored = annex.put(cluster, KEY, CONTENT)

    assert stored.uuids == {handle.uuid for handle in vaults}


def test_errors_are_those_of_the_library(vaults: list[annex.Handle], tmp_path: Path) -> None:
    one, two = vaults
    with pytest.raises(KeyNotPresent):
        annex.get(one, KEY, str(tmp_path / "x"))
    with pytest.raises(ConnectFailed):
        annex.check_present(annex.connect(tmp_path / "nowhere"), KEY)
    annex.put(one, KEY, CONTENT)
    with pytest.raises(NotEnoughCopies):
        annex.drop(KEY, from_=one, others=[two], copies=Copies(1))
    with pytest.raises(NotLocked), annex.lock(two, KEY):
        pass


def test_a_lock_lasts_as_long_as_its_block(vaults: list[annex.Handle]) -> None:
    one, two = vaults
    annex.put(one, KEY, CONTENT)
    annex.put(two, KEY, CONTENT)

    with annex.lock(one, KEY) as locked:
        assert locked.uuid == one.uuid
        assert annex.run(locked.held)
    assert annex.drop(KEY, from_=one, others=[two], copies=Copies(1)).ok


def test_a_content_opens_as_a_file(vaults: list[annex.Handle]) -> None:
    one, _ = vaults
    annex.put(one, KEY, CONTENT)

    with annex.open(one, KEY) as file:
        assert isinstance(file, io.BufferedReader)
        assert file.read(3) == b"012"
        assert file.seek(-4, os.SEEK_END) == len(CONTENT) - 4
        assert file.read() == b"6789"
        file.seek(5)
        assert file.read(2) == b"56"
    with pytest.raises(KeyNotPresent), annex.open(one, name_content([b"other"])) as file:
        file.read()


def test_it_works_inside_a_running_event_loop(vaults: list[annex.Handle]) -> None:
    async def notebook() -> bool:
        return annex.check_present(vaults[0], KEY)

    assert asyncio.run(notebook()) is False


def test_many_threads_share_one_loop(vaults: list[annex.Handle]) -> None:
    one, _ = vaults
    keys = [name_content([content(number)]) for number in range(64)]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda item: annex.put(one, item[1], content(item[0])), enumerate(keys)))

    assert annex.has_many(one, keys) == [True] * 64
    assert [thread.name for thread in threading.enumerate()].count("annexpy") == 1


def test_a_call_from_the_loop_itself_is_refused_instead_of_waiting_for_ever(vaults: list[annex.Handle]) -> None:
    one, _ = vaults

    with pytest.raises(RuntimeError, match="its own event loop"):
        annex.put(one, KEY, CONTENT, progress=lambda *_: annex.check_present(one, KEY) and None)


def _in_a_worker(handle: annex.Handle) -> tuple[str, bool]:
    return handle.uuid, annex.check_present(handle, KEY)


@pytest.mark.parametrize("how", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_handles_go_to_other_processes(how: str, vaults: list[annex.Handle]) -> None:
    one, _ = vaults
    annex.put(one, KEY, CONTENT)

    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(how)) as pool:
        assert pool.submit(_in_a_worker, one).result(60) == (one.uuid, True)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_results_and_errors_come_back_from_other_processes(vaults: list[annex.Handle], tmp_path: Path) -> None:
    one, two = vaults[:2]
    key = annex.name_content([b"x"])
    results: list[object] = [
        annex.put(one, key, b"x"),
        annex.get(one, key, tmp_path / "f"),
        *annex.copy(one, two, [key]),
    ]
    results.append(annex.drop(key, from_=one, others=[two], copies=annex.Copies(1)))
    for result in results:
        assert pickle.loads(pickle.dumps(result)) == result

    (dropped,) = annex.drop_many([key], from_=one, others=[two], copies=annex.Copies(1))
    assert dropped.proof is not None
    assert pickle.loads(pickle.dumps(dropped)) == DropResult(key, dropped.removed)
    (refused,) = annex.drop_many([key], from_=two, others=[one], copies=annex.Copies(1))
    assert pickle.loads(pickle.dumps(refused)).error.missing == refused.error.missing  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "error",
    [
        errors.NotEnoughCopies("k", 1, 2, counted={"a": "locked"}, missing={"b": "away"}),
        errors.NodesFailed("safe", "to store k", [("u", errors.ConnectFailed("a", "away"))]),
        errors.InvalidPath("file", b"\xff", "is none"),
        errors.KeyNotPresent("k", "vault"),
        errors.DropIncomplete("k", ["u"], {"v": "away"}),
        errors.LockHeld("journal", "pid 7", 5),
        errors.InvalidExpression("nope", 3, "a term"),
        errors.NotWanted("nobody"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_pickles_with_its_facts(error: annex.AnnexError) -> None:
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert repr(vars(again)) == repr(vars(error))


def test_a_forked_child_goes_on_with_what_it_inherited(vaults: list[annex.Handle]) -> None:
    one, _ = vaults
    annex.put(one, KEY, CONTENT)

    child = os.fork()
    if child == 0:
        os._exit(0 if annex.check_present(one, KEY) else 1)
    deadline = time.monotonic() + 30
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    assert ended == (child, 0)
    assert annex.check_present(one, KEY)


@pytest.mark.interop
def test_a_wire_survives_pickling_and_threads(tmp_path: Path, git_annex: str) -> None:
    Repository.init(tmp_path / "v", bare=True).close()
    shell = Path(git_annex).with_name("git-annex-shell")

    with annex.connect(f"exec:{shell} p2pstdio {tmp_path / 'v'} 11111111-2222-4333-8444-555555555555") as vault:
        annex.put(vault, KEY, CONTENT)
        copy = pickle.loads(pickle.dumps(vault))
        with copy:
            assert annex.check_present(copy, KEY)


def test_what_was_put_is_committed_when_the_program_ends_without_closing(tmp_path: Path) -> None:
    Repository.init(tmp_path / "v", bare=True).close()
    code = (
        "import sys, annexpy.sync as annex\n"
        "from annexpy.keys.backend import name_content\n"
        "annex.put(annex.connect(sys.argv[1], durability='fast'), name_content([b'x']), b'x')\n"
    )

    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "v")], capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    log = subprocess.run(
        ["git", "-C", str(tmp_path / "v"), "grep", "-c", "1", "git-annex", "--", "*.log"],
        capture_output=True,
        text=True,
    )
    assert str(name_content([b"x"])) in log.stdout


def test_ctrl_c_cancels_the_call_and_leaves_the_loop_usable(tmp_path: Path) -> None:
    code = (
        "import anyio, os, signal, threading, annexpy.sync as annex\n"
        "seen = []\n"
        "async def work():\n"
        "    try:\n"
        "        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()\n"
        "        await anyio.sleep_forever()\n"
        "    finally:\n"
        "        seen.append('cleaned up')\n"
        "try:\n"
        "    annex.run(work)\n"
        "except KeyboardInterrupt:\n"
        "    print(*seen, annex.run(anyio.sleep, 0) is None)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("cleaned up True\n", "")
