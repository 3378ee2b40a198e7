"""The git-annex branch is written from three sides at once: our HTTP server, git-annex, and pushes over HTTP."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from places import content_of, key_of
from served import Work, curl, serve

from annexpy.keys.key import Key
from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop

SOMEBODY = "11111111-2222-4333-8444-555555555555"


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.campaign)])
def test_no_record_is_lost_among_pushes_puts_and_git_annex(tmp_path: Path, git_annex: str, seconds: int) -> None:
    bare = tmp_path / "bare"
    Repository.init(bare, bare=True).close()
    over, synced, put = threading.Event(), [0, 0], []
    said_present: list[Key] = []

    def run(work: Work, *words: str, at: Path | None = None) -> int:
        return subprocess.run(
            ["git", *words], cwd=at or work.path, env=work.env, capture_output=True, check=False
        ).returncode

    with serve("--http", "127.0.0.1:0", "--wideopen", str(bare)) as server:
        works = []
        for name in ("one", "two"):
            path = tmp_path / name
            path.mkdir()
            work = Work(path, git_annex)
            work.git("init", "-q")
            work.begin(name)
            work.git("remote", "add", "srv", f"{server.url}/bare")
            works.append(work)

        def sync(which: int) -> None:
            work, number = works[which], 0
            while not over.is_set():
                work.add(f"{which}-{number}", content_of(number + 1000 * which, 500))
                synced[which] += run(work, "annex", "sync", "-q", "--allow-unrelated-histories", "srv") == 0
                run(work, "push", "-q", "srv", "git-annex")  # the branch itself, as nobody should
                number += 1

        def set_present() -> None:
            while not over.is_set():
                key = Key.parse(f"WORM-s1-m1--{len(said_present)}")
                if run(works[0], "annex", "setpresentkey", str(key), SOMEBODY, "1", "-q", at=bare) == 0:
                    said_present.append(key)

        jobs: list[Callable[[], None]] = [lambda: sync(0), lambda: sync(1), set_present]
        threads = [threading.Thread(target=job) for job in jobs]
        for thread in threads:
            thread.start()
        with Repository.open(bare) as repository:
            uuid = repository.uuid
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                content = content_of(len(put) + 10_000, 300)
                (tmp_path / "content").write_bytes(content)
                key = key_of(content)
                target = f"{server.url}/git-annex/{uuid}/v4/put?key={key}&clientuuid=x"
                body = ("--data-binary", f"@{tmp_path}/content", "-H", "X-git-annex-data-length: 300")
                assert curl(*body, target) == '{"plusuuids":[],"stored":true}'
                put.append(key)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert server.stop() == 0
    assert not [line for line in server.lines if "Traceback" in line]
    assert sum(synced) > 1
    with Repository.open(bare) as repository:
        for keys, place in ((put, uuid), (said_present, SOMEBODY)):
            lost = [key for key in keys if place not in repository.branch.locations(key).present]
            assert keys
            assert not lost
    subprocess.run(["git", "fsck", "--strict"], cwd=bare, capture_output=True, check=True)
