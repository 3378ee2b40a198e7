"""``python -m tests.fuzz --inputs N --json FILE``: every parser is fed N inputs, one parser after the other.

Exit 1 when one of them broke, hung or kept memory; the inputs that did it are in the report.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import platform
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from random import Random

from tests.fuzz.campaign import MOST_PROBLEMS, Report, Target, run
from tests.fuzz.planted import PLANTED
from tests.fuzz.targets import targets


def chosen(names: list[str], *, planted: bool) -> list[Target]:
    every = PLANTED if planted else targets()
    return [target for target in every if not names or any(fnmatch(target.name, name) for name in names)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000, help="for each parser")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of wall time, for all of it")
    parser.add_argument(
        "--slice", type=float, default=float("inf"), help="seconds for a parser before the next has a turn"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="these parsers; may be a pattern")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the report; what is in it already counts")
    parser.add_argument("--input", metavar="BASE64", help="feed this one input of a report to the parsers of --only")
    parser.add_argument(
        "--planted", action="store_true", help="parsers with planted faults, all of which must be found"
    )
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    every = chosen(options.only, planted=options.planted)
    if options.input is not None:
        for target in every:
            print(target.name, target.feed(base64.b64decode(options.input), Random(options.seed)))
        return 0
    reports = {target.name: Report(target.name) for target in every}
    if options.json is not None and options.json.exists():
        for saved in json.loads(options.json.read_text())["parsers"]:
            reports[saved["name"]] = Report(**saved)
    until = time.monotonic() + options.seconds
    while waiting := [target for target in every if wanting(reports[target.name], options.inputs)]:
        for target in sorted(waiting, key=lambda target: reports[target.name].inputs):
            seconds = min(options.slice, until - time.monotonic())
            if seconds <= 0:
                return conclude(reports, options)
            report = reports[target.name]
            report.add(run(target, options.inputs - report.inputs, seconds, f"{options.seed} {report.rounds}"))
            show(report)
            save(reports, options)
    return conclude(reports, options)


def wanting(report: Report, inputs: int) -> bool:
    return report.inputs < inputs and len(report.problems) < MOST_PROBLEMS


def show(report: Report) -> None:
    print(
        f"{report.name:28} {report.inputs:9} inputs, {report.refused:9} refused,"
        f" {report.inputs / max(report.cpu_seconds, 1e-6):8.0f}/s, slowest {report.slowest_milliseconds:7.1f} ms,"
        f" kept {report.kept >> 10:6} KiB, at once {report.at_once >> 10:6} KiB, {len(report.problems)} problems",
        flush=True,
    )
    for problem in report.problems[:3]:
        print(f"    {problem['what']}\n{problem['trace']}")


def save(reports: dict[str, Report], options: argparse.Namespace) -> None:
    if options.json is not None:
        whole = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "python": platform.python_version(),
            "seed": options.seed,
            "asked": options.inputs,
            "inputs": sum(report.inputs for report in reports.values()),
            "least": min(report.inputs for report in reports.values()),
            "problems": sum(len(report.problems) for report in reports.values()),
            "parsers": [report.as_json() for report in reports.values()],
        }
        options.json.write_text(json.dumps(whole, indent=1) + "\n")


def conclude(reports: dict[str, Report], options: argparse.Namespace) -> int:
    whole = sum(report.inputs >= options.inputs for report in reports.values())
    print(f"{sum(report.inputs for report in reports.values())} inputs; {whole} of {len(reports)} parsers had all")
    save(reports, options)
    return any(report.problems for report in reports.values())


if __name__ == "__main__":
    sys.exit(main())
