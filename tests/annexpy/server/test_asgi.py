from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any

import anyio
import pytest
from faulty_remote import Faulty

from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.remote.base import Remote
from annexpy.remote.memory import MemoryRemote
from annexpy.server.asgi import ASGI
from annexpy.server.auth import EVERYTHING, Access, everywhere
from annexpy.server.http import Routes
from annexpy.server.shown import Shown, ShownRepositories
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

HERE = UUID("here")
CONTENT = bytes(range(256)) * 1000
KEY = Key.parse(b"SHA256-s%d--%b" % (len(CONTENT), sha256(CONTENT).hexdigest().encode()))
TOP = "/git-annex/here/v4/"


@asynccontextmanager
async def living(remote: Remote) -> AsyncIterator[ASGI]:
    async def find(uuid: UUID, bypass: tuple[UUID, ...]) -> Remote | None:
        return remote if uuid == remote.uuid else None

    app = ASGI(Routes(ShownRepositories((Shown(find),)), access=Access(anonymous=everywhere(EVERYTHING))))
    started, stop, said = anyio.Event(), anyio.Event(), []
    asked = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> dict[str, Any]:
        kind = next(asked)
        if kind == "lifespan.shutdown":
            await stop.wait()
        return {"type": kind}

    async def send(message: Any) -> None:
        said.append(message["type"])
        started.set()

    async with anyio.create_task_group() as group:
        group.start_soon(app, {"type": "lifespan"}, receive, send)
        await started.wait()
        yield app
        stop.set()
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def ask(
    app: ASGI,
    method: str,
    path: str,
    query: str = "",
    headers: dict[str, str] | None = None,
    body: list[bytes] | None = None,
) -> tuple[int, dict[bytes, bytes], bytes]:
    pieces = list(body or [b""])
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        if not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        said.append(message)

    scope = {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": "/mounted" + path,
        "root_path": "/mounted",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 5),
    }
    await app(scope, receive, send)
    assert said[0]["type"] == "http.response.start"
    assert [message["more_body"] for message in said[1:]] == [True] * (len(said) - 2) + [False]
    return said[0]["status"], dict(said[0]["headers"]), b"".join(message["body"] for message in said[1:])


async def test_the_same_routes_are_answered() -> None:
    remote = MemoryRemote(HERE)
    named = f"key={KEY}&clientuuid=x"
    async with living(remote) as app:
        length = {"X-git-annex-data-length": str(len(CONTENT))}
        pieces = [CONTENT[at : at + 50_000] for at in range(0, len(CONTENT), 50_000)]
        status, headers, said = await ask(app, "POST", TOP + "put", named, length, pieces)
        assert (status, json.loads(said)) == (200, {"plusuuids": [], "stored": True})
        assert headers[b"content-type"] == b"application/json;charset=utf-8"
        assert remote.objects[KEY] == CONTENT

        status, headers, said = await ask(app, "GET", f"/git-annex/here/key/{KEY}", headers={"Range": "bytes=5-9"})
        assert (status, said) == (206, CONTENT[5:10])
        status, headers, said = await ask(app, "HEAD", f"/git-annex/here/key/{KEY}")
        assert (status, said, headers[b"content-length"]) == (200, b"", b"%d" % len(CONTENT))
        status, _, said = await ask(app, "GET", f"/git-annex/here/key/{KEY}")
        assert (status, said) == (200, CONTENT)

        _, _, said = await ask(app, "POST", TOP + "lockcontent", named)
        lock_id = json.loads(said)["lockid"]
        _, _, said = await ask(app, "POST", TOP + "remove", named)
        assert json.loads(said)["removed"] is False
        unlock = [b'{"unlock":false}\n', b'{"unlock":true}\n']
        await ask(app, "POST", TOP + "keeplocked", f"lockid={lock_id}", body=unlock)
        _, _, said = await ask(app, "POST", TOP + "remove", named)
        assert json.loads(said)["removed"] is True
        assert (await ask(app, "GET", "/elsewhere"))[0] == 404


async def test_a_client_that_leaves_keeps_what_it_sent_and_gets_no_answer() -> None:
    remote = MemoryRemote(HERE)
    async with living(remote) as app:
        left = iter(
            (
                {"type": "http.request", "body": CONTENT[:1000], "more_body": True},
                {"type": "http.disconnect"},
            )
        )

        async def receive() -> dict[str, Any]:
            return next(left)

        async def send(message: Any) -> None:
            raise AssertionError(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": TOP + "put",
            "query_string": f"key={KEY}&clientuuid=x".encode(),
            "headers": [(b"x-git-annex-data-length", b"%d" % len(CONTENT))],
        }
        with pytest.raises(AnnexError):
            await app(scope, receive, send)
        assert remote.partials[KEY] == CONTENT[:1000]


async def test_an_answer_that_breaks_off_is_not_ended() -> None:
    broken = Faulty(MemoryRemote(HERE, objects={KEY: CONTENT}), "read", after=100_000, piece=50_000)
    async with living(broken) as app:
        with pytest.raises(AnnexError):
            await ask(app, "GET", f"/git-annex/here/key/{KEY}")
