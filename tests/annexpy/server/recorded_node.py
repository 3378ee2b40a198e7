"""A node of a recorded cluster: a repository that has nothing but what was recorded, and says what was said."""

from __future__ import annotations

from dataclasses import dataclass, field

from annexpy.errors import TransportError
from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.transport.base import Transport


def has_name(key: bytes, content: bytes) -> bool:
    """*content* is what *key* says, as far as it says something."""
    parsed = Key.parse(key)
    check = verifier(parsed)
    if check is None:
        return parsed.size in (None, len(content))
    check.update(content)
    return check.matches()


@dataclass
class RecordedNode:
    """A node, which speaks P2P with whoever connects.

    Attributes:
        uuid: What the gateway takes it for.
        contents: Key → content.
        partials: Key → length of what is there of it.
        faults: Verb → what it says, "" for hanging up; ``DATA`` before all content is there, ``VALID`` after it.
        greets_as: Its UUID, "" when it is not there at all.
        clock: What it answers to GETTIMESTAMP.
        all_contents: What is known to be the content of each key.
    """

    uuid: str
    contents: dict[bytes, bytes] = field(default_factory=dict)
    partials: dict[bytes, int] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    greets_as: str = ""
    version: int = 4
    clock: int | None = None
    all_contents: dict[bytes, bytes] = field(default_factory=dict)

    async def serve(self, transport: Transport) -> None:
        """One connection, to its end."""
        if not self.greets_as:
            return
        talk = _Talk(transport)
        try:
            await talk.say(f"AUTH-SUCCESS {self.greets_as}")
            while line := await talk.line():
                if not await self._answer(talk, *line.split(" ")):
                    return
        except TransportError:
            return

    async def _answer(self, talk: _Talk, verb: str, *words: str) -> bool:
        """False: hang up."""
        key = words[-1].encode() if words else b""
        fault = self.faults.get("REMOVE" if verb == "REMOVE-BEFORE" else verb)
        if fault is not None and verb not in ("DATA", "VALID"):
            await talk.say(fault)
            return bool(fault)
        match verb:
            case "VERSION":
                self.version = min(self.version, int(words[0]))
                await talk.say(f"VERSION {self.version}")
            case "BYPASS" | "SUCCESS" | "FAILURE" | "UNLOCKCONTENT":
                pass
            case "CHECKPRESENT" | "LOCKCONTENT":
                await talk.say("SUCCESS" if key in self.contents else "FAILURE")
            case "GETTIMESTAMP":
                await talk.say(f"TIMESTAMP {self.clock or 0}")
            case "REMOVE":
                self.contents.pop(key, None)
                await talk.say("SUCCESS")
            case "REMOVE-BEFORE":
                if int(words[0]) > (self.clock or 0):
                    self.contents.pop(key, None)
                    await talk.say("SUCCESS")
                else:
                    await talk.say("FAILURE")
            case "GET":
                body = self.contents.get(key, b"")[int(words[0]) :]
                await talk.say(f"DATA {len(body)}", body, b"VALID\n" if key in self.contents else b"INVALID\n")
            case "PUT" if key in self.contents:
                await talk.say("ALREADY-HAVE")
            case "PUT":
                await talk.say(f"PUT-FROM {self.partials.get(key, 0)}")
                return await self._receive(talk, key)
            case _:
                return False
        return True

    async def _receive(self, talk: _Talk, key: bytes) -> bool:
        words = (await talk.line()).split(" ")
        if words == ["DATA-PRESENT"]:
            await talk.say("SUCCESS" if key in self.contents else "FAILURE")
            return True
        if words[0] != "DATA" or "DATA" in self.faults:
            return False
        body = await talk.body(int(words[1]))
        if self.version:
            await talk.line()
        if (fault := self.faults.get("VALID")) is not None:
            await talk.say(fault)
            return bool(fault)
        content = self._beginning(key) + body
        if has_name(key, content):
            self.contents[key] = content
            await talk.say("SUCCESS")
        else:
            await talk.say("FAILURE")
        return True

    def _beginning(self, key: bytes) -> bytes:
        return self.all_contents[key][: self.partials.get(key, 0)] if key in self.partials else b""


class _Talk:
    """Lines and bodies."""

    def __init__(self, transport: Transport) -> None:
        self._transport, self._rest = transport, b""

    async def say(self, line: str, *data: bytes) -> None:
        if line:
            await self._transport.send(b"".join((line.encode(), b"\n", *data)))

    async def line(self) -> str:
        """The next one; "" at the end."""
        while b"\n" not in self._rest:
            if not (data := await self._transport.receive()):
                return ""
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def body(self, length: int) -> bytes:
        while len(self._rest) < length:
            if not (data := await self._transport.receive()):
                break
            self._rest += data
        body, self._rest = self._rest[:length], self._rest[length:]
        return body
