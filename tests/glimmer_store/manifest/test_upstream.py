"""The library's own tests pass with the version that is installed: a seam that has moved shows there first."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest


@pytest.mark.campaign
def test_the_suite_of_the_library_passes_with_the_version_that_is_installed(tmp_path: Path) -> None:
    """Its conformance pairs are left out, since it fetches them; ours run them from the fixtures."""
    name = f"datamanifestpy=={version('datamanifestpy')}"
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", name]
    subprocess.run(download, cwd=tmp_path, check=True)
    (archive,) = tmp_path.glob("datamanifestpy-*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(tmp_path, filter="data")
    root = tmp_path / archive.name.removesuffix(".tar.gz")
    shutil.rmtree(root / "datamanifest")  # what is installed is tested

    suite = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests",
        "--ignore=tests/test_conformance.py",
    ]
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null"}
    ended = subprocess.run(suite, cwd=root, env=home, capture_output=True, text=True, check=False)

    print(ended.stdout[-300:])
    assert ended.returncode == 0, ended.stdout[-3000:]
    assert " passed" in ended.stdout
