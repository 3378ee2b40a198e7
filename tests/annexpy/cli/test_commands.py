"""The commands on real repositories, with git-annex beside them: same fields, same meaning, same answers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from annexpy.keys.backend import name_content
from annexpy.keys.key import Key
from annexpy.keys.layout import object_paths
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.interop
CONTENT = b"some content\n"
KEY = name_content([CONTENT], extension=b".txt")
ABSENT = Key.parse("SHA256E-s3--abc")
ANNEXPY = [sys.executable, "-m", "annexpy.cli.app"]


class Lab:
    """A repository to work in, with two bare remotes, made by annexpy."""

    def __init__(self, folder: Path, git_annex: str) -> None:
        self.folder, self.git_annex, self.work = folder, git_annex, folder / "work"
        for name in ("one", "two"):
            Repository.init(folder / name, bare=True, description=f"store {name}").close()
        with Repository.init(self.work, description="desk") as work:
            for name in ("one", "two"):
                work.config.change({f"remote.{name}.url": str(folder / name)})
        (self.work / "file.txt").write_bytes(CONTENT)

    def annex(self, *words: str, at: Path | None = None, code: int = 0, stdin: bytes | None = None) -> bytes:
        done = subprocess.run([self.git_annex, *words], cwd=at or self.work, capture_output=True, input=stdin)
        assert done.returncode == code, done.stderr.decode()
        return done.stdout

    def annex_json(self, *words: str, code: int = 0, stdin: bytes | None = None) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.annex(*words, "--json", code=code, stdin=stdin).splitlines()]

    def uuid(self, name: str) -> str:
        with Repository.open(self.folder / name) as repository:
            return repository.uuid


@pytest.fixture
def lab(tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab(tmp_path, git_annex)
    monkeypatch.chdir(made.work)
    return made


def fields(line: dict[str, Any]) -> set[str]:
    return set(line)


# -- one command after the other -------------------------------------------------------------------


def test_put_get_copy_move_drop_and_git_annex_agrees_at_every_step(lab: Lab, cli) -> None:
    assert cli("put", "one", "file.txt").lines == ["put file.txt (to one...) ok"]
    assert lab.annex("checkpresentkey", str(KEY), "one") == b""

    assert cli("copy", "one", "two", KEY).code == 0
    assert cli("get", "two", KEY).code == 0
    (said,) = lab.annex_json("whereis", "--key", str(KEY))
    assert {place["uuid"] for place in said["whereis"]} == {lab.uuid("one"), lab.uuid("two"), lab.uuid("work")}

    assert cli("drop", ".", KEY).code == 0
    assert cli("move", "one", "two", KEY).code == 0
    refused = cli("drop", "two", KEY)
    assert refused.code == 1
    assert "0 copies verified, 1 needed" in refused.err
    (said,) = lab.annex_json("whereis", "--key", str(KEY))
    assert [place["uuid"] for place in said["whereis"]] == [lab.uuid("two")]
    for place in ("two", "work"):
        lab.annex("fsck", "--all", "-q", at=lab.folder / place)


def test_a_file_is_written_by_get_and_a_folder_takes_many(lab: Lab, cli) -> None:
    other = name_content([b"other"])
    (lab.work / "other").write_bytes(b"other")
    cli("put", "one", "file.txt", "other")
    (lab.folder / "out").mkdir()

    assert cli("get", "one", KEY, "-o", lab.folder / "again.txt").code == 0
    assert cli("get", "one", KEY, other, "-o", lab.folder / "out").code == 0
    assert cli("get", "one", KEY, other, "-o", lab.folder / "nowhere").code == 2

    assert (lab.folder / "again.txt").read_bytes() == CONTENT
    assert (lab.folder / "out" / str(other)).read_bytes() == b"other"


def test_standard_output_gets_the_content_and_nothing_else(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    ran = cli("get", "one", KEY, "-o", "-")
    assert (ran.code, ran.out, ran.err) == (0, CONTENT, "")
    assert not (lab.work / "-").exists()
    assert cli("get", "one", KEY, "-o", "/dev/null").code == 0
    assert Path("/dev/null").is_char_device()

    damage(lab.folder / "one", b"SOME content\n")
    wrong = cli("get", "one", KEY, "-o", "-")
    assert (wrong.code, wrong.out) == (1, b"")
    assert "content does not match its key: nothing of it was written" in wrong.err
    for words in ((KEY, KEY), (KEY, "--json"), ("--batch",), ("-",)):
        assert cli("get", "one", *words, "-o", "-").code == 2


def damage(place: Path, content: bytes) -> None:
    path = place / "annex/objects" / os.fsdecode(object_paths(KEY)[0])
    path.parent.chmod(0o755)
    path.chmod(0o644)
    path.write_bytes(content)


def test_outside_of_any_repository_remotes_are_named_by_their_place(
    lab: Lab, cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = lab.folder / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    one, two = lab.folder / "one", lab.folder / "two"

    assert cli("put", one, lab.work / "file.txt").code == 0
    assert cli("drop", one, KEY).code == 1
    assert cli("copy", one, two, KEY).code == 0
    assert cli("drop", one, KEY, "--other", two, "-N", "1").code == 0
    assert cli("check", two, KEY).code == 0
    assert cli("get", two, KEY).code == 1
    assert cli("whereis", KEY).code == 1
    (said,) = cli("whereis", "-C", two, KEY, "--json").json
    assert [place["description"] for place in said["whereis"]] == ["store two"]


def test_a_locked_file_of_the_work_tree_keeps_the_key_it_has(lab: Lab, cli) -> None:
    with Repository.open(lab.work) as work:
        work.config.set("annex.backend", "MD5E")
    lab.annex("add", "-q", "file.txt")

    assert cli("put", "one", "file.txt", "--backend", "SHA512").code == 0

    key = lab.annex("lookupkey", "file.txt").decode().strip()
    assert key.startswith("MD5E-")
    assert cli("check", "one", key).code == 0


def test_new_keys_are_made_as_attributes_and_the_configuration_say(lab: Lab, cli) -> None:
    """In the order of git-annex, whose ``calckey`` looks at no attributes."""
    (lab.work / "sub").mkdir()
    for name in ("a.txt", "sub/b.dat"):
        (lab.work / name).write_bytes(CONTENT + name.encode())
    (lab.work / ".gitattributes").write_text("*.txt annex.backend=FOO\nsub/* annex.backend=MD5E\n")
    with Repository.open(lab.work) as work:
        work.config.set("annex.backend", "SHA1")

    put = [one["key"] for one in cli("put", "one", "a.txt", "sub/b.dat", "--json").json]
    asked = [one["key"] for one in cli("put", "one", "sub/b.dat", "--backend", "SHA512", "--json").json]
    named = cli("key", "a.txt", "sub/b.dat").out.decode().split()
    calculated = lab.annex("calckey", "a.txt", "sub/b.dat").decode().split()
    lab.annex("add", "-q", "a.txt", "sub/b.dat")

    assert put == lab.annex("lookupkey", "a.txt", "sub/b.dat").decode().split()
    assert named == calculated
    assert [key.partition("-")[0] for key in (*put, *asked, *named)] == ["SHA1", "MD5E", "SHA512", "SHA1", "SHA1"]


def test_the_backend_is_configured_in_any_git_repository(lab: Lab, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An annex or not, of whatever version and object format: a key is made and nothing else done."""
    plain = lab.folder / "plain"
    subprocess.run(["git", "init", "-q", "--object-format=sha256", plain], check=True)
    (plain / "file.txt").write_bytes(CONTENT)
    monkeypatch.chdir(plain)

    backends = []
    for name, value in (("annex.backends", "SHA1 MD5"), ("annex.backend", "MD5"), ("annex.version", "11")):
        subprocess.run(["git", "config", name, value], check=True)
        backends.append(cli("key", "file.txt").out.partition(b"-")[0])

    assert backends == [b"SHA1", b"MD5", b"MD5"]


