from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidUUID
from annexpy.keys.key import Key
from annexpy.keys.layout import object_paths
from annexpy.p2p import extensions, versions
from annexpy.repo.repository import Repository
from annexpy.server import shell
from annexpy.server.direct import in_annex
from annexpy.server.refusal import Refusal
from annexpy.uuids import UUID, parse_uuid

ROOT = Path(__file__).parents[3]
TRANSCRIPTS = ROOT / "tests" / "transcripts"
ME = UUID("87ab9089-b663-40ac-b7c2-52e054520871")
CLIENT = "11111111-2222-4333-8444-555555555555"
ABC = b"abc"
K = Key.parse(b"SHA256-s3--" + hashlib.sha256(ABC).hexdigest().encode())
ABSENT = Key.parse(b"SHA256-s4--" + hashlib.sha256(b"abcd").hexdigest().encode())
GREETING = f"AUTH-SUCCESS {ME}\n".encode()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """``annexpy-shell`` as pip would install it, from this tree."""
    path = tmp_path_factory.mktemp("bin") / "annexpy-shell"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from annexpy.server.shell import main\nsys.exit(main())\n"
    )
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "solo"
    with Repository.init(path, bare=True, uuid=ME) as made:
        place = b"annex/objects/" + object_paths(K)[0]
        made.files.make_folders(place.rpartition(b"/")[0])
        made.files.replace(place, ABC, mode=0o444)
    return path


def run(*argv: str, say: bytes = b"", **env: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run(argv, input=say, capture_output=True, env={**os.environ, **env}, check=False, timeout=60)
    return done.returncode, done.stdout, done.stderr


# -- the pieces -------------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), max_size=6))
def test_quoted_words_come_back(words: list[str]) -> None:
    assert shell.split_words(shlex.join(words)) == words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", []),
        ("  a\t b\nc ", ["a", "b", "c"]),
        ("git-annex-shell 'p2pstdio' '/it'\\''s' \"$x \\\"y\\\" \\z\" a\\ b --uuid u", None),
        ("'' \"\"", ["", ""]),
        ("a'b'\"c\"d", ["abcd"]),
    ],
)
def test_words_are_split_as_a_shell_does(line: str, words: list[str] | None) -> None:
    if words is None:
        words = ["git-annex-shell", "p2pstdio", "/it's", '$x "y" \\z', "a b", "--uuid", "u"]
    assert shell.split_words(line) == words


@pytest.mark.parametrize("line", ["'abc", 'a "b', "'"])
def test_an_open_quote_is_refused(line: str) -> None:
    with pytest.raises(Refusal):
        shell.split_words(line)


@given(st.text(max_size=70))
def test_the_quick_idea_of_a_uuid_is_the_usual_one(text: str) -> None:
    try:
        parse_uuid(text)
    except InvalidUUID:
        assert not shell.is_uuid(text)
    else:
        assert shell.is_uuid(text)


def test_the_versions_are_those_of_the_protocol() -> None:
    assert (shell.MAX_VERSION, shell.PROOFS, shell.RANGES) == (
        versions.MAX_VERSION,
        extensions.PROOFS,
        extensions.RANGES,
    )


PLAIN = b"[core]\n\tbare = true\n[annex]\n\tuuid = u1\n\tversion = 10\n"


@pytest.mark.parametrize(
    ("text", "uuid"),
    [
        (PLAIN, "u1"),
        (PLAIN.replace(b"\n", b"\r\n"), "u1"),
        (PLAIN.upper().replace(b"U1", b"u1"), "u1"),
        (PLAIN + b"\tuuid = u2\n", "u2"),
        (PLAIN + b'[annex "x"]\n\tuuid = u3\n', "u1"),
        (PLAIN.replace(b"10", b"7"), None),
        (PLAIN.replace(b"\tversion = 10\n", b""), None),
        (PLAIN.replace(b"u1", b'"u1"'), None),
        (PLAIN.replace(b"u1", b"u1 ; really"), None),
        (PLAIN.replace(b"u1", b"u\\\n1"), None),
        (PLAIN.replace(b"u1", b""), None),
        (PLAIN + b"[include]\n\tpath = x\n", None),
        (PLAIN + b'[includeIf "gitdir:x"]\n\tpath = x\n', None),
        (PLAIN + b"[extensions]\n\tworktreeConfig = true\n", None),
        (b"[annex] uuid = u1\n" + PLAIN, None),
        (b"", None),
    ],
)
def test_only_a_plain_configuration_is_read_quickly(text: bytes, uuid: str | None) -> None:
    assert shell.uuid_in(text) == uuid


