"""The requirements as a specification to read: Markdown, with the known differences of the reference."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from importlib import import_module
from itertools import groupby
from typing import Final

from protocol_tests import transcript
from protocol_tests.catalogue import REQUIREMENTS
from protocol_tests.known import SHIPPED, load
from protocol_tests.need import NEWEST, Need
from protocol_tests.requirement import Requirement
from protocol_tests.transcript import Row

__all__ = ["specification"]

_REFERENCE: Final = "git-annex"
_WIDTH: Final = 110


def specification() -> str:
    """The page."""
    return "\n".join([*_begin(), *_themes(), *_differences(), ""])


def _begin() -> Iterator[str]:
    yield "# git-annex P2P as spoken\n"
    yield (
        f"{len(REQUIREMENTS)} requirements that an implementation of the protocol keeps, each in a sentence and each "
        "tried by `python -m protocol_tests` ([how](protocol-tests.md)). *Rests on* names the section of git-annex's "
        "documentation, or the recording of git-annex under `tests/transcripts` that shows it. *Versions* are those "
        f"of the protocol, 0 to {NEWEST}, in which it holds.\n"
    )
    yield (
        "A line is words with one blank between them, and LF at its end. `DATA n` is followed by n bytes and nothing "
        "else. The client asks, the server answers; the end of the stream in place of an answer means that nobody "
        "knows what happened.\n"
    )


def _themes() -> Iterator[str]:
    for theme, group in groupby(REQUIREMENTS, key=lambda one: one.theme):
        requirements = list(group)
        module = import_module(requirements[0].check.__module__)
        sentence = (module.__doc__ or "").partition("\n")[0].strip().rstrip(".")
        yield f"## {theme.capitalize()}\n"
        yield f"{sentence}.\n"
        yield "| | requirement | versions | rests on |"
        yield "|---|---|---|---|"
        for one in requirements:
            yield f"| {one.id} | {_text(one.text)}{_only(one)} | {_versions(one)} | {_text(one.document)} |"
        yield ""


def _only(one: Requirement) -> str:
    told = {Need.PROCESS: "a process for each session", Need.TOKEN: "clients authenticate"}
    needs = [said for need, said in told.items() if need in one.needs]
    return f" *({', '.join(needs)})*" if needs else ""


def _versions(one: Requirement) -> str:
    return f"{one.since}" if one.since == one.until else f"{one.since}–{one.until}"


def _text(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _differences() -> Iterator[str]:
    known = load(_REFERENCE)
    yield f"## Where {known.name} differs\n"
    yield (
        f"{len(known.differences)} of the requirements fail with it, in the shortest conversations that show it. "
        "Lines of `C` are the client's, those of `S` the server's; where several connections take part, a letter names "
        "each. `protocol_tests/differences` holds the recordings, which `annexpy replay` plays.\n"
    )
    texts = {one.id: one.text for one in REQUIREMENTS}
    for number in sorted(known.differences, key=list(texts).index):
        yield f"### {number}\n"
        yield f"{texts[number]}\n"
        yield f"{known.differences[number]}\n"
        yield "```text"
        yield from _conversation(transcript.read(SHIPPED / _REFERENCE / f"{number}.jsonl"))
        yield "```\n"


def _conversation(rows: Iterable[Row]) -> Iterator[str]:
    """What was said, a row a line."""
    kept = list(rows)
    several = len({row["conn"] for row in kept if "conn" in row}) > 1
    for row in kept:
        wire = f"{row['conn']} " if several and "conn" in row else ""
        match row["dir"]:
            case "C>S" | "S>C":
                yield from (f"{wire}{row['dir'][0]}: {line}" for line in _said(row))
            case "request":
                yield f"{wire}C: {row['comment'].partition(chr(13))[0][:_WIDTH]}"
            case "answer":
                yield f"{wire}S: {_answer(row['comment'])[:_WIDTH]}"
            case "EOF":
                yield f"{wire}   ({row['comment']})"
            case "exec" if several:
                yield f"{wire}   (connects to {'the gateway' if 'nodes' in row['comment'] else _place(row['comment'])})"


def _place(comment: str) -> str:
    return comment.partition(" (")[0] if comment.startswith("node ") else "the repository"


def _answer(comment: str) -> str:
    head, _, body = comment.partition("\r\n")
    return f"{head.partition(' ')[0]} {body}".strip()


def _said(row: Row) -> Iterator[str]:
    if "len" in row:
        yield f"({row['len']} bytes)"
    elif "b64" in row:
        yield f"({len(base64.b64decode(row['b64']))} bytes)"
    else:
        for line in str(row["text"]).splitlines():
            shown = line.encode("unicode_escape").decode()
            yield shown if len(shown) <= _WIDTH else shown[: _WIDTH - 1] + "…"
