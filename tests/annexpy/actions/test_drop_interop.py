"""Drops and moves of real repositories: allowed and refused as git-annex does it, and safe where it is not."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from annexpy.actions.copy import move
from annexpy.actions.drop import drop, drop_many, examine
from annexpy.actions.facts import Facts
from annexpy.actions.put import put
from annexpy.errors import ConnectionLost, ContentLocked, NotEnoughCopies
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.remote.base import Remote
from annexpy.remote.connect import connect
from annexpy.remote.local import Local
from annexpy.remote.local_place import LocalPlace
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.recording import Recording
from annexpy.repo.repository import Repository
from annexpy.transport.pipe import DialCommand
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio]

CONTENT = b"content\n"
KEY = name_content([CONTENT])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Annex:
    def __init__(self, program: str, path: Path) -> None:
        self.program, self.path = program, path

    def __call__(self, *words: str, check: bool = True) -> str:
        run = subprocess.run([self.program, *words], cwd=self.path, capture_output=True, text=True, check=check)
        return run.stdout

    def git(self, *words: str) -> str:
        return subprocess.run(["git", *words], cwd=self.path, capture_output=True, text=True, check=True).stdout

    def drop(self, *words: str) -> bool:
        (line,) = self("drop", "--key", str(KEY), "--json", *words, check=False).splitlines()
        return bool(json.loads(line)["success"])


@pytest.fixture
def annexes(git_annex: str, tmp_path: Path) -> dict[str, Annex]:
    """A repository ``here`` with remotes b and c; nobody has anything."""
    made = {name: Annex(git_annex, tmp_path / name) for name in ("here", "b", "c")}
    for name, annex in made.items():
        Repository.init(annex.path, bare=name != "here", description=name).close()
    for name in ("b", "c"):
        made["here"].git("remote", "add", name, f"../{name}")
        with Repository.open(made[name].path) as repository:
            made["here"].git("config", f"remote.{name}.annex-uuid", repository.uuid)
    return made


async def hold(annex: Annex, *, has: bool) -> UUID:
    """Let a repository have the content, or not; its UUID."""
    with Repository.open(annex.path) as repository:
        local = Local(repository, durability="fast")
        if has:
            await put(local, KEY, CONTENT)
        else:
            await drop(KEY, from_=local, others=[], copies=Copies(), force=True)
        await local.aclose()
        return repository.uuid


async def ours(here: Path, from_: str) -> bool:
    """Whether we would drop."""
    with Repository.open(here) as repository:
        facts = Facts(repository)
        async with AsyncExitStack() as stack:
            places: dict[str, Remote] = {"here": Local(repository, name="here")}
            for name in ("b", "c"):
                places[name] = connect(name, repository=repository)
                stack.push_async_callback(places[name].aclose)
            others = [place for name, place in places.items() if name != from_]
            result = await examine(
                KEY,
                from_=places[from_],
                others=others,
                copies=facts.copies(KEY),
                trust=facts.trust,
                recorded=facts.recorded(KEY),
            )
    assert result.ok or isinstance(result.error, NotEnoughCopies)
    return result.ok


@pytest.mark.interop
async def test_a_drop_is_allowed_or_refused_as_git_annex_does(annexes: dict[str, Annex]) -> None:
    dice, here, allowed, refused = random.Random(1), annexes["here"], 0, 0
    for _ in range(14):
        from_ = dice.choice(["here", "here", "b"])
        having = {name: dice.random() < 0.85 or name == from_ for name in annexes}
        uuids = {name: await hold(annex, has=having[name]) for name, annex in annexes.items()}
        with Repository.open(here.path) as repository:
            for name, uuid in uuids.items():
                repository.branch.set_present(KEY, uuid, having[name])
            repository.branch.commit_now()
        here("numcopies", str(dice.choice([1, 1, 2, 3])))
        here("mincopies", str(dice.randint(1, 2)))
        for name in ("b", "c"):
            # a trusted repository that lost the content is believed by git-annex, and not by us
            levels = ["semitrust", "semitrust", "untrust", "dead", *(["trust"] if having[name] else [])]
            here(dice.choice(levels), name, "--force")
        offline = "c" if dice.random() < 0.25 else None
        if offline:
            annexes[offline].path.rename(annexes[offline].path.with_name("away"))

        decision = await ours(here.path, from_)

        assert decision == here.drop(*(() if from_ == "here" else ("--from", from_)))
        allowed, refused = allowed + decision, refused + (not decision)
        if offline:
            annexes[offline].path.with_name("away").rename(annexes[offline].path)
    assert allowed >= 3
    assert refused >= 3


# -- a local repository --


@asynccontextmanager
async def local(path: Path, **more: Any) -> AsyncIterator[Local]:
    with Repository.open(path) as repository:
        place = Local(repository, **more)
        yield place
        await place.aclose()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("here", "vault"):
        Repository.init(tmp_path / name, bare=True, description=name).close()
    return tmp_path / "here", tmp_path / "vault"


def left_over(path: Path) -> list[str]:
    """Lock files and retentions, and directories of keys that are gone."""
    return [str(file) for file in path.rglob("*") if file.suffix in (".lck", ".rtm", ".rtl") and "objects" in str(file)]


async def test_a_local_drop_records_it_and_leaves_nothing_behind(pair: tuple[Path, Path]) -> None:
    keys = [name_content([b"%d" % number]) for number in range(50)]
    async with local(pair[0]) as here, local(pair[1]) as vault:
        for number, key in enumerate(keys):
            await put(here, key, b"%d" % number)
            await put(vault, key, b"%d" % number)

        results = [r async for r in drop_many(keys, from_=here, others=[vault], copies=Copies())]

        assert all(result.ok for result in results)
        assert not any(here.repository.branch.locations(key).present for key in keys)
        assert [await vault.check_present(key) for key in keys] == [True] * 50
    assert left_over(pair[0]) == left_over(pair[1]) == []
    assert not list((pair[0] / "annex/objects").iterdir())


async def test_the_lock_on_a_local_copy_keeps_git_annex_from_dropping_it(
    pair: tuple[Path, Path], git_annex: str
) -> None:
    here, vault = pair
    said: list[str] = []
    async with local(here) as source, local(vault) as other:
        await put(source, KEY, CONTENT)
        await put(other, KEY, CONTENT)
        await other.repository.branch.commit()
        remove = source.remove_content

        async def meanwhile(key: Key, **more: Any) -> Any:
            run = [git_annex, "drop", "--force", "--key", str(KEY)]
            said.append(subprocess.run(run, cwd=vault, capture_output=True, text=True).stderr)
            return await remove(key, **more)

        source.remove_content = meanwhile  # type: ignore[method-assign]
        await drop(KEY, from_=source, others=[other], copies=Copies())

        assert "content is locked" in said[0]
        assert await other.check_present(KEY)
        assert not await source.check_present(KEY)


async def test_content_that_git_annex_has_locked_is_not_dropped(pair: tuple[Path, Path], git_annex: str) -> None:
    here, vault = pair
    async with local(here) as source, local(vault) as other:
        await put(source, KEY, CONTENT)
        await put(other, KEY, CONTENT)
        peer = P2PRemote(shell(git_annex, here, other.uuid), uuid=source.uuid, name="peer")
        async with peer.lock_content(KEY):
            with pytest.raises(ContentLocked):
                await drop(KEY, from_=source, others=[other], copies=Copies())
        await peer.aclose()
        await drop(KEY, from_=source, others=[other], copies=Copies())


async def test_paths_and_wrappers_are_as_good_as_the_repository_itself(pair: tuple[Path, Path]) -> None:
    here, vault = pair
    async with local(here) as source, local(vault) as other:
        await put(source, KEY, CONTENT)
        await put(other, KEY, CONTENT)
        place, recorder = LocalPlace(str(vault), name="vault"), other.repository.branch

        removed = await drop(KEY, from_=Recording(source, recorder), others=[place], copies=Copies())

        assert removed.uuids == {source.uuid}
        assert recorder.locations(KEY).present == [other.uuid]
        await place.aclose()
    assert left_over(vault) == []


# -- over a wire --


def shell(git_annex: str, path: Path, client: UUID) -> DialCommand:
    program = str(Path(git_annex).with_name("git-annex-shell"))
    return DialCommand((program, "p2pstdio", str(path), client), name=f"shell at {path.name}")


@pytest.mark.interop
async def test_drop_from_a_stock_server_relies_on_locks_at_another_one(
    annexes: dict[str, Annex], git_annex: str
) -> None:
    here, b, c = (annexes[name].path for name in ("here", "b", "c"))
    uuids = {name: await hold(annexes[name], has=True) for name in ("here", "b", "c")}
    with Repository.open(here) as repository:
        for uuid in uuids.values():
            repository.branch.set_present(KEY, uuid, True)
        vaults = [
            P2PRemote(shell(git_annex, path, uuids["here"]), uuid=uuids[path.name], name=path.name) for path in (b, c)
        ]
        source = Recording(vaults[0], repository.branch)

        with pytest.raises(NotEnoughCopies):
            await drop(KEY, from_=source, others=[vaults[0], vaults[1]], copies=Copies(2))
        removed = await drop(KEY, from_=source, others=[vaults[1]], copies=Copies())

        assert removed.uuids == {uuids["b"]}
        assert repository.branch.locations(KEY).present == sorted([uuids["here"], uuids["c"]])
        assert await vaults[1].check_present(KEY)
        for vault in vaults:
            await vault.aclose()
    assert left_over(c) == []


@pytest.mark.interop
async def test_a_lock_dies_with_its_connection_and_so_does_the_proof(annexes: dict[str, Annex], git_annex: str) -> None:
    """Fact sheet p2p-protocol, section 0, J: the stock server releases the lock of a client that is gone."""
    uuids = {name: await hold(annexes[name], has=True) for name in ("here", "b")}
    dial = shell(git_annex, annexes["b"].path, uuids["here"])

    class Killed(P2PRemote):
        @asynccontextmanager
        async def lock_content(self, key: Key) -> AsyncIterator[Any]:
            async with super().lock_content(key) as lock:
                await lock._wire.aclose()  # type: ignore[attr-defined]
                yield lock

    async with local(annexes["here"].path) as source:
        vault = Killed(dial, uuid=uuids["b"], name="vault")
        with pytest.raises(NotEnoughCopies, match="its lock was lost"):
            await drop(KEY, from_=source, others=[vault], copies=Copies())
        await vault.aclose()
        assert await source.check_present(KEY)


@pytest.mark.interop
async def test_a_move_to_a_stock_server_and_back(annexes: dict[str, Annex], git_annex: str) -> None:
    uuids = {name: await hold(annexes[name], has=name == "here") for name in ("here", "b")}
    dial = shell(git_annex, annexes["b"].path, uuids["here"])
    async with local(annexes["here"].path) as source:
        branch = source.repository.branch
        vault = Recording(P2PRemote(dial, uuid=uuids["b"], name="vault"), branch)

        async def moved(giver: Remote, taker: Remote) -> Any:
            (result,) = [r async for r in move(giver, taker, [KEY], copies=Copies(3, 2))]
            return result

        there = await moved(source, vault)
        assert there.ok, there.error
        assert branch.locations(KEY).present == [uuids["b"]]
        back = await moved(vault, source)
        assert back.ok, back.error
        assert branch.locations(KEY).present == [uuids["here"]]
        await put(vault, KEY, CONTENT)
        refused = await moved(source, vault)
        assert isinstance(refused.error, NotEnoughCopies)
        assert await source.check_present(KEY)
        await vault.aclose()


@pytest.mark.interop
async def test_a_gateway_without_usable_nodes_cannot_make_a_move_lose_the_content(
    annexes: dict[str, Annex], git_annex: str
) -> None:
    """Fact sheet p2p-protocol, section 0, B: it answers ALREADY-HAVE, and the stock client deletes the only copy."""
    gateway = annexes["b"]
    with Repository.open(gateway.path) as repository:
        gateway_uuid = repository.uuid
    gateway.git("config", "annex.cluster.mycl", "")
    gateway("initcluster", "mycl")
    cluster = UUID(gateway.git("config", "annex.cluster.mycl").strip())
    gateway("updatecluster")
    uuid = await hold(annexes["here"], has=True)
    program = str(Path(git_annex).with_name("git-annex-shell"))
    dial = DialCommand((program, "p2pstdio", str(gateway.path), uuid, "--uuid", cluster), name="gateway")
    assert gateway_uuid

    async with local(annexes["here"].path) as source:
        remote = P2PRemote(dial, uuid=cluster, name="cluster")
        (result,) = [r async for r in move(source, remote, [KEY], copies=Copies())]
        await remote.aclose()

        assert not result.ok
        assert result.dropped is None
        assert await source.check_present(KEY)


async def test_a_removal_of_unknown_outcome_leaves_the_lock_at_our_server_in_place(pair: tuple[Path, Path]) -> None:
    from annexpy.server.serve import serve
    from annexpy.transport.memory import memory_pair

    here, vault = pair
    import anyio

    async with local(here) as source, local(vault) as other, anyio.create_task_group() as tasks:
        await put(source, KEY, CONTENT)
        await put(other, KEY, CONTENT)

        async def dial() -> Any:
            client, server = memory_pair()
            tasks.start_soon(serve, server, other)
            return client

        class Unsure(Local):
            async def remove_content(self, key: Key, **more: Any) -> Any:
                raise ConnectionLost("here", "an answer to REMOVE-BEFORE")

        wire = P2PRemote(dial, uuid=other.uuid, name="vault")
        with pytest.raises(ConnectionLost):
            await drop(
                KEY,
                from_=Recording(Unsure(source.repository), source.repository.branch),
                others=[wire],
                copies=Copies(),
            )
        await wire.aclose()
        tasks.cancel_scope.cancel()

    async with local(vault) as other:
        with pytest.raises(ContentLocked, match="its lock expires in"):
            await drop(KEY, from_=other, others=[], copies=Copies(), force=True)
