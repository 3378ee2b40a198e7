"""An export that was interrupted goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import bagit
import ds000114
import pytest

from glimmer_store.errors import ConfigError
from glimmer_store.export.bag import read_bag
from glimmer_store.export.stage import staged
from glimmer_store.export.write import Format, export

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that no test changes."""
    return anyio.run(ds000114.make_study, tmp_path_factory.mktemp("export"))


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_an_interrupted_export_goes_on_and_what_is_torn_is_copied_again(study: Path, tmp_path: Path) -> None:
    paths = sorted(ds000114.outputs())
    copied: list[str] = []

    def until(last: str, scope: anyio.CancelScope) -> Callable[[str, int, int | None], None]:
        def progress(path: str, _done: int, _all: int | None) -> None:
            if path not in copied:
                copied.append(path)
            if path == last:
                scope.cancel()

        return progress

    with anyio.CancelScope() as scope:
        await export(study, tmp_path / "bag", Format.BAGIT, progress=until(paths[3], scope))
    assert scope.cancelled_caught
    assert left(tmp_path) == [".bag.part"]
    stage = tmp_path / ".bag.part" / "data"
    (stage / paths[0]).write_bytes(b"torn")
    (stage / "of another export").write_bytes(b"")
    (stage / paths[1]).chmod(0o644)
    before = (stage / paths[1]).stat().st_ino
    assert copied == paths[:4]
    copied.clear()

    await export(study, tmp_path / "bag", Format.BAGIT, progress=until("", scope))

    assert copied == [paths[0], *paths[3:]]
    assert (tmp_path / "bag" / "data" / paths[1]).stat().st_ino == before
    assert left(tmp_path) == ["bag"]
    bagit.Bag(str(tmp_path / "bag")).validate()
    assert read_bag(tmp_path / "bag").warnings == []


async def test_two_exports_do_not_write_to_the_same_folder(study: Path, tmp_path: Path) -> None:
    with staged(tmp_path / "bag"), pytest.raises(ConfigError, match="another export is writing it"):
        await export(study, tmp_path / "bag", Format.BAGIT)
