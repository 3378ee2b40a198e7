"""Cold tiers: the simulated one over a real repository, and S3's as far as a server here can tell."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from s3_server import serving

import annexpy as annex
from glimmer_store.errors import ContentCold, TooManyRequests
from glimmer_store.jobs.aws_signature import Request, signed
from glimmer_store.jobs.cold import Cold, ColdRemote, Expired, Online, Warming, rank
from glimmer_store.jobs.cold_s3 import S3Tier, availability_of
from glimmer_store.jobs.cold_simulated import SimulatedTier, TierSettings

pytestmark = pytest.mark.anyio
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
HOUR = 3600.0


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


def key_of(content: bytes) -> annex.Key:
    return annex.name_content([content], b"SHA256E", b".dat")


async def tape(folder: Path, contents: list[bytes], **settings: object) -> tuple[SimulatedTier, list[annex.Key], Hand]:
    repository = annex.Repository.init(folder / "tape", bare=True)
    remote = annex.Local(repository, durability="fast")
    keys = []
    for content in contents:
        key = key_of(content)
        async with remote.put(key) as upload:
            await upload.start(len(content))
            await upload.write(content)
            await upload.finish()
        keys.append(key)
    now = Hand()
    return SimulatedTier(remote, folder / "state", TierSettings(**settings), now=now), keys, now  # type: ignore[arg-type]


# -- the simulated tier --


@ASYNCIO
async def test_a_content_is_cold_then_on_its_way_then_readable_then_expired(tmp_path: Path) -> None:
    tier, (key,), now = await tape(tmp_path, [b"one"])
    assert await tier.availability(key) == Cold()

    assert not await tier.warm([key], tier="standard", days=2)

    assert await tier.availability(key) == Warming(now.time + 5 * HOUR)
    now.time += 5 * HOUR
    assert await tier.availability(key) == Online(now.time + 48 * HOUR)
    now.time += 48 * HOUR
    assert await tier.availability(key) == Expired()
    assert not await tier.warm([key], tier="expedited", days=1)
    assert await tier.availability(key) == Warming(now.time + 300)


@ASYNCIO
async def test_another_process_sees_the_same_state(tmp_path: Path) -> None:
    tier, (key,), now = await tape(tmp_path, [b"one"])
    await tier.warm([key], tier="bulk", days=1)

    again = SimulatedTier(annex.Local(annex.Repository.open(tmp_path / "tape")), tmp_path / "state", now=now)

    assert await again.availability(key) == await tier.availability(key)


@ASYNCIO
async def test_no_more_than_the_limit_are_on_their_way_at_once(tmp_path: Path) -> None:
    tier, keys, now = await tape(tmp_path, [b"one", b"two", b"three"], requests=2, delay={"bulk": 10.0})

    refused = await tier.warm(keys, tier="bulk", days=1)

    assert list(refused) == keys[2:]
    assert isinstance(refused[keys[2]], TooManyRequests)
    assert await tier.availability(keys[2]) == Cold()
    now.time += 10
    assert not await tier.warm(keys, tier="bulk", days=1)
    assert await tier.availability(keys[0]) == Online(now.time + 86400)


@ASYNCIO
async def test_what_is_not_there_at_all_is_not_called_cold(tmp_path: Path) -> None:
    tier, _, _ = await tape(tmp_path, [])
    with pytest.raises(annex.KeyNotPresent):
        await tier.availability(key_of(b"nothing"))


async def test_only_what_is_warm_can_be_read(tmp_path: Path) -> None:
    tier, (key,), now = await tape(tmp_path, [b"one"], delay={"bulk": 10.0})
    remote = ColdRemote(annex.Local(annex.Repository.open(tmp_path / "tape")), tier)

    async def read() -> bytes:
        async with remote.get(key) as download:
            return b"".join([chunk async for chunk in download])

    assert await remote.check_present(key)
    for state in ("cold", "warming"):
        with pytest.raises(ContentCold) as caught:
            await read()
        assert caught.value.state == state
        await tier.warm([key], tier="bulk", days=1)
    now.time += 10
    assert await read() == b"one"
    now.time += 86400
    with pytest.raises(ContentCold, match="expired"):
        await read()


def test_what_expires_first_is_taken_first_and_what_is_cold_last() -> None:
    found = [Cold(), Online(), Online(20.0), Warming(5.0), Expired(), Online(10.0)]
    assert sorted(found, key=rank) == [Online(10.0), Online(20.0), Online(), Warming(5.0), Cold(), Expired()]


# -- S3 --

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
UNTIL = datetime(2026, 11, 23, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Online()),
        ({"x-amz-storage-class": "STANDARD_IA"}, Online()),
        ({"x-amz-storage-class": "GLACIER_IR"}, Online()),
        ({"x-amz-storage-class": "GLACIER"}, Cold()),
        ({"x-amz-storage-class": "DEEP_ARCHIVE"}, Cold()),
        ({"x-amz-storage-class": "GLACIER", "x-amz-restore": 'ongoing-request="true"'}, Warming()),
        (
            {
                "x-amz-storage-class": "GLACIER",
                "x-amz-restore": 'ongoing-request="false", expiry-date="Mon, 23 Nov 2026 00:00:00 GMT"',
            },
            Online(UNTIL),
        ),
        (
            {
                "x-amz-storage-class": "DEEP_ARCHIVE",
                "x-amz-restore": 'ongoing-request="false", expiry-date="Fri, 20 Nov 2026 00:00:00 GMT"',
            },
            Expired(),
        ),
        ({"x-amz-storage-class": "INTELLIGENT_TIERING"}, Online()),
        ({"x-amz-storage-class": "INTELLIGENT_TIERING", "x-amz-archive-status": "DEEP_ARCHIVE_ACCESS"}, Cold()),
        (
            {
                "x-amz-storage-class": "INTELLIGENT_TIERING",
                "x-amz-archive-status": "ARCHIVE_ACCESS",
                "x-amz-restore": 'ongoing-request="true"',
            },
            Warming(),
        ),
    ],
)
def test_the_headers_of_an_object_tell_its_availability(headers: dict[str, str], expected: object) -> None:
    assert availability_of(headers, NOW) == expected


# The examples of "Signature Calculations for the Authorization Header" (Amazon S3 API reference).
EXAMPLE = annex.S3Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "body", "signature"),
    [
        (
            "GET", "/test.txt", {}, {"Range": "bytes=0-9"}, b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT", "/test$file.text", {},
            {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET", "/", {"lifecycle": ""}, {}, b"",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET", "/", {"max-keys": "2", "prefix": "J"}, {}, b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)  # fmt: skip
def test_requests_are_signed_as_the_examples_of_the_reference(
    method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes, signature: str
) -> None:
    request = Request(method, "examplebucket.s3.amazonaws.com", path, query, headers, body)

    sent = signed(request, EXAMPLE, region="us-east-1", at=datetime(2013, 5, 24, tzinfo=UTC))

    assert sent["authorization"].endswith(f"Signature={signature}")


@ASYNCIO
async def test_a_server_takes_the_signature_and_refuses_a_wrong_one(tmp_path: Path) -> None:
    right, wrong = annex.S3Credentials("somebody", "a-secret"), annex.S3Credentials("somebody", "another")
    (tmp_path / "bucket").mkdir()
    with serving(tmp_path, "--auth-key", "somebody,a-secret") as server:
        settings = annex.S3Settings.of("cloud", server.settings("bucket", "pre/"))
        key = annex.Key.parse("URL-s3--http&c%%example.org%a+b c.dat")
        tier = S3Tier(settings, right, name="cloud")
        with pytest.raises(annex.KeyNotPresent):
            await tier.availability(key)
        (tmp_path / "bucket" / "pre").mkdir()
        (tmp_path / "bucket" / settings.object_name(key)).write_bytes(b"one")

        assert await tier.availability(key) == Online()  # this server has no archive classes
        with pytest.raises(annex.AuthFailed):
            await S3Tier(settings, wrong, name="cloud").availability(key)
        # It does not know RestoreObject; that the request got so far shows that it was signed as the body says
        refused = await tier.warm([key], tier="bulk", days=1)
        refused_wrong = await S3Tier(settings, wrong, name="cloud").warm([key], tier="bulk", days=1)
        assert isinstance(refused_wrong[key], annex.AuthFailed)
        assert key not in refused or not isinstance(refused[key], annex.AuthFailed)
    with pytest.raises(annex.ConnectionLost):
        await tier.availability(key)


@ASYNCIO
async def test_a_tier_that_s3_does_not_have_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    settings = annex.S3Settings.of("cloud", {"bucket": "b", "host": "127.0.0.1", "port": "1"})
    tier = S3Tier(settings, EXAMPLE, name="cloud", price=(0.01, 2.0))
    key = key_of(b"one")

    with pytest.raises(annex.InvalidInput, match=r"warm\.tier"):
        await tier.warm([key], tier="slowly", days=1)
    assert tier.cost([key], tier="bulk") == pytest.approx(0.01 + 2.0 * 3e-9)
