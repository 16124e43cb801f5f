"""A sample of the cases, asked of docker again: what is recorded in expected/ is what it says."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

import needs

sys.path.insert(0, str(Path(__file__).parent))

import compare  # noqa: E402
import peers  # noqa: E402
from cases import all_cases  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.geteuid() != 0, reason="dockerd runs only as root")]
EVERY = 16


def test_docker_still_says_what_was_recorded(busybox: Path) -> None:
    sample = [case for case in all_cases() if not case.is_documented][::EVERY]
    recorded = compare.recorded()
    with (
        tempfile.TemporaryDirectory(prefix="nbcontain-test-", dir=needs.scratch(), ignore_cleanup_errors=True) as name,
        peers.docker(Path(name, "docker")) as docker,
    ):
        docker.import_base(busybox)
        facts = docker.facts_of_all(sample)
        different = {case.name: compare.differences(facts[case.name], recorded[case.name]) for case in sample}
    assert len(sample) > 20
    assert {name: found for name, found in different.items() if found} == {}
