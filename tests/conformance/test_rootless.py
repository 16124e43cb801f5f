"""A sample of the cases, built by ordinary users with a range of ids and with one: the images are those of root's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import needs
import places

sys.path.insert(0, str(Path(__file__).parent))

import compare  # noqa: E402
import peers  # noqa: E402
from cases import all_cases  # noqa: E402

from nbcontain.errors import ImageNotFound  # noqa: E402

pytestmark = pytest.mark.slow
EVERY = 5
ROOTS_ALONE = {"run-device", "run-device-block", "run-device-of-a-stage", "run-capabilities"}
"""Device nodes and what it says of capabilities: in a user namespace there are none, and others."""
OF_ONE_ID = {"real-triggers-with-arguments", "real-users-and-homes", "run-mount-cache-owner"}
"""Where users are only kept in mind: what another user may not write to can be written to, and stat(2) shows root."""


@pytest.fixture
def root() -> Iterator[Path]:
    """In memory: what is built is compared, not how it reaches a disk."""
    with places.store_directory(needs.memory()) as directory:
        yield directory


def test_an_ordinary_user_builds_the_same_images(profile: str, root: Path, busybox: Path) -> None:
    if profile == "root":
        pytest.skip("root's are in test_recorded")
    sample = [case for case in all_cases() if case.name not in ROOTS_ALONE][::EVERY]
    if profile == "rootless-single":
        sample = [case for case in sample if case.name not in OF_ONE_ID]
    recorded = compare.recorded()
    ours = peers.Ours(root, busybox)
    try:
        facts = {case.name: ours.facts(case) for case in sample}
    finally:
        # What other ids own, only the engine can remove.
        for _, image in ours.engine.images():
            with suppress(ImageNotFound):
                ours.engine.remove_image(str(image.id), force=True)
        ours.engine.builder.prune(0)
        ours.close()
    wrong = {case.name: compare.verdict(case, facts[case.name], recorded.get(case.name)) for case in sample}
    assert len(sample) > 80
    assert {name: found for name, found in wrong.items() if found} == {}
