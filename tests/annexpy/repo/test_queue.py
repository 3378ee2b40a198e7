"""Records that wait in this process: whoever looks sees them, whatever other threads do meanwhile."""

from __future__ import annotations

import pytest

from annexpy.repo import queue as queue_module
from annexpy.repo.queue import Batch, Queue
from annexpy.repo.records import presence_record


def line(number: int, path: bytes = b"a.log") -> bytes:
    return presence_record(path, number, b"1", b"u%d" % number)


def seen(batches: list[Batch], path: bytes = b"a.log") -> list[bytes]:
    return [record.line for batch in batches for record in batch.records(path)]


def test_what_is_added_while_somebody_else_looks_is_seen_by_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Queue(lambda: None)
    queue.add(line(1))
    path_of = queue_module.record_path

    def meanwhile(record: bytes) -> bytes:
        monkeypatch.undo()
        queue.add(line(2))
        return path_of(record)

    monkeypatch.setattr(queue_module, "record_path", meanwhile)
    assert line(1) in seen(queue.batches())

    assert seen(queue.batches()) == [line(1), line(2)]
    assert queue.batches()[0].paths() == {b"a.log"}


def test_what_is_being_written_stays_visible_until_it_is_done_or_given_back() -> None:
    queue = Queue(lambda: b"tip")
    queue.add(line(1))
    batch = queue.take()
    queue.add(line(2))
    assert seen(queue.batches()) == [line(1), line(2)]
    queue.give_back(batch)
    assert seen(queue.batches()) == [line(1), line(2)]
    assert len(queue.batches()) == 1
    queue.done(queue.take())
    assert queue.batches() == []
