"""How the stock client took the odd answers of HTTP servers, and how ours takes them: the same, or safer.

Each recorded server becomes one that answers alike. Where ours concludes something else on purpose, ``DEVIATIONS``
says why, and so does docs/deviations.md.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from http_peers import Asked, answer, scripted
from remote_contract import CONTENT, KEY, A, read, store

from annexpy.errors import AnnexError
from annexpy.remote.http import HTTPRemote

pytestmark = [pytest.mark.anyio, pytest.mark.transcripts]

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "tests" / "transcripts").glob("httpclient-vs-*.jsonl"))
DEVIATIONS = {
    ("alreadyhave", "copy"): "it is a claim, and clusters without a usable node make it",
    ("putoffset 403", "copy"): "nothing is sent to whoever does not take it",
    ("putoffset 404", "copy"): "nothing is sent to whoever does not take it",
    ("text/plain", "copy"): "what was said is what counts",
}
"""What the server did, and the command → why ours does not end as the recorded one."""
JSON_TYPE = "application/json;charset=utf-8"


class Odd:
    """A server with the faults that a recording tells of.

    Attributes:
        held: It has the content.
        short: It hangs up before the last byte of it.
    """

    def __init__(self, stem: str, options: dict) -> None:
        self.held = False
        self._versions = set(options.get("nov", ()))
        self._missing = set(options.get("noop", ()))
        self._secret = set(options.get("auth", ()))
        self._raw: dict[str, list] = options.get("raw", {})
        self._type = options.get("ct", "application/json")
        if stem.endswith("-get-404"):
            self._missing.add("key")
        self.short = False

    def does(self, command: str) -> str:
        """What of all this matters to a command, in a word."""
        if command == "copy" and "alreadyhave" in str(self._raw.get("putoffset")):
            return "alreadyhave"
        if command == "copy" and "putoffset" in self._missing:
            return "putoffset 404"
        if command == "copy" and self._raw.get("putoffset"):
            return f"putoffset {self._raw['putoffset'][0]}"
        return self._type

    def __call__(self, asked: Asked) -> bytes:
        verb = asked.verb
        if f"v{asked.version}" in self._versions or verb in self._missing:
            return answer(404)
        if verb in self._secret and b"authorization" not in asked.head.headers:
            return answer(401, b"", ("WWW-Authenticate", 'Basic realm="git-annex"'))
        if verb in self._raw:
            status, body, *_ = self._raw[verb]
            self.held |= b'"stored":true' in ast.literal_eval(body)
            return self._say(ast.literal_eval(body), status)
        return self._usual(verb, asked)

    def _usual(self, verb: str, asked: Asked) -> bytes:
        match verb:
            case "key":
                size = str(len(CONTENT))
                body = CONTENT[: -1 if self.short else None]
                said = answer(
                    200, body, ("Content-Type", "application/octet-stream"), ("X-git-annex-data-length", size)
                )
                return b"!" * self.short + said
            case "put":
                assert asked.body == CONTENT
                self.held = True
                return self._say(b'{"stored":true,"plusuuids":[]}')
            case "remove" | "remove-before":
                self.held = False
                return self._say(b'{"removed":true,"plusuuids":[]}')
            case "putoffset":
                return self._say(b'{"alreadyhave":true,"plusuuids":[]}' if self.held else b'{"offset":0}')
            case "checkpresent":
                return self._say(b'{"present":%b}' % (b"true" if self.held else b"false"))
            case "gettimestamp":
                return self._say(b'{"timestamp":1000}')
            case "lockcontent":
                return self._say(b'{"locked":true,"lockid":"a"}' if self.held else b'{"locked":false}')
            case _:
                return self._say(b'{"locked":false}')

    def _say(self, body: bytes, status: int = 200) -> bytes:
        return answer(status, body, ("Content-Type", self._type))


def work(command: str, remote: HTTPRemote) -> Awaitable[object]:
    """What ours does in place of a command of git-annex."""

    async def locked() -> None:
        async with remote.lock_content(KEY):
            pass

    works: dict[str, Callable[[], Awaitable[object]]] = {
        "copy": partial(store, remote, KEY, CONTENT),
        "get": partial(read, remote, KEY),
        "drop --from": partial(remote.remove_content, KEY),
        "drop": locked,
    }
    return works[command]()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_our_client_ends_as_the_stock_one_or_says_why_not(path: Path) -> None:
    first, *rows = (json.loads(line) for line in path.read_text().splitlines())
    server = Odd(path.stem, json.loads(first["comment"]))

    async with scripted(server, uuid=A, authorize=lambda again: "Basic eDp5") as (remote, asked):
        for row in rows:
            server.short = path.stem.endswith("-get-badlen") and row["rc"] != 0
            command = row["comment"].removesuffix(" F").removesuffix(" --to py").removesuffix(" py")
            if command == "whereis" or (command == "drop" and '"lockcontent"' in first["comment"]):
                continue  # of what it was told before; another copy was locked in its place
            try:
                await work(command, remote)
            except AnnexError as error:
                failed = error
            else:
                failed = None
            if (failed is not None) != (row["rc"] != 0):
                assert (server.does(command), command) in DEVIATIONS, (command, failed, row, asked)


@pytest.mark.parametrize("why", DEVIATIONS.values())
def test_every_deviation_is_in_the_manual(why: str) -> None:
    assert why in (ROOT / "docs" / "deviations.md").read_text()