def test_paths_are_meant_as_in_ssh_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    for path, meant in [
        ("/srv/a", "/srv/a"),
        ("/~/a", "/home/x/a"),
        ("~/a", "/home/x/a"),
        ("a/../b", "/home/x/b"),
        ("", "/home/x"),
    ]:
        assert shell.resolve(path) == meant


# -- starting quickly -----------------------------------------------------------------------------------


def test_nothing_is_imported_before_the_greeting() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); before = set(sys.modules)\n"
    code += "import annexpy.server.shell; print(*sorted(set(sys.modules) - before))"
    _, imported, _ = run(sys.executable, "-c", code)
    assert set(imported.decode().split()) <= {
        "__future__",
        "annexpy",
        "annexpy.garbage",
        "annexpy.server",
        "annexpy.server.refusal",
        "annexpy.server.shell",
        "gc",  # a part of the interpreter
    }


@pytest.mark.alone
def test_the_greeting_comes_within_four_and_the_first_answer_within_eight_bare_interpreters(
    program: str, repository: Path
) -> None:
    bare, greeted, answered = [], [], []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        with subprocess.Popen(
            [program, "p2pstdio", str(repository), CLIENT], stdin=-1, stdout=-1, bufsize=0
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == GREETING
            greeted.append(time.perf_counter() - start)
            process.stdin.write(b"VERSION 4\n")
            assert process.stdout.readline() == b"VERSION 4\n"
            process.stdin.write(b"CHECKPRESENT " + K.raw + b"\n")
            assert process.stdout.readline() == b"SUCCESS\n"
            answered.append(time.perf_counter() - start)
            process.stdin.close()
    unit = statistics.median(bare)
    assert statistics.median(greeted) <= 4 * unit
    assert statistics.median(answered) <= 8 * unit


# -- a session -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "say",
    [
        b"VERSION 4\nCHECKPRESENT %b\nFOO\n" % K.raw,
        b"VERSION 9\r\nCHECKPRESENT %b\nFOO\n" % K.raw,
    ],
)
def test_what_comes_in_one_piece_is_answered(program: str, repository: Path, say: bytes) -> None:
    code, out, err = run(program, "p2pstdio", str(repository), CLIENT, "--uuid", ME, say=say)
    assert (code, out, err) == (0, GREETING + b"VERSION 4\nSUCCESS\nERROR unknown command\n", b"")


def test_a_client_need_not_ask_for_a_version(program: str, repository: Path) -> None:
    for say, answer in [
        (b"CHECKPRESENT %b\n" % ABSENT.raw, b"FAILURE\n"),
        (b"VERSION -1\nVERSION 3\n", b"ERROR unknown command\nVERSION 3\n"),
        (b"VERS", b""),
        (b"", b""),
        (b"ERROR enough\nGETTIMESTAMP\n", b""),
    ]:
        code, out, err = run(program, "p2pstdio", str(repository), CLIENT, say=say)
        assert (code, out, err) == (0, GREETING + answer, b"")


