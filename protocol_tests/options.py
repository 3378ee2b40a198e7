"""The command line: what is on trial, and how."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from protocol_tests.need import NEWEST, Role

__all__ = ["parse", "versions"]


def versions(text: str) -> list[int]:
    """``0-4``, ``3``, ``0,2,4``.

    Raises:
        argparse.ArgumentTypeError: Nothing of the kind.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d)(?:-(\d))?", part.strip())
        if not match:
            raise argparse.ArgumentTypeError(f"{text!r}: not like 0-4")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last > NEWEST:
            raise argparse.ArgumentTypeError(f"{text!r}: versions go from 0 to {NEWEST}")
        found |= set(range(first, last + 1))
    return sorted(found)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: not a number of seconds")
    return seconds


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options; leaves the program with 2 on wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m protocol_tests",
        description="Try whether an implementation keeps the git-annex P2P protocol.",
        epilog="Exit code: 0 when nothing fails, 1 when a requirement fails, 2 on wrong usage.",
    )
    subject = parser.add_argument_group("what is on trial (one of them)").add_mutually_exclusive_group(required=True)
    subject.add_argument(
        "--command",
        metavar="COMMAND",
        help="a server on standard input and output, started for each session; {path} is a fresh bare repository, "
        "{uuid} its UUID, {client} that of the client",
    )
    subject.add_argument("--unix", metavar="PATH", help="a unix socket; see --token")
    subject.add_argument("--ssh", metavar="HOST:PATH", help="git-annex-shell there; the repository must exist")
    subject.add_argument(
        "--http", metavar="URL", help="http://HOST:PORT/git-annex/UUID; NAME:PASSWORD@ before HOST is said as Basic"
    )
    subject.add_argument("--list", action="store_true", help="show the requirements, and try nothing")

    more = parser.add_argument_group("about it")
    more.add_argument("--init", metavar="COMMAND", default="", help="run in a fresh repository, to make it ready")
    more.add_argument("--versions", type=versions, default=list(range(NEWEST + 1)), metavar="0-4")
    more.add_argument("--role", choices=[str(role) for role in Role], default="write", help="what a client may do")
    more.add_argument("--writer", metavar="COMMAND|unix:PATH|URL", default="", help="may write, where the role may not")
    more.add_argument(
        "--nodes",
        metavar="NUMBER|SOCKET,…",
        default="",
        help="a cluster: with --command that many nodes are made, with --unix these sockets are its nodes",
    )
    more.add_argument(
        "--http-server",
        metavar="COMMAND",
        default="",
        help="with --command and --nodes: shows the gateway {path} over HTTP at {port} of this machine, to everybody",
    )
    more.add_argument("--ca", type=Path, metavar="FILE", help="with https: certificates that are trusted, in PEM")
    more.add_argument("--uuid", default="", help="of the repository, where the address does not say it")
    more.add_argument(
        "--token",
        default="",
        help="with --unix: clients say AUTH with it (else the server speaks first); with --http: said as Bearer",
    )
    more.add_argument("--ssh-program", metavar="COMMAND", default="ssh -T", help="ssh and its options")
    more.add_argument("--ssh-shell", metavar="COMMAND", default="git-annex-shell", help="what is run there")

    how = parser.add_argument_group("how")
    how.add_argument("--only", metavar="ID,…", default="", help="these requirements, or those that begin so")
    how.add_argument("--deadline", type=_seconds, default=10.0, metavar="SECONDS", help="for each wait (default: 10)")
    how.add_argument("--seed", type=int, metavar="NUMBER", help="decides all that is drawn (default: a random one)")
    how.add_argument(
        "--examples", type=int, default=10, metavar="NUMBER", help="conversations that are made up (default: 10)"
    )
    how.add_argument(
        "--hold", type=_seconds, default=11.0, metavar="SECONDS", help="for which a lock has to last (default: 11)"
    )
    how.add_argument("--known", metavar="FILE|git-annex", default="", help="known differences, which are no failure")

    out = parser.add_argument_group("output, besides the table")
    out.add_argument("--json", type=Path, metavar="FILE")
    out.add_argument("--junit", type=Path, metavar="FILE")
    out.add_argument("--transcripts", type=Path, metavar="FOLDER", help="failing conversations, for annexpy replay")
    out.add_argument("--quiet", action="store_true", help="only what fails, and the last line")
    options = parser.parse_args(argv)
    _check(parser, options)
    return options


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    if options.examples < 1:
        parser.error("--examples: at least 1")
    if options.init and not options.command:
        parser.error("--init goes with --command")
    if options.nodes and not (options.command or options.unix):
        parser.error("--nodes goes with --command or --unix")
    if options.nodes and options.command and not re.fullmatch(r"[1-9]", options.nodes):
        parser.error("--nodes: with --command, a number from 1 to 9")
    if options.http_server and not (options.command and options.nodes):
        parser.error("--http-server goes with --command and --nodes")
    if options.ca and not (options.ca.is_file() and options.http):
        parser.error("--ca: a file, with --http")
    if options.ssh and ":" not in options.ssh:
        parser.error("--ssh: HOST:PATH")
    if options.command and "{path}" not in options.command:
        parser.error("--command: without {path} the server cannot know its repository")
