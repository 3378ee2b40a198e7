"""``annexpy-shell``: a drop-in for git-annex-shell, run once for every ssh session.

What it costs is how long it takes to start. So this module imports next to nothing:
it finds ``annex.uuid`` with a minimal look at the git configuration, says AUTH-SUCCESS, and answers
VERSION by itself while a thread imports what ``direct`` needs for presence checks and locks, and then
everything else, unless all that the client wants is to lock and unlock; then ``stdio`` takes over. Where
anything is out of the ordinary (includes, worktrees, quoting …) the full readers decide before a word is said.

Offered: ``configlist``, ``p2pstdio``, ``inannex``, and git-upload-pack, git-receive-pack and
git-upload-archive, which are git's own. Not offered: ``notifychanges``, and the commands that only
gcrypt and rsync remotes use.

Texts and exit codes are those of git-annex-shell (fact sheet p2p-protocol, section 7).
"""

from __future__ import annotations

import os
import sys

from annexpy.garbage import spare_modules
from annexpy.server.refusal import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from annexpy.server.importing import Importing

__all__ = ["Asked", "is_uuid", "main", "parse_command"]

COMMANDS = ("configlist", "inannex", "p2pstdio")
GIT_COMMANDS = ("git-upload-pack", "git-receive-pack", "git-upload-archive")
NAMES = ("git-annex-shell", "annexpy-shell")
USAGE = """\
Usage: git-annex-shell [-c] command [parameters ...] [option ...]

Plumbing commands:

configlist    outputs relevant git configuration
inannex       checks if keys are present in the annex
p2pstdio      communicate in P2P protocol over stdio
"""

# Those of p2p/, which is not imported yet; a test compares them.
MAX_VERSION, PROOFS, RANGES = 4, 1004, 2004
_FIRST_READ = 65536
_PATIENCE = 0.06  # seconds to hear what the session is about: about as long as the first import takes
_LOCK = b"LOCKCONTENT "
_UUID_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def main(argv: list[str] | None = None) -> int:
    """Run one command line; *argv* without the program's name. Returns the exit code."""
    if argv is None:
        spare_modules()
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except Refusal as refusal:
        return _told(refusal)
    except BrokenPipeError:
        return 1


def _told(refusal: Refusal) -> int:
    os.write(2, refusal.said.encode("utf-8", "surrogateescape"))
    return refusal.code


def _run(args: list[str]) -> int:
    asked = parse_command(args, limited=bool(os.environ.get("GIT_ANNEX_SHELL_LIMITED")))
    if asked.git:
        return _git(asked.name, asked.path)
    directory = _directory(asked.path)
    if asked.name == "p2pstdio":
        return _p2pstdio(directory, asked.client(), asked.options)
    if asked.name == "inannex":
        return _inannex(directory, asked.parameters, asked.options)
    return _configlist(directory, asked.parameters, asked.options)


# -- the command line -----------------------------------------------------------------------------


class Asked:
    """A command line that is understood.

    Attributes:
        name: One of COMMANDS or GIT_COMMANDS.
        path: Of the repository, as the client has it.
        parameters: What follows the path.
        options: ``--uuid``, ``--debug``, … and the fields between two ``--``.
    """

    __slots__ = ("name", "options", "parameters", "path")

    def __init__(self, name: str, path: str, parameters: list[str], options: dict[str, str]) -> None:
        self.name, self.path, self.parameters, self.options = name, path, parameters, options

    @property
    def git(self) -> bool:
        """One of git's own commands."""
        return self.name in GIT_COMMANDS

    def client(self) -> str:
        """Who says *p2pstdio*: the UUID of the client.

        Raises:
            Refusal: None was said.
        """
        if len(self.parameters) != 1:
            raise Refusal("missing UUID parameter")
        if not is_uuid(self.parameters[0]):
            raise Refusal("bad UUID parameter")
        return self.parameters[0]


def parse_command(args: list[str], *, limited: bool = False) -> Asked:
    """What *args* ask for: words, or ``-c`` and a line of them.

    Args:
        args: Without the program's name.
        limited: git's own commands are refused.

    Raises:
        Refusal: Nothing that is offered.
    """
    line = None
    if args[:1] == ["-c"]:
        if len(args) < 2:
            raise Refusal(f"bad parameters\n\n{USAGE}")
        line = args[1]
        args = split_words(line)
        if len(args) > 1 and os.path.basename(args[0]) in NAMES:
            args, line = args[1:], None
    if not args and line is None:
        raise Refusal(f"bad parameters\n\n{USAGE}")
    if args[:1] == ["git"] and len(args) > 1:
        args = [f"git-{args[1]}", *args[2:]]
    if args and args[0] in GIT_COMMANDS and len(args) > 1:
        if limited:
            raise Refusal("Action blocked by GIT_ANNEX_SHELL_LIMITED")
        return Asked(args[0], args[-1], [], {})
    if line is not None or args[0] not in COMMANDS:
        if limited:
            raise Refusal("Action blocked by GIT_ANNEX_SHELL_LIMITED")
        unknown = line if line is not None else args[0]
        raise Refusal(f"fatal: unrecognized command '{unknown}'\ngit-annex-shell: git-shell failed\n\n", bare=True)
    parameters, options = _options(args[1:])
    if not parameters:
        raise Refusal(f"bad parameters\n\n{USAGE}")
    return Asked(args[0], parameters[0], parameters[1:], options)