@pytest.mark.parametrize(
    ("say", "answer"),
    [
        (b"CHECKPRESENT %b\n" % K.raw * 1000, b"SUCCESS\n" * 1000),
        (
            b"CHECKPRESENT %b\nCHECKPRESENT nokey\nCHECKPRESENT %b\n" % (K.raw, ABSENT.raw),
            b"SUCCESS\nERROR unknown command\nFAILURE\n",
        ),
        (b"CHECKPRESENT %b\nCHECKPRESENT %b\r\nFOO\n" % (K.raw, K.raw), b"SUCCESS\nSUCCESS\nERROR unknown command\n"),
        (
            b"CHECKPRESENT %b\nCHECKPRESENT WORM--a\0b\nCHECKPRESENT\t%b\n" % (K.raw, K.raw),
            b"SUCCESS\nERROR unknown command\nSUCCESS\n",
        ),
        (b"CHECKPRESENT %b\nREMOVE %b\nCHECKPRESENT %b\n" % (K.raw, K.raw, K.raw), b"SUCCESS\nSUCCESS\nFAILURE\n"),
        (b"CHECKPRESENT %b\nCHECKPRES" % K.raw, b"SUCCESS\n"),
        (
            b"LOCKCONTENT %b\nUNLOCKCONTENT\nLOCKCONTENT %b\nCHECKPRESENT %b\n"
            b"LOCKCONTENT %b\nUNLOCKCONTENT\r\nREMOVE %b\n" % (K.raw, ABSENT.raw, K.raw, K.raw, K.raw),
            b"SUCCESS\nFAILURE\nSUCCESS\nSUCCESS\nSUCCESS\n",
        ),
        (
            b"LOCKCONTENT %b\nREMOVE %b\nREMOVE %b\n" % (K.raw, K.raw, K.raw),
            b"SUCCESS\nERROR expected UNLOCKCONTENT\nSUCCESS\n",
        ),
        (
            b"LOCKCONTENT nokey\nLOCKCONTENT %b\nUNLOCKCONTENT \nLOCKCONTENT %b\nUNLOCKCONTENT now\nREMOVE %b\n"
            % (K.raw, K.raw, K.raw),
            b"ERROR unknown command\nSUCCESS\nSUCCESS\nERROR expected UNLOCKCONTENT\nSUCCESS\n",
        ),
    ],
)
def test_the_first_presence_checks_and_locks_are_answered_like_all_others(
    program: str, repository: Path, say: bytes, answer: bytes
) -> None:
    code, out, err = run(program, "p2pstdio", str(repository), CLIENT, say=b"VERSION 4\n" + say)
    assert (code, out, err) == (0, GREETING + b"VERSION 4\n" + answer, b"")


def test_lines_may_come_in_any_pieces(program: str, repository: Path) -> None:
    with subprocess.Popen([program, "p2pstdio", str(repository), CLIENT], stdin=-1, stdout=-1, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"VERS")
        assert process.stdout.readline() == GREETING
        process.stdin.write(b"ION 4\nCHECK")
        assert process.stdout.readline() == b"VERSION 4\n"
        process.stdin.write(b"PRESENT %b\nCHECKPRESENT %b" % (K.raw, K.raw))
        assert process.stdout.readline() == b"SUCCESS\n"
        process.stdin.write(b"\nGETTIME")
        assert process.stdout.readline() == b"SUCCESS\n"
        process.stdin.write(b"STAMP\n")
        assert process.stdout.readline().startswith(b"TIMESTAMP ")
        process.stdin.close()
        assert process.wait() == 0


def test_a_line_without_end_is_a_protocol_error(program: str, repository: Path) -> None:
    code, out, err = run(program, "p2pstdio", str(repository), CLIENT, say=b"VERSION 4\n" + b"x" * 40000)
    assert (code, out) == (1, GREETING + b"VERSION 4\n")
    assert err == b"git-annex: protocol error\np2pstdio: 1 failed\n"


def test_what_a_session_stored_is_in_the_branch_when_it_ends(program: str, repository: Path) -> None:
    say = b"VERSION 4\nPUT  %b\nDATA 4\nabcdVALID\n" % ABSENT.raw
    _, out, err = run(program, "p2pstdio", str(repository), CLIENT, say=say)
    assert (out, err) == (GREETING + b"VERSION 4\nPUT-FROM 0\nSUCCESS\n", b"")
    with Repository.open(repository) as opened:
        assert opened.content.present(ABSENT)
        assert ME in opened.branch.locations(ABSENT).present
        assert opened.branch.queued == 0


def test_a_quota_holds(program: str, repository: Path) -> None:
    subprocess.run(["git", "-C", repository, "config", "annexpy.quota", "6"], check=True)
    fits = Key.parse(b"SHA256-s3--" + hashlib.sha256(b"xyz").hexdigest().encode())
    say = b"VERSION 4\nPUT  %b\nPUT  %b\nDATA 3\nxyzVALID\n" % (ABSENT.raw, fits.raw)
    _, out, _ = run(program, "p2pstdio", str(repository), CLIENT, say=say)
    said = out.splitlines()
    assert said[2].startswith(b"ERROR"), said
    assert b"quota is 6 bytes" in said[2]
    assert said[3:] == [b"PUT-FROM 0", b"SUCCESS"]


