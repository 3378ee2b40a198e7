"""The dataset's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from annexpy import UUID
from glimmer_store.config import CONFIG_NAME, Config, Durable
from glimmer_store.errors import ConfigError

A = Durable("vault1", UUID("11111111-1111-4111-8111-111111111111"), '/srv/a "quoted" \\ é')
B = Durable("vault2", UUID("22222222-2222-4222-8222-222222222222"), "ssh://host/srv/b.git")


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    config = Config(durable=(A, B), graph="graph", backend="SHA512E")
    config.save(tmp_path)
    assert Config.load(tmp_path) == config


def test_a_dataset_without_configuration_says_how_to_set_it_up(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Config.load(tmp_path)
    assert "glimmer-store init" in error.value.remedy


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("x = [", "toml"),
        ("[[durable]]\nname = 'a'\nurl = 'u'\n", "uuid"),
        ("[[durable]]\nname = 'a'\nuuid = '../x'\nurl = 'u'\n", "uuid"),
        ("[classes.generated]\nnumcopies = 0\n", "numcopies"),
        ("[classes.generated]\nnumcopies = 'many'\n", "many"),
        ("durable = 3\n", "int"),
        ("backend = 'WORM'\n", "no hash"),
        ("[[durable]]\nname='a'\nuuid='u1'\nurl='x'\n[[durable]]\nname='a'\nuuid='u2'\nurl='y'\n", "share a name"),
        (
            "[[durable]]\nname='a'\nuuid='u1'\nurl='x'\n[[durable]]\nname='b'\nuuid='u1'\nurl='y'\n",
            "share a name or a uuid",
        ),
    ],
)
def test_malformed_configuration_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / CONFIG_NAME).write_text(text)
    with pytest.raises(ConfigError, match=f"(?i){named}"):
        Config.load(tmp_path)


@pytest.mark.parametrize(
    "raw", [b"a = \xff", b"a = " + b"9" * 5000, b"a = " + b"[" * 100_000], ids=["no text", "a huge number", "too deep"]
)
def test_what_is_no_toml_is_said_to_be_none(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / CONFIG_NAME).write_bytes(raw)

    with pytest.raises(ConfigError, match=CONFIG_NAME):
        Config.load(tmp_path)


def test_infinitely_many_copies_are_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_text("[classes.irreplaceable]\nnumcopies = inf\n")

    with pytest.raises(ConfigError, match="infinity"):
        Config.load(tmp_path)


def test_a_dataset_is_found_from_the_folders_in_it_and_not_from_another_repository_in_it(tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_text("")
    (tmp_path / "sub-01" / "anat").mkdir(parents=True)
    (tmp_path / "code" / ".git").mkdir(parents=True)

    assert Config.dataset_of(tmp_path / "sub-01" / "anat") == tmp_path
    assert Config.dataset_of(tmp_path / "code") == tmp_path / "code"
