"""``python -m protocol_tests``: tries an implementation, and says where it leaves the protocol."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from protocol_tests import known as differences
from protocol_tests import report
from protocol_tests.catalogue import REQUIREMENTS
from protocol_tests.channel import Patience
from protocol_tests.known import Known, Verdict
from protocol_tests.need import Role
from protocol_tests.options import parse
from protocol_tests.place import Unusable
from protocol_tests.reach import reach
from protocol_tests.requirement import Requirement
from protocol_tests.run import Plan, Result, Status, run


def main(argv: list[str] | None = None) -> int:
    """The whole program; its exit code."""
    options = parse(argv)
    wanted = _wanted(options.only)
    if not wanted:
        print(f"protocol_tests: --only: no requirement begins with {options.only}", file=sys.stderr)
        return 2
    if unwritable := [path for path in (options.json, options.junit) if path and not path.absolute().parent.is_dir()]:
        print(f"protocol_tests: {unwritable[0]}: there is no such folder", file=sys.stderr)
        return 2
    if options.list:
        for one in wanted:
            print(f"{one.id}  {one.text}  [{one.document}]")
        return 0
    seed = secrets.randbits(32) if options.seed is None else options.seed
    try:
        known = differences.load(options.known) if options.known else None
        with tempfile.TemporaryDirectory(prefix="protocol-tests-") as folder:
            subject = reach(options, Path(folder), seed)
            print(f"{subject.name}: versions {options.versions}, role {options.role}, seed {seed}")
            plan = Plan(
                options.versions,
                Role(options.role),
                Patience(options.deadline),
                seed ^ secrets.randbits(64) if subject.lasting else seed,
                options.examples,
                options.hold,
            )
            results = run(subject, plan, wanted, lambda result: _tell(result, known, options.quiet))
            _write(options, results, known, subject=subject.name, role=options.role, seed=seed)
    except (Unusable, OSError, ValueError) as error:
        print(f"protocol_tests: {error}", file=sys.stderr)
        return 2
    print(report.summary(results, known))
    return _exit_code(results, known)


def _wanted(only: str) -> list[Requirement]:
    prefixes = tuple(part.strip() for part in only.split(",") if part.strip())
    return [one for one in REQUIREMENTS if not prefixes or one.id.startswith(prefixes)]


def _tell(result: Result, known: Known | None, quiet: bool) -> None:
    if not quiet or result.status is Status.FAIL:
        print(report.line(result, known), flush=True)


def _write(options: argparse.Namespace, results: Sequence[Result], known: Known | None, **about: object) -> None:
    if options.json:
        report.write_json(options.json, results, known, **about)
    if options.junit:
        report.write_junit(options.junit, results)
    if options.transcripts:
        report.write_transcripts(options.transcripts, results)


def _exit_code(results: Sequence[Result], known: Known | None) -> int:
    if known is None:
        bad = any(result.status is Status.FAIL for result in results)
    else:
        bad = any(differences.judge(result, known) in (Verdict.NEW, Verdict.VANISHED) for result in results)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
