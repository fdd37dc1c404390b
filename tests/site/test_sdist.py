"""The source distribution: whoever has it has all that its tests import."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import hatchling.build
import pytest

ROOT = Path(__file__).parents[2]


def collected(folder: Path) -> int:
    """How many tests pytest finds in `folder`, from which everything is imported."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-m", "", "-p", "no:cacheprovider"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONPATH"))}
    found = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout[-2000:]
    return int(re.findall(r"^(\d+) tests collected", found.stdout, re.MULTILINE)[0])


@pytest.mark.slow
def test_it_has_all_that_its_tests_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    archive = tmp_path / hatchling.build.build_sdist(str(tmp_path))
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert collected(unpacked) == collected(ROOT) > 8000
