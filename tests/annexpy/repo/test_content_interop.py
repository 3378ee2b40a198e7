"""The content store and the real git-annex in one repository: permissions, locks, retentions, transfers."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from annexpy.errors import ContentLocked, LockHeld, NotLocked, TransferInProgress
from annexpy.keys.key import Key
from annexpy.repo.content import ContentStore
from annexpy.repo.files import DiskFiles
from annexpy.repo.pidlock import PidLock, side_lock_path
from annexpy.repo.settings import ContentSettings, Lockdown
from annexpy.system import CLOCK
from annexpy.uuids import UUID

pytestmark = pytest.mark.interop

CLIENT = "11111111-2222-3333-4444-555555555555"
CONTENT = b"some content\n" * 5
KEY = Key.parse(f"SHA256E-s{len(CONTENT)}--{hashlib.sha256(CONTENT).hexdigest()}.txt")


def run(*command: str, cwd: Path, ok: bool = True) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert not ok or done.returncode == 0, done.stderr
    return done.stdout if ok else f"{done.returncode}\n{done.stdout}{done.stderr}"


def new_repository(path: Path, git_annex: str, *, shared: str = "", bare: bool = True) -> Path:
    path.mkdir()
    run("git", "init", "-q", *(["--bare"] if bare else []), *([f"--shared={shared}"] if shared else []), cwd=path)
    run(git_annex, "init", "test", cwd=path)
    return path


def open_store(path: Path, *, bare: bool = True, **settings: object) -> ContentStore:
    files = DiskFiles(path if bare else path / ".git")
    return ContentStore(files, clock=CLOCK, settings=ContentSettings(bare=bare, **settings))  # type: ignore[arg-type]


def put(store: ContentStore, key: Key = KEY, data: bytes = CONTENT) -> None:
    async def main() -> None:
        async with store.receive(key) as receiving:
            await receiving.write(data[receiving.offset :])
            await receiving.finish()

    anyio.run(main)


class Shell:
    """A conversation with the real git-annex-shell."""

    def __init__(self, git_annex: str, repository: Path) -> None:
        uuid = run("git", "config", "annex.uuid", cwd=repository).strip()
        self.process = subprocess.Popen(
            [git_annex + "-shell", "p2pstdio", str(repository), CLIENT, "--uuid", uuid],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self.say() == f"AUTH-SUCCESS {uuid}"
        assert self.say("VERSION 4") == "VERSION 4"

    def send(self, text: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().rstrip("\n")

    def say(self, line: str = "") -> str:
        if line:
            self.send(line.encode() + b"\n")
        return self.hear()

    def close(self) -> None:
        if self.process.returncode is None:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            self.process.wait(20)
            self.process.stdout.close()

    def kill(self) -> None:
        # the wrapper of the wheel has a child that does the work: end both, by their numbers
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (*map(int, children), self.process.pid):
            os.kill(pid, 9)
        self.close()


@pytest.fixture
def shell(git_annex: str) -> Iterator[Callable[[Path], Shell]]:
    """Opens shells, and ends those that a test left open."""
    shells: list[Shell] = []

    def start(repository: Path) -> Shell:
        shells.append(Shell(git_annex, repository))
        return shells[-1]

    yield start
    for opened in shells:
        opened.close()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, git_annex: str) -> Path:
    return new_repository(tmp_path_factory.mktemp("bare") / "repo.git", git_annex)


@pytest.fixture
def store(repository: Path) -> Iterator[ContentStore]:
    """A store that has KEY, and nothing else afterwards."""
    store = open_store(repository)
    put(store)
    yield store
    path = store.path(KEY)
    if path is not None:
        folder = (repository / os.fsdecode(path)).parent
        folder.chmod(0o755)
        for name in os.listdir(folder):
            (folder / name).unlink()
        folder.rmdir()


# -- permissions ----------------------------------------------------------------------------------


def modes(repository: Path) -> dict[str, str]:
    """Modes of everything that a put makes, by its place."""
    return {
        str(path.relative_to(repository)): oct(path.stat().st_mode)
        for folder in ("objects", "tmp", "transfer/download/lck")
        for path in (repository / "annex" / folder, *(repository / "annex" / folder).rglob("*"))
    }


@pytest.mark.parametrize("mask", [0o022, 0o077])
@pytest.mark.parametrize("shared", ["", "group", "all", "0640", "0660", "0600", "0666"])
def test_permissions_are_those_of_git_annex(
    tmp_path: Path, git_annex: str, shared: str, mask: int, shell: Callable[[Path], Shell]
) -> None:
    before = os.umask(mask)
    try:
        theirs = new_repository(tmp_path / "theirs", git_annex, shared=shared)
        ours = new_repository(tmp_path / "ours", git_annex, shared=shared)
        peer = shell(theirs)
        assert peer.say(f"PUT a {KEY}") == "PUT-FROM 0"
        peer.send(b"DATA %d\n%sVALID\n" % (len(CONTENT), CONTENT))
        assert peer.hear() == "SUCCESS"
        peer.close()
        configured = run("git", "config", "--default", "umask", "core.sharedrepository", cwd=ours).strip()

        put(open_store(ours, lockdown=Lockdown.of(configured), durability="fast"))

        assert modes(ours) == modes(theirs)
        assert run(git_annex, "fsck", "--all", "-q", "--fast", cwd=ours, ok=False).startswith("0\n")
        assert modes(ours) == modes(theirs)
    finally:
        os.umask(before)


def test_an_object_of_ours_passes_fsck_and_is_dropped_without_a_trace(repository: Path, git_annex: str) -> None:
    put(open_store(repository))
    run(
        git_annex,
        "setpresentkey",
        str(KEY),
        run("git", "config", "annex.uuid", cwd=repository).strip(),
        "1",
        cwd=repository,
    )

    assert "ok" in run(git_annex, "fsck", "--all", cwd=repository)
    run(git_annex, "dropkey", "--force", str(KEY), cwd=repository)

    assert os.listdir(repository / "annex/objects") == []


# -- locks ----------------------------------------------------------------------------------------


def test_git_annex_does_not_drop_what_we_lock(
    store: ContentStore, repository: Path, git_annex: str, shell: Callable[[Path], Shell]
) -> None:
    lock = store.lock(KEY)

    assert "content is locked" in run(git_annex, "dropkey", "--force", str(KEY), cwd=repository, ok=False)
    assert shell(repository).say(f"REMOVE {KEY}") == ""  # the session dies of it
    assert shell(repository).say(f"CHECKPRESENT {KEY}") == "SUCCESS"

    lock.release()
    assert shell(repository).say(f"REMOVE {KEY}") == "SUCCESS"
    assert not store.present(KEY)
    assert os.listdir(repository / "annex/objects") == []


def test_git_annex_shares_our_lock_and_leaves_its_retention_behind(
    store: ContentStore, repository: Path, shell: Callable[[Path], Shell]
) -> None:
    """It removes its retention only when nobody else has a lock, so ten minutes must pass; as among git-annexes."""
    lock = store.lock(KEY)
    peer = shell(repository)
    assert peer.say(f"LOCKCONTENT {KEY}") == "SUCCESS"
    peer.send(b"UNLOCKCONTENT\n")
    assert peer.say(f"CHECKPRESENT {KEY}") == "SUCCESS"

    lock.release()

    with pytest.raises(ContentLocked, match="expires in"):
        store.remove(KEY)


def test_we_do_not_drop_what_git_annex_locks(
    store: ContentStore, repository: Path, git_annex: str, shell: Callable[[Path], Shell]
) -> None:
    peer = shell(repository)
    assert peer.say(f"LOCKCONTENT {KEY}") == "SUCCESS"

    with pytest.raises(ContentLocked, match=r"pid \d+ relies on it"):
        store.remove(KEY)
    lock = store.lock(KEY)
    peer.send(b"UNLOCKCONTENT\n")
    assert peer.say(f"CHECKPRESENT {KEY}") == "SUCCESS"
    with pytest.raises(ContentLocked):
        store.remove(KEY)
    lock.release()

    assert store.remove(KEY)
    peer.close()
    assert os.listdir(repository / "annex/objects") == []


def test_git_annex_does_not_lock_what_we_are_removing(
    store: ContentStore, repository: Path, git_annex: str, shell: Callable[[Path], Shell]
) -> None:
    peer = shell(repository)

    with store.removal(KEY):
        assert peer.say(f"LOCKCONTENT {KEY}") == "FAILURE"
        assert run(git_annex, "inannex", str(KEY), cwd=repository, ok=False).startswith(("1", "100"))

    assert peer.say(f"LOCKCONTENT {KEY}") == "SUCCESS"
    with pytest.raises(ContentLocked):
        store.remove(KEY)
    peer.send(b"UNLOCKCONTENT\n")
    peer.close()


def test_a_killed_git_annex_shell_keeps_the_content_from_us(
    store: ContentStore, repository: Path, git_annex: str, shell: Callable[[Path], Shell]
) -> None:
    peer = shell(repository)
    assert peer.say(f"LOCKCONTENT {KEY}") == "SUCCESS"
    peer.kill()

    with pytest.raises(ContentLocked, match="expires in"):
        store.remove(KEY)
    store.lock(KEY).release()
    with pytest.raises(ContentLocked, match="expires in"):
        store.remove(KEY)


def test_a_locker_of_ours_that_vanished_keeps_the_content_from_git_annex(
    store: ContentStore, repository: Path, shell: Callable[[Path], Shell]
) -> None:
    store.lock(KEY).vanish()

    assert shell(repository).say(f"REMOVE {KEY}") == ""  # the session dies of it

    path = store.path(KEY)
    assert path is not None
    folder = (repository / os.fsdecode(path)).parent
    folder.chmod(0o755)
    (folder / f"{KEY}.rtm").write_text(f"{time.time() - 1:.9f}s")  # as if ten minutes had passed
    folder.chmod(0o555)
    assert shell(repository).say(f"REMOVE {KEY}") == "SUCCESS"
    assert not store.present(KEY)


def test_our_note_of_who_vanished_is_no_trouble_for_git_annex_which_takes_it_away(
    store: ContentStore, repository: Path, shell: Callable[[Path], Shell]
) -> None:
    """With its own, as among git-annexes: fact sheet p2p-protocol, section 4."""
    store.lock(KEY).vanish()
    peer = shell(repository)

    assert peer.say(f"LOCKCONTENT {KEY}") == "SUCCESS"
    peer.send(b"UNLOCKCONTENT\n")
    assert peer.say(f"REMOVE {KEY}") == "SUCCESS"
    peer.close()

    assert os.listdir(repository / "annex/objects") == []


def test_the_retention_of_git_annex_is_raised_and_given_back(
    store: ContentStore, repository: Path, git_annex: str, shell: Callable[[Path], Shell]
) -> None:
    peer = shell(repository)
    assert peer.say(f"LOCKCONTENT {KEY}") == "SUCCESS"
    lock = store.lock(KEY)
    lock.release()

    peer.kill()

    with pytest.raises(ContentLocked, match="expires in"):
        store.remove(KEY)


# -- transfers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [None, CLIENT])
def test_git_annex_does_not_receive_what_we_receive(
    repository: Path, git_annex: str, source: str | None, shell: Callable[[Path], Shell]
) -> None:
    store = open_store(repository)

    async def main() -> None:
        async with store.receive(KEY, source=source) as receiving:  # type: ignore[arg-type]
            await receiving.write(CONTENT[:10])
            peer = shell(repository)
            peer.send(b"PUT a %s\n" % KEY.raw)
            assert peer.hear().startswith("PUT-FROM ")
            peer.send(b"DATA %d\n%sVALID\n" % (len(CONTENT), CONTENT))
            assert peer.hear() != "SUCCESS"
            peer.close()
            await receiving.write(CONTENT[10:])
            await receiving.finish()

    anyio.run(main)
    assert store.remove(KEY)


def test_we_do_not_receive_what_git_annex_receives_and_go_on_where_it_stopped(
    repository: Path, git_annex: str, shell: Callable[[Path], Shell]
) -> None:
    store = open_store(repository)
    peer = shell(repository)
    assert peer.say(f"PUT a {KEY}") == "PUT-FROM 0"
    peer.send(b"DATA %d\n%s" % (len(CONTENT), CONTENT[:20]))
    lock_file = repository / f"annex/transfer/download/lck/lck.{KEY}"
    while not lock_file.exists():
        time.sleep(0.005)  # the other process takes as long as it takes; a hang is pytest's to notice

    async def refused() -> None:
        with pytest.raises(TransferInProgress, match=r"pid \d+ receives it"):
            async with store.receive(KEY):
                pass

    anyio.run(refused)
    peer.close()

    async def resumed() -> None:
        async with store.receive(KEY) as receiving:
            assert receiving.offset == 20
            await receiving.write(CONTENT[20:])
            await receiving.finish()

    anyio.run(resumed)
    assert store.remove(KEY)


def test_git_annex_shows_our_transfer(repository: Path, git_annex: str) -> None:
    async def main() -> str:
        receiving = open_store(repository).receive(KEY, source=UUID(CLIENT), associated_file="dir/some file.txt")
        async with receiving:
            return run(git_annex, "info", "--fast", cwd=repository)

    assert f"downloading dir/some file.txt from {CLIENT}" in anyio.run(main)


def test_git_annex_goes_on_where_we_stopped(repository: Path, git_annex: str, shell: Callable[[Path], Shell]) -> None:
    store = open_store(repository)

    async def partly() -> None:
        async with store.receive(KEY) as receiving:
            await receiving.write(CONTENT[:30])

    anyio.run(partly)
    peer = shell(repository)
    assert peer.say(f"PUT a {KEY}") == "PUT-FROM 30"
    peer.send(b"DATA %d\n%sVALID\n" % (len(CONTENT) - 30, CONTENT[30:]))
    assert peer.hear() == "SUCCESS"
    peer.close()

    assert store.present(KEY)
    assert store.remove(KEY)


# -- annex.pidlock --------------------------------------------------------------------------------


@pytest.fixture
def pid_repository(tmp_path: Path, git_annex: str) -> Path:
    path = new_repository(tmp_path / "a-path-that-is-long-enough.git", git_annex)
    run("git", "config", "annex.pidlock", "true", cwd=path)
    run("git", "config", "annex.pidlocktimeout", "1", cwd=path)
    return path


def test_git_annex_waits_for_our_pid_lock(pid_repository: Path, git_annex: str) -> None:
    store = open_store(pid_repository, pidlock=True)
    put(store)
    lock = store.lock(KEY)

    refused = run(git_annex, "dropkey", "--force", str(KEY), cwd=pid_repository, ok=False)
    assert "content is locked" in refused
    assert "Gave up waiting for pid lock file" in run(
        git_annex, "setpresentkey", str(KEY), CLIENT, "0", cwd=pid_repository, ok=False
    )
    assert PidLock.of(store.folders.files).holder() == f"pid {os.getpid()} on {os.uname().nodename}"

    lock.release()
    assert not (pid_repository / "annex/pidlock").exists()
    run(git_annex, "dropkey", "--force", str(KEY), cwd=pid_repository)
    assert not store.present(KEY)


def test_we_wait_for_the_pid_lock_of_git_annex_and_name_its_holder(
    pid_repository: Path, git_annex: str, shell: Callable[[Path], Shell]
) -> None:
    store = open_store(pid_repository, pidlock=True, pidlock_timeout=0.1)
    put(store)
    peer = shell(pid_repository)
    assert peer.say(f"LOCKCONTENT {KEY}") == "SUCCESS"

    with pytest.raises(ContentLocked):
        store.remove(KEY)
    with pytest.raises(NotLocked):
        store.lock(KEY)

    async def wait() -> None:
        with pytest.raises(LockHeld, match=r"pidlock is held by pid \d+ on"):
            async with store.exclusion():
                pass

    anyio.run(wait)
    peer.send(b"UNLOCKCONTENT\n")
    assert peer.say(f"CHECKPRESENT {KEY}") == "SUCCESS"
    assert store.remove(KEY)
    peer.close()


def test_a_pid_lock_of_a_dead_process_of_this_machine_is_taken_over(
    pid_repository: Path, git_annex: str, shell: Callable[[Path], Shell]
) -> None:
    store = open_store(pid_repository, pidlock=True)
    put(store)
    peer = shell(pid_repository)
    assert peer.say(f"LOCKCONTENT {KEY}") == "SUCCESS"
    peer.kill()
    assert (pid_repository / "annex/pidlock").exists()

    lock = store.lock(KEY)

    assert lock.held()
    lock.release()
    assert not (pid_repository / "annex/pidlock").exists()


def test_a_pid_lock_of_another_host_is_left_alone(pid_repository: Path) -> None:
    store = open_store(pid_repository, pidlock=True)
    put(store)
    path = pid_repository / "annex/pidlock"
    path.write_text('PidLock {lockingPid = 1, lockingHost = "elsewhere"}')

    with pytest.raises(ContentLocked):
        store.remove(KEY)

    assert PidLock.of(store.folders.files).holder() == "pid 1 on elsewhere"
    assert path.exists()
    path.unlink()
    assert store.remove(KEY)


def test_several_locks_of_one_process_exclude_each_other_under_one_pid_lock(pid_repository: Path) -> None:
    store, other = (open_store(pid_repository, pidlock=True) for _ in range(2))
    put(store)
    first, second = store.lock(KEY), other.lock(KEY)
    with pytest.raises(ContentLocked):
        other.remove(KEY)
    first.release()
    with pytest.raises(ContentLocked):
        store.remove(KEY)
    second.release()
    with store.removal(KEY):
        with pytest.raises(NotLocked):
            other.lock(KEY)

    assert not PidLock.of(store.folders.files).held
    assert not (pid_repository / "annex/pidlock").exists()


def test_the_lock_in_shared_memory_has_the_name_that_git_annex_gives_it(
    pid_repository: Path, git_annex: str, shell: Callable[[Path], Shell]
) -> None:
    put(open_store(pid_repository, pidlock=True))
    peer = shell(pid_repository)
    assert peer.say(f"LOCKCONTENT {KEY}") == "SUCCESS"

    path = Path(os.fsdecode(side_lock_path(os.fsencode(pid_repository.resolve()))))
    assert stat.S_ISREG(path.stat().st_mode)

    peer.send(b"UNLOCKCONTENT\n")
    assert peer.say(f"CHECKPRESENT {KEY}") == "SUCCESS"
    assert not path.exists()
    peer.close()


def test_short_paths_get_the_name_without_a_slash() -> None:
    # measured: `annex.pidlock` repositories at /t/x…/.git, 10.20261026
    assert side_lock_path(b"/t/xxxxxxxxxxx/.git") == b"/dev/shmt_xxxxxxxxxxx_.git_annex_pidlock.lck"
    assert (
        side_lock_path(b"/t/xxxxxxxxxxxx/.git")
        == b"/dev/shm/7340ae5a0441c49777fdb7def77b5a23_xxxxxxxxxxxx_.git_annex_pidlock.lck"
    )
    assert (
        side_lock_path(b"/t/xxxxxxxxxxxxx/.git")
        == b"/dev/shm/cc2e5bbb4ba3ca9fd2e7031695512480xxxxxxxxxxxxx_.git_annex_pidlock.lck"
    )
