"""The ``annexpy`` command: from argv to an exit code.

Start-up is part of the product, so ``annexpy --version`` imports nothing but this module
(docs/exit-codes.md says what the numbers mean).
"""

from __future__ import annotations

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
    from annexpy.cli.run import run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
