"""Trying requirements, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from protocol_tests.channel import Gone, Patience, Silent
from protocol_tests.keys import Contents
from protocol_tests.need import Role
from protocol_tests.requirement import Requirement
from protocol_tests.subject import Subject
from protocol_tests.transcript import Row, Transcript
from protocol_tests.trial import NotTried, Trial
from protocol_tests.wire import Violation

__all__ = ["Plan", "Result", "Status", "run", "try_one"]

_UNREACHABLE: Final = 2


class Status(StrEnum):
    """How it went."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be tried, and how.

    Attributes:
        versions: Of the protocol.
        role: That the subject has.
        patience: How long to wait for an answer.
        seed: Decides all contents, and all that state machines draw.
        examples: How many conversations a state machine makes up.
        hold: For how many seconds a lock is held where it is to be seen that it lasts.
    """

    versions: Sequence[int] = (0, 1, 2, 3, 4)
    role: Role = Role.WRITE
    patience: Patience = field(default_factory=Patience)
    seed: int = 0
    examples: int = 10
    hold: float = 11.0


@dataclass(frozen=True, slots=True)
class Result:
    """How one requirement fared.

    Attributes:
        requirement: Which.
        status: FAIL when it failed in any version.
        versions: The status in each version that it was tried in.
        reason: Why it failed, or was not tried.
        transcript: What was said: of the failure, else of the last version that was tried.
        seconds: How long it took.
    """

    requirement: Requirement
    status: Status
    versions: dict[int, Status] = field(default_factory=dict)
    reason: str = ""
    transcript: tuple[Row, ...] = ()
    seconds: float = 0.0


def run(
    subject: Subject,
    plan: Plan,
    requirements: Iterable[Requirement],
    told: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Try *requirements*; each result is *told* when it is known.

    A server that cannot be reached at all, or does not greet, is not asked for everything else: what was not tried
    is skipped, and says so.
    """
    results, mute = [], 0
    for one in requirements:
        if mute < _UNREACHABLE:
            result, greeted = _try(subject, plan, one)
            mute = 0 if greeted else mute + 1
        else:
            result = Result(one, Status.SKIP, reason="not tried: the server does not greet")
        results.append(result)
        told(result)
    return results


def try_one(subject: Subject, plan: Plan, one: Requirement) -> Result:
    """Try a single requirement in all versions of *plan* that it has."""
    return _try(subject, plan, one)[0]


def _try(subject: Subject, plan: Plan, one: Requirement) -> tuple[Result, bool]:
    start = time.monotonic()
    if missing := subject.missing(one.needs):
        return Result(one, Status.SKIP, reason=f"it needs {missing[0].said}"), True
    if plan.role not in one.roles:
        return Result(one, Status.SKIP, reason=f"not tried with the role {plan.role}"), True
    tried: dict[int, Status] = {}
    status, reason, rows, greeted = Status.SKIP, "none of the versions that were asked for has it", [], True
    for version in one.versions(plan.versions):
        transcript = Transcript(f"{one.id}: {one.text} (version {version})")
        status, reason = _attempt(subject, plan, one, version, transcript)
        rows, tried[version] = transcript.rows, status
        if status is Status.FAIL:
            greeted = not any(row["dir"] == "exec" for row in rows) or any(row["dir"] == "S>C" for row in rows)
            transcript.note("", "comment", f"fails at version {version}: {reason}")
            break
    return Result(one, status, tried, reason, tuple(rows), time.monotonic() - start), greeted


def _attempt(
    subject: Subject, plan: Plan, one: Requirement, version: int, transcript: Transcript
) -> tuple[Status, str]:
    contents = Contents(f"{plan.seed}/{one.id}/{version}")
    trial = Trial(
        subject,
        version,
        contents,
        plan.patience,
        role=plan.role,
        seed=plan.seed,
        examples=plan.examples,
        hold=plan.hold,
        transcript=transcript,
    )
    try:
        one.check(trial)
    except NotTried as reason:
        return Status.SKIP, str(reason)
    except (Violation, Gone, Silent) as failure:
        return Status.FAIL, str(failure)
    finally:
        trial.close()
    return Status.PASS, ""
