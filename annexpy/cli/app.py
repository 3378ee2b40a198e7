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

_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        sys.stdout.write(f"annexpy {__version__}\n")
        return 0
    if argv is not None:
        return _run(words)
    from annexpy.garbage import spare_modules

    spare_modules()
    if "serve" in words:
        from annexpy.server.process import ORDERS

        ORDERS.expect()  # to the very end of the process
    code = _run(words)
    gc.freeze()
    _end(code)
    return code


def _end(code: int) -> None:
    """End the process without taking apart what it made, unless somebody still wants something of it.

    To free every object of every module takes a tenth of the time of a short command. What asked to be called at the
    end is called.
    """
    import atexit
    import os
    import threading

    interrupted = code == _INTERRUPTED
    working = [thread for thread in threading.enumerate() if not thread.daemon]
    if (len(working) > 1 and not interrupted) or sys.gettrace() is not None or sys.getprofile() is not None:
        return
    atexit._run_exitfuncs()
    if interrupted:  # all is closed and said; a thread that waits for input, or for our reader, would wait for ever
        os._exit(code)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # the interpreter says what is wrong with them
    os._exit(code)


def _run(words: Sequence[str]) -> int:
    from annexpy.cli.run import run

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
