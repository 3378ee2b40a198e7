"""What kind of place a Remote is."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from annexpy.remote import kinds
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.p2p import P2PRemote
from annexpy.transport.pipe import DialCommand
from annexpy.uuids import UUID

PLACE = MemoryRemote(UUID("11111111-1111-4111-8111-111111111111"), name="place")


def test_only_what_is_asked_in_lines_is_p2p() -> None:
    assert kinds.is_p2p(P2PRemote(DialCommand(("true",))))
    assert not kinds.is_p2p(PLACE)


@pytest.mark.parametrize("module", [None, ModuleType("annexpy.remote.p2p")], ids=["nobody did", "another thread does"])
def test_whoever_has_not_imported_what_speaks_in_lines_has_no_such_remote(
    module: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "annexpy.remote.p2p", module)

    assert not kinds.is_p2p(PLACE)
