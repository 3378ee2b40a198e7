"""Logs against the real git-annex: the same changes made by both must leave the same bytes."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.logs.line import SECOND, VectorClock, union_merge
from annexpy.logs.location import LocationLog
from annexpy.logs.metadata import current_metadata, set_metadata
from annexpy.logs.paths import Log, identify, key_log
from annexpy.logs.preferred import GROUP_PREFERRED_CONTENT, PREFERRED_CONTENT, REQUIRED_CONTENT
from annexpy.logs.presence import DEAD, MISSING, PRESENT, set_dead, set_presence
from annexpy.logs.repos import DESCRIPTIONS, GROUPS, MAXSIZES, SCHEDULES, TRUST, TrustLevel
from annexpy.logs.settings import CONFIG, MINCOPIES, NUMCOPIES
from annexpy.uuids import UUID

pytestmark = pytest.mark.interop

ME = UUID("11111111-0000-4000-8000-00000000000f")
A, B, C = (UUID(f"{c * 8}-0000-4000-8000-00000000000{i}") for i, c in enumerate("abc", 1))
NOW = VectorClock(150 * SECOND)
KNOWN = b"".join(
    sorted(f"{uuid} {name} timestamp=1s\n".encode() for uuid, name in ((ME, "me"), (A, "A"), (B, "B"), (C, "C")))
)


class Annex:
    """A bare repository whose git-annex branch is written by hand, and the real git-annex in it."""

    def __init__(self, path: Path, git_annex: str, files: Mapping[bytes, bytes]) -> None:
        self.path, self._program = path, git_annex
        self.git("init", "-q", "--bare", ".")
        self.git("config", "annex.uuid", ME)
        self.git("config", "annex.version", "10")
        self.write("refs/heads/git-annex", {b"uuid.log": KNOWN} | files)
        # the first command makes the index of the branch; without it the next one would merge instead of replace
        self("merge")

    def __call__(self, *arguments: str, lines: list[bytes] | None = None) -> bytes:
        done = subprocess.run(
            [self._program, *arguments],
            cwd=self.path,
            input=None if lines is None else b"".join([line + b"\n" for line in lines]),
            capture_output=True,
            env=os.environ | {"GIT_ANNEX_VECTOR_CLOCK": "150s"},
        )
        assert done.returncode == 0, (arguments, done.stderr)
        return done.stdout

    def git(self, *arguments: str, data: bytes | None = None) -> bytes:
        return subprocess.run(["git", *arguments], cwd=self.path, input=data, check=True, capture_output=True).stdout

    def write(self, ref: str, files: Mapping[bytes, bytes]) -> None:
        parts = [f"commit {ref}\ncommitter Test <test@example.org> 1 +0000\ndata 1\nx\n".encode()]
        for path, content in files.items():
            quoted = b"".join([b"\\%03o" % byte for byte in path])
            parts.append(b'M 100644 inline "%b"\ndata %d\n%b\n' % (quoted, len(content), content))
        self.git("fast-import", "--quiet", data=b"".join(parts))

    def read(self) -> dict[bytes, bytes]:
        """Every file of the branch, after what the journal holds was committed."""
        self("merge")
        listed = [line.split(b"\t", 1) for line in self.git("ls-tree", "-r", "-z", "git-annex").split(b"\0") if line]
        answer = self.git("cat-file", "--batch", data=b"".join([about.split()[2] + b"\n" for about, _ in listed]))
        files, at = {}, 0
        for _, path in listed:
            start = answer.index(b"\n", at) + 1
            end = start + int(answer[at:start].split()[2])
            files[path], at = answer[start:end], end + 1
        return files


@pytest.fixture
def annex(git_annex: str, tmp_path: Path) -> Callable[[Mapping[bytes, bytes]], Annex]:
    return lambda files: Annex(tmp_path, git_annex, files)


def keys(count: int) -> list[Key]:
    return [Key(b"WORM", b"k%d" % i, 1, mtime=1) for i in range(count)]


def random_soup(dice: random.Random, infos: list[bytes]) -> bytes:
    """Lines of a presence log, and lines that only look like some."""
    clocks = [
        b"100s",
        b"100",
        b"+100s",
        b"0100s",
        b"100.10s",
        b"100.1s",
        b"149.999s",
        b"150s",
        b"150.5s",
        b"200.5s",
        b"-7s",
    ]
    clocks += [b"100.1234567890123s", b"-5.25s", b"-0.5s", b"9999999999999999999999s", b"1e2s", b"100.s", b".5s", b""]
    lines = []
    for _ in range(dice.choice([0, 1, 1, 2, 3, 4, 7])):
        status = dice.choice([b"1", b"1", b"0", b"0", b"X", b"2", b""])
        blank = b"  " if dice.random() < 0.05 else b" "
        lines.append(dice.choice(clocks) + b" " + status + blank + dice.choice(infos))
        if dice.random() < 0.1:
            lines.append(dice.choice([b"", b"garbage", b"\xff\xfe", b"100s", b"100s 1", b"\t"]))
    end = dice.choice([b"\n", b"\n", b"\n", b"\r\n", b"\r"])
    return end.join(lines) + (end if lines and dice.random() < 0.8 else b"")


INFOS = [uuid.encode() for uuid in (A, B, C, ME)] + [b"a b", b"x ", b" y", b"\xff", "é".encode(), b""]


@pytest.mark.parametrize("seed", [1, 2])
def test_union_merge_writes_the_bytes_of_git_annex(annex: Callable[..., Annex], seed: int) -> None:
    dice = random.Random(seed)
    paths = [key_log(key) for key in keys(300)]
    ours = {path: random_soup(dice, INFOS) for path in paths[:280]}
    theirs = {path: random_soup(dice, INFOS) if dice.random() < 0.8 else ours.get(path, b"") for path in paths[20:]}
    repository = annex(ours)
    repository.write("refs/remotes/other/git-annex", {b"uuid.log": KNOWN} | theirs)

    merged = repository.read()

    for path in paths:
        if path in ours and path in theirs:
            assert merged[path] == union_merge(ours[path], theirs[path])
        else:
            assert merged[path] == (ours | theirs)[path]


@pytest.mark.parametrize("status", [PRESENT, MISSING])
def test_set_presence_writes_the_bytes_of_git_annex(annex: Callable[..., Annex], status: bytes) -> None:
    dice = random.Random(3)
    logs = {key: random_soup(dice, INFOS) for key in keys(400)}
    repository = annex({key_log(key): content for key, content in logs.items()})

    repository("setpresentkey", "--batch", lines=[b" ".join([key.raw, A.encode(), status]) for key in logs])

    after = repository.read()
    for key, content in logs.items():
        assert after[key_log(key)] == set_presence(content, A.encode(), status, NOW)


def test_whereis_names_the_repositories_that_we_find(annex: Callable[..., Annex]) -> None:
    dice = random.Random(4)
    logs = {key: random_soup(dice, INFOS[:3]) for key in keys(200)}
    cluster = UUID("ac702100-873f-876c-a12c-4026b11e785c")
    repository = annex(
        {key_log(key): content for key, content in logs.items()}
        | {
            b"cluster.log": f"1s {cluster} {A} {B}\n".encode(),
            b"trust.log": f"{B} X timestamp=1s\n".encode(),
        }
    )
    # a key of which git-annex finds no copy makes whereis fail, so the exit code is not looked at
    done = subprocess.run(
        [repository._program, "whereis", "--all", "--json"], cwd=repository.path, capture_output=True, check=False
    )
    shown = {
        Key.parse(answer["key"]): sorted(place["uuid"] for place in answer["whereis"])
        for answer in map(json.loads, done.stdout.splitlines())
    }

    expected = {key: LocationLog.parse(content) for key, content in logs.items()}
    assert shown == {
        key: sorted(log.locations({cluster: [A, B]}, dead=[B])) for key, log in expected.items() if not log.is_dead
    }


def test_a_key_is_given_up_as_git_annex_does(annex: Callable[..., Annex]) -> None:
    key = keys(1)[0]
    content = f"100s X {A}\n100s 0 {B}\n".encode()
    repository = annex({key_log(key): content})

    repository("dead", "--key", str(key))

    assert repository.read()[key_log(key)] == set_dead(content)
    assert LocationLog.parse(set_dead(content)).is_dead
    assert set_dead(content).count(DEAD) == 2


def random_metadata(dice: random.Random) -> bytes:
    lines = []
    for _ in range(dice.choice([0, 1, 2, 2, 3, 4])):
        line = dice.choice([b"100s", b"100s", b"110s", b"120.5s", b"150s", b"200s"])
        for _ in range(dice.choice([1, 1, 2, 3])):
            line += b" " + dice.choice([b"a", b"A", b"b", b"tag"])
            for _ in range(dice.choice([1, 1, 2])):
                line += b" " + dice.choice([b"+", b"-"]) + dice.choice([b"1", b"2", b"", b"!YSBi", "é".encode()])
        lines.append(line + b"\n")
    return b"".join(lines)


def test_metadata_is_read_and_written_as_git_annex_does(annex: Callable[..., Annex]) -> None:
    dice = random.Random(5)
    logs = {key: random_metadata(dice) for key in keys(500)}
    repository = annex({key_log(key, Log.METADATA): content for key, content in logs.items()})
    asked = [json.dumps({"key": str(key)}).encode() for key in logs]
    told = [json.dumps({"key": str(key), "fields": {"new": ["x y"]}}).encode() for key in logs]

    before = [
        json.loads(line)["fields"] for line in repository("metadata", "--batch", "--json", lines=asked).splitlines()
    ]
    repository("metadata", "--batch", "--json", lines=told)
    after = repository.read()

    for (key, content), fields in zip(logs.items(), before, strict=True):
        shown = {field: set(values) for field, values in fields.items() if not field.endswith("lastchanged")}
        assert shown == current_metadata(content)
        assert after[key_log(key, Log.METADATA)] == set_metadata(content, {"new": {"x y": True}}, NOW)


COMMANDS: list[tuple[tuple[str, ...], Log, Callable[[bytes], bytes]]] = [
    (("describe", ME, "a  name timestamp=3s"), Log.UUID,
     lambda c: DESCRIPTIONS.set(c, ME, "a  name timestamp=3s", NOW)),
    (("untrust", A), Log.TRUST, lambda c: TRUST.set(c, A, TrustLevel.UNTRUSTED, NOW)),
    (("semitrust", B), Log.TRUST, lambda c: TRUST.set(c, B, TrustLevel.SEMITRUSTED, NOW)),
    (("dead", C), Log.TRUST, lambda c: TRUST.set(c, C, TrustLevel.DEAD, NOW)),
    ((), Log.GROUP, lambda c: GROUPS.set(c, C, frozenset(), NOW)),  # a dead repository leaves its groups as well
    (("group", A, "backup"), Log.GROUP, lambda c: GROUPS.set(c, A, frozenset(["backup"]), NOW)),
    (("group", A, "archive"), Log.GROUP, lambda c: GROUPS.set(c, A, frozenset(["backup", "archive"]), NOW)),
    (("ungroup", A, "backup"), Log.GROUP, lambda c: GROUPS.set(c, A, frozenset(["archive"]), NOW)),
    (("wanted", A, "include=*.x  or  nothing "), Log.PREFERRED_CONTENT,
     lambda c: PREFERRED_CONTENT.set(c, A, "include=*.x  or  nothing ", NOW)),
    (("wanted", A, ""), Log.PREFERRED_CONTENT, lambda c: PREFERRED_CONTENT.set(c, A, "", NOW)),
    (("required", B, "include=y"), Log.REQUIRED_CONTENT, lambda c: REQUIRED_CONTENT.set(c, B, "include=y", NOW)),
    (("groupwanted", "g", "include=x"), Log.GROUP_PREFERRED_CONTENT,
     lambda c: GROUP_PREFERRED_CONTENT.set(c, "g", "include=x", NOW)),
    (("config", "--set", "annex.securehashesonly", "true"), Log.CONFIG,
     lambda c: CONFIG.set(c, "annex.securehashesonly", "true", NOW)),
    (("config", "--unset", "annex.securehashesonly"), Log.CONFIG,
     lambda c: CONFIG.set(c, "annex.securehashesonly", "", NOW)),
    (("maxsize", A, "10 gb"), Log.MAXSIZE, lambda c: MAXSIZES.set(c, A, 10**10, NOW)),
    (("numcopies", "3"), Log.NUMCOPIES, lambda c: NUMCOPIES.set(c, 3, NOW)),
    (("mincopies", "2"), Log.MINCOPIES, lambda c: MINCOPIES.set(c, 2, NOW)),
    (("schedule", A, "fsck self 30m every day at any time"), Log.SCHEDULE,
     lambda c: SCHEDULES.set(c, A, "fsck self 30m every day at any time", NOW)),
]  # fmt: skip


def test_settings_change_as_git_annex_changes_them(annex: Callable[..., Annex]) -> None:
    files = {
        Log.TRUST.value: b"u1 1 timestamp=1s\nu2 z timestamp=1s\nu3\nu4 01 timestamp=1s\n"
        + C.encode()
        + b" 1 timestamp=200s\n",
        Log.GROUP.value: b"u1 b  a timestamp=1s\nu3\nu2 x timestamp=1s\nu2 y timestamp=1.0s\n",
        Log.PREFERRED_CONTENT.value: b"u2 a timestamp=1s\nu1\n",
        Log.REQUIRED_CONTENT.value: b"u2  a  b timestamp=1s\n",
        Log.GROUP_PREFERRED_CONTENT.value: b"100s g1  a b \n100s g1 c\n100s none\n1 z \n",
        Log.CONFIG.value: b"100s annex.b  x \n100s annex.a\n50s annex.a y\n",
        Log.MAXSIZE.value: b"100s u1 10gb\n100s u2 1.5\n200s " + A.encode() + b" 7\n",
        Log.NUMCOPIES.value: b"100s 2\n100s 5\n",
        Log.MINCOPIES.value: b"200s 1\n",
        Log.SCHEDULE.value: b"u1 junk timestamp=1s\nu1 more junk timestamp=2s\n",
    }
    repository = annex(files)
    expected = {Log.UUID.value: KNOWN} | files

    for arguments, log, change in COMMANDS:
        if arguments:
            repository(*arguments)
        expected[log.value] = change(expected[log.value])

    after = repository.read()
    assert {path: after[path] for path in expected} == expected
    assert all(identify(path) for path in after)
