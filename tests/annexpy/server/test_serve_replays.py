"""What was said to git-annex-shell is said to our server, on a repository in the same state.

The answers are the same, byte for byte, except where ``DEVIATIONS`` has another one and says why. The
same table stands in docs/deviations.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from recordings import (
    DEVIATIONS,
    TRANSCRIPTS,
    Deviation,
    Lockers,
    Session,
    Step,
    content_of,
    deviation,
    lay,
    lay_object,
    one_after_another,
    rows,
    sessions,
)

from annexpy.errors import InvalidKey
from annexpy.keys.key import Key
from annexpy.keys.layout import key_file
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.transcripts


def prepare(repository: Repository, found: list[Session]) -> None:
    """Put the repository in the state that the first answer about each key tells of."""
    seen: set[Key] = set()
    for step in (step for session in found for step in session.steps):
        key, heard = _subject(step), step.heard
        if key is None or key in seen or heard.startswith(b"ERROR"):
            continue
        seen.add(key)
        if heard.startswith((b"SUCCESS", b"ALREADY-HAVE", b"DATA ")) and not heard.startswith(b"DATA 0\n"):
            lay_object(repository, key)
        elif heard.startswith(b"PUT-FROM ") and (size := int(heard.split()[1])):
            lay(repository, b"annex/tmp/" + key_file(key), content_of(key)[:size].ljust(size, b"#"))


def _subject(step: Step) -> Key | None:
    """The key that is asked about."""
    match = re.match(rb"(CHECKPRESENT |LOCKCONTENT |PUT \S* |GET \d+ \S* )(.*)\n", step.sent)
    try:
        return Key.parse(match[2]) if match else None
    except InvalidKey:
        return None


def special_state(repository: Repository, comment: str) -> None:
    """What the first line of some transcripts says of the repository."""
    if "diskreserve" in comment:
        with open(repository.git_dir + b"/config", "ab") as file:
            file.write(b"[annex]\n\tdiskreserve = 100 petabytes\n")
    if "annex/tmp replaced by a file" in comment:
        repository.files.replace(b"annex/tmp", b"")


@pytest.mark.anyio
@pytest.mark.parametrize("path", one_after_another(), ids=lambda path: path.stem)
async def test_the_server_answers_as_git_annex_does(serving, clock_of, tmp_path, path: Path) -> None:
    lines = rows(path)
    found = sessions(lines)
    clock = clock_of(0)
    with Repository.init(tmp_path / "solo", bare=True, uuid=UUID(found[0].uuid), clock=clock) as made:
        prepare(made, found)
        special_state(made, lines[0].get("comment", ""))
    lockers = Lockers()
    for number, session in enumerate(found):
        with Repository.open(tmp_path / "solo", clock=clock) as repository:
            remote = Local(repository, durability="fast")
            async with serving(remote, hello=b"", mode=session.mode, clock=clock) as peer:
                await replay(number, session, peer, repository, clock, lockers)


async def replay(number: int, session: Session, peer, repository: Repository, clock, lockers: Lockers) -> None:
    subject: Key | None = None
    for step in session.steps:
        if step.now is not None:
            clock.time = step.now
        subject = _subject(step) or subject
        if step.sent == b"DATA-PRESENT\n" and step.heard.startswith(b"SUCCESS") and subject:
            lay_object(repository, subject)  # by whoever said that it is there
        heard = await peer.say(step.sent)
        if step.leaves and not heard.endswith(b"<EOF>"):
            heard += (await peer.leave()).removesuffix(b"<EOF>")
        known = None
        if heard != step.heard:
            known = deviation(step.sent, step.heard, heard, so=lockers.so(number, step.sent))
            assert known, (step.sent[:200], step.heard, heard)
        lockers.see(number, step.sent, heard)
        if (known and known.over) or heard.endswith(b"<EOF>") or step.heard.endswith(b"<EOF>"):
            break


@pytest.mark.parametrize("known", DEVIATIONS, ids=lambda known: known.why[:40])
def test_every_deviation_is_in_the_manual(known: Deviation) -> None:
    assert known.why in (TRANSCRIPTS.parents[1] / "docs" / "deviations.md").read_text()
