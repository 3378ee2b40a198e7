"""How results look: one line for people, or one JSON object with git-annex's field names.

Failures go to stderr as ``annexpy: COMMAND: message`` and, with ``--json``, into ``error-messages`` and
``error-class`` of the object instead.

Source: fact sheet reliability-and-ecosystem, section 3.2; ``git annex … --json`` of 10.20261026.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from annexpy.cli.options import Options
from annexpy.errors import AnnexError, NotEnoughCopies
from annexpy.keys.key import Key

if TYPE_CHECKING:  # it brings more than the commands without a network need
    from annexpy.actions.doctor import Finding
    from annexpy.actions.explain import Explanation
    from annexpy.actions.results import DropResult, Moved, Transfer
    from annexpy.actions.sync import Synced
    from annexpy.actions.verify import Checked
    from annexpy.actions.whereis import Location

__all__ = [
    "Report",
    "human_size",
    "long_size",
    "printable",
    "whereis_locations",
    "write_bytes",
    "write_json",
    "write_line",
]


class Report:
    """Prints the results of one command and remembers whether any failed."""

    def __init__(self, options: Options, command: str) -> None:
        self.options, self.command = options, command
        self.failures = 0
        self._found: dict[str, int] = {}

    @property
    def exit_code(self) -> int:
        """0 when everything succeeded, else 1."""
        return 1 if self.failures else 0

    def done(
        self,
        key: Key | None = None,
        *,
        file: str | None = None,
        input: Iterable[str] = (),
        note: str = "",
        text: str | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """One success.

        Args:
            key: What it was about.
            file: The file, when the user named one.
            input: The words of the user that led to it.
            note: How it went, in brackets.
            text: Printed instead of the usual line.
            fields: More fields for JSON.
        """
        if self.options.json:
            write_json(self._object(key, file, input, note, True, [], dict(fields or {})))
        elif text is not None:
            write_line(text)
        elif not self.options.quiet:
            write_line(" ".join(filter(None, (*self._words(key, file), f"({note})" if note else "", "ok"))))

    def failed(
        self,
        error: AnnexError | str,
        key: Key | None = None,
        *,
        file: str | None = None,
        input: Iterable[str] = (),
        note: str = "",
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """One failure. The command goes on with the rest."""
        self.failures += 1
        message = str(error)
        if self.options.json:
            more = dict(fields or {})
            if isinstance(error, AnnexError):
                more["error-class"] = type(error).__name__
            if isinstance(error, NotEnoughCopies):
                more |= {"copies": error.have, "needed": error.need}
                more |= {"counted": error.counted, "not-counted": error.missing}
            write_json(self._object(key, file, input, note, False, [message], more))
            return
        if not self.options.quiet and (key is not None or file is not None):
            write_line(" ".join(filter(None, (*self._words(key, file), f"({note})" if note else "", "failed"))))
        self._complain(message)

    def transfer(self, result: Transfer, *, note: str = "", file: str | None = None, input: Iterable[str] = ()) -> None:
        """One transfer. A copy that failed somewhere makes the command fail, also when others succeeded."""
        stored = result.stored
        fields: dict[str, object] = {"stored": sorted(stored.uuids), "already": sorted(stored.already)}
        if not result.ok:
            self.failed(result.error or "nobody has it now", result.key, note=note, file=file, input=input)
            return
        if stored.failed:
            fields["failed"] = {uuid: str(error) for uuid, error in stored.failed.items()}
            for uuid, error in stored.failed.items():
                self.failures += 1
                self._complain(f"{result.key}: {uuid}: {error}")
        if not stored.uuids:
            note = f"{note} already there".lstrip()
        elif result.offset:
            note = f"{note} from byte {result.offset} on".lstrip()
        self.done(result.key, note=note, file=file, input=input, fields=fields)

    def dropped(self, result: DropResult, *, note: str = "") -> None:
        """One drop. Copies that stay are named."""
        removed = sorted(result.removed.uuids) if result.removed is not None else []
        if result.error is not None:
            self.failed(result.error, result.key, note=note, fields={"removed": removed, "wanted": []})
            return
        fields: dict[str, object] = {"removed": removed}
        if result.proof is not None:
            names = [copy.name for copy in result.proof.counted]
            note = (
                f"{note} {len(names)} {'copy stays' if len(names) == 1 else 'copies stay'}: {', '.join(names)}".lstrip()
            )
            fields["counted"] = names
        self.done(result.key, note=note, fields=fields)

    def moved(self, result: Moved, *, note: str = "") -> None:
        """One move: what went wrong first."""
        if result.transfer.ok and result.dropped is not None:
            self.dropped(result.dropped, note=note)
        else:
            self.transfer(result.transfer, note=note)

    def checked(self, result: Checked) -> None:
        """One key of fsck: what was set right is in the note, what is wrong in the error."""
        compared = "checksum..." if result.verified.value == "hash" else result.verified.value
        note = " ".join([*([compared] if result.present else []), *result.repaired])
        fields = {"present": result.present, "repaired": list(result.repaired)}
        if result.error is not None:
            self.failed(result.error, result.key, note=note, fields=fields)
        else:
            self.done(result.key, note=note, fields=fields)

    def explained(self, found: Explanation) -> None:
        """What decides about one copy of one key."""
        if not self.options.json:
            write_line("\n".join(printable(line) for line in found.lines()))
            return
        proof, error = found.result.proof, found.result.error
        fields: dict[str, object] = {
            "from": found.place,
            "numcopies": found.copies.num,
            "numcopies-from": found.copies.num_from,
            "mincopies": found.copies.min,
            "mincopies-from": found.copies.min_from,
            "droppable": found.allowed,
            "counted": dict(proof.how) if proof is not None else {},
            "not-counted": dict(proof.not_counted) if proof is not None else {},
        }
        if isinstance(error, NotEnoughCopies):
            fields |= {"counted": error.counted, "not-counted": error.missing}
        if proof is not None and proof.deadline is not None:
            fields["seconds-left"] = round(proof.deadline.at - found.now)
        if found.where is not None:
            fields |= {
                "whereis": whereis_locations(found.where.locations),
                "untrusted": whereis_locations(found.where.untrusted),
            }
        errors = [] if error is None or isinstance(error, NotEnoughCopies) else [str(error)]
        write_json(self._object(found.key, None, (), "", True, errors, fields))

    def found(self, finding: Finding) -> None:
        """One finding of the doctor, with the command that mends it."""
        self.failures += 1
        self._found[finding.problem] = self._found.get(finding.problem, 0) + 1
        if self.options.json:
            fields = {
                "problem": finding.problem,
                "repository": finding.path,
                "detail": finding.detail,
                "mend": finding.command,
            }
            write_json(self._object(finding.key, None, (), "", False, [], dict(fields)))
            return
        what = f"{printable(str(finding.key))}: " if finding.key is not None else ""
        write_line(f"{finding.problem} in {printable(finding.path)}: {what}{printable(finding.detail)}")
        if finding.command:
            write_line(f"    {printable(finding.command)}")

    def found_in_all(self, repositories: Sequence[str]) -> None:
        """The last line of the doctor."""
        if not self.options.json and not self.options.quiet:
            found = ", ".join(f"{count} {problem}" for problem, count in sorted(self._found.items()))
            many = f"{len(repositories)} {'repository' if len(repositories) == 1 else 'repositories'}"
            write_line(f"{many} examined: {found or 'nothing wrong'}")

    def synced(self, result: Synced) -> None:
        """The exchange with one remote."""
        did = [what for what, done in (("fetched", result.fetched), ("sent", result.sent)) if done]
        fields = {"remote": result.remote, "fetched": result.fetched, "sent": result.sent}
        if result.error is not None:
            self.failed(result.error, file=result.remote, fields=fields)
        else:
            self.done(file=result.remote, note=", ".join(did) or "nothing new", fields=fields)

    def answers(self, found: Iterable[tuple[Key, bool]], *, yes: str, no: str) -> None:
        """Answers to a question, in words; "no" makes the exit code 1 and is no error."""
        silent = self.options.quiet and not self.options.json
        for key, is_so in found:
            if is_so and silent:
                continue
            self.failures += not is_so
            note = yes if is_so else no
            if self.options.json:
                write_json(self._object(key, None, (), note, is_so, [], {}))
            else:
                write_line(f"{self.command} {printable(str(key))} ({note}) {'ok' if is_so else 'failed'}")

    def _complain(self, message: str) -> None:
        if not self.options.json:
            sys.stdout.flush()
            print(f"annexpy: {self.command}: {printable(message)}", file=sys.stderr, flush=True)

    def _words(self, key: Key | None, file: str | None) -> list[str]:
        what = file if file is not None else str(key) if key is not None else ""
        return [self.command, printable(what)]

    def _object(
        self,
        key: Key | None,
        file: str | None,
        input: Iterable[str],
        note: str,
        success: bool,
        errors: list[str],
        fields: dict[str, object],
    ) -> dict[str, object]:
        made: dict[str, object] = {"command": self.command, "error-messages": errors, "input": list(input)}
        if key is not None:
            made["key"] = str(key)
        if file is not None:
            made["file"] = file
        if note:
            made["note"] = note
        return made | {"success": success} | fields


def whereis_locations(locations: Iterable[Location]) -> list[dict[str, object]]:
    """The locations of an answer of whereis, for JSON."""
    return [
        {"uuid": one.uuid, "description": one.description, "here": one.here, "urls": list(one.urls)}
        for one in locations
    ]


def write_json(fields: dict[str, object]) -> None:
    """One JSON object on a line of stdout, fields sorted; undecodable bytes become U+FFFD, as in git-annex."""
    import json

    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    _write(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") + "\n")


def write_line(text: str) -> None:
    """*text* on a line of stdout, byte for byte unless that is a terminal."""
    _write((printable(text, keep="\n\t") if sys.stdout.isatty() else text) + "\n")


def _write(text: str) -> None:
    write_bytes(text.encode("utf-8", "surrogateescape"))


def write_bytes(data: bytes) -> None:
    """*data* to stdout, at once."""
    try:
        sys.stdout.buffer.write(data)
        # A program that reads us line by line (--batch) waits for this line.
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is still in the buffer would be tried again, and fail again, at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.ClickException(f"cannot write to standard output: {error.strerror}") from error


def printable(text: str, keep: str = "") -> str:
    """*text* with control characters and undecodable bytes shown as escapes, so that no key can drive a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    if "\udc80" <= c <= "\udcff":  # a byte of a name that is no UTF-8
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape", "backslashreplace").decode()


def human_size(size: int | None) -> str:
    """``300.01 kB``: decimal units and two places, as git-annex prints sizes."""
    if size is None:
        return "unknown"
    rounded, power = _rounded(size)
    return f"{rounded} {_UNITS[power]}"


def long_size(size: int) -> str:
    """``300.01 kilobytes``: as ``human_size``, in words, as git-annex prints the sizes of a whole repository."""
    rounded, power = _rounded(size)
    return f"{rounded} {_WORDS[power]}byte{'' if rounded == '1' else 's'}"


def _rounded(size: int) -> tuple[str, int]:
    power = 0
    while power < len(_UNITS) - 1 and size >= 1000 ** (power + 1):
        power += 1
    return f"{size / 1000**power:.2f}".rstrip("0").rstrip("."), power


_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_WORDS = ("", "kilo", "mega", "giga", "tera", "peta", "exa", "zetta", "yotta")
