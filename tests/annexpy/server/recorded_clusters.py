"""Recorded conversations with gateways: what was said, the nodes in the state that they were in, and their faults.

A recording shows what each node said. Where a repository in that state would have said the same, ``RecordedNode``
just is one; what it would not have said is a fault of the node, which it repeats.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid5

from recorded_node import RecordedNode, has_name
from recordings import TRANSCRIPTS, Deviation, Session, content_of, rows
from recordings import said as said_in

from annexpy.keys.key import Key
from annexpy.uuids import is_cluster

_KEY = re.compile(r"SHA256E?-s\d+--[0-9a-f]{64}(?:\.\w+)?")
_NODE = re.compile(r"p2pstdio \S*/([^/\s]+) \S+")
_REQUESTS = {"VERSION", "CHECKPRESENT", "GETTIMESTAMP", "LOCKCONTENT", "REMOVE", "REMOVE-BEFORE", "GET", "PUT"}
_WHOLE = 8 * 1024
"""Bytes above which a recording has only a digest of what was sent."""

AT_FAULT = "a node is at fault"
CHOSEN = "nodes are chosen by preferred content"
ENDED = "git-annex had ended the session"
MORE = "other nodes have it, too"
NO_CLOCK = "a node is too old, or has no clock"
REFUSED = "a GET was refused"
DEVIATIONS = (
    Deviation(
        r"(?!(VERSION|BYPASS|CHECKPRESENT|LOCKCONTENT|GETTIMESTAMP|REMOVE|REMOVE-BEFORE|GET|PUT)\b).*\n",
        r"(ERROR protocol error\n)?(<EOF>)?", r"ERROR (unknown|unexpected) command\n",
        "one server for all",
    ),
    Deviation(
        r"(CONNECT .*|NOTIFYCHANGE)\n", r"ERROR protocol error\n(<EOF>)?", r"ERROR .*\n",
        "services that are not offered are refused, and the session goes on",
    ),
    Deviation(
        r"VERSION \d\n", r"ERROR protocol error\n(<EOF>)?", r"VERSION \d\n",
        "one server for all",
    ),
    Deviation(
        r"ERROR .*\n", r"(ERROR protocol error\n)?(<EOF>)?", r"",
        "one server for all",
    ),
    Deviation(
        r"(.|\n)*", r"<EOF>", r"(.|\n)*",
        "one server for all",
        over=True,
        when=ENDED,
    ),
    Deviation(
        r"PUT .*\n", r"<EOF>|ERROR protocol error\n(<EOF>)?", r"PUT-FROM \d+\n|ALREADY-HAVE-PLUS .*\n",
        "a cluster is for surviving that",
        over=True,
        when=AT_FAULT,
    ),
    Deviation(
        r"CHECKPRESENT .*\n", r"<EOF>|FAILURE\n", r"SUCCESS\n",
        "a cluster is for surviving that",
        over=True,
        when=AT_FAULT,
    ),
    Deviation(
        r"REMOVE(-BEFORE)? .*\n", r"<EOF>", r"FAILURE-PLUS( \S+)+\n",
        "a removal that some nodes made before another one could not be reached",
        over=True,
        when=AT_FAULT,
    ),
    Deviation(
        r"GET .*\n", r"(DATA \d+\n(.|\n)*)?<EOF>|DATA 0\nINVALID\n", r"DATA \d+\n(.|\n)*VALID\n",
        "or breaks off",
        over=True,
        when=AT_FAULT,
    ),
    Deviation(
        r"PUT .*\n", r"ALREADY-HAVE\n", r"ERROR .*\(it has no nodes\)\n",
        "a move believed it and deleted the only copy",
    ),
    Deviation(
        r"CHECKPRESENT .*\n", r"FAILURE\n", r"ERROR .*\(it has no nodes\)\n",
        "nobody was asked, so nobody knows",
    ),
    Deviation(
        r"GET .*\n", r"DATA 0\nINVALID\n", r"ERROR .*\(it has no nodes\)\n",
        "nobody was asked, so nobody knows",
    ),
    Deviation(
        r"(FAILURE|SUCCESS)\n", r"", r"ERROR unexpected command\n",
        "nobody was asked, so nobody knows",
        when=REFUSED,
    ),
    Deviation(
        r"CHECKPRESENT .*\n", r"FAILURE\n", r"SUCCESS\n",
        "the log may be behind, and nodes may be away",
        when=MORE,
    ),
    Deviation(
        r"GET .*\n", r"DATA 0\nINVALID\n", r"DATA [1-9]\d*\n(.|\n)*VALID\n",
        "the log may be behind, and nodes may be away",
        when=MORE,
    ),
    Deviation(
        r"PUT .*\n", r"PUT-FROM 0\n", r"ALREADY-HAVE-PLUS \S+\n",
        "preferred content",
        when=CHOSEN,
    ),
    Deviation(
        r"VALID\n|PUT .*\n", r"(SUCCESS|ALREADY-HAVE)-PLUS( \S+)*\n", r"(SUCCESS|ALREADY-HAVE)-PLUS( \S+)+\n",
        "they are copies",
        when=MORE,
    ),
    Deviation(
        r"REMOVE .*\n", r"ERROR (this repository is append-only.*)\n", r"ERROR \S+: this repository is append-only.*\n",
        "so that one knows which",
    ),
    Deviation(
        r"REMOVE .*\n", r"FAILURE\n", r"ERROR .* in \S+: it answered FAILURE to the removal\n",
        "the client can say why",
    ),
    Deviation(
        r"REMOVE-BEFORE 99999999 .*\n", r"SUCCESS-PLUS .*\n", r"ERROR timestamp .*\n",
        "no lock lasts that long",
    ),
    Deviation(
        r"REMOVE-BEFORE .*\n", r"SUCCESS-PLUS( \S+)+\n", r"FAILURE-PLUS( \S+)*\n",
        "the deadline is what makes it safe",
        when=NO_CLOCK,
    ),
)  # fmt: skip
"""Where a gateway of ours answers something else; for a set of nodes, in any order."""


def recordings() -> list[Path]:
    """Conversations with a gateway about its cluster, or about a repository that it is a proxy for."""
    found = (*TRANSCRIPTS.glob("cluster*-*.jsonl"), *TRANSCRIPTS.glob("proxy-*.jsonl"))
    return [path for path in sorted(found) if not is_special(path)]


def is_special(path: Path) -> bool:
    """What was proxied is a special remote: test_special_replays."""
    return "special" in rows(path)[0].get("comment", "")


def lines_of(path: Path) -> tuple[list[dict], dict[bytes, bytes]]:
    """The lines of a recording, and the contents of its keys.

    Long contents are replaced by others, which have keys of their own.
    """
    text, contents = path.read_text(), dict[bytes, bytes]()
    for old in sorted(set(_KEY.findall(text))):
        size = Key.parse(old).size or 0
        if size > _WHOLE:
            content = random.Random(old).randbytes(size)
            new = re.sub("[0-9a-f]{64}", hashlib.sha256(content).hexdigest(), old)
            text = text.replace(old, new)
            contents[new.encode()] = content
    lines = [json.loads(line) for line in text.splitlines()]
    subject, offset = b"", 0
    for row in lines:
        said = row.get("text", "")
        if row["dir"] == "S>C" and said.startswith("PUT-FROM "):
            offset = int(said.split()[1])
        elif row["dir"] == "C>S" and (match := _KEY.search(said)):
            subject = match[0].encode()
            offset = int(said.split()[1]) if said.startswith("GET ") else 0
            if subject not in contents:
                contents[subject] = content_of(Key.parse(subject))
        elif row["dir"] == "C>S" and "b64" in row:
            content = base64.b64decode(row["b64"]).partition(b"\n")[2]
            contents[subject] = content if has_name(subject, content) else contents[subject]
        elif row["dir"] == "C>S" and "head_b64" in row:
            row["b64"] = base64.b64encode(said_in(row) or _stand_in(row, contents[subject][offset:])).decode()
        elif row["dir"] == "S>C" and "text" not in row and len(contents[subject]) > _WHOLE:
            length = row.get("len") or len(base64.b64decode(row["b64"]))
            row["b64"] = base64.b64encode(contents[subject][offset : offset + length]).decode()
            offset += length
    return lines, contents


def _stand_in(row: dict, content: bytes) -> bytes:
    """What was sent of a content that was replaced, and what came after it."""
    head = base64.b64decode(row["head_b64"]).partition(b"\n")[0] + b"\n"
    length = int(head.split()[1])
    tail = {6: b"VALID\n", 8: b"INVALID\n"}.get(row["len"] - len(head) - length, b"")
    return (head + content[:length])[: row["len"]] + tail


def so(nodes: dict[str, RecordedNode], key: bytes, theirs: bytes, ours: bytes, comment: str) -> set[str]:
    """What can be said of *nodes* when something is answered about *key*: what deviations go by."""
    found = set()
    if any(node.greets_as != node.uuid or node.faults for node in nodes.values()):
        found.add(AT_FAULT)
    named, more = (set(answer.decode("latin-1").split()[1:]) for answer in (theirs, ours))
    holders = {node.uuid for node in nodes.values() if key in node.contents and node.greets_as == node.uuid}
    if b"-PLUS" not in ours:
        found |= {MORE} if holders else set()
    elif named < more <= holders:
        found.add(MORE)
    unfit = {node.uuid for node in nodes.values() if node.version < 3 or "GETTIMESTAMP" in node.faults}
    if more < named and named - more <= unfit:
        found.add(NO_CLOCK)
    return found | ({CHOSEN} if "preferred content" in comment else set())


# -- reading them off a recording -------------------------------------------------------------------------------------


@cache
def _known_together() -> dict[str, dict[str, str]]:
    """UUID of what was asked for → name → UUID of the nodes that any recording knows with it."""
    known: dict[str, dict[str, str]] = {}
    for path in recordings():
        lines = rows(path)
        greeted = {
            name: row["text"].split()[1]
            for row in lines
            if (name := _node(row)) and re.match("AUTH-SUCCESS (?!deadbeef)", row.get("text", ""))
        }
        for uuid in {*_asked_for(lines), *greeted.values()}:
            known[uuid] = greeted | known.get(uuid, {})
    return known


def _asked_for(lines: Iterable[dict]) -> list[str]:
    found = (re.search(r"--uuid (\S+)", row["comment"]) for row in lines if row["dir"] == "exec")
    return [uuid[1] for uuid in found if uuid]


def node_uuids(lines: list[dict]) -> dict[str, str]:
    """Name → UUID of the nodes that are behind the gateway in a recording.

    Those that are known from any recording; who never greeted anybody has one that means nothing.
    """
    found: dict[str, str] = {}
    for uuid in _asked_for(lines):
        found |= _known_together().get(uuid, {})
        if not is_cluster(uuid) and uuid not in found.values():
            found["asked-for"] = uuid
    for name in sorted({_node(row) for row in lines} - {"", *found}):
        found[name] = str(uuid5(NAMESPACE_DNS, name))
    return found


def wanted_in(found: Iterable[Session], nodes: dict[str, RecordedNode]) -> dict[str, str]:
    """Name → preferred content of the nodes, by what some but not all of them got."""
    wanted: dict[str, set[str]] = {name: set() for name in nodes}
    for session in found:
        file = b""
        for step in session.steps:
            if step.sent.startswith(b"PUT "):
                file = step.sent.split(b" ")[1]
            got = {name for name, node in nodes.items() if node.uuid.encode() in step.heard}
            if step.heard.startswith(b"SUCCESS-PLUS ") and got != {*nodes}:
                for name in got:
                    wanted[name].add("include=*" + file[file.rindex(b".") :].decode())
    return {name: " or ".join(sorted(globs)) or "nothing" for name, globs in wanted.items()}


def _node(row: dict) -> str:
    """Whose conversation with the gateway this line is of; "" if none."""
    match = _NODE.match(row.get("conn", "")) if row["dir"].startswith("gw-node ") else None
    return match[1] if match else ""


def nodes_in(lines: Iterable[dict], contents: dict[bytes, bytes]) -> list[dict[str, RecordedNode]]:
    """For each session the nodes, which keep their contents from one to the next."""
    lines = list(lines)
    first = {name: RecordedNode(uuid, all_contents=contents) for name, uuid in node_uuids(lines).items()}
    known: set[tuple[str, bytes]] = set()
    found: list[dict[str, RecordedNode]] = []
    readers: dict[str, _Reader] = {}
    for row in lines:
        if row["dir"] == "exec":
            found.append(
                {
                    name: RecordedNode(
                        node.uuid, node.contents, node.partials, greets_as=node.uuid, all_contents=contents
                    )
                    for name, node in first.items()
                }
            )
            readers = {}
        elif name := _node(row):
            if name not in readers:
                readers[name] = _Reader(name, found[-1][name], known)
            readers[name].read(row["dir"][8:], row.get("text", ""))
    return found


class _Reader:
    """Reads what one node was asked and said in one session."""

    def __init__(self, name: str, node: RecordedNode, known: set[tuple[str, bytes]]) -> None:
        self._name, self._node, self._known = name, node, known
        self._asked: list[str] = []
        self._left = False  # the gateway has
        node.greets_as = ""

    def read(self, direction: str, text: str) -> None:
        match direction, text:
            case "argv", _:
                self._asked, self._left = [], False
            case ("C>S", "EOF"):
                self._left = True
            case ("S>C", "EOF") | ("note", _):  # it hung up, or was killed
                if self._asked and not self._left:
                    self._hear("")
            case "C>S", _ if "EPIPE" not in text:
                for line in text.splitlines():
                    words = line.split(" ")
                    if words[0] in ("VALID", "INVALID"):
                        self._asked = ["VALID", *self._asked[1:]]
                    elif words[0] in ("DATA", "DATA-PRESENT"):
                        self._asked = [words[0], *self._asked[1:]]
                        break  # what comes then is content
                    elif words[0] in _REQUESTS:
                        self._asked = words
            case "S>C", _ if "EPIPE" not in text:
                self._hear(text.splitlines()[0])

    def _hear(self, line: str) -> None:
        node, words = self._node, line.split(" ")
        verb, key = (self._asked[0], self._asked[-1].encode()) if self._asked else ("", b"")
        if verb == "DATA" and line and not self._left:
            verb = "VALID"  # which the recorder took for content
        match verb, words[0]:
            case "", "AUTH-SUCCESS":
                node.greets_as = words[1]
            case ("", _) | ("DATA", "FAILURE"):
                pass  # the rest of a content; the gateway left before there was a rest
            case "VERSION", "VERSION":
                node.version = int(words[1])
            case "GETTIMESTAMP", "TIMESTAMP":
                node.clock = int(words[1])
            case ("CHECKPRESENT", "SUCCESS") | ("PUT", "ALREADY-HAVE"):
                self._has(key, True)
            case ("CHECKPRESENT", "FAILURE"):
                self._has(key, False)
            case ("PUT", "PUT-FROM"):
                self._has(key, False)
                if int(words[1]):
                    node.partials[key] = int(words[1])
                return  # not the end of it
            case ("REMOVE" | "REMOVE-BEFORE" | "VALID", "SUCCESS") | ("GET", _) | ("DATA-PRESENT", _):
                self._known.add((self._name, key))
            case "REMOVE-BEFORE", "FAILURE" if int(self._asked[1]) <= (node.clock or 0):
                pass
            case "VALID", "FAILURE":
                node.faults.setdefault("VALID", line)
            case _:
                node.faults["REMOVE" if verb == "REMOVE-BEFORE" else verb] = line
        self._asked = []

    def _has(self, key: bytes, present: bool) -> None:
        """What the first answer about it says."""
        if (self._name, key) not in self._known:
            self._known.add((self._name, key))
            if present:
                self._node.contents[key] = self._node.all_contents[key]
