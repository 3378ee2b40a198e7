"""Who may do what over HTTP, asked with curl alone: every route, by everybody, of real repositories."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from places import Place, content_of, key_of
from served import Served, serve
from server_under_load import eventually

from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop

CONTENT = content_of(1)
KEY, NEW = key_of(CONTENT), key_of(content_of(2))
USERS = {
    "reader": ["read"],
    "locker": ["lock"],
    "appender": ["append"],
    "writer": ["write"],
    "viewer": "read-only",
    "robot": "append-only",
    "admin": "write",
}
ROLES = {"read-only": {"read", "lock"}, "append-only": {"read", "lock", "append"}}
EVERY = {"read", "lock", "append", "write"}


def asked(server: str, routes: list[tuple[str, str, list[str]]], who: list[str]) -> list[tuple[int, bool]]:
    """The status of each route, and whether it says how to prove who one is."""
    words: list[str] = []
    for method, path, more in routes:
        how = ["-I"] if method == "HEAD" else ["-X", method]
        shown = ["-o", "/dev/null", "-w", "%{http_code} %header{www-authenticate}\\n"]
        words += [*(["--next"] if words else []), "-s", *how, *shown, *who, *more, f"{server}{path}"]
    done = subprocess.run(["curl", *words], capture_output=True, text=True, timeout=60, check=False)
    lines = [line.split(" ", 1) for line in done.stdout.splitlines()]
    return [(int(status), bool(how)) for status, how in lines]


def routes_of(uuid: str, base: str = "") -> list[tuple[str, str, str, list[str]]]:
    """Method, path, what has to be allowed, options."""
    at, who = f"{base}/git-annex/{uuid}/v4", "clientuuid=c"
    size = ["-H", f"X-git-annex-data-length: {len(CONTENT)}", "--data-binary", CONTENT.hex()[: len(CONTENT)]]
    return [
        ("GET", f"{at}/key/{KEY}?{who}", "read", []),
        ("HEAD", f"{at}/key/{KEY}?{who}", "read", []),
        ("GET", f"/lab/git-annex/{uuid}/key/{KEY}", "read", []),
        ("POST", f"{at}/checkpresent?key={KEY}&{who}", "read", []),
        ("GET", f"{at}/checkpresent?key={KEY}&{who}", "read", []),
        ("POST", f"{at}/gettimestamp?{who}", "read", []),
        ("POST", f"{at}/lockcontent?key={KEY}&{who}", "lock", []),
        ("POST", f"{at}/keeplocked?lockid=none&{who}", "lock", ["-d", '{"unlock":true}']),
        ("POST", f"{at}/putoffset?key={NEW}&{who}", "append", []),
        ("POST", f"{at}/put?key={KEY}&{who}", "append", size),
        ("POST", f"{at}/remove?key={NEW}&{who}", "write", []),
        ("POST", f"{at}/remove-before?key={NEW}&timestamp=1&{who}", "write", []),
        ("GET", "/lab/config", "read", []),
        ("GET", "/lab/info/refs?service=git-upload-pack", "read", []),
        ("GET", "/lab/info/refs?service=git-receive-pack", "write", []),
    ]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, own_home: None) -> Place:
    return Place.make(tmp_path_factory.mktemp("places") / "lab", [CONTENT])


def write(config: Path, *lines: str) -> None:
    """What is open to everybody; and users."""
    text = ['directories = ["lab"]', "[http]", 'listen = ["127.0.0.1:0"]', "authenv-http = true", *lines]
    for name, may in USERS.items():
        text += ["[[user]]", f'name = "{name}"', f'password = "of-{name}"', f"may = {may!r}"]
        text += ["[[user]]", f'name = "{name}-token"', f'token = "t-{name}"', f"may = {may!r}"]
    config.write_text("\n".join(text))


def test_every_route_asks_for_its_role_and_tells_401_from_403(lab: Place) -> None:
    config = lab.path.parent / "serve.toml"
    write(config)
    routes = routes_of(lab.uuid)
    plain = [(method, path, more) for method, path, _, more in routes]
    with serve("--config", str(config)) as server:
        base = server.url
        for name, may in USERS.items():
            allowed = set(may) if isinstance(may, list) else ROLES.get(may, EVERY)
            expected = [(200 if role in allowed else 403, False) for _, _, role, _ in routes]
            for who in (["-u", f"{name}:of-{name}"], ["-H", f"Authorization: Bearer t-{name}"]):
                assert asked(base, plain, who) == expected, who
        stranger = [(401, True)] * len(routes)
        wrong = (["-u", "admin:wrong"], ["-u", "nobody:of-admin"], ["-H", "Authorization: Bearer of-admin"])
        for who in ([], *wrong, ["-u", "admin-token:t-admin"]):
            assert asked(base, plain, who) == stranger, who

        # the same with something open to everybody: what that is not, a user may be
        write(config, "unauth-readonly = true", "unauth-nolocking = true")
        server.process.send_signal(signal.SIGHUP)
        server.until("reloaded")
        some = [(200, False) if role == "read" else (401, True) for _, _, role, _ in routes]
        for who in ([], *wrong):
            assert asked(base, plain, who) == some, who
        appended = [(200 if role == "append" else 403, False) for _, _, role, _ in routes]
        assert asked(base, plain, ["-u", "appender:of-appender"]) == appended, "held to what they are given"
    with Repository.open(lab.path) as repository:
        assert repository.content.present(KEY)


def test_what_is_open_to_everybody_and_no_users_is_403_beyond(lab: Place) -> None:
    """Nobody could prove to be anybody."""
    routes = routes_of(lab.uuid)
    plain = [(method, path, more) for method, path, _, more in routes]
    for option, allowed in (("--unauth-readonly", ROLES["read-only"]), ("--unauth-appendonly", ROLES["append-only"])):
        with serve("--http", "127.0.0.1:0", option, str(lab.path)) as server:
            for who in ([], ["-u", "admin:of-admin"]):
                expected = [(200 if role in allowed else 403, False) for _, _, role, _ in routes]
                assert asked(server.url, plain, who) == expected, (option, who)


@pytest.fixture
def tenants(tmp_path: Path) -> tuple[Path, Place]:
    """Two repositories that are a proxy for one remote, which has the content; each has a user of its own."""
    node = Place.make(tmp_path / "node", [CONTENT])
    text = ["[http]", 'listen = ["127.0.0.1:0"]', "authenv-http = true"]
    for name in ("ann", "bob"):
        place = Place.make(tmp_path / name)
        place.set("remote.node.url", str(node.path))
        place.set("remote.node.annex-uuid", node.uuid)
        place.set("remote.node.annex-proxy", "true")
        place.git("annex", "updateproxy")
        text += ["[[user]]", f'name = "{name}"', f'password = "{name}"', f'repositories = ["{place.uuid}"]']
    (tmp_path / "serve.toml").write_text('directories = ["ann", "bob"]\n' + "\n".join(text))
    return tmp_path, node


def test_two_tenants_who_are_a_proxy_for_one_remote_do_not_reach_it_through_each_other(
    tenants: tuple[Path, Place], git_annex: str
) -> None:
    folder, node = tenants

    def statuses(server: Served, who: str, base: str) -> list[int]:
        routes = [
            ("GET", f"{base}/git-annex/{node.uuid}/v4/key/{KEY}?clientuuid=c", []),
            ("POST", f"{base}/git-annex/{node.uuid}/v4/checkpresent?key={KEY}&clientuuid=c", []),
            ("POST", f"{base}/git-annex/{node.uuid}/v4/lockcontent?key={KEY}&clientuuid=c", []),
            ("POST", f"{base}/git-annex/{node.uuid}/v4/remove?key={NEW}&clientuuid=c", []),
        ]
        return [status for status, _ in asked(server.url, routes, ["-u", who] if who else [])]

    with serve("--config", str(folder / "serve.toml")) as server:
        for name, other in (("ann", "bob"), ("bob", "ann")):
            assert statuses(server, f"{name}:{name}", f"/{name}") == [200] * 4
            assert statuses(server, f"{name}:{name}", "") == [200] * 4
            assert statuses(server, f"{name}:{name}", f"/{other}") == [404] * 4, "as if it was not there"
        assert statuses(server, "", "") == statuses(server, "", "/ann") == [401] * 4

        # what ann may no longer reach by herself, she does not reach through bob either
        subprocess.run(["git", "config", "remote.node.annex-proxy", "false"], cwd=folder / "ann", check=True)
        subprocess.run(["git", "annex", "updateproxy"], cwd=folder / "ann", check=True, capture_output=True)
        eventually(lambda: statuses(server, "ann:ann", "/ann") == [404] * 4)
        assert statuses(server, "ann:ann", "") == [404] * 4
        assert statuses(server, "bob:bob", "") == [200] * 4
