"""The manual is true: every code block of README and docs/ is run, in order, page by page.

``python`` blocks share one namespace per page and may await. ``console`` blocks are typed into one shell per
page: ``$ `` starts a command, ``> `` continues it, the rest is what it prints, with ``…`` for what may
differ; ``# exit N`` at the end of a command says that it fails. Every page starts in an empty folder with
a home of its own. A block that is not run stands below ``<!-- not run: reason -->``.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

ROOT = Path(__file__).parent.parent
if TYPE_CHECKING:
    from tests.conftest import SSHD

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
RUN = ("python", "console")
SHOWN = ("text", "mermaid", "json", "toml", "ini", "gitconfig", "yaml")
_FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_SECONDS = 120


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    body: str
    reason: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        indent = len(match["indent"])
        body = "".join(row[indent:] if row.strip() else row for row in match["body"].splitlines(keepends=True))
        found.append(Block(page, line, match["language"].strip(), body, (match["reason"] or "").strip()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    assert page.read_text().count("```") == 2 * len(blocks(page)), "a fence that does not close, or hides from the test"
    for block in blocks(page):
        assert block.language in RUN + SHOWN, f"{block}: {block.language!r} is neither run nor known to be shown only"


@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(b.language in RUN and not b.reason for b in blocks(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_every_block_of_the_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    home = tmp_path / "home"
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()
    shutil.copy(Path(os.environ["HOME"]) / ".gitconfig", home)
    if "vault.example.org" in page.read_text():
        give_the_vault(home, request.getfixturevalue("sshd"), monkeypatch)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    namespace: dict[str, object] = {"__name__": "page"}

    with Shell(work) as shell:
        for block in blocks(page):
            if block.reason or block.language not in RUN:
                continue
            if block.language == "python":
                run_python(block, namespace)
            else:
                run_console(block, shell)


def give_the_vault(home: Path, server: SSHD, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make vault.example.org a host that ssh in *home* knows: the server that runs here for the tests."""
    dot = home / ".ssh"
    dot.mkdir(mode=0o700)
    (dot / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {(server.folder / 'host.pub').read_text()}")
    (dot / "config").write_text(
        f"Host vault.example.org\n\tHostName 127.0.0.1\n\tPort {server.port}\n\tUser {server.user}\n"
        f"\tIdentityFile {server.identity}\n\tIdentitiesOnly yes\n\tUserKnownHostsFile {dot}/known_hosts\n"
    )
    # OpenSSH looks for its files in the home of the password database, whatever HOME says.
    wrapper = home / "bin" / "ssh"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {dot}/config "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")


def run_python(block: Block, namespace: dict[str, object]) -> None:
    code = compile(
        "\n" * block.line + block.body, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True
    )
    result = eval(code, namespace)
    if inspect.iscoroutine(result):

        async def finish() -> None:
            with anyio.fail_after(_SECONDS):
                await result

        anyio.run(finish)


class Shell:
    """One bash that keeps its directory and variables between blocks."""

    def __init__(self, folder: Path) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        try:
            self._bash.stdin.close()
            self._bash.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._bash.kill()
            self._bash.wait()
        with suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)  # servers of a page that broke off
        self._bash.stdout.close()

    def run(self, command: str) -> tuple[str, int]:
        """(what it printed, its exit code); commands read an empty standard input."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        mark = "-- end of command --"
        script = f"{{ {command}\n}} </dev/null\nprintf '\\n{mark} %d\\n' $?\n"
        timer = threading.Timer(_SECONDS, self._bash.kill)
        timer.start()
        try:
            self._bash.stdin.write(script.encode())
            self._bash.stdin.flush()
            lines: list[str] = []
            for raw in self._bash.stdout:
                line = raw.decode("utf-8", "replace")
                if line.startswith(mark):
                    return "".join(lines).removesuffix("\n"), int(line.split()[-1])
                lines.append(line)
        finally:
            timer.cancel()
        raise AssertionError(f"the shell ended during: {command}\n{''.join(lines)}")


def run_console(block: Block, shell: Shell) -> None:
    for command, expected in commands(block.body):
        wanted = re.search(r"\s+# exit (\d+)$", command)
        printed, code = shell.run(command)
        assert code == (int(wanted[1]) if wanted else 0), f"{block}: exit {code}\n$ {command}\n{printed}"
        assert matches(expected, printed), f"{block}\n$ {command}\n{printed}\n-- the page says --\n{expected}"


def commands(body: str) -> Iterator[tuple[str, str]]:
    """(command, what it should print) of a console block."""
    command: list[str] = []
    output: list[str] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            if command:
                yield "\n".join(command), "\n".join(output)
            command, output = [line[2:]], []
        elif line.startswith("> ") and command and not output:
            command.append(line[2:])
        else:
            assert command, f"output before the first command: {line}"
            output.append(line)
    if command:
        yield "\n".join(command), "\n".join(output)


def matches(expected: str, printed: str) -> bool:
    """True when *printed* is what the page says; ``…`` stands for anything."""
    normal = ["\n".join(line.rstrip() for line in text.strip("\n").splitlines()) for text in (expected, printed)]
    pattern = ".*".join(re.escape(part) for part in normal[0].split("…"))
    return re.fullmatch(pattern, normal[1], re.DOTALL) is not None


def test_a_page_that_lies_is_noticed(tmp_path: Path) -> None:
    lie = "# T\n\n```console\n$ echo truth\nlie\n```\n"
    page = ROOT / "README.md"
    with Shell(tmp_path) as shell:
        (block,) = [Block(page, 3, m["language"], m["body"], "") for m in _FENCE.finditer(lie)]
        with pytest.raises(AssertionError, match="truth"):
            run_console(block, shell)
        with pytest.raises(AssertionError, match="exit 1"):
            run_console(Block(page, 3, "console", "$ false\n", ""), shell)
        run_console(
            Block(page, 3, "console", "$ false  # exit 1\n$ A=1\n$ echo $A and\n> echo more\n1 …\nmore\n", ""), shell
        )
    with pytest.raises(ZeroDivisionError):
        run_python(Block(page, 3, "python", "import anyio\nawait anyio.lowlevel.checkpoint()\n1 / 0\n", ""), {})


def test_pages_made_from_the_code_are_current() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    for name, make in generate.PAGES.items():
        assert (ROOT / "docs" / name).read_text() == make(), f"docs/{name} is old: run make docs"


def test_every_page_is_in_the_navigation_and_every_link_leads_somewhere() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()

    for page in PAGES:
        if page.parent.name == "docs":
            assert f": {page.name}\n" in navigation, f"{page.name} is not in mkdocs.yml"
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_test_that_the_manual_names_exists() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    modules = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert {name for name in named if f"def {name}(" not in tests} <= modules
