"""Run a command and turn however it ends into an exit code and one line of text."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import click

from annexpy.cli.group import COMMANDS, SERVER, annexpy
from annexpy.errors import AnnexError, InvalidInput

__all__ = ["DONE", "INTERRUPTED", "SOME_FAILED", "USAGE", "in_event_loop", "run"]

DONE = 0
SOME_FAILED = 1
USAGE = 2
INTERRUPTED = 130

T = TypeVar("T")


def run(words: Sequence[str]) -> int:
    """Run the command in *words*; the exit code."""
    _open_standard_streams()
    name = next((word for word in words if word in COMMANDS), "")
    with _told_to_end(name):
        return _run(words, name)


@contextmanager
def _told_to_end(name: str) -> Iterator[None]:
    """SIGTERM ends the command *name* as Ctrl-C does; for a server both are orders."""
    if name == SERVER:
        from annexpy.server.process import ORDERS

        with ORDERS.expected():
            yield
        return
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run(words: Sequence[str], name: str) -> int:
    try:
        answer = annexpy.main(args=list(words), prog_name="annexpy", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        return _interrupted(name)
    except KeyboardInterrupt:
        return _interrupted(name)
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        click.echo(f"annexpy: {name}: {error.format_message()}", err=True)
        return SOME_FAILED
    except InvalidInput as error:
        _complain(name, error)
        return USAGE
    except AnnexError as error:
        _complain(name, error)
        return SOME_FAILED
    except BrokenPipeError:
        # Whoever read our output has gone. Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    except OSError as error:
        _complain(name, error)
        return SOME_FAILED
    return answer if isinstance(answer, int) else DONE


def _open_standard_streams() -> None:
    """Closed ones lead to nowhere: else the next file that is opened would be taken for our input or output."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="surrogateescape", closefd=False))  # noqa: SIM115


def in_event_loop(work: Callable[[], Awaitable[T]]) -> T:
    """Run *work* to its end. Ctrl-C cancels it, so that everything is closed before this raises KeyboardInterrupt."""
    import anyio

    try:
        return anyio.run(work)
    except BaseExceptionGroup as group:
        from annexpy.server.process import one_of

        raise one_of(group, KeyboardInterrupt, AnnexError, click.ClickException) from None


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):
        raise KeyboardInterrupt  # started in the background of a script, where Ctrl-C is not for us
    # An event loop turns SIGINT into a cancellation, which is the tidiest way out of it.
    signal.raise_signal(signal.SIGINT)


def _complain(name: str, error: AnnexError | OSError) -> None:
    if isinstance(error, OSError) and error.strerror and not isinstance(error, AnnexError):
        where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        click.echo(f"annexpy: {name}: {where}{error.strerror}", err=True)
    else:
        click.echo(f"annexpy: {name}: {error}", err=True)


def _interrupted(name: str) -> int:
    if name == SERVER:  # which is how a server ends
        return DONE
    click.echo(
        f"annexpy: {name}: interrupted. What is done is recorded and what had begun can be resumed: "
        "run the same command again to go on.",
        err=True,
    )
    return INTERRUPTED
