"""A node that is at fault: ``fake_node.py UUID FAULT LOG [CONTENT]`` speaks P2P on its stdin and stdout.

Every request is appended to LOG. Standard library only, and nothing of ours.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

uuid, fault, log = sys.argv[1:4]
content = Path(sys.argv[4]).read_bytes() if len(sys.argv) > 4 else b""
version = 2 if fault == "old" else 4
stdin, stdout = sys.stdin.buffer, sys.stdout.buffer


def say(line: str, data: bytes = b"") -> None:
    stdout.write(line.encode() + b"\n" + data)
    stdout.flush()


def leave() -> None:
    os._exit(1)


if fault == "silent":
    time.sleep(60)
say(f"AUTH-SUCCESS {uuid}")
for raw in iter(stdin.readline, b""):
    line = raw.decode().rstrip("\n")
    verb, _, rest = line.partition(" ")
    with open(log, "a") as file:
        file.write(line + "\n")
    if fault == "hangs" and verb != "VERSION":
        time.sleep(60)
    match verb:
        case "VERSION":
            version = min(int(rest), version)
            say(f"VERSION {version}")
        case "BYPASS":
            pass
        case "CHECKPRESENT":
            say("SUCCESS" if content else "FAILURE")
        case "LOCKCONTENT":
            say("SUCCESS" if content else "FAILURE")
            if fault == "dies-locked":
                stdin.readline()
        case "UNLOCKCONTENT":
            pass
        case "GETTIMESTAMP":
            say("ERROR no clock" if fault == "no-timestamp" else f"TIMESTAMP {int(time.monotonic())}")
        case "REMOVE" | "REMOVE-BEFORE":
            if fault == "dies-removing":
                leave()
            say("SUCCESS")
        case "PUT" if fault == "error-on-put":
            say("ERROR this repository is read-only; write access denied")
        case "PUT" if fault == "failure-on-put":
            say("FAILURE")
        case "PUT" if fault == "claims":
            say("ALREADY-HAVE")
        case "PUT" if fault == "names-others":
            say("ALREADY-HAVE-PLUS 99999999-0000-4000-8000-000000000009")
        case "PUT":
            say("PUT-FROM 0")
        case "ERROR":
            leave()
        case "DATA":
            length = int(rest)
            if fault == "dies-in-data":
                stdin.read(min(length, 1000))
                leave()
            if fault == "slow":
                while length:
                    length -= len(stdin.read(min(length, 100_000)))
                    time.sleep(0.2)
            stdin.read(length)
            stdin.readline()
            if fault == "dies-after-data":
                leave()
            say("FAILURE" if fault == "failure-after-data" else "SUCCESS")
        case "GET":
            offset = int(rest.split(" ")[0])
            body = content[offset:]
            if fault == "breaks-off":
                say(f"DATA {len(body)}", body[: len(body) // 2])
                leave()
            say(f"DATA {len(body)}", body)
            say("VALID" if content else "INVALID")
        case "SUCCESS" | "FAILURE":
            pass
