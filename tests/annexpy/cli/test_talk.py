"""Speaking the protocol by hand: with a scripted peer, and with the real git-annex-shell."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from annexpy.cli.talk import Talk
from annexpy.errors import AnnexError, ConnectionLost, RemoteProtocolError, TimedOut
from annexpy.p2p.transcript import parse_row, replay
from annexpy.transport.memory import memory_pair
from annexpy.transport.pipe import dial_command

pytestmark = pytest.mark.anyio


async def typed(*lines: bytes) -> AsyncIterator[bytes]:
    for line in lines:
        yield line


async def conversation(answers: dict[bytes, bytes], *lines: bytes, **settings: object) -> tuple[list[str], Talk]:
    """What is shown when *lines* are typed to a peer that gives *answers* (None: hangs up)."""
    ours, theirs = memory_pair()
    shown: list[str] = []
    failure = None
    talk = Talk(ours, shown.append, **settings)  # type: ignore[arg-type]

    async def peer() -> None:
        await theirs.send(b"AUTH-SUCCESS u1\n")
        while data := await theirs.receive():
            for line in data.splitlines():
                answer = answers.get(line.split()[0], b"")
                if answer == b"EOF":
                    await theirs.aclose()
                    return
                if answer:
                    await theirs.send(answer)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer)
        try:
            await talk.run(typed(*lines))
        except AnnexError as error:
            failure = error
        await ours.aclose()
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return shown, talk


async def test_what_is_typed_goes_out_and_the_answer_is_shown_with_its_state() -> None:
    shown, talk = await conversation(
        {b"VERSION": b"VERSION 4\n", b"CHECKPRESENT": b"FAILURE\n"}, b"checkpresent SHA256E-s3--abc"
    )

    assert [line.split() for line in shown] == [
        ["S:", "AUTH-SUCCESS", "u1", "IDLE"],
        ["C:", "VERSION", "4", "VERSION"],
        ["S:", "VERSION", "4", "IDLE"],
        ["C:", "CHECKPRESENT", "SHA256E-s3--abc", "CHECK"],
        ["S:", "FAILURE", "IDLE"],
    ]
    assert talk.refused == 0


async def test_what_is_not_legal_is_refused_here_with_what_would_be() -> None:
    shown, talk = await conversation(
        {b"VERSION": b"VERSION 4\n", b"LOCKCONTENT": b"SUCCESS\n"},
        b"LOCKCONTENT SHA256E-s3--abc",
        b"checkpresent SHA256E-s3--abc",
        b"unlockcontent",
    )

    assert shown[-2].startswith("refused: CHECKPRESENT is not legal for the client in state LOCKED")
    assert shown[-2].endswith("(legal: UNLOCKCONTENT)")
    assert talk.refused == 1


@pytest.mark.parametrize("line", [b"frobnicate", b"GET SHA256E-s3--abc", b"DATA 5", b"CONNECT git-upload-pack"])
async def test_what_is_no_message_is_refused_and_the_conversation_goes_on(line: bytes) -> None:
    shown, talk = await conversation({b"VERSION": b"VERSION 4\n"}, line, b"?")

    assert shown[-2].startswith("refused: ")
    assert "CHECKPRESENT" in shown[-1]
    assert talk.refused == 1


async def test_a_file_that_is_none_is_refused_and_may_be_named_again(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"xyz")
    shown, talk = await conversation(
        {b"VERSION": b"VERSION 4\n", b"PUT": b"PUT-FROM 1\n", b"DATA": b"", b"VALID": b"SUCCESS\n"},
        b"PUT f SHA256E-s3--abc",
        f"DATA @{tmp_path}/nosuch".encode(),
        f"DATA @{tmp_path}".encode(),
        f"DATA @{tmp_path}/f".encode(),
        b"VALID",
    )

    assert [line.split()[0] for line in shown[5:]] == ["refused:", "refused:", "C:", "C:", "C:", "S:"]
    assert "(legal: DATA, DATA-PRESENT, ERROR)" in shown[5]
    assert talk.refused == 2


async def test_a_hang_up_is_named_with_what_was_owed() -> None:
    with pytest.raises(ConnectionLost, match="the answer to CHECKPRESENT"):
        await conversation({b"VERSION": b"VERSION 4\n", b"CHECKPRESENT": b"EOF"}, b"CHECKPRESENT SHA256E-s3--abc")


async def test_silence_ends_after_the_patience_is_over() -> None:
    with pytest.raises(TimedOut, match="CHECKPRESENT"):
        await conversation({b"VERSION": b"VERSION 4\n"}, b"CHECKPRESENT SHA256E-s3--abc", patience=0.05)


async def test_an_answer_that_fits_nothing_ends_the_conversation() -> None:
    with pytest.raises(RemoteProtocolError, match="TIMESTAMP"):
        await conversation({b"VERSION": b"VERSION 4\n", b"CHECKPRESENT": b"TIMESTAMP 5\n"}, b"CHECKPRESENT A--b")


@pytest.mark.interop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_put_and_a_get_by_hand_with_git_annex_shell(tmp_path: Path, git_annex: str) -> None:
    repository = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", "--bare", str(repository)], check=True)
    subprocess.run([git_annex, "init", "-q"], cwd=repository, check=True)
    uuid = subprocess.run(
        ["git", "config", "annex.uuid"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.strip()
    source = tmp_path / "hello.txt"
    source.write_bytes(b"hello\n")
    key = b"SHA256E-s6--5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03.txt"
    record, shown = io.StringIO(), []
    client = "11111111-2222-4333-8444-555555555555"
    program = Path(git_annex).with_name("git-annex-shell")
    shell = await dial_command([program, "p2pstdio", str(repository), client, "--uuid", uuid])
    try:
        await Talk(shell, shown.append, record).run(
            typed(b"PUT  " + key, b"DATA @" + bytes(source), b"VALID", b"GET 1  " + key, b"SUCCESS")
        )
    finally:
        await shell.aclose()

    assert "S: SUCCESS" in shown[8]
    assert any("'ello\\n'" in line for line in shown)
    steps = list(replay(map(parse_row, record.getvalue().splitlines())))
    assert [step.problem for step in steps if step.problem] == []
    assert json.loads(record.getvalue().splitlines()[0])["dir"] == "S>C"
