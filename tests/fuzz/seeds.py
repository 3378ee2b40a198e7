"""Good inputs: from the recorded vectors and conversations, and one of each kind by hand."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from annexpy.logs.paths import Log
from annexpy.p2p.states import Role
from annexpy.p2p.transcript import parse_row

__all__ = [
    "HTTP_HEADS",
    "HTTP_TARGETS",
    "KEY",
    "LOGS",
    "conversations",
    "keys",
    "lines",
    "logs",
    "transcript_lines",
    "vectors",
]

TESTS = Path(__file__).parent.parent
KEY = b"SHA256E-s6--5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03.tar.gz"
A, B = b"aaaaaaaa-0000-4000-8000-000000000001", b"bbbbbbbb-0000-4000-8000-000000000002"
CLUSTER = b"ac8f3c3a-f7a8-8b29-9c3c-e79bb3b7af4b"


@cache
def vectors(name: str) -> Any:  # as the file has it
    return json.loads((TESTS / "vectors" / f"{name}.json").read_text())


def keys() -> list[bytes]:
    more = [b"WORM-s3-m1289672605--a%b&cc", b"URL--http&c%%x.org%a", b"SHA1-s1-S10-C2--" + b"0" * 40, KEY]
    return [case["key"].encode(case["encoding"]) for case in vectors("keys")] + more


def paths() -> list[Path]:
    return sorted((TESTS / "transcripts").glob("*.jsonl"))


@cache
def transcript_lines() -> list[bytes]:
    return [line for path in paths() for line in path.read_bytes().splitlines() if len(line) < 2000]


@cache
def conversations(side: Role) -> list[bytes]:
    """What one *side* said in each transcript, in pieces of a few messages."""
    found = set()
    for path in paths():
        rows = [parse_row(line) for line in path.read_bytes().splitlines()]
        pieces = [row.data for row in rows if row.sender is side and len(row.data) < 3000]
        found |= {b"".join(pieces[at : at + 4]) for at in range(0, len(pieces), 3)}
    return sorted(found)


@cache
def lines() -> list[bytes]:
    """Single lines of the protocol, of both sides."""
    whole = {line for side in Role for text in conversations(side) for line in text.split(b"\n")}
    return sorted(line for line in whole if 0 < len(line) < 400)


CLOCKED = b"1700000000.123456789s %s\n100s %s\n"

LOGS: dict[Log, bytes] = {
    Log.UUID: b"%s my place timestamp=1s\n%s other timestamp=1700000000.5s\n" % (A, B),
    Log.REMOTE: b"%s autoenable=true name=s3 type=S3 x=a&b&&32;c timestamp=1.25s\n" % A,
    Log.TRUST: b"%s 1 timestamp=1s\n%s X timestamp=2s\n%s ? timestamp=3s\n" % (A, B, A),
    Log.GROUP: b"%s archive backup timestamp=1s\n%s client timestamp=2s\n" % (A, B),
    Log.PREFERRED_CONTENT: b"%s standard and (include=*.nii or copies=archive:1) timestamp=1s\n" % A,
    Log.REQUIRED_CONTENT: b"%s include=* timestamp=1s\n" % A,
    Log.GROUP_PREFERRED_CONTENT: CLOCKED % (b"mine not copies=2", b"other present"),
    Log.SCHEDULE: b"%s fsck self 30m every day at any time; fsck self 1h every month timestamp=1s\n" % A,
    Log.ACTIVITY: b"%s Fsck timestamp=1s\n" % A,
    Log.DIFFERENCE: b"%s [ObjectHashLower,OneLevelObjectHash,OneLevelBranchHash] timestamp=1s\n" % A,
    Log.MULTICAST: b"%s AB:CD:EF timestamp=1s\n" % A,
    Log.CONFIG: CLOCKED % (b"annex.numcopies 3", b"annex.securehashesonly true"),
    Log.MAXSIZE: CLOCKED % (A + b" 1000000", B + b" 5"),
    Log.PROXY: CLOCKED % (A + b" %s:node1 %s:node2" % (B, CLUSTER), B),
    Log.CLUSTER: CLOCKED % (CLUSTER + b" " + A + b" " + B, CLUSTER),
    Log.EXPORT: CLOCKED % (A + b":" + B + b" " + b"0" * 40, A + b":" + B + b" " + b"1" * 40 + b" " + b"2" * 40),
    Log.NUMCOPIES: CLOCKED % (b"3", b"2"),
    Log.MINCOPIES: CLOCKED % (b"2", b"1"),
    Log.TRANSITIONS: b"ForgetGitHistory 1387325539.685136s\nForgetDeadRemotes 5s\n",
    Log.LOCATION: b"1s 1 %s\n2.5s 0 %s\n3s X %s\n" % (A, B, CLUSTER),
    Log.URL: b"1s 1 http://x.org/a b\n2s 0 yt:http://y.org\n3s 1 :quvi:http://z\n",
    Log.EQUIVALENT_KEY: b"1s 1 %s\n" % KEY,
    Log.CHUNK: CLOCKED % (A + b":1048576 12", B + b":5:x 0"),
    Log.REMOTE_STATE: CLOCKED % (A + b" state of it", B + b" !c3RhdGU="),
    Log.CONTENT_IDENTIFIER: CLOCKED % (A + b" 123 4567 89:!YWJj", B + b" "),
    Log.METADATA: CLOCKED % (b"author +alice +!Ym9iIGI= year +2024 -2023", b"tag +a"),
    Log.REMOTE_METADATA: CLOCKED % (A + b":x +1", B + b":field +!AAA= -b"),
}


def logs(log: Log) -> list[bytes]:
    """What stands in such a log."""
    found = [LOGS[log]]
    if log is Log.LOCATION:
        found += [case["input"].encode() for case in vectors("location_log")["cases"]]
    for case in vectors("map_logs"):
        found += [
            content.encode() for name, content in case.get("files", {}).items() if name.endswith(log.value.decode())
        ]
    return found


HTTP_TARGETS = [
    b"/git-annex/%s/v4/checkpresent?key=%s&clientuuid=%s&bypass=%s" % (A, KEY, B, CLUSTER),
    b"/git-annex/%s/key/%s" % (A, KEY),
    b"/git-annex/%s/v3/key/%s?clientuuid=%s&offset=3&associatedfile=a%%20b%%5C" % (A, KEY, B),
    b"/git-annex/%s/v2/put?key=%s&clientuuid=%s&offset=0&associatedfile=x" % (A, KEY, B),
    b"/git-annex/%s/v4/put?key=%s&clientuuid=%s&data-present=true" % (A, KEY, B),
    b"/git-annex/%s/v1/putoffset?key=%s&clientuuid=%s" % (A, KEY, B),
    b"/git-annex/%s/v4/remove-before?key=%s&clientuuid=%s&timestamp=123456" % (A, KEY, B),
    b"/git-annex/%s/v0/remove?key=%s&clientuuid=%s" % (A, KEY, B),
    b"/git-annex/%s/v4/gettimestamp?clientuuid=%s" % (A, B),
    b"/git-annex/%s/v4/lockcontent?key=%s&clientuuid=%s" % (A, KEY, B),
    b"/git-annex/%s/v4/keeplocked?lockid=abc&clientuuid=%s" % (A, B),
]

HTTP_HEADS = [
    b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nRange: bytes=0-5,7-\r\n\r\n" % HTTP_TARGETS[1],
    b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nX-git-annex-data-length: 5\r\n\r\nhello" % HTTP_TARGETS[3],
    b"POST http://x%s HTTP/1.1\r\nhost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    % HTTP_TARGETS[4]
    + b"5\r\nhello\r\n0\r\n\r\n",
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Basic dTpw\r\n\r\n",
]
