"""The ``annexpy`` command: from argv to an exit code.

Start-up is part of the product, so ``annexpy --version`` imports nothing but this module
(docs/exit-codes.md says what the numbers mean).
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

from annexpy import __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        sys.stdout.write(f"annexpy {__version__}\n")
        return 0
    if argv is not None:
        return _run(words)
    # A process of its own. Almost all it makes at first are modules, and they stay: to look for garbage among them,
    # again and again and once more at the end, takes a fifth of the time of a short command.
    gc.set_threshold(50_000, 20, 20)
    code = _run(words)
    gc.freeze()
    return code


def _run(words: Sequence[str]) -> int:
    from annexpy.cli.run import run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
