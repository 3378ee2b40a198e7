"""Many made-up conversations, of which the shortest that fails is kept.

hypothesis draws and shrinks; what is reported is what was really said, not what hypothesis says about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy

from protocol_tests.channel import Gone, Silent
from protocol_tests.transcript import Row
from protocol_tests.trial import Trial
from protocol_tests.wire import Violation

__all__ = ["Search", "try_machine", "try_with"]

_SHRINKING: Final = 30.0
"""Seconds that may go into making a failure shorter."""


class Search:
    """The conversations of one check."""

    def __init__(self, trial: Trial) -> None:
        """They are like *trial*, each with a transcript of its own."""
        self.trial = trial
        self._failure: tuple[str, list[Row]] | None = None
        self._last: list[Row] = []
        self._end = 0.0

    @property
    def over(self) -> bool:
        """A failure was found, and time for shorter ones is over."""
        return self._failure is not None and time.monotonic() > self._end

    @contextmanager
    def attempt(self) -> Iterator[Trial]:
        """One conversation; a failure in it is kept if it is the shortest, and raised."""
        inner = self.trial.another()
        try:
            with self.watched(inner):
                yield inner
        finally:
            inner.close()

    @contextmanager
    def watched(self, inner: Trial) -> Iterator[None]:
        """Part of a conversation."""
        try:
            yield
        except (Violation, Gone, Silent) as failure:
            if self._failure is None:
                self._end = time.monotonic() + _SHRINKING
            if self._failure is None or len(inner.transcript.rows) <= len(self._failure[1]):
                self._failure = str(failure), inner.transcript.rows
            raise
        finally:
            self._last = inner.transcript.rows

    def conclude(self, run: Callable[[], object]) -> None:
        """Run it all.

        Raises:
            Violation: Something failed; the transcript of the trial is that of the shortest failure.
        """
        try:
            run()
        except (Violation, Gone, Silent, HypothesisException, BaseExceptionGroup):
            if self._failure is None:
                raise
        self.trial.transcript.rows += self._failure[1] if self._failure else self._last
        if self._failure:
            raise Violation(self._failure[0])


def _settings(trial: Trial, steps: int = 30) -> settings:
    return settings(
        max_examples=trial.examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )


def try_machine(trial: Trial, make: Callable[[Search], type[RuleBasedStateMachine]], steps: int = 30) -> None:
    """Let the state machine that *make* builds talk to the subject.

    Raises:
        Violation: It found an answer that the model does not give.
    """
    search = Search(trial)
    machine = seed(trial.seed)(make(search))
    search.conclude(lambda: run_state_machine_as_test(machine, settings=_settings(trial, steps)))


def try_with(trial: Trial, strategy: SearchStrategy[Any], check: Callable[[Trial, Any], None]) -> None:
    """*check* with everything that *strategy* draws.

    Raises:
        Violation: One of them failed.
    """
    search = Search(trial)

    def one(drawn: Any) -> None:
        if not search.over:
            with search.attempt() as inner:
                check(inner, drawn)

    search.conclude(seed(trial.seed)(_settings(trial)(given(strategy)(one))))
