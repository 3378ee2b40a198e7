"""What holds for every command: options, exit codes, help, how results and failures look."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.cli.group import COMMANDS, annexpy
from annexpy.cli.options import Options
from annexpy.cli.show import Report, human_size, printable
from annexpy.errors import NotEnoughCopies
from annexpy.keys.key import Key
from annexpy.repo.repository import Repository

KEY = "SHA256E-s6--5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03.txt"


def test_the_table_names_every_command_with_its_first_sentence() -> None:
    files = {path.stem for path in (Path(__file__).parents[3] / "annexpy/cli/commands").glob("[a-z]*.py")}

    assert files == set(COMMANDS)
    for name, sentence in COMMANDS.items():
        command = annexpy.get_command(click.Context(annexpy), name)
        assert command is not None
        assert command.name == name
        assert command.help
        assert sentence.endswith(".")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_the_common_options(name: str, cli) -> None:
    ran = cli(name, "--help")

    assert ran.code == 0
    assert ran.out.startswith(f"Usage: annexpy {name} ".encode())
    assert b"Common options:\n  -j, --json" in ran.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["key"], "Give FILEs"),
        (["key", "--backend", "NOPE", "f"], "key backend 'NOPE': not a hash backend. BLAKE2B160, "),
        (["put", "--backend", "NOPE", "r", "f"], "key backend 'NOPE': not a hash backend. BLAKE2B160, "),
        (["put", "--backend", "SKEIN256", "r", "f"], "carried but not computed"),
        (["key", "--backend", "\udcff", "f"], "not a hash backend"),
        (["examinekey", "bad"], "must be BACKEND"),
        (["examinekey"], "at least one KEY"),
        (["examinekey", KEY, "--batch"], "not both"),
        (["--jobs", "0", "key", "f"], "--jobs"),
        (["key", "--durability", "maybe", "f"], "--durability"),
        (["--nosuch"], "No such option"),
    ],
)
def test_wrong_usage_is_named_and_exits_2(words: list[str], message: str, cli) -> None:
    ran = cli(*words)

    assert ran.code == 2
    assert ran.out == b""
    assert message in ran.err


def test_without_words_there_is_help_and_exit_2(cli) -> None:
    ran = cli()

    assert ran.code == 2
    assert "Commands:" in ran.err


def test_version_is_the_same_by_the_fast_path_and_by_click(cli) -> None:
    assert cli("--version").out == cli("--json", "--version").out
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert cli("--version").lines == [f"annexpy {project['version']}"]


@pytest.mark.parametrize(
    "words", [["--json", "key"], ["key", "--json"], ["-j", "key", "-q"], ["key", "--json-progress"]]
)
def test_common_options_stand_before_the_command_or_after_it(words: list[str], tmp_path: Path, cli) -> None:
    (tmp_path / "f").write_bytes(b"x")

    assert cli(*words, tmp_path / "f").json[0]["success"] is True


def test_one_failure_does_not_stop_the_rest_and_exits_1(tmp_path: Path, cli) -> None:
    (tmp_path / "good").write_bytes(b"hello\n")

    ran = cli("key", tmp_path / "missing", tmp_path / "good")

    assert ran.code == 1
    assert ran.lines[-1] == KEY.removesuffix(".txt")
    assert ran.err.startswith("annexpy: key: file ")
    assert "No such file" in ran.err


def test_a_failure_in_json_carries_message_and_class(tmp_path: Path, cli) -> None:
    (failed,) = cli("key", "--json", tmp_path / "missing").json

    assert failed["success"] is False
    assert failed["error-class"] == "InvalidPath"
    assert "No such file" in failed["error-messages"][0]


def test_a_refused_drop_says_in_json_what_counted(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    report = Report(Options(json=True), "drop")

    report.failed(NotEnoughCopies(KEY, 1, 2, counted={"v1": "locked"}, missing={"v2": "unreachable"}), Key.parse(KEY))

    out = capfdbinary.readouterr().out
    assert b'"copies":1' in out
    assert b'"counted":{"v1":"locked"}' in out
    assert b'"needed":2' in out
    assert b'"not-counted":{"v2":"unreachable"}' in out
    assert report.exit_code == 1


def test_a_message_names_the_command_wherever_it_stands(tmp_path: Path, cli) -> None:
    assert cli("-C", tmp_path, "whereis").err == f"annexpy: whereis: {tmp_path}: not in a git repository\n"


def test_quiet_prints_failures_only(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    report = Report(Options(quiet=True), "get")

    report.done(Key.parse(KEY))
    report.failed("no", Key.parse(KEY))

    out, err = capfdbinary.readouterr()
    assert out == b""
    assert err == b"annexpy: get: no\n"


@given(st.text())
def test_nothing_printed_can_drive_a_terminal(text: str) -> None:
    assert all(c.isprintable() for c in printable(text))


def test_bytes_of_a_name_that_are_no_text_are_shown_as_bytes() -> None:
    assert printable("caf\udce9\n.txt") == "caf\\xe9\\n.txt"


@pytest.mark.interop
def test_sizes_read_as_git_annex_prints_them(git_annex: str, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    sizes = [
        0,
        1,
        999,
        1000,
        1005,
        1010,
        1049,
        1234,
        9999,
        99950,
        300006,
        999949,
        999999,
        10**6,
        123456789,
        15 * 10**11,
    ]

    keys = "".join(f"SHA256-s{size}--x\n" for size in sizes)
    said = subprocess.run(
        [git_annex, "examinekey", "--batch", "--format", "${humansize}\\n"],
        cwd=tmp_path,
        input=keys,
        capture_output=True,
        text=True,
        check=True,
    )

    assert [human_size(size) for size in sizes] == said.stdout.splitlines()
    assert human_size(None) == "unknown"


def test_ctrl_c_says_how_to_go_on_and_exits_130() -> None:
    code = (
        "import anyio, sys\n"
        "from annexpy.cli import run, group\n"
        "import annexpy.cli.commands.key as key\n"
        "async def work():\n"
        "    try:\n"
        "        print('begun', flush=True)\n"
        "        await anyio.sleep_forever()\n"
        "    finally:\n"
        "        with anyio.CancelScope(shield=True):\n"
        "            await anyio.lowlevel.checkpoint()\n"
        "            print('closed', flush=True)\n"
        "key.command.callback = lambda **k: run.in_event_loop(work)\n"
        "sys.exit(run.run(['key', '--batch']))\n"
    )
    in_background = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + code
    for number, script in ((signal.SIGINT, code), (signal.SIGTERM, code), (signal.SIGTERM, in_background)):
        child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n"
        child.send_signal(number)
        out, err = child.communicate(timeout=30)

        assert (out, child.returncode) == (b"closed\n", 130)
        assert b"annexpy: key: interrupted" in err
        assert b"run the same command again" in err


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    keys = "".join(f"SHA256-s{size}--x\n" for size in range(20000))
    (tmp_path / "keys").write_text(keys)

    done = subprocess.run(
        f"{sys.executable} -m annexpy.cli.app examinekey --batch < keys | head -1",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[3]), "PATH": "/usr/bin:/bin"},
    )

    assert done.stdout == "SHA256-s0--x\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(shell: str, cli) -> None:
    ran = cli("completion", shell)

    assert ran.code == 0
    assert b"_ANNEXPY_COMPLETE" in ran.out


def test_completion_offers_commands_without_importing_them() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'annexpy'; from annexpy.cli.app import main; main()"],
        env={"_ANNEXPY_COMPLETE": "bash_complete", "COMP_WORDS": "annexpy ex", "COMP_CWORD": "1"}
        | {"PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
    )

    assert done.stdout.splitlines() == ["plain,examinekey", "plain,explain"]


def test_completion_offers_git_remotes_and_clusters_for_a_remote(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "work") as work:
        work.config.change({"remote.vault.url": "/x", "remote.vault.annex-cluster-node": "valley"})
        work.config.change({"remote.other.url": "/y"})
    environment = {"_ANNEXPY_COMPLETE": "bash_complete", "COMP_WORDS": "annexpy put va", "COMP_CWORD": "2"}

    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'annexpy'; from annexpy.cli.app import main; main()"],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[3]), "HOME": str(tmp_path)},
        cwd=tmp_path / "work",
        capture_output=True,
        text=True,
    )

    assert done.stdout.splitlines() == ["plain,valley", "plain,vault"]


def test_a_batch_answers_each_line_before_the_next_is_written() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "annexpy.cli.app", "examinekey", "--batch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for size in range(3):
        child.stdin.write(b"SHA256-s%d--x\n" % size)
        child.stdin.flush()
        assert child.stdout.readline() == b"SHA256-s%d--x\n" % size
    child.stdin.close()
    assert child.wait(30) == 0
    child.stdout.close()


def test_output_that_cannot_be_written_is_one_line_and_no_traceback() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "annexpy.cli.app", "examinekey", "SHA256E-s0--" + "0" * 64],
            stdout=full, stderr=subprocess.PIPE, timeout=60,
        )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr == b"annexpy: examinekey: cannot write to standard output: No space left on device\n"


def test_a_closed_standard_output_or_input_is_not_a_traceback() -> None:
    for redirection in (">&-", "<&-", "<&- >&-"):
        words = f"{sys.executable} -m annexpy.cli.app examinekey --batch {redirection}"
        done = subprocess.run(["sh", "-c", words], input=b"", capture_output=True, timeout=60)
        assert b"Traceback" not in done.stderr


def test_examples_of_completion_stand_line_by_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "annexpy.cli.app", "completion", "--help"], capture_output=True, text=True, timeout=60
    )
    lines = done.stdout.splitlines()
    assert "\\b" not in "".join(lines)
    assert [line.split()[0] for line in lines if "completion" in line and ":" in line and "Usage" not in line] == [
        "bash:", "zsh:", "fish:",
    ]  # fmt: skip


def test_a_place_where_no_repository_can_be_made_is_named_with_the_reason() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "annexpy.cli.app", "init", "/proc/annexpy-nowhere"], capture_output=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr == b"annexpy: init: /proc/annexpy-nowhere: cannot be made: No such file or directory\n"
