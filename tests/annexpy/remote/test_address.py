"""What users write for a remote, and what it means."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from annexpy.errors import ConnectFailed, InvalidInput, InvalidUUID, KeyNotPresent, Refused, UnknownUUID
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.remote.address import resolve
from annexpy.remote.base import Remote
from annexpy.remote.cluster import Cluster
from annexpy.remote.connect import connect
from annexpy.remote.local_place import LocalPlace
from annexpy.remote.named_cluster import NamedCluster
from annexpy.repo.repository import Repository
from annexpy.system import new_uuid
from annexpy.transport.pipe import DialCommand
from annexpy.transport.sockets import DialUnix
from annexpy.transport.ssh import DialSSH, DialSystemSSH
from annexpy.uuids import UUID, new_cluster_uuid

pytestmark = pytest.mark.anyio
CONTENT = b"some content"
KEY: Key = name_content([CONTENT])
OTHER = UUID("11111111-2222-4333-8444-555555555555")


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "vault.git", bare=True, description="the vault").close()
    return tmp_path / "vault.git"


async def put(remote: Remote) -> None:
    async with remote.put(KEY) as upload:
        if upload.already is None:
            await upload.start(len(CONTENT))
            await upload.write(CONTENT)
            await upload.finish()


# -- what an address means ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["/srv/lab.git", "vault", "./v", "../a b", "file:///srv/lab.git"])
def test_a_path_is_a_repository_on_this_machine(text: str) -> None:
    found = resolve(text)

    assert found.dial is None
    assert found.path == text.removeprefix("file://")
    assert found.cost == 100


def test_a_unix_socket_and_a_command_are_dialled() -> None:
    assert resolve("unix:/run/a.socket").dial == DialUnix("/run/a.socket")
    command = resolve("exec:git-annex-shell p2pstdio '/a b' u").dial
    assert isinstance(command, DialCommand)
    assert command.argv == ("git-annex-shell", "p2pstdio", "/a b", "u")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "exec:",
        "exec:'",
        "unix:",
        "ssh://",
        "ssh://host",
        "ssh://-oProxyCommand=x/y",
        "ssh://h:port/p",
        "a\nb",
        "-x:y",
        "u[@h:x",
        "file://[h/p",
    ],
)
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput):
        resolve(text)


@pytest.mark.parametrize(
    "text",
    [
        "tor-annex::abc",
        "annex::uuid",
        "ext::sh -c x",
        "ftp://h/p",
    ],
)
def test_carriers_that_are_not_offered_are_refused_by_name(text: str) -> None:
    with pytest.raises(Refused, match="remote"):
        connect(text)


def test_a_uuid_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidUUID):
        connect("/srv/lab.git", uuid="../../x")


def test_a_colon_in_a_path_that_exists_is_part_of_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").mkdir()

    assert resolve("a:b").path == "a:b"
    assert resolve("c:d").dial is not None


# -- git remotes ----------------------------------------------------------------------------------


def test_a_git_remote_is_named_with_its_settings(tmp_path: Path, vault: Path) -> None:
    with Repository.init(tmp_path / "work") as work:
        work.config.change(
            {"remote.v.url": "../vault.git", "remote.v.annex-cost": "33", "remote.v.annex-uuid": str(OTHER)}
        )
        found = resolve("v", work)

        assert os.path.realpath(found.path or "") == str(vault)
        assert (found.name, found.cost, found.uuid) == ("v", 33, OTHER)
        assert resolve("./v", work).path == "./v"


def test_a_cluster_is_named_by_its_nodes_as_git_annex_configures_them(tmp_path: Path, vault: Path) -> None:
    cluster = new_cluster_uuid(new_uuid())
    with Repository.init(tmp_path / "work") as work:
        work.config.change(
            {"remote.v.url": str(vault), "remote.w.url": str(tmp_path / "gone"), "annex.cluster.lab": cluster}
        )
        for name in ("v", "w"):
            work.config.set(f"remote.{name}.annex-cluster-node", "lab other")

        remote = connect("lab", repository=work)

        assert isinstance(remote, Cluster)
        assert (remote.uuid, remote.name) == (cluster, "lab")
        assert [node.name for node in remote.nodes] == ["v", "w"]


@pytest.mark.interop
async def test_a_cluster_learns_who_its_nodes_are(tmp_path: Path, vault: Path, git_annex: str) -> None:
    shell = Path(git_annex).with_name("git-annex-shell")
    with Repository.init(tmp_path / "work") as work:
        places = {"v": f"exec:{shell} p2pstdio {vault} {OTHER}", "gone": "exec:false"}
        for name, url in places.items():
            work.config.change({f"remote.{name}.url": url, f"remote.{name}.annex-cluster-node": name})

        async with connect("v", repository=work) as node:
            uuid = node.uuid
        cluster = NamedCluster([connect(places["v"])])
        await cluster.connect()
        async with cluster.put(KEY) as upload:
            await upload.start(len(CONTENT))
            await upload.write(CONTENT)
            assert (await upload.finish()).uuids == {uuid}
        await cluster.aclose()

        with pytest.raises(ConnectFailed):
            await NamedCluster([connect(places["gone"])]).connect()


@pytest.fixture
def no_ssh_settings(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("GIT_SSH_COMMAND", "GIT_SSH"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("text", "host", "user", "port", "path"),
    [
        ("ssh://h/srv/a.git", "h", "", 0, "/srv/a.git"),
        ("ssh://me@h:2222/srv/a%20b", "h", "me", 2222, "/srv/a b"),
        ("ssh://h/~/a.git", "h", "", 0, "/~/a.git"),
        ("ssh://h/it's", "h", "", 0, "/it'\"'\"'s"),
        ("me@h:a.git", "h", "me", 0, "a.git"),
        ("ssh://[::1]:22/a", "::1", "", 22, "/a"),
    ],
)
@pytest.mark.usefixtures("no_ssh_settings")
def test_ssh_runs_the_shell_on_the_host(text: str, host: str, user: str, port: int, path: str) -> None:
    dial = resolve(text).dial

    assert isinstance(dial, DialSSH)
    assert (dial.host, dial.user, dial.port) == (host, user, port)
    assert dial.command.startswith(f"git-annex-shell 'p2pstdio' '{path}' '")


def test_ssh_settings_of_git_and_git_annex_are_honoured(tmp_path: Path, no_ssh_settings: pytest.MonkeyPatch) -> None:
    with Repository.init(tmp_path / "work") as work:
        settings = {"url": "ssh://h/a", "annex-shell": "annexpy-shell", "annex-uuid": OTHER}
        work.config.change({f"remote.v.{name}": value for name, value in settings.items()})
        plain = resolve("v", work).dial
        work.config.set("remote.v.annex-ssh-options", "-i 'my key'")
        with_options = resolve("v", work).dial
        work.config.set("core.sshCommand", "ssh -v")
        by_command = resolve("v", work).dial
        no_ssh_settings.setenv("GIT_SSH_COMMAND", "myssh")
        by_environment = resolve("ssh://h/a").dial

        assert isinstance(plain, DialSSH)
        assert plain.command == f"annexpy-shell 'p2pstdio' '/a' '{work.uuid}' --uuid {OTHER}"
        assert isinstance(with_options, DialSystemSSH)
        assert with_options.argv[:3] == ("ssh", "-i", "my key")
        assert isinstance(by_command, DialSystemSSH)
        assert by_command.argv[:3] == ("sh", "-c", "ssh -v -i 'my key' \"$@\"")
        assert isinstance(by_environment, DialSystemSSH)
        assert by_environment.argv[2] == 'myssh "$@"'


def test_a_special_remote_is_refused_by_name(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "work") as work:
        work.config.change({"remote.cloud.annex-externaltype": "rclone", "remote.cloud.annex-uuid": str(OTHER)})

        with pytest.raises(Refused, match="rclone"):
            resolve("cloud", work)


# -- repositories on this machine -----------------------------------------------------------------


async def test_connecting_opens_and_leaving_closes_and_commits(vault: Path) -> None:
    async with connect(vault, durability="fast") as remote:
        await put(remote)
        assert await remote.check_present(KEY)
        uuid = remote.uuid

    with Repository.open(vault) as repository:
        assert repository.uuid == uuid
        assert repository.branch.locations(KEY).present == [uuid]
    log = subprocess.run(
        ["git", "-C", vault, "log", "--oneline", "git-annex"], capture_output=True, text=True, check=True
    )
    assert "update" in log.stdout


async def test_what_is_not_there_fails_when_it_is_used_and_is_found_when_it_comes_back(
    tmp_path: Path, vault: Path
) -> None:
    remote = connect(tmp_path / "later.git", durability="fast")

    with pytest.raises(ConnectFailed, match="no such directory"):
        await remote.check_present(KEY)
    with pytest.raises(ConnectFailed, match="later"):
        async with remote.get(KEY):
            pass
    with pytest.raises(UnknownUUID, match="not known"):
        _ = remote.uuid

    shutil.copytree(vault, tmp_path / "later.git", symlinks=True)
    assert await remote.check_present(KEY) is False
    with pytest.raises(KeyNotPresent):
        async with remote.get(KEY):
            pass
    await remote.aclose()


async def test_the_git_at_the_end_of_a_path_may_be_left_out_as_in_git(vault: Path) -> None:
    async with connect(vault.with_suffix("")) as remote, connect(vault) as same:
        assert remote.uuid == same.uuid


async def test_a_path_inside_a_work_tree_is_not_the_repository_around_it(tmp_path: Path) -> None:
    Repository.init(tmp_path / "work").close()
    (tmp_path / "work" / "misspelt").mkdir()

    with pytest.raises(ConnectFailed, match="not a git repository"):
        await connect(tmp_path / "work" / "misspelt").connect()


async def test_another_repository_at_the_path_is_refused(vault: Path) -> None:
    with pytest.raises(UnknownUUID, match=OTHER):
        await connect(vault, uuid=OTHER).connect()


async def test_a_cluster_goes_on_without_a_place_that_is_away(tmp_path: Path, vault: Path) -> None:
    gone = connect(tmp_path / "gone.git", uuid=OTHER, durability="fast")
    cluster = Cluster([connect(vault, durability="fast"), gone])

    async with cluster.put(KEY) as upload:
        await upload.start(len(CONTENT))
        await upload.write(CONTENT)
        stored = await upload.finish()

    assert len(stored.uuids) == 1
    assert isinstance(stored.failed[OTHER], ConnectFailed)
    assert await cluster.check_present(KEY)
    await cluster.aclose()


async def test_a_place_pickles_and_opens_in_the_copy(vault: Path) -> None:
    async with connect(vault, name="v", durability="fast") as remote:
        await put(remote)
        copy = pickle.loads(pickle.dumps(remote))

    assert isinstance(copy, LocalPlace)
    assert copy.name == "v"
    assert await copy.check_present(KEY)
    await copy.aclose()


@pytest.mark.interop
async def test_git_annex_shell_is_reached_by_its_command(vault: Path, git_annex: str) -> None:
    shell = Path(git_annex).with_name("git-annex-shell")

    async with connect(f"exec:{shell} p2pstdio {vault} {OTHER}") as remote:
        await put(remote)
        assert await remote.check_present(KEY)
        with Repository.open(vault) as repository:
            assert remote.uuid == repository.uuid