def test_debug_shows_the_messages_and_not_the_content(program: str, repository: Path) -> None:
    say = b"VERSION 4\nPUT  %b\nDATA 4\nabcdVALID\nAUTH x secret!\n" % ABSENT.raw
    _, _, err = run(program, "p2pstdio", str(repository), CLIENT, "--debug", say=say)
    assert b"PutFrom" in err
    assert b"abcd" not in err
    assert b"secret" not in err


def test_modes_come_from_the_environment(program: str, repository: Path) -> None:
    say = b"VERSION 4\nREMOVE %b\nPUT  %b\n" % (K.raw, ABSENT.raw)
    argv = (program, "p2pstdio", str(repository), CLIENT)
    read_only = b"ERROR this repository is read-only; write access denied\n"
    for env, answer in [
        ({"GIT_ANNEX_SHELL_READONLY": "0"}, read_only * 2),  # any value counts
        ({"GIT_ANNEX_SHELL_READONLY": "1", "GIT_ANNEX_SHELL_APPENDONLY": "1"}, read_only * 2),
        ({"GIT_ANNEX_SHELL_APPENDONLY": "1"}, b"ERROR this repository is append-only; removal denied\nPUT-FROM 0\n"),
        ({"GIT_ANNEX_SHELL_READONLY": ""}, b"SUCCESS\nPUT-FROM 0\n"),
    ]:
        assert run(*argv, say=say, **env)[1] == GREETING + b"VERSION 4\n" + answer


