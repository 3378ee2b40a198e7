"""What an operator does to a job: pause, resume, cancel, limit, try again. For the command line and the HTTP API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import annexpy as annex
from glimmer_store.jobs.control import BY_OPERATOR, Control, ControlFile
from glimmer_store.jobs.event import Event
from glimmer_store.jobs.lease import new_worker
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.places import named
from glimmer_store.jobs.spec import JobError
from glimmer_store.jobs.states import FailureKind, State

__all__ = ["cancel", "pause", "resume", "retry", "set_limits"]


def _uuids(ledger: Ledger, places: Sequence[str]) -> list[str]:
    known = (*ledger.spec.dests, *ledger.spec.sources)
    return [str(named(known, name).uuid) for name in places]


def _change(ledger: Ledger, new: Control) -> Control:
    if new.cancelled:
        raise JobError("the job was cancelled", remedy="plan a new one: what is stored needs no second copy")
    return new


def pause(ledger: Ledger, *, reason: str = "", places: Sequence[str] = ()) -> Control:
    """Move nothing from the next chunk on; with *places*, only nothing to or from those.

    Raises:
        JobError: The job was cancelled, or a name is not known.
        ConfigError: ``control.toml`` is malformed.
    """
    held = dict.fromkeys(_uuids(ledger, places), f"{BY_OPERATOR}{reason or 'by an operator'}")

    def change(now: Control) -> Control:
        _change(ledger, now)
        if held:
            return replace(now, held={**now.held, **held})
        return replace(now, paused=True, reason=reason)

    return ControlFile(ledger.folder).change(change)


def resume(ledger: Ledger, *, places: Sequence[str] = ()) -> Control:
    """Go on; with *places*, only to and from those that were held.

    Raises:
        JobError: A name is not known.
        ConfigError: It was cancelled, or ``control.toml`` is malformed.
    """
    uuids = _uuids(ledger, places)

    def change(now: Control) -> Control:
        if not uuids:
            return now.resumed()
        return replace(now, held={uuid: why for uuid, why in now.held.items() if uuid not in uuids})

    return ControlFile(ledger.folder).change(change)


def cancel(ledger: Ledger, *, reason: str = "") -> Control:
    """Move nothing any more. What is stored and proven stays, and is registered. This is for good.

    Raises:
        ConfigError: ``control.toml`` is malformed.
    """
    return ControlFile(ledger.folder).change(lambda now: replace(now, cancelled=True, reason=reason))


def set_limits(ledger: Ledger, limits: Mapping[str, object], *, place: str = "") -> Control:
    """Change limits from the next chunk on; those of one *place* where it is named.

    Raises:
        JobError: The name is not known.
        ConfigError: A limit is not known or malformed, or ``control.toml`` is.
    """
    table = {"places": {_uuids(ledger, [place])[0]: dict(limits)}} if place else limits
    return ControlFile(ledger.folder).change(lambda now: now.limited(table))


def retry(ledger: Ledger, kinds: Sequence[FailureKind] = (), *, clock: annex.Clock | None = None) -> dict[str, int]:
    """Plan tasks anew that failed, or that wait for their next try, with all their tries.

    Args:
        ledger: Of the job.
        kinds: Only what failed like that; none: whatever it was.
        clock: For the events.

    Returns:
        Kind → tasks.

    Raises:
        JobError: The ledger is malformed.
    """
    now, done = (clock or annex.SystemClock()).wall(), dict[str, int]()
    with ledger.writer(f"{new_worker()}.operator") as writer:
        for shard in ledger.shards():
            events = []
            for task, one in zip(ledger.tasks(shard), ledger.fold(shard).values(), strict=True):
                last = one.last
                if last is None or last.state not in (State.FAILED, State.RETRY_WAIT):
                    continue
                kind = last.kind or FailureKind.TERMINAL
                if kinds and kind not in kinds:
                    continue
                done[kind] = done.get(kind, 0) + 1
                events.append(
                    Event(
                        now,
                        ledger.spec.id,
                        task.key,
                        task.dest,
                        last.state,
                        State.PLANNED,
                        one.attempt + 1,
                        writer.worker,
                        text="an operator asked for another try",
                    )
                )
            if events:
                writer.write(shard, events)
                writer.close(shard)
                ledger.reopen(shard)
    return done
