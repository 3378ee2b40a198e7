"""What the git configuration says about contents."""

from __future__ import annotations

import os

import pytest

from annexpy.errors import InvalidInput, UnsupportedRepository
from annexpy.repo.config import GitConfig
from annexpy.repo.memory_files import MemoryFiles
from annexpy.repo.settings import ContentSettings, Lockdown


def config(text: str) -> GitConfig:
    files = MemoryFiles()
    files.replace(b"config", text.encode())
    return GitConfig(files, environ={})


def test_defaults_are_those_of_git_annex() -> None:
    settings = ContentSettings.of(config("[annex]\nuuid = x\nversion = 10\n"), bare=True)

    assert settings.durability == "full"
    assert (settings.levels, settings.lower_only, settings.thin) == (2, False, False)
    assert settings.reserve == 100_000_000
    assert (settings.pidlock, settings.pidlock_timeout) == (False, 300)


def test_every_setting_is_read() -> None:
    text = """
        [core]
            sharedRepository = 0640
        [annex]
            version = 9
            diskreserve = 2.5 gigabytes
            pidlock = true
            pidlocktimeout = 7
            thin = true
        [annex "tune"]
            objecthashlower = true
            objecthash1 = true
    """
    settings = ContentSettings.of(config(text), bare=False, durability="fast")

    assert (settings.durability, settings.version) == ("fast", 9)
    assert (settings.levels, settings.lower_only, settings.thin) == (1, True, True)
    assert settings.reserve == 2_500_000_000
    assert (settings.pidlock, settings.pidlock_timeout) == (True, 7)
    assert settings.lockdown == Lockdown(0o2750, 0o640, 0o200)


@pytest.mark.parametrize("version", ["7", "11", "0"])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(UnsupportedRepository):
        ContentSettings.of(config(f"[annex]\nversion = {version}\n"), bare=True)


@pytest.mark.parametrize("value", ["everyone", "0444", "0240", "9", "-1"])
def test_a_mode_that_shuts_out_the_owner_is_refused(value: str) -> None:
    with pytest.raises(InvalidInput):
        Lockdown.of(value)


@pytest.mark.parametrize("value", [None, "", "umask", "false", "0", "False"])
def test_the_umask_rules_when_nothing_is_shared(value: str | None) -> None:
    assert Lockdown.of(value) == Lockdown()
    assert Lockdown().object(0o644) == 0o444
    assert Lockdown().object(0o600) == 0o400
    assert Lockdown().object(0o200) == 0o400


def test_sharing_adds_to_the_umask() -> None:
    before = os.umask(0o077)
    try:
        assert Lockdown.of("group") == Lockdown(0o2770, 0o660, 0)
        assert Lockdown.of("all") == Lockdown(0o2775, 0o664, 0)
    finally:
        os.umask(before)


def test_a_disk_reserve_that_is_no_size_is_refused() -> None:
    with pytest.raises(InvalidInput, match="diskreserve"):
        ContentSettings.of(config("[annex]\nversion = 10\ndiskreserve = plenty\n"), bare=True)
