"""Results as a table, as JSON and as JUnit's XML."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from protocol_tests import transcript
from protocol_tests.known import Known, Verdict, judge
from protocol_tests.run import Result, Status

__all__ = ["as_json", "line", "summary", "write_json", "write_junit", "write_transcripts"]


def line(result: Result, known: Known | None = None) -> str:
    """One row of the table."""
    one = result.requirement
    versions = " ".join(f"v{version} {status}" for version, status in result.versions.items()) or str(result.status)
    text = f"{one.id}  {result.status:<4}  {one.text}"
    if result.status is Status.PASS:
        return text
    text += f"\n             {versions}: {_plain(result.reason)}"
    if known and result.status is Status.FAIL and one.id in known.differences:
        text += f"\n             a known difference of {known.name}: {known.differences[one.id]}"
    return text


def summary(results: Sequence[Result], known: Known | None = None) -> str:
    """The line below the table."""
    count = Counter(result.status for result in results)
    text = (
        f"{len(results)} requirements: {count[Status.PASS]} pass, {count[Status.FAIL]} fail, {count[Status.SKIP]} skip"
    )
    if known:
        verdicts = Counter(judge(result, known) for result in results)
        text += (
            f"; {verdicts[Verdict.KNOWN]} known differences of {known.name}, {verdicts[Verdict.NEW]} others, "
            f"{verdicts[Verdict.VANISHED]} that are no longer there"
        )
    return text


def as_json(results: Sequence[Result], known: Known | None = None, **about: object) -> dict[str, Any]:
    """What ``--json`` writes; *about* is added at the top."""
    return {**about, "requirements": [_entry(result, known) for result in results]}


def _entry(result: Result, known: Known | None) -> dict[str, Any]:
    one = result.requirement
    entry: dict[str, Any] = {
        "id": one.id,
        "text": one.text,
        "status": str(result.status),
        "document": one.document,
        "since": one.since,
        "theme": one.theme,
        "versions": {str(version): str(status) for version, status in result.versions.items()},
        "reason": result.reason,
        "seconds": round(result.seconds, 3),
        "transcript": list(result.transcript),
    }
    if known and one.id in known.differences:
        entry["known"] = known.differences[one.id]
    return entry


def write_json(path: Path, results: Sequence[Result], known: Known | None = None, **about: object) -> None:
    """The file of ``--json``.

    Raises:
        OSError: It cannot be written.
    """
    path.write_text(json.dumps(as_json(results, known, **about), ensure_ascii=False, indent=1) + "\n")


def write_junit(path: Path, results: Sequence[Result]) -> None:
    """The file of ``--junit``: a test case for each requirement.

    Raises:
        OSError: It cannot be written.
    """
    count = Counter(result.status for result in results)
    suite = ElementTree.Element(
        "testsuite",
        name="protocol_tests",
        tests=str(len(results)),
        failures=str(count[Status.FAIL]),
        skipped=str(count[Status.SKIP]),
        time=f"{sum(result.seconds for result in results):.3f}",
    )
    for result in results:
        one = result.requirement
        name = f"{one.id} {one.text}"
        case = ElementTree.SubElement(suite, "testcase", classname=one.theme, name=name, time=f"{result.seconds:.3f}")
        if result.status is Status.FAIL:
            rows = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in result.transcript)
            ElementTree.SubElement(case, "failure", message=_plain(result.reason)).text = _plain(rows)
        elif result.status is Status.SKIP:
            ElementTree.SubElement(case, "skipped", message=_plain(result.reason))
    ElementTree.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def write_transcripts(folder: Path, results: Sequence[Result]) -> None:
    """The conversation of each failure as ``ID.jsonl``, for ``annexpy replay``.

    Raises:
        OSError: They cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        if result.status is Status.FAIL:
            transcript.write(folder / f"{result.requirement.id}.jsonl", result.transcript)


def _plain(text: str) -> str:
    """Without what neither a terminal nor XML takes."""
    return re.sub(
        r"[^\n\x20-\x7e\u00a1-\ud7ff\ue000-\ufffd]", lambda found: found[0].encode("unicode_escape").decode(), text
    )
