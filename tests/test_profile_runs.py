"""Tests under several profiles, as one account: what a test that takes too long in a child does to it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import needs
import places

TESTS = Path(__file__).parent
SLOW = """
import time
import pytest

@pytest.mark.timeout(1)
def test_that_takes_too_long(profile):
    time.sleep(60)

def test_after_it(profile):
    pass
"""


@pytest.fixture
def suite() -> Iterator[Path]:
    """A directory that all users can read."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-suite-", dir=needs.scratch()))
    directory.chmod(0o755)
    (directory / "pytest.ini").write_text("[pytest]\ntimeout_method = signal\n")
    (directory / "test_slow.py").write_text(SLOW)
    yield directory
    places.remove(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has children that are somebody else")
@pytest.mark.parametrize(
    ("beginning_s", "why"), [(60, "Failed: Timeout"), (-0.99, "goes on and no report of this test came")]
)
def test_a_test_that_takes_too_long_elsewhere_is_one_that_failed(suite: Path, beginning_s: float, why: str) -> None:
    plugins = f"import profile_runs\nprofile_runs.BEGINNING_S = {beginning_s}\npytest_plugins = ['profile_runs']\n"
    (suite / "conftest.py").write_text(plugins)
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(suite)]
    environ = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    done = subprocess.run(words, cwd=suite, env=environ, capture_output=True, text=True, check=False)
    assert "INTERNALERROR" not in done.stdout + done.stderr
    assert "3 failed, 3 passed" in done.stdout and why in done.stdout, done.stdout
