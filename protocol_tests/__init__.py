"""Does an implementation of git-annex's P2P protocol keep it? Point this at it, and see.

``python -m protocol_tests --command 'git-annex-shell p2pstdio {path} {client} --uuid {uuid}'`` tries every requirement
of the list. From Python::

    from protocol_tests import Plan, REQUIREMENTS, run, streams

    results = run(streams(connect), Plan(), REQUIREMENTS)

The harness has a codec of its own and knows of no implementation.
"""

from __future__ import annotations

from protocol_tests.catalogue import REQUIREMENTS
from protocol_tests.channel import Patience
from protocol_tests.need import Need, Role
from protocol_tests.requirement import Requirement
from protocol_tests.run import Plan, Result, Status, run, try_one
from protocol_tests.subject import Subject, command, http, ssh, streams, unix

__all__ = [
    "REQUIREMENTS",
    "Need",
    "Patience",
    "Plan",
    "Requirement",
    "Result",
    "Role",
    "Status",
    "Subject",
    "command",
    "http",
    "run",
    "ssh",
    "streams",
    "try_one",
    "unix",
]
