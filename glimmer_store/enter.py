"""Enter what emits produce into the dataset: one commit and one push for all that wait.

Every emit lets its entry wait in the spool, then tries to lead. One process leads at a time (a lock that the
system takes from a process that dies): it commits everything that waits, in the dataset's own branch and in the
git-annex branch, pushes both to every durable repository, and only then says of each entry that it is done. A
process that died is no matter: its entries are entered by whoever leads next. While bytes of contents move,
nobody holds a lock.

The index of the graph is one file that names every node, so writing it costs more the more there are. It is
therefore brought up to date when a sixteenth of its length waits, and when a graph is closed: the cost per emit
stays flat. Until then the rows that are missing stand in ``<git dir>/glimmer-store/unindexed``.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

import annexpy as annex
from glimmer_store.entry import Entry, Part, Row, Spool, changes, write_whole
from glimmer_store.errors import SidecarError, shell_line
from glimmer_store.patience import Patience

__all__ = ["INDEX", "SECONDS", "Entering", "Outcome", "read_index"]

INDEX = "_glimmer-index.json"
_PROFILE = b"""profile: general
standard: none
version: "0.1"
status: local
description: Outputs of any kind; adds no fields to the core types.
augments: {}
"""
_STATE = "glimmer-store"
_LOCK = "glimmer-store"
_SHARE = 16
_ROW_BYTES = 120
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.3  # hundreds that look every moment would starve the one that works
SECONDS = 900.0
"""How long an emit waits for others: a push to a far repository may take minutes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the history stands.

    Attributes:
        commit: What was pushed; None before the first commit.
        behind: Durable remote → why it does not have the history.
    """

    commit: str | None
    behind: Mapping[str, str]


class Entering:
    """The way into one dataset.

    Args:
        repository: The dataset.
        graph: Folder of its nodes, from its top.
        remotes: Names of the git remotes that get the history.
        seconds: How long an emit waits for others.
    """

    def __init__(
        self, repository: annex.Repository, graph: str, remotes: Iterable[str], *, seconds: float = SECONDS
    ) -> None:
        self._repository, self._graph, self._seconds = repository, graph, seconds
        self._remotes = tuple(remotes)
        self._state = Path(os.fsdecode(repository.git_dir)) / _STATE
        self._spool = Spool(self._state)
        self._index = Path(repository.path) / graph / INDEX

    async def enter(self, entry: Entry) -> Outcome:
        """Commit *entry* and push the history, or have it done by whoever leads.

        Args:
            entry: What to enter. When this raises or is cancelled, it still waits, and the next emit enters it.

        Raises:
            LockHeld: Somebody leads, or keeps the dataset locked, for longer than that; the error names who.
            AnnexError: The commit failed. A push that fails is part of the outcome.
        """
        name = await to_thread.run_sync(self._spool.add, entry)
        return await self._lead({name: entry}, self._seconds)

    async def complete(self, *, seconds: float) -> Outcome | None:
        """Enter what waits, and bring the index up to date; None when there was nothing to do."""
        if not self.unindexed() and not self._spool.waiting():
            return None
        return await self._lead({}, seconds)

    async def _lead(self, mine: Mapping[str, Entry], seconds: float) -> Outcome:
        lock = annex.OwnLock(self._repository, _LOCK)
        patience, pause = Patience(seconds), _FIRST_PAUSE
        try:
            while True:
                if (told := self._told(mine)) is not None:
                    return told
                if lock.try_acquire():
                    try:
                        return await self._led(mine, patience)
                    except annex.LockHeld as error:  # git-annex, or git, is at the dataset; what is ours waits on disk
                        patience.wait_for(error)
                    finally:
                        lock.release()
                else:
                    patience.wait_for(lock.error)
                await anyio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 1.5, _LONGEST_PAUSE)
        finally:
            lock.close()

    # -- leading --

    async def _led(self, mine: Mapping[str, Entry], patience: Patience) -> Outcome:
        if (told := self._told(mine)) is not None:
            return told
        # our own are entered even if the folder does not show them yet
        entries = {**mine, **await to_thread.run_sync(self._spool.waiting)}
        await to_thread.run_sync(self._commit, entries, not mine, patience.left)
        await self._repository.branch.commit(seconds=patience.left)
        behind = await self._push(patience)
        behind |= dict.fromkeys(self._unknown(), "the dataset has no git remote of that name")
        outcome = Outcome(self._tip(), behind)
        await to_thread.run_sync(self._tell, outcome, entries)
        for name in mine:
            self._spool.done(name)
        return outcome

    async def _push(self, patience: Patience) -> dict[str, str]:
        """Who does not have the history after that, and why: whoever has a repository locked is waited for."""
        behind: dict[str, annex.AnnexError] = {}
        names = self._known()
        while names:
            for one in await annex.push(self._repository, names, locked=patience.left):
                behind.pop(one.remote, None)
                if one.error is not None:
                    behind[one.remote] = one.error
            names = [name for name, error in behind.items() if isinstance(error, annex.LockHeld)]
            for name in names:
                error = behind[name]
                assert isinstance(error, annex.LockHeld)
                try:
                    patience.wait_for(error)
                except annex.LockHeld as over:
                    behind[name], names = over, []
        return {name: str(error) for name, error in behind.items()}

    def _commit(self, entries: Mapping[str, Entry], closing: bool, seconds: float) -> None:
        rows = [row for entry in entries.values() for row in entry.rows]
        waiting = self._note_rows(rows)
        every = list(entries.values())
        try:
            size = self._index.stat().st_size
        except FileNotFoundError:
            size = 0
        indexed = bool(waiting) and (closing or len(waiting) >= max(1, size // _ROW_BYTES // _SHARE))
        index = self._index_change(waiting) if indexed else {}
        head = annex.Head(self._repository)
        try:
            try:
                head.commit(changes(every) | index, _message(every), seconds=seconds)
            except (annex.LockHeld, annex.BranchConflict, annex.AccessDenied):
                raise
            except annex.RepositoryError:
                self._commit_one_by_one(head, entries)
                return
        finally:
            head.close()
        if index:
            self._unindexed_file.unlink(missing_ok=True)

    def _commit_one_by_one(self, head: annex.Head, entries: Mapping[str, Entry]) -> None:
        """One of them cannot be committed: that one is told so, and the others are not held up."""
        for name, entry in entries.items():
            try:
                head.commit(changes([entry]), _message([entry]))
            except (annex.LockHeld, annex.BranchConflict, annex.AccessDenied):
                raise
            except annex.RepositoryError as error:
                self._spool.fail(name, str(error))

    def _index_change(self, rows: list[Row]) -> dict[bytes, annex.FileChange]:
        def change(old: bytes | None) -> bytes:
            try:
                return _with_rows(old, rows, Path(self._repository.path).name, str(self._index))
            except SidecarError:
                if old is None:
                    raise
                return old  # somebody spoilt it: whoever reads it is told, and the nodes are found in their folders

        made = {os.fsencode(f"{self._graph}/{INDEX}"): annex.FileChange(change, merges=True)}
        try:
            general = json.loads(self._index.read_bytes()).get("default-domain") == "general"
        except (OSError, ValueError, AttributeError):
            general = not self._index.exists()
        if general:
            profile = os.fsencode(f"{self._graph}/_glimmer-profiles/general.yaml")
            made |= changes([Entry("", (Part(profile, "once", _PROFILE),))])
        return made

    def _tip(self) -> str | None:
        head = annex.Head(self._repository)
        try:
            return head.tip
        finally:
            head.close()

    def _known(self) -> list[str]:
        there = self._repository.config.remotes()
        return [name for name in self._remotes if name in there and there[name].url is not None]

    def _unknown(self) -> list[str]:
        return [name for name in self._remotes if name not in self._known()]

    # -- what is told to those that wait --

    def _tell(self, outcome: Outcome, entries: Iterable[str]) -> None:
        self._state.mkdir(exist_ok=True)
        said = json.dumps({"commit": outcome.commit, "behind": dict(outcome.behind)}).encode()
        try:
            same = (self._state / "pushed.json").read_bytes() == said
        except FileNotFoundError:
            same = False
        if not same:
            write_whole(self._state / "pushed.json", said)
        self._spool.finish(entries, behind=bool(outcome.behind))

    def _told(self, mine: Iterable[str]) -> Outcome | None:
        """What became of them, when somebody has entered one."""
        for name in mine:
            done = self._spool.done(name)
            if done is not None:
                return self._last() if done.behind else Outcome(self._tip(), {})
        return None

    def _last(self) -> Outcome:
        """How the last push ended, whoever made it: it was of everything that was entered until then."""
        try:
            said = json.loads((self._state / "pushed.json").read_bytes())
            return Outcome(said["commit"], said["behind"])
        except (OSError, ValueError, KeyError):
            return Outcome(self._tip(), {})

    # -- the index --

    @property
    def _unindexed_file(self) -> Path:
        return self._state / "unindexed"

    def unindexed(self) -> list[Row]:
        """Nodes that are committed, or about to be, and not in the index yet."""
        try:
            lines = self._unindexed_file.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(Row(*json.loads(line)))
            except (ValueError, TypeError):
                continue  # what a power cut left; the node file is there all the same
        return found

    def _note_rows(self, rows: list[Row]) -> list[Row]:
        """Add them to those that wait for the index; all of those."""
        known = {row.id for row in self.unindexed()} if rows else set()
        rows = [row for row in rows if row.id not in known]
        if rows:
            self._state.mkdir(exist_ok=True)
            with self._unindexed_file.open("ab") as file:
                file.writelines(json.dumps([row.id, row.type, row.path]).encode() + b"\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())
        return self.unindexed()


def _message(entries: list[Entry]) -> str:
    titles = [entry.title for entry in entries]
    if len(titles) == 1:
        return titles[0]
    if not titles:
        return "glimmer-store: index"
    return f"glimmer-store: {len(titles)} nodes\n\n" + "\n".join(titles)


# Any: parsed JSON
def read_index(data: bytes | None, dataset: str, name: str = INDEX) -> dict[str, Any]:
    """The index of a graph, or an empty one.

    Raises:
        SidecarError: It is malformed.
    """
    if data is None:
        return {"schema": "glimmer/v0.4.0", "dataset-name": dataset, "node-count": 0,
                "default-domain": "general", "nodes": []}  # fmt: skip
    try:
        index = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SidecarError(f"{name}: {error}", remedy=_brought_back(name)) from error
    if not isinstance(index, dict) or not isinstance(index.get("nodes"), list):
        raise SidecarError(f"{name}: no list `nodes`", remedy=_brought_back(name))
    return index


def _brought_back(name: str) -> str:
    folder, file = os.path.split(name)
    return shell_line("git", "-C", folder or ".", "checkout", "HEAD", "--", file)


def _with_rows(old: bytes | None, rows: Iterable[Row], dataset: str, name: str) -> bytes:
    index = read_index(old, dataset, name)
    known = {entry.get("id") for entry in index["nodes"] if isinstance(entry, dict)}
    new = {row.id: row for row in rows if row.id not in known}
    if not new:
        return old if old is not None else b""
    index["nodes"] += [{"id": row.id, "type": row.type, "path": row.path} for row in new.values()]
    index["node-count"] = len(index["nodes"])
    return (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
