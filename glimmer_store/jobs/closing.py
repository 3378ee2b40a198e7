"""The end of a job, or of one run of it: its status is written down, and whoever asked to be told is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from glimmer_store.jobs.control import ControlFile
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.states import JobState
from glimmer_store.jobs.waterfall import JobLog

if TYPE_CHECKING:
    from glimmer_store.jobs.callback import Callback

__all__ = ["close_job"]


async def close_job(ledger: Ledger, state: JobState, told: Mapping[str, object]) -> Callback | None:
    """Note how a run ended, and call back when the job did.

    Args:
        ledger: Of the job.
        state: As its tasks say.
        told: What the callback is told besides.

    Returns:
        How the callback went; None when there is none to be made.

    Raises:
        ConfigError: ``control.toml`` is malformed.
        JobError: The URL cannot be called.
    """
    if state not in (JobState.SUCCEEDED, JobState.CANCELLED) and ControlFile(ledger.folder).read().cancelled:
        state = JobState.CANCELLED
    log, spec = JobLog(ledger.folder), ledger.spec
    if state not in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
        log.say(f"{spec.type} stopped - it can be run again")
        return None
    reason = {JobState.FAILED: " - some keys need a person", JobState.CANCELLED: " by an operator"}.get(state, "")
    status = log.say(f"{spec.type} {state}{reason}", state)
    if not spec.callback:
        return None
    from glimmer_store.jobs.callback import tell  # HTTP takes time to import

    return await tell(
        ledger.folder, spec.callback, status, {"id": spec.id, "type": spec.type, "status": status, **told}
    )