@contextmanager
def session(program: str, repository: Path) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[bytes], bytes]]]:
    with subprocess.Popen([program, "p2pstdio", str(repository), CLIENT], stdin=-1, stdout=-1, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == GREETING

        def ask(line: bytes) -> bytes:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(line)
            return process.stdout.readline()

        ask(b"VERSION 4\n")
        yield process, ask
        process.stdin.close()


@pytest.mark.parametrize("first", [b"", b"GETTIMESTAMP\n"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, None])
def test_a_lock_outlives_its_client_and_its_server(
    program: str, repository: Path, end: signal.Signals | None, first: bytes
) -> None:
    with session(program, repository) as (process, ask):
        if first:
            ask(first)
        assert ask(b"LOCKCONTENT " + K.raw + b"\n") == b"SUCCESS\n"
        if end is not None:
            process.send_signal(end)
            process.wait()
    with session(program, repository) as (_, ask):
        assert ask(b"REMOVE " + K.raw + b"\n") == b"FAILURE\n"
        # git-annex would now let it go; somebody still relies on it
        assert ask(b"LOCKCONTENT " + K.raw + b"\n") == b"SUCCESS\n"
        assert ask(b"UNLOCKCONTENT\nREMOVE " + K.raw + b"\n") == b"FAILURE\n"


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_session_that_holds_a_lock_ends_when_it_is_interrupted_and_when_nobody_hears_why(
    program: str, repository: Path, interrupted: bool
) -> None:
    unheard, stderr = os.pipe()
    with subprocess.Popen(
        [program, "p2pstdio", str(repository), CLIENT], stdin=-1, stdout=-1, stderr=stderr
    ) as process:
        os.close(stderr)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"VERSION 4\nLOCKCONTENT " + K.raw + b"\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(3)][-1] == b"SUCCESS\n"
        os.close(unheard)
        if interrupted:
            process.send_signal(signal.SIGINT)
        else:
            process.stdin.close()
        assert process.wait(60) == (130 if interrupted else 1)


def test_a_lock_that_is_given_back_leaves_nothing(program: str, repository: Path) -> None:
    with session(program, repository) as (_, one), session(program, repository) as (_, two):
        assert one(b"LOCKCONTENT " + K.raw + b"\n") == b"SUCCESS\n"
        assert two(b"LOCKCONTENT " + K.raw + b"\n") == b"SUCCESS\n"
        two(b"UNLOCKCONTENT\nGETTIMESTAMP\n")
        assert two(b"REMOVE " + K.raw + b"\n") == b"FAILURE\n"
        one(b"UNLOCKCONTENT\nGETTIMESTAMP\n")
        assert two(b"REMOVE " + K.raw + b"\n") == b"SUCCESS\n"


# -- other commands -------------------------------------------------------------------------------------------


def test_configlist_tells_the_uuid(program: str, repository: Path, tmp_path: Path) -> None:
    listed = f"annex.uuid={ME}\ncore.gcrypt-id=\n".encode()
    path = str(repository)
    for argv in [
        ["configlist", path],
        ["configlist", "--uuid", ME, path],
        ["configlist", path, f"--uuid={ME}", "--debug", "--", "autoinit=1", "--"],
        ["-c", f"git-annex-shell 'configlist' '{path}'"],
        ["-c", f"/usr/local/bin/annexpy-shell configlist {path} --uuid {ME}"],
    ]:
        assert run(program, *argv) == (0, listed, b"")
    (tmp_path / "rel").symlink_to(repository)
    assert run(program, "configlist", "/~/rel", HOME=str(tmp_path))[1] == listed
    assert run(program, "configlist", "rel", HOME=str(tmp_path))[1] == listed


def test_repositories_that_are_not_plain_are_read_in_full(program: str, repository: Path, tmp_path: Path) -> None:
    config = repository / "config"
    included = tmp_path / "included"
    included.write_text(f"[annex]\n\tuuid = {ME}\n\tversion = 10\n")
    config.write_text(f"[core]\n\trepositoryformatversion = 0\n\tbare = true\n[include]\n\tpath = {included}\n")
    assert run(program, "p2pstdio", str(repository), CLIENT)[1] == GREETING
    assert run(program, "p2pstdio", str(repository / "objects"), CLIENT)[1] == GREETING
    included.write_text(f"[annex]\n\tuuid = {ME}\n\tversion = 99\n")
    code, out, err = run(program, "p2pstdio", str(repository), CLIENT)
    assert (code, out) == (1, b"")
    assert b"annex.version is 99" in err


def test_a_repository_with_a_work_tree_is_served(program: str, tmp_path: Path) -> None:
    Repository.init(tmp_path / "work", uuid=ME).close()
    subprocess.run(["git", "-C", str(tmp_path / "work"), "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    subprocess.run(["git", "-C", str(tmp_path / "work"), "worktree", "add", "-q", "../linked"], check=True)
    for path in ("work", "work/.git", "linked"):
        assert run(program, "p2pstdio", str(tmp_path / path), CLIENT) == (0, GREETING, b""), path


def test_a_repository_into_which_the_branch_was_pushed_becomes_an_annex(
    program: str, repository: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--bare", str(repository), str(clone)], check=True)
    assert run(program, "configlist", str(clone), GIT_ANNEX_SHELL_READONLY="1")[0] == 1
    code, out, _ = run(program, "configlist", str(clone))
    assert code == 0
    made = out.split(b"\n")[0].removeprefix(b"annex.uuid=").decode()
    assert shell.is_uuid(made)
    assert made != ME
    assert run(program, "p2pstdio", str(clone), CLIENT)[1] == f"AUTH-SUCCESS {made}\n".encode()


def test_in_annex_says_present_absent_or_being_removed(program: str, repository: Path) -> None:
    k, absent = str(K), str(ABSENT)
    assert run(program, "inannex", str(repository), k, k) == (0, b"", b"")
    assert run(program, "inannex", str(repository)) == (0, b"", b"")
    assert run(program, "inannex", str(repository), k, absent) == (1, b"", b"")
    assert run(program, "inannex", str(repository), "nokey") == (1, b"", b"git-annex-shell: bad key\n\n")
    with Repository.open(repository) as opened, opened.content.removal(K):
        assert in_annex(str(repository), [k]) == 100
    with Repository.open(repository) as opened:
        lock = opened.content.lock(K)
        assert in_annex(str(repository), [k]) == 0
        lock.release()


def test_only_the_allowed_directory_is_served(program: str, repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    Repository.init(other, bare=True).close()
    link = tmp_path / "link"
    link.symlink_to(repository)
    for allowed in (repository, link, f"{repository}/", f"{tmp_path}/other/../solo"):
        assert run(program, "configlist", str(repository), GIT_ANNEX_SHELL_DIRECTORY=str(allowed))[0] == 0
    for argv in (
        ["configlist", str(other)],
        ["p2pstdio", str(other), CLIENT],
        ["inannex", str(other), str(K)],
        ["-c", f"git-upload-pack '{other}'"],
        ["-c", f"git-receive-pack '{repository}/../other'"],
        ["configlist", str(tmp_path)],
    ):
        code, out, err = run(program, *argv, GIT_ANNEX_SHELL_DIRECTORY=str(repository))
        assert (code, out) == (1, b"")
        assert err.startswith(f"git-annex-shell: Only allowed to access {repository} not ".encode())


def test_a_limited_account_runs_nothing_else(program: str, repository: Path) -> None:
    for command in (f"git-upload-pack '{repository}'", "ls /", "git-shell"):
        code, out, err = run(program, "-c", command, GIT_ANNEX_SHELL_LIMITED="1")
        assert (code, out, err) == (1, b"", b"git-annex-shell: Action blocked by GIT_ANNEX_SHELL_LIMITED\n\n")
    assert run(program, "configlist", str(repository), GIT_ANNEX_SHELL_LIMITED="1")[0] == 0


def test_other_commands_are_not_run(program: str, tmp_path: Path) -> None:
    for argv in (["-c", f"touch {tmp_path}/x"], ["touch", f"{tmp_path}/x"], ["-c", ""], ["-c", "git gc"], ["foo"]):
        code, out, err = run(program, *argv)
        assert (code, out) == (1, b"")
        assert b"unrecognized command" in err
    assert not (tmp_path / "x").exists()


def test_git_sees_what_waits_in_the_journal(program: str, repository: Path) -> None:
    with Repository.open(repository) as opened:
        opened.branch.set_present(K, ME, present=True)
        opened.branch.sync_now()
        before = opened.branch.tip
    _, out, _ = run(program, "-c", f"git-upload-pack '{repository}'", say=b"0000")
    assert out.split(b" refs/heads/git-annex")[0][4:].decode() != before
    with Repository.open(repository) as opened:
        assert opened.branch.tip.encode() == out.split(b" refs/heads/git-annex")[0][4:]


@pytest.mark.transcripts
@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("direct-invoke-*.jsonl")), ids=lambda path: path.stem)
def test_it_is_started_as_git_annex_shell_is(program: str, repository: Path, tmp_path: Path, path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "plain")], check=True)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    host = os.uname().nodename

    def here(text: str) -> str:
        return text.replace("/srv/annex/", f"{tmp_path}/").replace("repository in vm on", f"repository in {host} on")

    argv = here(next(row["comment"] for row in rows if row["dir"] == "exec"))
    words = argv.split(" ", 2) if " -c " in argv else shlex.split(argv)
    said, heard, err = (
        here("".join(row["text"] for row in rows if row["dir"] == kind)).encode() for kind in ("C>S", "S>C", "stderr")
    )
    code = int(next(row["comment"] for row in rows if row["dir"] == "exit").removeprefix("rc="))
    assert run(program, *words[1:], say=said) == (code, heard, err)


# -- beside the real one ----------------------------------------------------------------------------------------


@pytest.mark.interop
def test_words_and_exit_codes_are_those_of_git_annex_shell(
    program: str, repository: Path, tmp_path: Path, git_annex: str
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "plain")], check=True)
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "plainbare")], check=True)
    real = str(Path(git_annex).with_name("git-annex-shell"))
    path, plain = str(repository), str(tmp_path / "plain")
    (tmp_path / "short.git").symlink_to(repository)
    for argv in [
        ["configlist", str(tmp_path / "short")],
        ["p2pstdio", str(tmp_path / "short"), CLIENT],
        ["-c", "git-annex-shell"],
        ["foo"],
        ["-c", "ls /"],
        ["-c", f"configlist '{path}'"],
        ["configlist", path],
        ["configlist", path, "extra"],
        ["configlist", path, "--uuid", "x"],
        ["configlist", path, "--uuid", ME],
        ["configlist", plain],
        ["configlist", str(tmp_path / "plainbare")],
        ["configlist", "/nonexistent"],
        ["-c", f"git-annex-shell 'configlist' '{path}'"],
        ["inannex", path, str(K)],
        ["inannex", path, str(ABSENT)],
        ["inannex", path, "nokey"],
        ["p2pstdio", path],
        ["p2pstdio", plain, CLIENT],
        ["p2pstdio", "/nonexistent", CLIENT],
        ["p2pstdio", path, CLIENT, "x"],
        ["p2pstdio", path, CLIENT, "--uuid", "zz"],
        ["p2pstdio", path, CLIENT, "--uuid", ME],
        ["p2pstdio", path, CLIENT, "--", "remoteuuid=1", "--"],
    ]:
        theirs = run(real, *argv)
        ours = run(program, *argv)
        if b"Usage:" in theirs[2]:  # our list of commands is shorter
            theirs, ours = (theirs[0], theirs[1], b""), (ours[0], ours[1], b"")
        assert ours == theirs, argv
