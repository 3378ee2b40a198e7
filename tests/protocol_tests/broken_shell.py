"""``broken_shell.py FAULT SHELL p2pstdio PATH CLIENT --uuid UUID``: SHELL, with a fault between it and its client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

FAULTS = {
    "says nothing": "P-001",
    "dies at once": "P-001",
    "speaks of something else": "P-001",
    "shows anything": "P-003",
    "is always there": "P-020",
    "is never there": "P-021",
    "hangs in the middle": "P-030",
    "forgets locks": "P-112",
    "forgets locks when asked again": "P-113",
    "believes its log": "P-026",
    "promises what is gone": "P-045",
    "remembers that it had it": "P-073",
    "locks what is gone": "P-116",
    "waits for ever": "P-154",
    "leaves with 3": "P-168",
    "writes outside": "P-194",
}
"""Fault → the requirement that must notice."""

SAID = {
    "speaks of something else": (rb"AUTH-SUCCESS .*", b"Welcome to this server!"),
    "is always there": (rb"(?m)^FAILURE$", b"SUCCESS"),
    "is never there": (rb"(?m)^SUCCESS$", b"FAILURE"),
    "believes its log": (rb"(?m)^FAILURE$", b"SUCCESS"),
    "promises what is gone": (rb"DATA 0\nINVALID", b"DATA 0\nVALID"),
    "locks what is gone": (rb"(?m)^FAILURE$", b"SUCCESS"),
}


def main(fault: str, argv: list[str]) -> int:
    path = Path(next(word for word in argv if word.endswith(".git")))
    if fault == "says nothing":
        time.sleep(60)
    if fault == "dies at once":
        return 7
    if fault == "writes outside":
        (path.parent / f"x{time.monotonic_ns()}").touch()
    if fault.startswith("forgets locks"):
        for kept in path.glob("annex/objects/*/*/*/*.rt[lm]"):
            kept.unlink()
    greeting, offers = b"", 0
    if fault == "shows anything":
        at = argv.index("--uuid")
        greeting = f"AUTH-SUCCESS {argv[at + 1]}".encode()
        del argv[at : at + 2]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as shell:
        deaf = b"NOTIFYCHANGE\n" if fault == "waits for ever" else b""
        threading.Thread(target=relay, args=(0, shell.stdin.fileno(), shell.stdin.close, deaf), daemon=True).start()
        while data := os.read(shell.stdout.fileno(), 65536):
            if greeting:
                data = re.sub(rb"AUTH-SUCCESS .*", greeting, data)
            if fault == "hangs in the middle" and data.startswith(b"DATA 5000"):
                os.write(1, data[:100])
                time.sleep(60)
            if fault == "remembers that it had it":
                offers += data.startswith(b"PUT-FROM")
                data = data if offers < 2 else data.replace(b"PUT-FROM 0", b"ALREADY-HAVE")
            wrong, instead = SAID.get(fault, (rb"(?!)", b""))
            os.write(1, re.sub(wrong, instead, data))
    return 3 if fault == "leaves with 3" else shell.returncode


def relay(source: int, to: int, close, deaf: bytes) -> None:
    while data := os.read(source, 65536):
        os.write(to, data.replace(deaf, b""))
    close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
