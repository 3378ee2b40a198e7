"""A stream gets the end of a content only when the whole is proven."""

from __future__ import annotations

import errno

import pytest

from annexpy.actions.get import relay
from annexpy.actions.outflow import HELD_BACK, Outflow
from annexpy.errors import ContentChanged, IncompleteTransfer, KeyNotPresent, VerificationFailed
from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.remote.memory import MemoryRemote
from annexpy.system import CLOCK
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

SMALL = b"a few bytes"
LARGE = bytes(range(256)) * (5 * HELD_BACK // 256)
HERE = UUID("aaaaaaaa-1111-4111-8111-111111111111")


def having(content: bytes, key: Key) -> MemoryRemote:
    return MemoryRemote(HERE, name="vault", clock=CLOCK, objects={key: content})


@pytest.mark.parametrize("content", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_what_is_right_comes_whole(content: bytes) -> None:
    key, written = name_content([content]), list[bytes]()

    result = await relay(having(content, key), key, lambda: Outflow(written.append).put(key))

    assert result.ok
    assert b"".join(written) == content


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_what_is_wrong_never_comes_to_its_end(content: bytes) -> None:
    key, written = name_content([content]), list[bytes]()
    wrong = content[:-1] + b"?"

    result = await relay(having(wrong, key), key, lambda: Outflow(written.append).put(key))

    assert isinstance(result.error, VerificationFailed)
    assert len(b"".join(written)) <= max(0, len(content) - HELD_BACK)
    assert ("nothing of it" in str(result.error)) is not bool(written)


async def test_what_cannot_be_verified_is_believed_as_far_as_its_sender_does() -> None:
    key, written = Key.parse(b"WORM-s11-m1--a"), list[bytes]()
    assert (await relay(having(SMALL, key), key, lambda: Outflow(written.append).put(key))).ok
    assert b"".join(written) == SMALL

    async with Outflow(written.append).put(key) as upload:
        await upload.start(11)
        await upload.write(SMALL)
        with pytest.raises(ContentChanged):
            await upload.finish(False)
    assert b"".join(written) == SMALL


async def test_less_than_the_key_says_is_not_the_content() -> None:
    key, written = name_content([SMALL]), list[bytes]()

    async with Outflow(written.append).put(key) as upload:
        await upload.start(len(SMALL))
        await upload.write(SMALL[:5])
        with pytest.raises(IncompleteTransfer, match="5 of 11"):
            await upload.finish()
    result = await relay(having(SMALL, Key.parse(b"WORM-s1-m1--a")), key, lambda: Outflow(written.append).put(key))

    assert isinstance(result.error, KeyNotPresent)
    assert written == []


async def test_whoever_cannot_write_hears_why() -> None:
    key = name_content([LARGE])

    def full(data: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        await relay(having(LARGE, key), key, lambda: Outflow(full).put(key))
