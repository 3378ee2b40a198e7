"""The view of a running job that is drawn anew: by rich where that is installed, plain otherwise."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from glimmer_store.jobs.figures_text import headline, screen
from glimmer_store.jobs.states import JobState
from glimmer_store.jobs.summary import Figures
from glimmer_store.jobs.survey import Survey

__all__ = ["follow"]

_ENDED: Final = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
_Draw: TypeAlias = Callable[[Figures], None]


def follow(
    survey: Survey, *, every: float, as_json: bool = False, sleep: Callable[[float], object] = time.sleep
) -> Figures:
    """Draw the figures until the job ends; the last ones.

    On a terminal the screen is drawn over; elsewhere there is one line for each look, or one JSON object.

    Args:
        survey: Looks at the job.
        every: Seconds between two looks.
        as_json: JSON lines.
        sleep: For tests.
    """
    with _json() if as_json else _terminal() as draw:
        while True:
            figures = survey.look()
            draw(figures)
            if figures.around.state in _ENDED:
                return figures
            sleep(every)


@contextmanager
def _json() -> Iterator[_Draw]:
    yield lambda figures: _say(json.dumps(figures.to_json()))


@contextmanager
def _terminal() -> Iterator[_Draw]:
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda figures: _say(f"{figures.first_line}; {headline(figures)}")
        return
    try:
        from glimmer_store.jobs.live_drawn import drawing
    except ImportError:  # rich is an extra
        yield lambda figures: _say("\x1b[H\x1b[J" + screen(figures))
        return
    last: list[Figures] = []
    with drawing() as draw:

        def draw_and_keep(figures: Figures) -> None:
            last[:] = [figures]
            draw(figures)

        yield draw_and_keep
    for figures in last:  # what was drawn is gone with the screen
        _say(screen(figures))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