def test_a_put_does_not_need_the_work_tree_or_the_index_that_it_may_look_at(lab: Lab, cli) -> None:
    outside = lab.folder / "outside.txt"
    outside.write_bytes(b"outside")
    (lab.work / ".git/index").unlink(missing_ok=True)
    (lab.work / ".git/index").mkdir()
    assert cli("put", "one", "file.txt").code == 0

    with Repository.open(lab.work) as work:
        work.config.set("core.worktree", str(lab.folder / "gone"))
    assert cli("-C", lab.work / ".git", "put", lab.folder / "one", outside).code == 0


def test_a_backend_that_nobody_knows_is_named_when_a_key_has_to_be_made(lab: Lab, cli) -> None:
    with Repository.open(lab.work) as work:
        work.config.set("annex.backend", "FOO")

    for words in (("put", "one", "file.txt"), ("key", "file.txt")):
        said = cli(*words)
        assert said.code == 1
        assert "FOO" in said.err


def test_an_unlocked_file_keeps_its_key_until_it_is_modified(lab: Lab, cli) -> None:
    (lab.work / "sub").mkdir()
    for name in ("file.dat", "sub/g.txt"):
        (lab.work / name).write_bytes(CONTENT + name.encode())
    lab.annex("add", "-q", "--backend", "MD5E", "file.dat", "sub/g.txt")
    lab.annex("unlock", "-q", "file.dat", "sub/g.txt")
    keys = [lab.annex("lookupkey", name).decode().strip() for name in ("file.dat", "sub/g.txt")]
    subprocess.run(["git", "mv", "file.dat", "moved"], cwd=lab.work, check=True)

    put = cli("put", "one", "moved", "sub/../sub/g.txt", "--json").json
    (lab.work / "moved").write_bytes(b"modified")
    (new,) = cli("put", "one", "moved", "--json").json

    assert [one["key"] for one in put] == keys
    assert [key.partition("-")[0] for key in keys] == ["MD5E", "MD5E"]
    assert new["key"] == str(name_content([b"modified"]))


