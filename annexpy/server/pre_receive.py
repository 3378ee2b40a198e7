"""The pre-receive hook with which a server judges pushes of somebody who may not do everything.

git runs it when the objects have arrived and before any ref moves; what is refused leaves nothing behind. The hooks of
the repository run as well, afterwards in the case of its own pre-receive. ``push_rules`` says what is allowed.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from shlex import quote
from tempfile import TemporaryDirectory
from typing import Final

import anyio

from annexpy.errors import AccessDenied, ConnectFailed
from annexpy.server.push_rules import PushRules, is_annex_branch, ref_objection, tree_objection
from annexpy.system import CLOCK
from annexpy.uuids import parse_uuid

__all__ = ["guarded", "main"]

_RULES: Final = "ANNEXPY_PUSH_RULES"
_OWN_HOOK: Final = "ANNEXPY_PUSH_HOOK"
_BRANCH: Final = b"refs/heads/git-annex"
_EMPTY_TREE: Final = b"4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_FILE: Final = b"100644"
_MAX_LOG: Final = 64 * 1024 * 1024
"""Bytes of one file of the branch."""
_SHOWN: Final = 5
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
"""Where the hook finds us."""


@asynccontextmanager
async def guarded(directory: str, rules: PushRules) -> AsyncIterator[tuple[list[str], dict[str, str]]]:
    """Options for ``git``, and variables, with which ``receive-pack`` in *directory* takes only what *rules* allow.

    Raises:
        AccessDenied: Nobody could run the hook, so there is no push.
        ConnectFailed: git cannot be run.
    """
    try:
        said = await anyio.run_process(["git", "-C", directory, "rev-parse", "--git-path", "hooks"])
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConnectFailed("git", str(error)) from error
    own = os.path.join(directory, os.fsdecode(said.stdout.rstrip(b"\n")))
    with TemporaryDirectory(prefix="annexpy-hooks-") as folder:
        _write_hooks(folder, own)
        path = os.pathsep.join(filter(None, (_PACKAGE, os.environ.get("PYTHONPATH"))))
        variables = {
            "PYTHONPATH": path,
            _OWN_HOOK: os.path.join(own, "pre-receive"),
            _RULES: json.dumps(
                {
                    "uuids": None if rules.uuids is None else sorted(rules.uuids),
                    "hosts": sorted(rules.hosts),
                    "levels": rules.levels,
                }
            ),
        }
        yield ["-c", f"core.hooksPath={folder}"], variables


def _write_hooks(folder: str, own: str) -> None:
    """In *folder*: ours, and one for each hook in *own*."""
    lines = {"pre-receive": f"{quote(sys.executable)} -m annexpy.server.pre_receive"}
    if os.path.isdir(own):
        for name in os.listdir(own):
            path = os.path.join(own, name)
            if name not in lines and not name.endswith(".sample") and os.access(path, os.X_OK):
                lines[name] = f'{quote(path)} "$@"'
    for name, line in lines.items():
        path = os.path.join(folder, name)
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(f"#!/bin/sh\nexec {line}\n")
        os.chmod(path, stat.S_IRWXU)
        if not os.access(path, os.X_OK):  # git would leave it out, and say so to nobody
            raise AccessDenied(f"{folder}: hooks cannot be run there; set TMPDIR to a place without noexec")


def main() -> int:
    """Judge the push that git describes on stdin; then let the repository's own hook do it."""
    said = sys.stdin.buffer.read()
    given = json.loads(os.environ[_RULES])
    uuids = given["uuids"]
    rules = PushRules(
        uuids=None if uuids is None else frozenset(map(parse_uuid, uuids)),
        hosts=frozenset(map(parse_uuid, given["hosts"])),
        levels=given["levels"],
    )
    objections: list[str] = []
    for line in said.splitlines():
        old, new, ref = line.split(b" ", 2)
        objections += _judge(old, new, ref, rules)
    for reason in objections[:_SHOWN]:
        sys.stderr.write(f"refused: {reason}\n")
    if len(objections) > _SHOWN:
        sys.stderr.write(f"refused: and {len(objections) - _SHOWN} more\n")
    if objections:
        return 1
    own = os.environ[_OWN_HOOK]
    if os.access(own, os.X_OK):
        return subprocess.run([own], input=said, check=False).returncode
    return 0


def _judge(old: bytes, new: bytes, ref: bytes, rules: PushRules) -> Iterator[str]:
    name = ref.decode("utf-8", "backslashreplace")
    if reason := ref_objection(ref):
        yield f"{name}: {reason}"
    elif rules.uuids is not None and is_annex_branch(ref):
        for reason in _judge_branch(old, new, ref, rules):
            yield f"{name}: {reason}"


def _judge_branch(old: bytes, new: bytes, ref: bytes, rules: PushRules) -> Iterator[str]:
    replaces = ref == _BRANCH
    if not new.strip(b"0"):
        if replaces:
            yield "it may not be deleted"
        return
    if replaces:
        known = old if old.strip(b"0") else None
    else:
        known = _output("rev-parse", "--verify", "--quiet", _BRANCH).strip() or None
    if replaces and known is not None and _git("merge-base", "--is-ancestor", known, new).returncode:
        yield "it may only be added to: merge first, as git annex sync does"
        return
    now = CLOCK.wall()
    with _Blobs() as blobs:
        for path, before, after, mode in _changes(known or _EMPTY_TREE, new):
            shown = path.decode("utf-8", "backslashreplace")
            if after and mode != _FILE:
                yield f"{shown}: no ordinary file"
                continue
            contents = blobs.get(before), blobs.get(after)
            if reason := tree_objection(path, *contents, rules, now=now, replaces=replaces):
                yield f"{shown}: {reason}"


def _git(*arguments: str | bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], stdout=subprocess.PIPE, check=False, env=_environment())


def _environment() -> dict[str, str]:
    return {**os.environ, "GIT_NO_REPLACE_OBJECTS": "1"}


def _output(*arguments: str | bytes) -> bytes:
    return _git(*arguments).stdout


def _changes(known: bytes, new: bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """Path, old blob, new blob, new mode; b"" for a blob that is not there."""
    done = _git("diff-tree", "-r", "-z", "--no-renames", "--full-index", known, new)
    if done.returncode:
        raise SystemExit("refused: git cannot compare the trees")
    fields = iter(done.stdout.split(b"\0"))
    for head in fields:
        if not head:
            return
        _, mode, before, after, _ = head[1:].split(b" ")
        yield next(fields), before if before.strip(b"0") else b"", after if after.strip(b"0") else b"", mode


class _Blobs:
    """What blobs hold, by one git that goes on running."""

    def __enter__(self) -> _Blobs:
        self._process = subprocess.Popen(
            ["git", "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment()
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def get(self, sha: bytes) -> bytes:
        if not sha:
            return b""
        to, said = self._process.stdin, self._process.stdout
        assert to is not None
        assert said is not None
        to.write(sha + b"\n")
        to.flush()
        head = said.readline().split()
        if len(head) != 3 or head[1] != b"blob" or int(head[2]) > _MAX_LOG:
            raise SystemExit(f"refused: {sha.decode()} is no file, or too large")
        content = said.read(int(head[2]))
        said.read(1)
        return content


if __name__ == "__main__":
    sys.exit(main())
