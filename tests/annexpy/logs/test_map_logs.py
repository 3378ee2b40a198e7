"""The vectors of logs that give each field one value: each is a log, a command of git-annex, and what it printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from annexpy.logs import preferred, repos, settings
from annexpy.logs.compact import COMPACT
from annexpy.logs.paths import Log, identify
from annexpy.logs.repos import TrustLevel
from annexpy.uuids import UUID

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "map_logs.json").read_text("utf-8"))
UUID_IN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _printed_size(size: int) -> str:
    """As ``git annex maxsize`` has it: all digits, in the largest unit."""
    units = {10**15: "PB", 10**12: "TB", 10**9: "GB", 10**6: "MB", 10**3: "kB", 1: "B"}
    unit = next((unit for unit in units if size >= unit), 1)
    return f"{size / unit} {units[unit]}"


def printed(command: str, files: dict[str, bytes]) -> str:
    """What our parsers say to a command of git-annex, in the form that it prints."""

    def log(name: str) -> bytes:
        return files.get(name, b"")

    found = UUID_IN.search(command)
    uuid = UUID(found[0]) if found else UUID("")
    words = command.split()[2:]
    if words[0] == "info":
        # the vector asks in which of three lists the repository is; a dead one is in none
        level = repos.TRUST.parse(log("trust.log")).get(uuid, TrustLevel.SEMITRUSTED)
        return repr([] if level is TrustLevel.DEAD else [f"{level} repositories"])
    match words[0]:
        case "numcopies":
            number = settings.NUMCOPIES.parse(log("numcopies.log"))
            return "global numcopies is not set\n(default is 1)" if number is None else str(number)
        case "mincopies":
            number = settings.MINCOPIES.parse(log("mincopies.log"))
            return "global mincopies is not set" if number is None else str(number)
        case "group":
            return " ".join(sorted(repos.GROUPS.parse(log("group.log")).get(uuid, ())))
        case "wanted":
            return preferred.PREFERRED_CONTENT.parse(log("preferred-content.log")).get(uuid, "")
        case "required":
            return preferred.REQUIRED_CONTENT.parse(log("required-content.log")).get(uuid, "")
        case "groupwanted":
            return preferred.GROUP_PREFERRED_CONTENT.parse(log("group-preferred-content.log")).get(words[1], "")
        case "schedule":
            return repos.SCHEDULES.parse(log("schedule.log")).get(uuid, "")
        case "maxsize":
            size = repos.MAXSIZES.parse(log("maxsize.log")).get(uuid)
            return "" if size is None else _printed_size(size)
        case "config":
            assert words[1] == "--get"
            return settings.CONFIG.parse(log("config.log")).get(words[2], "")
        case _:
            pytest.fail(f"no answer of ours to: {command}")


@pytest.mark.vectors
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_map_log_vectors(case: dict[str, object]) -> None:
    files = {name: str(content).encode() for name, content in case["files"].items()}  # type: ignore[attr-defined]

    # the vectors were stripped of the blanks around them
    if "command" in case:
        assert printed(str(case["command"]), files).strip() == str(case["output"]).strip()
    for name, content in files.items():
        found = identify(name.encode())
        assert found is not None
        once = COMPACT[found[0]](content)
        assert COMPACT[found[0]](once) == once


def test_descriptions_of_the_vectors_without_command() -> None:
    by_name = {case["name"]: case for case in CASES}
    uuid = UUID("aaaaaaaa-0000-4000-8000-000000000001")

    for name, description in (("uuid desc timestamp", "foo timestamp=5s bar"), ("uuid dup", "two")):
        if name in by_name:
            content = by_name[name]["files"]["uuid.log"].encode()
            assert repos.DESCRIPTIONS.parse(content)[uuid] == description


def test_every_log_can_be_compacted() -> None:
    assert set(COMPACT) == set(Log)