def test_copies_are_locked_while_a_command_runs(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    cli("copy", "one", "two", KEY)

    ran = cli("lock", "one", KEY, "--", *ANNEXPY, "drop", "one", str(KEY), "-N", "1")
    assert ran.code == 1
    assert "content is locked" in ran.err
    assert cli("lock", "one", KEY, "--", "true").code == 0
    assert cli("lock", "one", KEY, "--", "sh", "-c", "exit 7").code == 7
    assert cli("lock", "one", ABSENT, "--", "true").code == 1
    for command, code, why in (("no-such-command", 127, "No such file"), ("/", 126, "Permission denied")):
        ran = cli("lock", "one", KEY, "--", command)
        assert (ran.code, ran.err.startswith(f"annexpy: lock: command {command!r}: {why}")) == (code, True)
    assert cli("drop", "one", KEY).code == 0


def test_what_may_not_be_read_is_named_and_stops_nothing_else(lab: Lab) -> None:
    (lab.work / "secret.txt").write_text("secret")
    (lab.work / "secret.txt").chmod(0)
    (lab.work / "closed").mkdir(mode=0)
    as_others = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]

    def run(*words: object) -> tuple[int, str, str]:
        command = [*(as_others if os.geteuid() == 0 else []), *ANNEXPY, *map(str, words)]
        done = subprocess.run(command, cwd=lab.work, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout, done.stderr

    code, out, err = run("put", "one", "secret.txt", "file.txt")
    assert (code, "put file.txt (to one...) ok" in out) == (1, True)
    assert err == "annexpy: put: file 'secret.txt': Permission denied\n"
    for words in (("check", "./closed", KEY), ("info", "./closed")):
        code, _, err = run(*words)
        assert (code, err.endswith("closed: Permission denied\n")) == (1, True)


def test_folders_of_a_repository_that_are_none_are_named(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    pack, objects = lab.work / ".git/objects/pack", lab.work / ".git/annex/objects"
    for folder, words in ((objects, ("doctor", ".")), (pack, ("sync", "--pull"))):
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        folder.write_text("")

        ran = cli(*words)

        assert ran.code == 1
        assert "Not a directory" in ran.err


def test_git_tells_its_hooks_which_repository_they_work_in(
    lab: Lab, cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cli("put", "one", "file.txt")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli("whereis", KEY).code == 1

    monkeypatch.setenv("GIT_DIR", str(lab.work / ".git"))

    assert cli("whereis", KEY).code == 0
    assert cli("check", "one", KEY).code == 0
    assert cli("info", "--fast", "--json").json[0]["path"] == str(lab.work)
    assert cli("-C", ".", "whereis", KEY).code == 1


def test_a_put_that_is_repeated_sends_nothing_and_says_so(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")

    (said,) = cli("put", "one", "file.txt", "--json").json

    assert said["note"] == "to one... already there"
    assert said["already"] == [lab.uuid("one")]
    assert said["stored"] == []


def test_a_remote_that_is_away_is_named_and_one_failed_copy_makes_it_exit_1(lab: Lab, cli) -> None:
    with Repository.open(lab.work) as work:
        work.config.change(
            {
                "remote.gone.url": str(lab.folder / "gone"),
                "remote.gone.annex-uuid": "11111111-2222-4333-8444-555555555555",
                "remote.gone.annex-cluster-node": "lab",
                "remote.one.annex-cluster-node": "lab",
            }
        )

    assert "no such directory" in cli("put", "gone", "file.txt").err
    ran = cli("put", "lab", "file.txt", "--json")

    assert ran.code == 1
    (said,) = ran.json
    assert said["success"] is True
    assert said["stored"] == [lab.uuid("one")]
    assert "no such directory" in said["failed"]["11111111-2222-4333-8444-555555555555"]


def test_a_remote_that_is_not_known_is_said_to_be_none_and_those_that_are_known_are_named(lab: Lab, cli) -> None:
    ran = cli("put", "nodisk", "file.txt")

    assert ran.code == 1
    assert "nodisk: no git remote and no directory of that name; the git remotes are " in ran.err
    assert "one" in ran.err.rpartition("are ")[2]
    assert "no such directory" in cli("put", "./nodisk", "file.txt").err


def test_a_directory_is_not_put_and_a_way_to_name_its_files_is_shown(lab: Lab, cli) -> None:
    (lab.work / "some dir").mkdir()
    ran = cli("put", "one", "some dir")

    assert ran.code == 1
    assert "'some dir': is a directory: name the files in it, for instance some dir/*" in ran.err


# -- the same fields, the same meaning ------------------------------------------------------------


def test_json_has_the_fields_of_git_annex(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    key = str(KEY)

    pairs = [(cli("copy", "one", "two", key, "--json").json, lab.annex_json("copy", "--key", key, "--from", "one"))]
    cli("drop", ".", key)
    pairs += [(cli("get", "one", key, "--json").json, [])]
    cli("drop", ".", key)
    pairs[-1] = pairs[-1][0], lab.annex_json("get", "--key", key)
    pairs += [
        (cli("whereis", key, "--json").json, lab.annex_json("whereis", "--key", key)),
        (cli("whereis", ABSENT, "--json").json, lab.annex_json("whereis", "--key", str(ABSENT), code=1)),
        (cli("fsck", ".", key, "--json").json, lab.annex_json("fsck", "--key", key)),
        (cli("examinekey", key, "--json").json, lab.annex_json("examinekey", key)),
        (cli("drop", "two", key, "--json").json, lab.annex_json("drop", "--key", key)),
        (cli("move", "one", "two", key, "--json").json, lab.annex_json("move", "--key", key, "--from", "two")),
    ]

    for ours, theirs in pairs:
        for one, other in zip(ours, theirs, strict=True):
            assert fields(other) - {"note"} <= fields(one), (one, other)
            assert one["command"] == other["command"] if "command" in other else True
            for name in ("success", "key", "error-messages", "input"):
                if name in other:
                    assert one[name] == other[name], (name, one, other)


def test_examinekey_says_what_git_annex_says(lab: Lab, cli) -> None:
    # Of a key with a blank in it git-annex takes what stands before the blank, also on its command line.
    keys = [KEY, ABSENT, Key.parse("WORM-s3-m17--a,b&c:d%e/f"), Key.parse(b"URL--http://x/\xc3\xa9")]
    keys += [Key.parse("SHA256E-s3-m1-S2-C1--a%b&c:d/e.txt")]

    for key in keys:
        assert cli("examinekey", key, "--json").json == lab.annex_json("examinekey", str(key))
    batch = "".join(f"{key}\n" for key in keys).encode()
    assert cli("examinekey", "--batch", "--json", stdin=batch).json == lab.annex_json(
        "examinekey", "--batch", stdin=batch
    )


@pytest.mark.parametrize("how", [(str(KEY),), ("--batch",), ()], ids=["a key", "batch", "all"])
def test_whereis_commits_what_a_process_that_died_left(how: tuple[str, ...], lab: Lab, cli) -> None:
    one = UUID(lab.uuid("one"))
    with Repository.open(lab.work) as work:
        work.branch.set_present(KEY, one, True)
        work.branch.sync_now()  # and no more
    assert lab.annex_json("whereis", "--key", str(KEY), code=1)[0]["whereis"] == []

    said = cli("whereis", *how, "--json", stdin=f"{KEY}\n".encode()).json

    for answers in (said, lab.annex_json("whereis", "--key", str(KEY))):
        assert [place["uuid"] for place in answers[0]["whereis"]] == [one]


def test_whereis_says_what_git_annex_says(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    cli("copy", "one", "two", KEY)
    cli("get", "one", KEY)
    cli("sync")
    lab.annex("untrust", "-q", "two")

    assert cli("whereis", KEY, "--json").json == lab.annex_json("whereis", "--key", str(KEY))
    assert [line.strip() for line in cli("whereis", KEY).lines] == [
        line.strip() for line in lab.annex("whereis", "--key", str(KEY)).decode().splitlines()
    ]
    assert cli("whereis", "--json").json == lab.annex_json("whereis", "--all")


def test_log_says_what_git_annex_says(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    cli("move", "one", "two", KEY)

    assert sorted(cli("log").lines) == sorted(lab.annex("log", "--all").decode().splitlines())
    assert sorted(map(str, cli("log", KEY, "--json").json)) == sorted(
        map(str, lab.annex_json("log", "--key", str(KEY)))
    )
    assert len(cli("log", "-n", "1").lines) == 2
    assert cli("log", ABSENT).lines == []


def test_info_counts_what_git_annex_counts(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    cli("get", "one", KEY)
    cli("sync")

    (ours,) = cli("info", "--json").json
    (theirs,) = lab.annex_json("info")

    assert ours["local annex keys"] == theirs["local annex keys"] == 1
    assert ours["local annex size"] == theirs["local annex size"]
    for name in ("semitrusted repositories", "trusted repositories", "untrusted repositories"):
        assert sorted(map(str, ours[name])) == sorted(map(str, theirs[name]))
    sizes = {place["uuid"]: place["size"] for place in theirs["annex sizes of repositories"]}
    assert {place["uuid"]: place["size"] for place in ours["annex sizes of repositories"]} == sizes
    assert cli("info", lab.folder / "one", "--fast").code == 0


def test_info_of_a_remote_has_the_words_of_git_annex_whatever_leads_there(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    cli("sync")
    with Repository.open(lab.work) as work:
        work.config.change({f"remote.{name}.annex-cluster-node": "safe" for name in ("one", "two")})

    (ours,) = cli("info", "one", "--json").json
    (theirs,) = lab.annex_json("info", "one")

    same = {"uuid", "description", "trust", "remote", "cost", "available", "remote annex keys", "remote annex size"}
    assert {name: ours[name] for name in same} == {name: theirs[name] for name in same}
    (cluster,) = cli("info", "safe", "--json").json
    assert (cluster["nodes"], cluster["remote annex keys"]) == (["one", "two"], 1)
    assert "remote annex keys: 1" in cli("info", "one").lines
    assert cli("info", f"exec:{' '.join(ANNEXPY)} -C {lab.folder / 'one'} serve --stdio", "--fast", "--json").json[0][
        "uuid"
    ] == lab.uuid("one")
    (lab.folder / "one").rename(lab.folder / "away")
    away = cli("info", "one", "--json")
    assert (away.code, away.json[0]["available"], away.json[0]["uuid"]) == (1, "false", theirs["uuid"])
    assert cli("info", "nosuch").code == 1


def test_transfers_in_progress_are_those_that_git_annex_sees(lab: Lab, cli) -> None:
    big = os.urandom(400_000)
    key = name_content([big], extension=b".bin")

    async def look() -> list[list[dict[str, Any]]]:
        with Repository.open(lab.work) as work:
            async with Local(work, client=UUID(lab.uuid("one"))).put(key, associated_file="big.bin"):
                both = [lab.annex_json("info", "--fast")[0], cli("info", "--fast", "--json").json[0]]
                assert "\tdownloading big.bin from " in "\n".join(cli("info", "--fast").lines)
        return [one["transfers in progress"] for one in both]

    theirs, ours = anyio.run(look)

    told = {"transfer": "download", "key": str(key), "file": "big.bin", "remote": lab.uuid("one")}
    assert ours == theirs == [told]
    assert cli("info", "--fast", "--json").json[0]["transfers in progress"] == []


def test_progress_lines_are_those_of_git_annex(lab: Lab, cli) -> None:
    (lab.work / "big").write_bytes(os.urandom(3_000_000))

    *progress, last = cli("put", "one", "big", "--json-progress").json

    assert last["success"] is True
    assert progress[-1]["byte-progress"] == progress[-1]["total-size"] == 3_000_000
    assert progress[-1]["percent-progress"] == "100%"
    assert progress[-1]["action"]["key"] == last["key"]


# -- what goes wrong ------------------------------------------------------------------------------


def test_a_refused_drop_names_every_copy_in_json(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    lab.annex("numcopies", "2", "-q")
    cli("copy", "one", "two", KEY)

    ran = cli("drop", "one", KEY, "--json")

    (said,) = ran.json
    assert ran.code == 1
    assert said["error-class"] == "NotEnoughCopies"
    assert (said["copies"], said["needed"]) == (1, 2)
    assert said["counted"] == {"two": "locked"}
    assert said["not-counted"]["here"] == "it is not present"
    assert said["wanted"] == []


def test_explain_says_why_and_removes_nothing(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    cli("copy", "one", "two", KEY)

    (may,) = cli("explain", KEY, "--from", "one", "--json").json
    (may_not,) = cli("explain", KEY, "--from", "one", "-N", "3", "--json").json

    assert may["droppable"] is True
    assert may["counted"] == {"two": "locked"}
    assert may_not["droppable"] is False
    assert (may_not["numcopies"], may_not["numcopies-from"]) == (3, "command line")
    assert cli("check", "one", KEY).code == 0
    assert any(line.startswith("may be dropped, within ") for line in cli("explain", KEY, "--from", "one").lines)


def test_fsck_sets_the_log_of_a_repository_right_also_outside_of_any(lab: Lab, cli, monkeypatch) -> None:
    cli("put", "one", "file.txt")
    place = lab.folder / "one"
    (key,) = (path.name for path in place.glob("annex/objects/*/*/*"))
    for path in place.glob("annex/objects/*/*/*"):
        path.chmod(0o755)
        (path / key).unlink()
    (lab.folder / "nowhere").mkdir()
    monkeypatch.chdir(lab.folder / "nowhere")

    (said,) = cli("fsck", str(place), key, "--json").json

    assert "fixing location log" in said["note"]
    with Repository.open(place) as repository:
        assert repository.uuid not in repository.branch.locations(Key.parse(key)).present


def test_fsck_finds_damage_and_sets_the_log_right(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    damage(lab.folder / "one", b"SOME content\n")

    ran = cli("fsck", "one", "--json")

    (said,) = ran.json
    assert ran.code == 1
    assert said["error-class"] == "VerificationFailed"
    assert "fixing location log" in said["note"]
    assert cli("whereis", KEY).code == 1


def test_a_malformed_line_of_a_batch_fails_alone(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")

    ran = cli("check", "one", "--batch", "--json", stdin=f"{KEY}\nnonsense\n\n{ABSENT}".encode())

    assert ran.code == 1
    assert {(line.get("key"), line["success"]) for line in ran.json} == {
        (str(KEY), True),
        (None, False),
        (str(ABSENT), False),
    }


def test_what_cannot_be_a_remote_is_wrong_usage(lab: Lab, cli) -> None:
    for address in ("tor-annex::x", "annex+ftp://h/", ""):
        assert cli("check", address, KEY).code == 2


# -- many keys ------------------------------------------------------------------------------------


def test_a_program_that_writes_one_key_and_waits_gets_its_answer(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    child = subprocess.Popen(
        [*ANNEXPY, "check", "one", "--batch"], cwd=lab.work, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for key, answer in ((KEY, b"(present) ok"), (ABSENT, b"(not present) failed")):
        child.stdin.write(bytes(key) + b"\n")
        child.stdin.flush()
        assert child.stdout.readline().strip().endswith(answer)
    child.stdin.close()
    assert child.wait(30) == 1
    child.stdout.close()


@pytest.mark.slow
def test_a_hundred_thousand_keys_stream_in_constant_memory(lab: Lab) -> None:
    keys = lab.folder / "keys"
    with keys.open("w") as file:
        for number in range(100_000):
            file.write(f"SHA256E-s{number}--{number:064x}\n")

    # Its own high-water mark: what the system accounts to a child begins with the size of this test run.
    program = (
        "import re, sys\nfrom annexpy.cli.app import main\nmain(['check', 'one', '-'])\n"
        "sys.stderr.write('peak ' + re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])"
    )
    with keys.open("rb") as stdin, (lab.folder / "out").open("wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=lab.work,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=120,
            check=True,
        )
    peak = int(done.stderr.rpartition(b"peak ")[2])

    assert (lab.folder / "out").read_bytes().count(b"\n") == 100_000
    assert peak < 100_000, f"{peak} KiB"


# -- servers and conversations --------------------------------------------------------------------


def test_serve_on_stdio_and_on_a_socket_is_a_remote(lab: Lab, cli) -> None:
    command = " ".join([*ANNEXPY, "serve", str(lab.folder / "one"), "--stdio"])
    assert cli("put", f"exec:{command}", "file.txt").code == 0

    socket = lab.folder / "s"
    server = subprocess.Popen(
        [*ANNEXPY, "serve", str(lab.folder / "one"), "--unix", str(socket), "--read-only"], stderr=subprocess.PIPE
    )
    assert server.stderr is not None
    assert b"unix:" in server.stderr.readline()
    assert cli("check", f"unix:{socket}", KEY).code == 0
    refused = cli("put", f"unix:{socket}", cli_file(lab, "new", b"new"))
    server.send_signal(signal.SIGTERM)

    assert refused.code == 1
    assert "read-only" in refused.err
    assert server.wait(30) == 0
    assert not socket.exists()
    server.stderr.close()


def cli_file(lab: Lab, name: str, content: bytes) -> Path:
    (lab.work / name).write_bytes(content)
    return lab.work / name


def test_talk_with_a_repository_of_ours_can_be_replayed(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    said = f"lockcontent {KEY}\ncheckpresent {KEY}\nunlockcontent\n".encode()

    ran = cli("talk", "one", "--transcript", lab.folder / "t.jsonl", stdin=said)

    assert ran.code == 1
    assert any("(legal: UNLOCKCONTENT)" in line for line in ran.lines)
    assert cli("replay", lab.folder / "t.jsonl").code == 0
    assert cli("replay", lab.folder / "t.jsonl", "--json").json[-1]["state"] == "IDLE"


def test_sync_brings_locations_to_the_remotes_and_back(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    cli("sync", "one")

    assert lab.uuid("one") in lab.annex("whereis", "--key", str(KEY), at=lab.folder / "one").decode()
    cli("copy", "-C", lab.folder / "one", lab.folder / "one", lab.folder / "two", KEY)
    said = cli("sync", "--json").json
    assert [(line["remote"], line["success"]) for line in said] == [("one", True), ("two", True)]
    assert cli("whereis", KEY, "--json").json == lab.annex_json("whereis", "--key", str(KEY))
    assert cli("sync", "nosuch").code == 2


def test_doctor_exits_1_when_there_is_something_to_mend(lab: Lab, cli) -> None:
    cli("put", "one", "file.txt")
    cli("sync")

    ran = cli("doctor", lab.work, lab.folder / "one")
    assert ran.code == 1
    assert ran.lines[0].startswith("sole copy in ")
    assert " annex " in ran.lines[1]
    assert ran.lines[-1] == "2 repositories examined: 1 sole copy"
    cli("copy", "one", "two", KEY)
    cli("sync")
    assert cli("doctor", lab.work, lab.folder / "one", lab.folder / "two", "--json").lines == []
    assert cli("doctor", lab.work, "--only", "nosuch").code == 2


# -- interrupted ----------------------------------------------------------------------------------

_STUCK = """
import subprocess, sys, threading
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE)
left = int(sys.argv[1])
while left and (data := sys.stdin.buffer.read1(min(left, 65536))):
    left -= len(data)
    child.stdin.write(data)
    child.stdin.flush()
print("stuck", file=sys.stderr, flush=True)
open("stuck", "w").close()
threading.Event().wait(60)
"""


def test_ctrl_c_in_the_middle_of_a_put_leaves_what_the_same_command_goes_on_from(lab: Lab, cli) -> None:
    (lab.work / "big").write_bytes(os.urandom(3_000_000))
    (lab.work / "relay.py").write_text(_STUCK)
    shell = Path(lab.git_annex).with_name("git-annex-shell")
    server = f"{shell} p2pstdio {lab.folder / 'one'} {lab.uuid('work')}"
    # Lets a megabyte through, and then nothing more.
    remote = f"exec:{sys.executable} relay.py 1000000 {server}"

    child = subprocess.Popen([*ANNEXPY, "put", remote, "big"], cwd=lab.work, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (lab.work / "stuck").exists())
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)

    assert child.returncode == 130
    assert "run the same command again to go on" in said
    key = name_content([(lab.work / "big").read_bytes()])
    partial = lab.folder / "one/annex/tmp" / str(key)
    wait_for(lambda: partial.exists() and 900_000 < partial.stat().st_size < 1_000_000)
    (line,) = cli("put", f"exec:{server}", "big").lines
    assert " from byte 9" in line
    assert cli("check", "one", key).code == 0


@pytest.mark.parametrize("stuck", ["input", "output"])
def test_ctrl_c_ends_a_command_that_waits_for_its_input_or_its_reader(lab: Lab, cli, stuck: str) -> None:
    (lab.work / "big").write_bytes(bytes(3_000_000))
    cli("put", "one", "big")
    key = str(name_content([bytes(3_000_000)]))
    words = ["check", "one", "--batch"] if stuck == "input" else ["get", "one", key, "-o", "-"]

    with subprocess.Popen([*ANNEXPY, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(key.encode() + b"\n")
        child.stdin.flush()
        assert child.stdout.read(1)
        child.send_signal(signal.SIGINT)
        try:
            assert child.wait(60) == 130
        finally:
            child.kill()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it never happened")
