"""Write the report of a job: ``report.json`` and ``report.md`` in its folder; HTML and metrics where wanted."""

from __future__ import annotations

import json
from pathlib import Path

from anyio import to_thread

from glimmer_store.jobs.control import replace_file
from glimmer_store.jobs.figures_html import page
from glimmer_store.jobs.figures_text import markdown
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.metrics import write_metrics
from glimmer_store.jobs.survey import REPORT, Survey, safety_of

__all__ = ["report"]


async def report(
    ledger: Ledger, *, html: Path | None = None, metrics: Path | None = None
) -> tuple[dict[str, object], str]:
    """Look at everything, and write it down; each file is replaced as a whole.

    Args:
        ledger: Of the job.
        html: Where to write a page.
        metrics: Where to write OpenMetrics text.

    Returns:
        What is in ``report.json``, and in ``report.md``.

    Raises:
        StoreError: The ledger, or a node, is malformed.
    """
    safety = await safety_of(Path(ledger.spec.dataset))  # None where the dataset is on another machine
    figures = await to_thread.run_sync(lambda: Survey(ledger).look(safety=safety))
    told, text = figures.to_json(), markdown(figures)
    replace_file(ledger.folder / REPORT, json.dumps(told, indent=1).encode() + b"\n")
    replace_file(ledger.folder / "report.md", text.encode("utf-8", "replace"))
    if html is not None:
        replace_file(html, page(figures).encode())
    if metrics is not None:
        write_metrics(figures, metrics)
    return told, text
