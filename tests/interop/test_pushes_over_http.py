"""Pushes over HTTP: judged, and beside our HTTP server and git-annex, who write the git-annex branch too."""

from __future__ import annotations

import signal
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
    assert any(synced)
    with Repository.open(bare) as repository:
        for keys, place in ((put, uuid), (said_present, SOMEBODY)):
            lost = [key for key in keys if place not in repository.branch.locations(key).present]
            assert keys
            assert not lost
    subprocess.run(["git", "fsck", "--strict"], cwd=bare, capture_output=True, check=True)


def test_a_push_with_a_token_speaks_for_its_own_repositories_only_from_the_moment_of_a_reload(
    tmp_path: Path, git_annex: str
) -> None:
    with Repository.init(tmp_path / "lab", bare=True) as lab:
        config, content = tmp_path / "serve.toml", content_of(1, 100)

        def configure(uuids: str) -> None:
            config.write_text(
                'directories = ["lab"]\n[http]\nlisten = ["127.0.0.1:0"]\nauthenv-http = true\n'
                f'[[user]]\nname = "alice"\ntoken = "secret"\n{uuids}\n'
            )

        configure("")
        with serve("--config", str(config)) as server:
            path = tmp_path / "alice"
            path.mkdir()
            work = Work(path, git_annex)
            work.git("init", "-q")
            work.begin("alice")
            work.git("config", "http.extraHeader", "Authorization: Bearer secret")
            work.git("remote", "add", "srv", f"{server.url}/lab")
            key = work.add("mine", content)
            work.git("fetch", "-q", "srv", "git-annex")
            work.git("annex", "merge", "-q")
            work.git("annex", "setpresentkey", str(key), SOMEBODY, "1")
            work.git("push", "-q", "srv", "git-annex")  # a user of whom nothing is said may do that

            configure(f'uuids = ["{work.uuid}"]')
            server.process.send_signal(signal.SIGHUP)
            server.until("reloaded")

            work.add("more", content_of(2, 100))
            work.git("push", "-q", "srv", "git-annex", "HEAD")

            def refused(because: str, *argv: str) -> None:
                tip = work.git("rev-parse", "git-annex").strip()
                before = lab.branch.tip
                work.git("annex", *argv)
                work.git("annex", "merge", "-q")
                for ref in ("git-annex", "git-annex:refs/heads/synced/git-annex"):
                    said = work.git("push", "srv", ref, "HEAD:refs/heads/new", fails=True)
                    assert f"refused: refs/heads/{ref.rpartition('refs/heads/')[2]}: " in said
                    assert because in said
                assert lab.branch.tip == before
                work.git("update-ref", "refs/heads/git-annex", tip)
                (path / ".git/annex/index").unlink()

            refused(SOMEBODY, "setpresentkey", str(key), SOMEBODY, "0")
            refused("all repositories", "numcopies", "5")
            assert "refs/heads/new" not in work.git("ls-remote", "srv")
            assert "deleted" in work.git("push", "srv", ":refs/heads/git-annex", fails=True)
