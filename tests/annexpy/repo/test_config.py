"""The configuration parser agrees with git, and what it writes git reads."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from annexpy.errors import InvalidInput, LockHeld, UnsupportedRepository
from annexpy.logs.sizes import parse_size
from annexpy.repo import config as config_module
from annexpy.repo.config import GitConfig
from annexpy.repo.files import DiskFiles
from annexpy.repo.gitconfig import Entry, parse_config, with_value, without


def git_says(text: bytes, tmp: Path) -> list[tuple[str, str | None]] | None:
    """What git reads from *text*: (name, value), or None when it refuses."""
    path = tmp / "asked"
    path.write_bytes(text)
    done = subprocess.run(
        ["git", "config", "--file", path, "--list", "-z", "--no-includes"], capture_output=True, check=False
    )
    if done.returncode:
        return None
    rows = [row.partition(b"\n") for row in done.stdout.split(b"\0") if row]
    return [
        (n.decode("utf-8", "surrogateescape"), v.decode("utf-8", "surrogateescape") if s else None) for n, s, v in rows
    ]


def we_say(text: bytes) -> list[tuple[str, str | None]]:
    return [(found.name, found.value) for found in parse_config(text) if isinstance(found, Entry)]


ODD = [
    b"",
    b"[a]\n",
    b"[a]\n\tb = c\n",
    b"[A]B=c",
    b"[a] b = c ; comment\n d\n",
    b'[a "B.c D"]\n\te = "x y" z # no\n\tf = " quoted " \n',
    b'[a "q\\"u\\\\o"]\n e=1\n',
    b"[a.B.c]\n d = 1\n",
    b'[a]\n b = one \\\n  two\n c = \\"q\\" \\t\\n\\b\\\\\n',
    b"\xef\xbb\xbf[a]\nb=1\n",
    b'[a]\r\n b = 1\r\n c = "2"\r\n\r\n',
    b"# c\n; d\n\n[a]\n b = ;\n c = #x\n e=\n",
    b"[a]\n b = 'single'  \n c = a\"b c\"d\n",
    b"[a]\nb = \xff\xfe\n",
    b"[a][b]\nc=1\n",
    b"[a]\n\tb = caf\xc3\xa9   blanks\n",
    b"[a]b\n[a]c\nx\n",
    b"x = 1\n[a] b=1\n",
    b'[a]\n b = "a;b#c" ; d\n',
    b"[a]\n b = x\\\n",
    b"[a]\n  b  =  1  \n\t\tb=2\n[a]\nb=3",
]


@pytest.mark.parametrize("text", ODD)
def test_odd_files_are_read_as_git_reads_them(text: bytes, tmp_path: Path) -> None:
    assert we_say(text) == git_says(text, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b"[a]c # x\n",
        b"[a]\n= 1\n",
        b"[a\nb=1\n",
        b'[a]\nb = "open\n',
        b"[a]\nb = \\x\n",
        b"[a]\n1b = 2\n",
        b"[a]\nb c\n",
    ],
)
def test_a_bad_line_is_named(text: bytes, tmp_path: Path) -> None:
    assert git_says(text, tmp_path) is None
    with pytest.raises(InvalidInput, match="bad line"):
        we_say(text)


VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NAMES = st.sampled_from(["annex.uuid", "annex.Version", "remote.NAS.url", "remote.a.b c.url", 'x."\\.y', "core.bare"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.sampled_from([b"", *ODD]), st.lists(st.tuples(NAMES, st.one_of(st.none(), VALUES)), max_size=4))
@example(b"[annex]\n\tuuid = 1 ; why\n\tversion = 2\n", [("annex.uuid", None), ("annex.uuid", "x")])
@example(b"[annex] uuid = 1", [("annex.version", "10")])
@example(b"[annex] ; note", [("annex.version", "10")])
def test_what_we_write_git_reads(tmp_path: Path, text: bytes, edits: list[tuple[str, str | None]]) -> None:
    for name, value in edits:
        before = we_say(text)
        text = without(text, name) if value is None else with_value(text, name, value, replace=True)
        canonical = (
            name.lower()
            if name.count(".") == 1
            else ".".join([name.split(".")[0], *name.split(".")[1:-1], name.split(".")[-1].lower()])
        )
        expected = [row for row in before if row[0] != canonical]
        assert [row for row in we_say(text) if row[0] != canonical] == expected
        assert [v for n, v in we_say(text) if n == canonical] == ([] if value is None else [value])
    assert we_say(text) == git_says(text, tmp_path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    (tmp_path / "home/.config/git").mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def git_dir(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", tmp_path / "r"], check=True)
    return tmp_path / "r/.git"


def everything(git_dir: Path) -> list[tuple[str, str]]:
    listed = subprocess.run(
        ["git", "config", "--list", "-z", "--includes"], cwd=git_dir.parent, capture_output=True, text=True, check=True
    ).stdout
    rows = [row.partition("\n") for row in listed.split("\0") if row]
    return sorted({name: value for name, _, value in rows}.items())


def test_all_places_are_read_in_the_order_of_git(home: Path, git_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".config/git/config").write_text("[a]\n x = xdg\n y = xdg\n z = xdg\n")
    (home / ".gitconfig").write_text(
        "[a]\n y = home\n z = home\n[include]\n path = more\n path = ~/more2\n path = missing\n"
        f'[includeIf "gitdir:{git_dir.parent.parent}/"]\n path = here\n'
        '[includeIf "gitdir:/elsewhere/"]\n path = elsewhere\n'
        '[includeIf "gitdir:r/.git"]\n path = relative\n[includeIf "gitdir/i:R/.GIT"]\n path = relative2\n'
        '[includeIf "onbranch:ma*"]\n path = onbranch\n[includeIf "onbranch:other"]\n path = elsewhere\n'
        '[includeIf "hasconfig:remote.*.url:ssh://nas/**"]\n path = hasurl\n'
        '[includeIf "hasconfig:remote.*.url:ssh://other/**"]\n path = elsewhere\n'
    )
    for name in ("more", "more2", "here", "elsewhere", "relative", "relative2", "onbranch", "hasurl"):
        (home / name).write_text(f"[inc]\n {name} = yes\n last = {name}\n")
    (git_dir / "HEAD").write_text("ref: refs/heads/main\n")
    with (git_dir / "config").open("a") as file:
        file.write('[a]\n z = repo\n[extensions]\n worktreeConfig = true\n[remote "nas"]\n url = ssh://nas/x\n')
    (git_dir / "config.worktree").write_text("[a]\n w = worktree\n")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "env.Counted")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "1")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'par.am'='it'\\''s' 'par.flag'")
    config = GitConfig(DiskFiles(git_dir))

    ours = sorted(config.items())
    assert ours == everything(git_dir)
    assert dict(ours)["par.am"] == "it's"
    assert config.get_bool("par.flag")
    assert config.get("inc.elsewhere") is None


def test_a_loop_of_includes_ends(home: Path, git_dir: Path) -> None:
    (home / ".gitconfig").write_text("[include]\n path = .gitconfig\n[a]\n b = 1\n")

    assert GitConfig(DiskFiles(git_dir)).get("a.b") == "1"


def config_of(tmp_path: Path, text: str) -> GitConfig:
    (tmp_path / "config").write_text(text)
    return GitConfig(DiskFiles(tmp_path), environ={})


def test_values_are_typed_and_bad_ones_named(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        "[t]\n a\n b = yes\n c = 0\n d =\n e = 12k\n f = maybe\n g = 1.5 GiB\n h = -3\n i = 1 parsec\n[t]\n b = off\n",
    )

    assert (config.get_bool("t.a"), config.get_bool("t.b"), config.get_bool("t.c"), config.get_bool("t.d")) == (
        True,
        False,
        False,
        False,
    )
    assert config.get_bool("t.none", True) is True
    assert config.get("T.A") == ""
    assert config.get_all("t.b") == ["yes", "off"]
    assert (config.get_int("t.e"), config.get_int("t.h"), config.get_int("t.none", 5)) == (12288, -3, 5)
    assert config.get_size("t.g") == 1610612736
    assert config.get_size("t.none", 100_000_000) == 100_000_000
    for read in (lambda: config.get_bool("t.f"), lambda: config.get_int("t.f"), lambda: config.get_size("t.i")):
        with pytest.raises(InvalidInput, match=r"t\.[fi]"):
            read()


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1), ("1 megabyte", 10**6), ("100 megabytes", 10**8), ("1k", 1000), ("1KB", 1000), ("1 kib", 1024),
        ("1Ki", 1024), ("0.5 GB", 5 * 10**8), ("8 kbit", 1000), ("2 kilobits", 250), ("1e3", 1000),
        ("1 tebibyte", 2**40), ("7 B", 7), ("3 bytes", 3), (".5", None), ("", None), ("x", None), ("1 frob", None),
        ("1 mx", None), ("1 2", 1), ("megabyte", None), ("2.5", 2), ("3.5", 4),
    ],
)  # fmt: skip
def test_sizes_are_those_of_git_annex(text: str, size: int | None) -> None:
    assert parse_size(text) == size


def test_remotes_come_with_their_settings(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        '[url "ssh://nas/srv/"]\n insteadOf = nas:\n pushInsteadOf = web:\n'
        '[remote "one"]\n url = nas:lab\n annex-uuid = U1\n annex-cost = 150.5\n annex-readonly\n annex-shell = sh -c\n'
        " annex-cluster-node = c1 c2\n annex-ssh-options = -v\n annex-trustlevel = trusted\n"
        '[remote "two.x"]\n url = web:x\n annex-ignore = true\n'
        '[remote "special"]\n annex-uuid = U3\n annex-private = true\n'
        '[remote "half"]\n fetch = x\n[remote]\n pushDefault = one\n',
    )

    remotes = config.remotes()

    assert list(remotes) == ["one", "two.x", "special"]
    one, two, special = remotes.values()
    assert (one.url, one.pushurl, one.uuid, one.cost, one.readonly, one.ignore) == (
        "ssh://nas/srv/lab",
        None,
        "U1",
        150,
        True,
        False,
    )
    assert (one.shell, one.cluster_node, one.ssh_options, one.trustlevel) == ("sh -c", ("c1", "c2"), "-v", "trusted")
    assert (two.url, two.pushurl, two.ignore, two.uuid) == ("web:x", "ssh://nas/srv/x", True, None)
    assert (special.url, special.private) == (None, True)
    assert special.get("annex-uuid") == "U3"


def test_writing_keeps_the_mode_and_the_rest_of_the_file(tmp_path: Path) -> None:
    config = config_of(tmp_path, "# mine\n[annex]\n\tuuid = old # why\n\tx = 1\n")
    (tmp_path / "config").chmod(0o640)

    config.change({"annex.uuid": "new", "annex.x": None, "annex.version": "10"})
    config.add("annex.tag", "a;b")
    config.add("annex.tag", "c")

    assert (
        tmp_path / "config"
    ).read_text() == '# mine\n[annex]\n\tuuid = new\n\tversion = 10\n\ttag = "a;b"\n\ttag = c\n'
    assert config.get_all("annex.tag") == ["a;b", "c"]
    assert (tmp_path / "config").stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(tmp_path)) == ["config"]


def test_a_change_by_somebody_else_is_seen_after_refresh(tmp_path: Path) -> None:
    config = config_of(tmp_path, "[a]\n b = 1\n")
    assert not config.refresh()

    (tmp_path / "config").write_text("[a]\n b = 22\n")

    assert config.refresh()
    assert config.get("a.b") == "22"


def test_a_held_lock_is_named_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path, "[a]\n b = 1\n")
    (tmp_path / "config.lock").write_text("")
    monkeypatch.setattr(config_module, "_LOCK_SECONDS", 0.0)

    with pytest.raises(LockHeld, match=r"config\.lock is held by another git process"):
        config.set("a.b", "2")

    assert (tmp_path / "config").read_text() == "[a]\n b = 1\n"


@pytest.mark.parametrize("name", ["x", "a.", ".b", "a.b_c", "a.1b", "a.x\ny.b"])
def test_bad_names_are_refused_and_the_lock_is_given_back(tmp_path: Path, name: str) -> None:
    config = config_of(tmp_path, "[a]\n b = 1\n")

    with pytest.raises(InvalidInput, match="git config name"):
        config.set(name, "1")

    assert os.listdir(tmp_path) == ["config"]


def test_a_config_that_is_a_link_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "elsewhere").write_text("[a]\n b = 1\n")
    (tmp_path / "r/config").write_text("")
    config = GitConfig(DiskFiles(tmp_path / "r"), environ={})
    (tmp_path / "r/config").unlink()
    (tmp_path / "r/config").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnsupportedRepository, match="not a regular file"):
        config.set("a.b", "2")