def _options(args: list[str]) -> tuple[list[str], dict[str, str]]:
    """Parameters, and options wherever they stand: ``--uuid U``, ``--debug``, ``-- field=value … --``."""
    parameters: list[str] = []
    options: dict[str, str] = {}
    rest = iter(args)
    for arg in rest:
        if arg == "--":
            for field in rest:
                if field == "--":
                    break
                name, _, value = field.partition("=")
                options.setdefault(name, value)
        elif arg == "--uuid":
            options["--uuid"] = next(rest, "")
        elif arg.startswith("--uuid="):
            options["--uuid"] = arg[7:]
        elif arg in ("--debug", "--quiet", "--verbose", "--force", "-q", "-v", "-d"):
            options[{"-d": "--debug"}.get(arg, arg)] = ""
        elif arg.startswith("--"):
            raise Refusal(f"Invalid option `{arg}'\n\n{USAGE}", bare=True)
        else:
            parameters.append(arg)
    return parameters, options


def split_words(line: str) -> list[str]:
    """*line* in words, as a POSIX shell splits it; nothing is expanded."""
    words: list[str] = []
    word: list[str] | None = None
    letters = iter(line)
    for letter in letters:
        if letter in " \t\n":
            if word is not None:
                words.append("".join(word))
                word = None
            continue
        if word is None:
            word = []
        if letter == "'":
            for letter in letters:
                if letter == "'":
                    break
                word.append(letter)
            else:
                raise Refusal("unterminated quote")
        elif letter == '"':
            for letter in letters:
                if letter == '"':
                    break
                if letter == "\\":
                    following = next(letters, "")
                    if following not in '"\\$`':
                        word.append("\\")
                    word.append(following)
                else:
                    word.append(letter)
            else:
                raise Refusal("unterminated quote")
        elif letter == "\\":
            word.append(next(letters, ""))
        else:
            word.append(letter)
    if word is not None:
        words.append("".join(word))
    return words


# -- the repository -------------------------------------------------------------------------------


def _directory(path: str) -> str:
    """*path* as it is meant: below the home directory when relative or ``/~/``; allowed, and there."""
    found = resolve(path)
    allowed = os.environ.get("GIT_ANNEX_SHELL_DIRECTORY")
    if allowed is not None and os.path.realpath(resolve(allowed)) != os.path.realpath(found):
        raise Refusal(f"Only allowed to access {allowed or '~/'} not {path}")
    return found


def resolve(path: str) -> str:
    """*path* with ``~`` expanded, ``/~/`` as git has it in URLs, and relative paths below the home directory."""
    if path.startswith("/~"):
        path = path[1:]
    if path.startswith("~"):
        path = os.path.expanduser(path)
    found = os.path.normpath(os.path.join(os.path.expanduser("~"), path))
    bare = found + ".git"  # git finds it under the shorter name, too
    return bare if os.path.isdir(bare) and not os.path.lexists(found) else found


def _quick_uuid(directory: str) -> str | None:
    """``annex.uuid`` by a look at one file; None when only the full reader can tell."""
    for folder in (directory, os.path.join(directory, ".git")):
        try:
            with open(os.path.join(folder, "config"), "rb") as file:
                text = file.read()
        except OSError:
            continue
        if os.path.isfile(os.path.join(folder, "HEAD")):
            return uuid_in(text)
    return None


def uuid_in(text: bytes) -> str | None:
    """``annex.uuid`` of an ordinary git configuration; None for anything that is not plain to see."""
    lines = text.decode("latin-1").splitlines()
    section = uuid = ""
    version = None
    for raw in lines:
        line = raw.strip()
        lower = line.lower()
        if lower.startswith("["):
            if not line.endswith("]") or lower.startswith("[include"):
                return None
            section = lower
        elif line.endswith("\\") or "worktreeconfig" in lower:
            return None
        elif section == "[annex]":
            name, _, value = line.partition("=")
            name, value = name.strip().lower(), value.strip()
            if name == "uuid":
                uuid = value
            elif name == "version":
                version = value
    return uuid if version in ("8", "9", "10") and is_uuid(uuid) else None


def is_uuid(text: str) -> bool:
    """As ``uuids.parse_uuid`` has it."""
    return 0 < len(text) <= 64 and text[0] != "." and _UUID_LETTERS.issuperset(text)


