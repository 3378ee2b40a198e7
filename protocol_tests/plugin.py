"""pytest: each requirement as a test of its own. ``-p protocol_tests.plugin``, and a fixture ``p2p_subject``.

A test that asks for ``p2p_requirement`` is run once for each requirement; calling it tries it. ``--p2p-only``,
``--p2p-versions``, ``--p2p-role``, ``--p2p-deadline``, ``--p2p-hold`` and ``--p2p-seed`` are the options of the
command line.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocol_tests.catalogue import REQUIREMENTS
from protocol_tests.channel import Patience
from protocol_tests.need import Role
from protocol_tests.options import versions
from protocol_tests.requirement import Requirement
from protocol_tests.run import Plan, Status, try_one
from protocol_tests.subject import Subject

__all__ = ["p2p_plan", "p2p_requirement", "p2p_subject", "pytest_addoption", "pytest_generate_tests"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("protocol_tests")
    group.addoption("--p2p-only", default="", metavar="ID,…")
    group.addoption("--p2p-versions", type=versions, default=[0, 1, 2, 3, 4], metavar="0-4")
    group.addoption("--p2p-role", choices=[str(role) for role in Role], default="write")
    group.addoption("--p2p-deadline", type=float, default=10.0, metavar="SECONDS")
    group.addoption("--p2p-hold", type=float, default=11.0, metavar="SECONDS")
    group.addoption("--p2p-seed", type=int, default=0, metavar="NUMBER")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each requirement."""
    if "p2p_requirement" in metafunc.fixturenames:
        prefixes = tuple(part.strip() for part in metafunc.config.getoption("--p2p-only").split(",") if part.strip())
        wanted = [one for one in REQUIREMENTS if not prefixes or one.id.startswith(prefixes)]
        metafunc.parametrize("p2p_requirement", wanted, ids=[one.id for one in wanted], indirect=True)


@pytest.fixture(scope="session")
def p2p_subject() -> Subject:
    """What is on trial: to be overridden."""
    pytest.fail("define a fixture p2p_subject that gives a protocol_tests.Subject")


@pytest.fixture(scope="session")
def p2p_plan(request: pytest.FixtureRequest) -> Plan:
    """How it is tried."""
    option = request.config.getoption
    return Plan(
        option("--p2p-versions"),
        Role(option("--p2p-role")),
        Patience(option("--p2p-deadline")),
        option("--p2p-seed"),
        hold=option("--p2p-hold"),
    )


@pytest.fixture
def p2p_requirement(request: pytest.FixtureRequest, p2p_subject: Subject, p2p_plan: Plan) -> Callable[[], None]:
    """Tries one requirement when it is called: passes, skips, or fails with the conversation."""
    one: Requirement = request.param

    def check() -> None:
        result = try_one(p2p_subject, p2p_plan, one)
        if result.status is Status.SKIP:
            pytest.skip(f"{one.id}: {result.reason}")
        if result.status is Status.FAIL:
            said = "\n".join(str(row) for row in result.transcript[-30:])
            pytest.fail(f"{one.id} {one.text}\n{result.reason}\n{said}", pytrace=False)

    return check
