"""Generated expressions mean for us what they mean for git-annex."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import pytest
from scenes import Scene, recorded_network, vectors

from annexpy.actions.wanted import Wanted
from annexpy.errors import InvalidExpression
from annexpy.policy.expression import parse
from annexpy.policy.matchexpression import Lacking, match_expression
from annexpy.policy.wanted import Policy
from annexpy.uuids import UUID

pytestmark = pytest.mark.interop

SCENE = vectors("preferred_content.json")["scene"]
NETWORK = recorded_network(SCENE)
UUIDS = tuple(UUID(uuid) for uuid in SCENE["uuids"].values())

GROUPS = ["nodes", "nodes2", "nodes3", "archive", "small", "client", "backup", "nosuch"]
NUMBERS = ["0", "1", "1", "2", "2", "3", "-1", "01", "0x1", "2x"]
GLOBS = [
    *("*", "*.txt", "*.mp3", "a/*", "*/archive/*", "archive/*", "nine", "*e*n*", "a?one.txt", "[a-f]*", "[!a]*"),
    *("**", "a//one.txt", "*[[]a]*", "*.[tm]*", "ten?*", "[[:alpha:]]*", "*[!x]", "a.one.txt", "A/*", "", "*'c", "*>"),
]
METADATA = [
    "tag=x",
    "tag=*",
    "TAG=X",
    "tag=[xy]",
    "year>2014",
    "year>=2015",
    "year<2016",
    "year<=x",
    "size>9",
    "size<11",
]
SIZES = [
    "0",
    "5",
    "100",
    "4kb",
    "3.9KiB",
    "1mb",
    "0.5 gb".replace(" ", ""),
    "5gb",
    "1e3",
    "-1",
    "32kbit",
    "2.5",
    "10bytes",
]
WORDS = ["present", "anything", "nothing", "securehash", "inpreferreddir", "unused", "standard", "groupwanted"]
BAD = [
    *("bogus", "include=[a", "copies=x", "copies=a:1:2", "largerthan=bits", "balanced=nodes:1:2", "metadata=_a=b"),
    *("metadata==", "AND", "lackingcopies=1.5", "mimetype=*", "accessedwithin=1d", "anything=1", "include=[b-a]"),
]


class Maker:
    def __init__(self, seed: int) -> None:
        self.r = random.Random(seed)

    def term(self) -> str:
        r = self.r
        group, number = r.choice(GROUPS), r.choice(NUMBERS)
        match r.randrange(16):
            case 0 | 1 | 2:
                return f"{r.choice(['include', 'exclude'])}={r.choice(GLOBS)}"
            case 3:
                return f"{r.choice(['largerthan', 'smallerthan'])}={r.choice(SIZES)}"
            case 4:
                return f"copies={number}"
            case 5:
                among = [group, "trusted", "semitrusted", "untrusted", "dead", "semitrusted+", "untrusted+", "dead+"]
                return f"copies={r.choice(among)}:{number}"
            case 6:
                return f"{r.choice(['lackingcopies', 'approxlackingcopies'])}={number}"
            case 7:
                return f"metadata={r.choice(METADATA)}"
            case 8:
                return f"{r.choice(['inallgroup', 'onlyingroup'])}={group}"
            case 9:
                return r.choice(["inbackend=SHA256E", "inbackend=WORM", "inbackend=URL", "url=*", "url=http://*/nine"])
            case 10 | 11 | 12:
                kind = r.choice(["balanced", "fullybalanced", "sizebalanced", "fullysizebalanced"])
                many = r.choice(["", "", f":{number}", ":2", ":lackingcopies"])
                return f"{kind}={r.choice(GROUPS[:3])}{many}"
            case _:
                return r.choice(WORDS)

    def expression(self, depth: int = 3) -> str:
        r = self.r
        match r.randrange(8) if depth else 0:
            case 0 | 1 | 2:
                return self.term()
            case 3:
                return f"not {self.expression(depth - 1)}"
            case 4:
                return f"({self.expression(depth - 1)})"
            case _:
                between = r.choice([" and ", " or ", " or ", " and ", " "])
                return f"{self.expression(depth - 1)}{between}{self.expression(depth - 1)}"

    def any_text(self) -> str:
        """An expression, now and then with something odd done to it."""
        r = self.r
        text = self.expression()
        match r.randrange(8):
            case 0:
                words = text.replace("(", " ( ").replace(")", " ) ").split()
                words.insert(r.randrange(len(words) + 1), r.choice(["(", ")", "and", "or", "not", "()", "or or"]))
                return r.choice([" ", "  ", "\t"]).join(words)
            case 1:
                return f"{text}{r.choice([' ', ' or ', ' and not '])}{r.choice(BAD)}"
            case _:
                return text


@pytest.fixture(scope="module")
def scene(git_annex: str, own_home: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(git_annex, tmp_path_factory.mktemp("scene"), NETWORK, UUIDS)
    made.limit(LIMITS)
    yield made
    made.close()


LIMITS: Mapping[UUID, int] = {UUIDS[1]: 2_000_000, UUIDS[2]: 1_010_000, UUIDS[9]: 1000, UUIDS[10]: 500}


def check_matchexpression(scene: Scene, seed: int, number: int) -> None:
    maker = Maker(seed)
    repositories = NETWORK.repositories(maxsizes=LIMITS)
    for _ in range(number):
        text = maker.any_text()
        facts = maker.r.choice(NETWORK.files)
        assert facts.file is not None
        theirs = scene.annex("matchexpression", f"--key={facts.key}", f"--file={facts.file.decode()}", "--", text)
        try:
            ours: bool | Lacking | None = match_expression(parse(text), facts, repositories, NETWORK.here)
        except InvalidExpression as error:
            if "glob" in error.limit:
                continue  # it stops git-annex only where it has to be matched
            ours = None
        if ours is None:
            assert theirs.returncode == 42, (text, theirs)
            assert "Parse failure" in theirs.stderr, (text, theirs)
        elif isinstance(ours, Lacking):
            assert theirs.returncode == 42, (text, theirs)
            assert f"without {ours.value} data" in theirs.stderr, (text, theirs)
        else:
            assert theirs.returncode == (0 if ours else 1), (text, theirs)
            assert theirs.stderr == "", (text, theirs)


def check_wanted(scene: Scene, seed: int, number: int) -> None:
    """Each expression for one repository, over all files, wanted and unwanted."""
    maker = Maker(seed)
    texts = [maker.any_text() for _ in range(number)]
    for at in range(0, number, len(UUIDS) - 1):
        wanted = dict(zip(UUIDS[1:], texts[at:], strict=False))
        required = {uuid: maker.any_text() if maker.r.random() < 0.2 else "" for uuid in wanted}
        # git-annex cannot go on with these
        for said in (wanted, required):
            said.update({uuid: "bogus" for uuid, text in said.items() if "=[a" in text or "=[b" in text})
        scene.prefer(wanted, required)
        policy = Policy(NETWORK.repositories(preferred=wanted, required=required, maxsizes=LIMITS))
        gathered = Wanted(scene.repository)
        for uuid in wanted:
            get = {f.file for f in NETWORK.files if policy.wants(uuid, f, default=False)}
            drop = {f.file for f in NETWORK.files if policy.wants_drop(uuid, f, default=False)}
            said = (wanted[uuid], required[uuid], uuid)
            assert get == {f.file for f in NETWORK.files if gathered.wants(uuid, f.key, f.file, default=False)}, said
            assert get == scene.find(f"--want-get-by={uuid}"), said
            assert drop == scene.find(f"--want-drop-by={uuid}"), said


def test_expressions_match_and_are_refused_as_by_git_annex(scene: Scene) -> None:
    check_matchexpression(scene, 1, 150)


def test_repositories_want_what_they_want_for_git_annex(scene: Scene) -> None:
    check_wanted(scene, 2, 44)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(100, 110))
def test_a_thousand_expressions_match_and_are_refused_as_by_git_annex(scene: Scene, seed: int) -> None:
    check_matchexpression(scene, seed, 100)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(200, 220))
def test_repositories_want_by_a_thousand_expressions_what_they_want_for_git_annex(scene: Scene, seed: int) -> None:
    check_wanted(scene, seed, 50)
