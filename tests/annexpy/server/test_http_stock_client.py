"""The stock git-annex, git and curl as clients of ``annexpy serve --http``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from served import Served, Work, curl, serve

from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop

LARGE = bytes(range(256)) * 4000


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "bare"
    Repository.init(path, bare=True).close()
    return path


@pytest.fixture
def make(tmp_path: Path, git_annex: str) -> Callable[[str], Work]:
    def made(name: str) -> Work:
        path = tmp_path / name
        path.mkdir()
        work = Work(path, git_annex)
        work.git("init", "-q")
        work.begin(name)
        return work

    return made


def test_one_url_serves_the_history_and_the_contents(make: Callable[[str], Work], bare: Path, tmp_path: Path) -> None:
    with serve("--http", "127.0.0.1:0", "--wideopen", str(bare)) as server:
        work = make("work")
        small, large = work.add("small", b"small\n"), work.add("large", LARGE)
        work.git("remote", "add", "srv", f"{server.url}/bare")
        work.git("push", "-q", "srv", f"HEAD:{head_of(bare)}")
        work.git("annex", "copy", "--to", "srv", ".")
        work.git("annex", "sync", "-q", "srv")

        work.git("clone", "-q", f"{server.url}/bare.git", str(tmp_path / "clone"))
        clone = Work(tmp_path / "clone", "/")
        clone.env = work.env
        clone.begin("clone")
        clone.git("annex", "get", ".")
        assert (clone.path / "large").read_bytes() == LARGE
        clone.git("annex", "drop", "small")
        clone.git("annex", "fsck", "--from", "origin", ".")
        clone.git("annex", "move", "--from", "origin", "small")
        clone.git("annex", "move", "--to", "origin", "small")
        clone.git("annex", "drop", "--from", "origin", "large")
        clone.git("annex", "sync", "-q")
        work.git("annex", "sync", "-q", "srv")
        who = {name: work.git("annex", "whereis", "--format=${uuid}\\n", name).split() for name in ("small", "large")}
        assert server.stop() == 0
    uuid = Repository.open(bare)
    with uuid:
        assert set(who["small"]) == {work.uuid, uuid.uuid}
        assert set(who["large"]) == {work.uuid, clone.uuid}
        assert set(uuid.branch.locations(small).present) == set(who["small"])
        assert set(uuid.branch.locations(large).present) == set(who["large"])
        assert uuid.content.present(small)
        assert not uuid.content.present(large)
    subprocess.run(["git", "fsck", "--strict"], cwd=bare, capture_output=True, check=True)
    fsck = subprocess.run(
        ["git", "annex", "fsck", "--all"], cwd=bare, env=work.env, capture_output=True, text=True, check=True
    )
    assert "failed" not in fsck.stdout
    assert not [line for line in server.lines if "Traceback" in line]
    lines = [line for line in server.lines if "/v4/put?" in line]
    assert len(lines) >= 2
    assert all(" 200 " in line for line in lines)


def remote_of(work: Work, server: Served, uuid: str, name: str = "srv") -> None:
    """A remote that is not looked at first."""
    work.git("remote", "add", name, f"{server.url}/nothing-here")
    work.git("config", f"remote.{name}.annex-uuid", uuid)
    work.git("config", f"remote.{name}.annexUrl", f"annex+{server.url}/git-annex/")


def head_of(bare: Path) -> str:
    return (bare / "HEAD").read_text().removeprefix("ref: ").strip()


def uuid_of(path: Path) -> str:
    with Repository.open(path) as repository:
        return repository.uuid


def test_a_partial_upload_and_a_partial_download_are_resumed(make: Callable[[str], Work], bare: Path) -> None:
    work = make("work")
    key = work.add("file", LARGE)
    with Repository.open(bare) as opened:
        opened.files.make_folders(b"annex/tmp")
        opened.files.replace(b"annex/tmp/" + key.raw, LARGE[:100_000])
    with serve("--http", "127.0.0.1:0", "--wideopen", str(bare)) as server:
        remote_of(work, server, uuid_of(bare))
        work.git("annex", "copy", "--to", "srv", "file")
        work.git("annex", "drop", "file")
        (work.path / ".git/annex/tmp").mkdir(exist_ok=True)
        (work.path / ".git/annex/tmp" / str(key)).write_bytes(LARGE[:300_000])
        work.git("annex", "get", "--from", "srv", "file")
        assert (work.path / "file").read_bytes() == LARGE
        server.stop()
    assert any("/put?" in line and f" {len(LARGE) - 100_000}+" in line for line in server.lines)
    assert any("offset=300000" in line and f"+{len(LARGE) - 300_000} bytes" in line for line in server.lines)


def test_an_older_client_s_versions_are_served_and_a_newer_one_falls_back(
    make: Callable[[str], Work], bare: Path
) -> None:
    with serve("--http", "127.0.0.1:0", "--wideopen", str(bare)) as server:
        uuid = uuid_of(bare)
        for version, status in (("v0", "200"), ("v4", "200"), ("v5", "404")):
            said = curl(
                "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST",
                f"{server.url}/git-annex/{uuid}/{version}/checkpresent?key=WORM--x&clientuuid=x",
            )  # fmt: skip
            assert said == status


def test_content_that_is_locked_by_a_client_is_not_dropped_by_another(make: Callable[[str], Work], bare: Path) -> None:
    work = make("work")
    key = work.add("file", b"content")
    with serve("--http", "127.0.0.1:0", "--wideopen", str(bare)) as server:
        uuid = uuid_of(bare)
        remote_of(work, server, uuid)
        work.git("annex", "copy", "--to", "srv", "file")
        locked = curl("-X", "POST", f"{server.url}/git-annex/{uuid}/v4/lockcontent?key={key}&clientuuid=x")
        assert '"locked":true' in locked
        work.git("annex", "drop", "--from", "srv", "file", fails=True)
        with Repository.open(bare) as opened:
            assert opened.content.present(key)
        assert server.stop() == 0
    # the server is gone, the lock stands: somebody may rely on it
    with serve("--http", "127.0.0.1:0", "--wideopen", str(bare)) as server:
        work.git("config", "remote.srv.annexUrl", f"annex+{server.url}/git-annex/")
        work.git("annex", "drop", "--from", "srv", "file", fails=True)
    with Repository.open(bare) as opened:
        assert opened.content.present(key)


def test_a_user_of_the_environment_works_with_stored_credentials(make: Callable[[str], Work], bare: Path) -> None:
    work = make("work")
    work.add("file", b"content")
    passwords = {
        "GIT_ANNEX_P2PHTTP_PASSWORD_ann": "secret-1",
        "GIT_ANNEX_P2PHTTP_PASSWORD_bob": "secret-2",
        "GIT_ANNEX_P2PHTTP_PERMISSIONS_bob": "readonly",
    }
    with serve("--http", "127.0.0.1:0", "--authenv-http", str(bare), **passwords) as server:
        host = server.url.removeprefix("http://")
        for name, password, may in (("ann", "secret-1", True), ("bob", "secret-2", False)):
            store = work.path / f".git/{name}"
            store.write_text(f"http://{name}:{password}@{host}\n")
            work.git("config", "credential.helper", f"store --file={store}")
            if name == "ann":
                work.git("remote", "add", "srv", f"{server.url}/bare")
                work.git("push", "-q", "srv", f"HEAD:{head_of(bare)}")
            work.git("annex", "copy", "--to", "srv", "file")  # nothing has to be sent for bob
            work.git("annex", "drop", "--from", "srv", "file", fails=not may)
            work.git("push", "-q", "srv", f"HEAD:refs/heads/{name}", fails=not may)
            if may:
                work.git("annex", "copy", "--to", "srv", "file")
            assert store.read_text(), "a password that is right was forgotten"
        server.stop()
    assert not [line for line in server.lines if "secret" in line]


def test_curl_alone_reads_ranges_lengths_and_health(make: Callable[[str], Work], bare: Path, tmp_path: Path) -> None:
    work = make("work")
    key = work.add("file", LARGE)
    with serve("--http", "127.0.0.1:0", "--unauth-readonly", str(bare)) as server:
        url = f"{server.url}/bare/git-annex/{uuid_of(bare)}/key/{key}"
        assert "404 Not Found" in curl("-I", url)
        with Repository.open(bare) as opened:
            import anyio

            from annexpy.remote.local import Local

            async def put() -> None:
                async with Local(opened).put(key) as upload:
                    await upload.start(len(LARGE))
                    await upload.write(LARGE)
                    await upload.finish()

            anyio.run(put)
        head = curl("-I", url)
        assert f"Content-Length: {len(LARGE)}\r" in head
        assert curl("-r", "1000-1009", url).encode("latin-1") == LARGE[1000:1010]
        (tmp_path / "part").write_bytes(LARGE[:500_000])
        curl("-C", "-", "-o", str(tmp_path / "part"), url)
        assert (tmp_path / "part").read_bytes() == LARGE
        assert curl(f"{server.url}/healthz") == "ok\n"
        assert "annexpy_requests_total" in curl(f"{server.url}/metrics")
        assert (
            curl(
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-X",
                "POST",
                url.replace("/key/", "/v4/remove?clientuuid=x&key="),
            )
            == "403"
        )
        assert (
            curl("-o", "/dev/null", "-w", "%{http_code}", f"{server.url}/bare/info/refs?service=git-receive-pack")
            == "403"
        )


def test_an_upload_by_curl_waits_for_continue_and_is_stored(make: Callable[[str], Work], bare: Path) -> None:
    work = make("work")
    key = work.add("file", LARGE)
    with serve("--http", "127.0.0.1:0", "--wideopen", str(bare)) as server:
        said = curl(
            "-H", "Expect: 100-continue", "-H", f"X-git-annex-data-length: {len(LARGE)}",
            "--data-binary", f"@{work.path}/file",
            f"{server.url}/git-annex/{uuid_of(bare)}/v4/put?key={key}&clientuuid=x",
        )  # fmt: skip
        assert said == '{"plusuuids":[],"stored":true}'


def test_tls_and_a_unix_socket_are_listened_on(make: Callable[[str], Work], bare: Path, tmp_path: Path) -> None:
    pem = tmp_path / "both.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [
            "openssl",
            *words.split(),
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(pem),
            "-out",
            f"{pem}.crt",
        ],
        check=True,
        capture_output=True,
    )
    password = {"GIT_ANNEX_P2PHTTP_PASSWORD_ann": "a"}
    socket_path = str(tmp_path / "s")
    with serve(
        "--http", "127.0.0.1:0", "--http", f"unix:{socket_path}", "--authenv", "--certfile", f"{pem}.crt",
        "--privatekeyfile", str(pem), str(bare), **password,
    ) as server:  # fmt: skip
        assert server.url.startswith("https://127.0.0.1:")
        url = f"/git-annex/{uuid_of(bare)}/v4/gettimestamp?clientuuid=x"
        code = ["-o", "/dev/null", "-w", "%{http_code}"]
        for _ in range(2):
            assert curl("--cacert", f"{pem}.crt", "-u", "ann:a", *code, server.url + url) == "200"
            assert curl("--cacert", f"{pem}.crt", "-u", "ann:b", *code, server.url + url) == "401"
            server.process.send_signal(signal.SIGHUP)
        assert (
            curl(
                "--unix-socket", socket_path, "-u", "ann:a", "--cacert", f"{pem}.crt", *code, f"https://127.0.0.1{url}"
            )
            == "200"
        )
        host, port = server.url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port))) as plain:
            plain.settimeout(5)
            plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            while plain.recv(1000):
                pass
    assert not os.path.exists(socket_path)