def _uuid(directory: str, options: dict[str, str]) -> str:
    """The UUID of the repository, which is the one that the client expects; made if need be. "" without git-annex."""
    if not os.path.isdir(directory):
        host = os.uname().nodename
        raise Refusal(
            f"failed to read git config of git repository in {host} on {directory}; "
            "perhaps this repository is not set up correctly or has moved"
        )
    uuid = _quick_uuid(directory)
    if uuid is None:
        from annexpy.server.direct import find_uuid

        read_only = bool(os.environ.get("GIT_ANNEX_SHELL_READONLY"))
        uuid = find_uuid(directory, wanted=bool(options.get("autoinit")), read_only=read_only)
    return uuid


def _own(command: str, directory: str, options: dict[str, str]) -> str:
    """As ``_uuid``, for a *command* that is about the repository itself and nobody behind it."""
    uuid, expected = _uuid(directory, options), options.get("--uuid")
    if expected is not None and uuid and expected != uuid:
        from annexpy.server.proxied import check_known

        check_known(directory, expected, uuid)
        raise Refusal(f"Cannot proxy {command} command.")
    return uuid


# -- commands -------------------------------------------------------------------------------------


def _configlist(directory: str, parameters: list[str], options: dict[str, str]) -> int:
    if parameters:
        raise Refusal("This command takes no parameters.")
    os.write(1, f"annex.uuid={_own('configlist', directory, options)}\ncore.gcrypt-id=\n".encode())
    return 0


def _inannex(directory: str, keys: list[str], options: dict[str, str]) -> int:
    if not _own("inannex", directory, options):
        raise Refusal("Not a git-annex or gcrypt repository.")
    from annexpy.server.direct import in_annex

    return in_annex(directory, keys)


def _git(command: str, path: str) -> int:
    directory = _directory(path)
    if os.path.isdir(directory) and _quick_uuid(directory) is not None:
        from annexpy.server.direct import commit_records

        commit_records(directory)
    try:
        os.execvp("git", ["git", command[4:], directory])
    except OSError as error:
        raise Refusal(f"git: {error.strerror}") from error


def _p2pstdio(directory: str, client: str, options: dict[str, str]) -> int:
    uuid = _uuid(directory, options)
    if not uuid:
        raise Refusal("Not a git-annex or gcrypt repository.")
    if options.get("--uuid", uuid) != uuid:
        from annexpy.server.proxied import serve_proxied

        code = serve_proxied(directory, options["--uuid"], uuid, client=client, debug="--debug" in options)
        sys.stderr.flush()
        os._exit(code)
    os.write(1, b"AUTH-SUCCESS %s\n" % uuid.encode())
    code = 1
    try:
        code = _greeted(directory, client, options)
        sys.stderr.flush()
    except Refusal as refusal:
        code = _told(refusal)
    except BrokenPipeError:
        code = 1  # nobody is there to hear why it ended
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        sys.excepthook(*sys.exc_info())
    # All is closed: what is left is the interpreter taking itself apart, while ssh waits for us; and with a thread that
    # has not imported everything it does not come to an end.
    os._exit(code)


def _greeted(directory: str, client: str, options: dict[str, str]) -> int:
    import select

    from annexpy.server.importing import Importing

    importing = Importing()

    version, rest = _version()
    if rest == b"" and select.select([0], [], [], _PATIENCE)[0]:
        rest = _read()
    if rest is None:
        return 0  # gone already: nothing was changed, so there is nothing to wait for
    importing.begin(later=rest.startswith(_LOCK))
    return _session(directory, client, version, rest, importing, debug="--debug" in options)


def _session(directory: str, client: str, version: int, rest: bytes, importing: Importing, *, debug: bool) -> int:
    importing.wait_for_direct()
    from annexpy.errors import ConnectionLost
    from annexpy.server.direct import begin, complain, open_repository

    repository, locked = open_repository(directory), b""
    left: bytes | None = rest
    if not debug:
        try:
            left, locked = begin(repository, client, rest, importing.done, alone=importing.rests)
        except ConnectionLost as error:
            return complain(error)
    if left is None:
        return 0
    importing.wait()
    from annexpy.server.stdio import serve_stdio

    return serve_stdio(repository, client=client, version=version, prefix=left, locked=locked, debug=debug)


def _version() -> tuple[int, bytes | None]:
    """Answer VERSION if that is what the client says first: the version, and what came behind it; None at the end."""
    said = _read()
    if not said:
        return 0, said
    line, end, rest = said.partition(b"\n")
    verb, _, number = line.removesuffix(b"\r").partition(b" ")
    if verb != b"VERSION" or not end or not number.isdigit() or len(number) > 40:
        return 0, said
    version = int(number) if number in (b"%d" % PROOFS, b"%d" % RANGES) else min(int(number), MAX_VERSION)
    os.write(1, b"VERSION %d\n" % version)
    return version, rest


def _read() -> bytes | None:
    """What the client says next, or b"" when that is not to be waited for here; None when it has left."""
    try:
        return os.read(0, _FIRST_READ) or None
    except BlockingIOError:
        return b""


if __name__ == "__main__":
    sys.exit(main())
