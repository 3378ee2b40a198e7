"""``python -m tests.simulation``: campaigns, one seed again, every interleaving, planted mistakes."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from math import inf
from multiprocessing import get_context
from pathlib import Path

_OFTEN = 30.0
"""Seconds between two words of progress."""


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    arguments.add_argument("--seeds", type=int, help="so many schedules")
    arguments.add_argument("--minutes", type=float, help="as many schedules as so many minutes have")
    arguments.add_argument("--first", type=int, default=0, help="the first seed")
    arguments.add_argument("--jobs", type=int, help="processes")
    arguments.add_argument("--json", type=Path, help="write a report to this file")
    arguments.add_argument("--go-on", action="store_true", help="add to what that file says already")
    arguments.add_argument("--keep", action="store_true", help="note failing seeds, so that they are run ever after")
    arguments.add_argument("--seed", type=int, help="one schedule again, event by event")
    arguments.add_argument("--scene", help="of that schedule, when it is not to be drawn")
    arguments.add_argument("--exhaustive", action="store_true", help="every interleaving of two drops")
    arguments.add_argument("--long", action="store_true", help="of more of them")
    arguments.add_argument("--mutants", action="store_true", help="plant mistakes and see who catches them")
    arguments.add_argument("--limit", type=int, default=400, help="schedules for each of those")
    asked = arguments.parse_args()
    if asked.seed is not None:
        return _replay(asked.seed, asked.scene)
    if asked.exhaustive:
        return _exhaustive(asked.long, asked.jobs)
    if asked.mutants:
        return _mutants(asked.limit, asked.jobs)
    return _campaign(asked)


def _replay(seed: int, scene: str | None) -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    from tests.simulation.run import install, run_schedule

    install()
    report = run_schedule(seed, trace=True, scene=scene)
    print("\n".join(report.trace))
    print(f"seed {seed}, {report.scene or 'anything'}: {report.events} events, digest {report.digest:08x}")
    for text in report.violations:
        print(f"VIOLATION {text}")
    return 1 if report.violations else 0


def _campaign(asked: argparse.Namespace) -> int:
    from tests.simulation.campaign import KEPT, Summary, kept_seeds, run_campaign

    shown = -inf
    stopped = False

    def told(summary: Summary) -> None:
        nonlocal shown
        if time.monotonic() - shown > _OFTEN:
            shown = time.monotonic()
            count, wrong, rate = summary.schedules, len(summary.violations), summary.runs[-1]["rate"]
            print(f"{count} schedules, {wrong} with violations, {rate} a second", flush=True)
            if asked.json:
                summary.save(asked.json)

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    seeds = asked.seeds if asked.seeds is not None or asked.minutes is not None else 500
    earlier = Summary.of(asked.json) if asked.go_on and asked.json and asked.json.exists() else None
    summary = run_campaign(
        asked.first,
        seeds=seeds,
        minutes=asked.minutes,
        jobs=asked.jobs,
        also=() if earlier else kept_seeds(),
        told=told,
        earlier=earlier,
        enough=lambda: stopped,
    )
    print("\n".join(summary.lines()))
    if asked.json:
        summary.save(asked.json)
    if asked.keep and summary.violations:
        with KEPT.open("a") as file:
            file.writelines(f"{seed}\n" for seed in summary.violations)
    return 0 if summary.ok else 1


def _exhaustive(long: bool, jobs: int | None) -> int:
    from tests.simulation.exhaustive import LONG, SETTINGS, explore

    states = wrong = 0
    with ProcessPoolExecutor(jobs or len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        for setting, found in zip(SETTINGS + LONG * long, pool.map(explore, SETTINGS + LONG * long), strict=True):
            states += found.states
            wrong += bool(found.violation)
            print(f"{found.states:9} states, {found.removals:7} removals: {setting} {found.violation}", flush=True)
    print(f"{states:9} states in all, {wrong} settings with violations")
    return 1 if wrong else 0


def _mutants(limit: int, jobs: int | None) -> int:
    from tests.simulation.campaign import try_mutant
    from tests.simulation.mutants import MUTANTS

    os.environ["PYTHONHASHSEED"] = "0"
    missed = 0
    with ProcessPoolExecutor(jobs or len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        tried = [pool.submit(try_mutant, number, limit) for number in range(len(MUTANTS))]
        print("| mutant | caught by | after | by this |\n|---|---|---|---|")
        for mutant, future in zip(MUTANTS, tried, strict=True):
            after, what = future.result()
            missed += not what
            print(f"| {mutant.name} | {mutant.where if what else 'NOBODY'} | {after} | {what} |", flush=True)
    print(f"{len(MUTANTS) - missed} of {len(MUTANTS)} caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
