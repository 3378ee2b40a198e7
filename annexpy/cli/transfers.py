"""How the transfer of one key is shown."""

from __future__ import annotations

from annexpy.actions.results import Transfer
from annexpy.cli.show import Report

__all__ = ["show_transfer"]


def show_transfer(report: Report, transfer: Transfer, *, file: str | None = None) -> None:
    """One line, or one object with ``stored``, ``already``, ``failed`` and how it was verified."""
    fields = {
        "stored": sorted(transfer.stored.uuids),
        "already": sorted(transfer.stored.already),
        "failed": {str(uuid): str(error) for uuid, error in transfer.stored.failed.items()},
        "bytes-sent": transfer.bytes,
        "verified": transfer.verified.value,
    }
    words = [file] if file is not None else [str(transfer.key)]
    if transfer.error is not None:
        report.failed(transfer.error, transfer.key, file=file, input=words, **fields)
        return
    notes = ["already there"] if transfer.stored.already and not transfer.stored.uuids else []
    if transfer.offset:
        notes.append(f"resumed at {transfer.offset}")
    if transfer.stored.uuids and transfer.verified.value != "hash":
        notes.append(f"verified: {transfer.verified.value}")
    notes += [f"failed: {error}" for error in transfer.stored.failed.values()]
    text = None if file is None or report.options.quiet else f"put {file} {transfer.key}{_brackets(notes)} ok"
    report.done(transfer.key, file=file, input=words, note="; ".join(notes), text=text, **fields)


def _brackets(notes: list[str]) -> str:
    return f" ({'; '.join(notes)})" if notes else ""
