"""The process that reads copies back: ``python -m glimmer_store.jobs.rereading JOB WORKER``.

It has connections of its own, so what it gets is what the destination has stored, not what the copier still had in its
hands; of a repository on this machine the pages of the file are dropped from the cache before. What it finds it signs,
and the attestation is on disk before it tells. It ends when its input does.

A request is a line ``{"shard": …, "dest": UUID, "keys": […]}``, the answer a line with, for each key, ``[verdict or
null, reason, bytes, seconds, method]``; null: the destination could not be asked, which proves nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio

import annexpy as annex
from glimmer_store.attest import Attestation, Method, Signer, Verdict
from glimmer_store.jobs.ledger import Ledger, Writer
from glimmer_store.jobs.places import Places, connected
from glimmer_store.jobs.spec import JobSpec
from glimmer_store.proving import reread_many

__all__ = ["main"]

_JOBS = 8


class _Rereading:
    def __init__(self, spec: JobSpec, places: Places, writer: Writer, signer: Signer) -> None:
        self._spec, self._places, self._writer, self._signer = spec, places, writer, signer
        writer.public_key(signer.name, signer.public)

    # Any: parsed JSON
    async def answer(self, request: dict[str, Any]) -> list[list[object]]:
        keys, dest = [annex.Key.parse(key) for key in request["keys"]], request["dest"]
        remote = self._places.remote(dest)
        if remote is None:
            return [[None, f"{self._places.name(dest)}: cannot be used here", 0, 0.0, ""] for _ in keys]
        begun = time.monotonic()
        shown = await self._shown(remote, keys) if self._spec.verify == "peer" else set()
        found = await reread_many(remote, [key for key in keys if key not in shown], cached=False)
        each = (time.monotonic() - begun) / len(keys)
        answers: list[list[object]] = []
        proofs: list[Attestation] = []
        for key in keys:
            method: Method = "peer" if key in shown else "reread"
            verdict, why = (Verdict.GOOD, "") if key in shown else found[key]
            answers.append([None if verdict is None else verdict.value, why, key.size or 0, each, method])
            if verdict is not None:
                proofs.append(self._signer.attest(key, dest, self._places.name(dest), verdict, method))
        self._writer.attest(request["shard"], self._signer.sign(proofs))
        self._writer.close()
        return answers

    async def _shown(self, remote: annex.Remote, keys: Sequence[annex.Key]) -> set[annex.Key]:
        """Those that it has read itself, answering a challenge rightly; compared with copies on this machine."""
        here = [self._places.remote(place.uuid) for place in self._spec.sources if self._places.is_here(place.uuid)]
        shown: set[annex.Key] = set()
        left = iter(keys)

        async def worker() -> None:
            for key in left:
                for copy in here:
                    if copy is None:
                        continue
                    try:
                        (proof,) = await annex.prove([remote], key, copy)
                    except annex.AnnexError:
                        continue  # that copy is none to compare with
                    if proof is annex.Verified.HASH:
                        shown.add(key)
                    break

        async with anyio.create_task_group() as group:
            for _ in range(_JOBS):
                group.start_soon(worker)
        return shown


async def _serve(job: str, worker: str) -> None:
    ledger = Ledger.open(job)
    async with connected(ledger.spec) as places:
        with ledger.writer(f"{worker}.reread") as writer:
            rereading = _Rereading(ledger.spec, places, writer, Signer.of_user())
            async with anyio.create_task_group() as group:
                group.start_soon(_reach, ledger.spec, places)
                await _answer_all(rereading)
                group.cancel_scope.cancel()


async def _reach(spec: JobSpec, places: Places) -> None:
    """Connect to the destinations while the first copies are made."""
    for place in spec.dests:
        remote = places.remote(place.uuid)
        if remote is not None:
            with suppress(annex.AnnexError):  # it is tried again when something is asked of it
                await remote.connect()


async def _answer_all(rereading: _Rereading) -> None:
    while line := await anyio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
        answer = await rereading.answer(json.loads(line))
        try:
            sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
            sys.stdout.buffer.flush()
        except BrokenPipeError:  # the worker was killed; what was found is written down
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return


def main() -> None:
    """Answer until the input ends."""
    job, worker = sys.argv[1:]
    try:
        anyio.run(_serve, job, worker)
    except KeyboardInterrupt:  # Ctrl-C reaches the worker as well, which says so
        sys.exit(130)


if __name__ == "__main__":
    main()
