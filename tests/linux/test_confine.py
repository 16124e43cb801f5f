"""Capabilities by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.linux.confine import capability_set


def test_the_numbers_are_those_of_the_kernel() -> None:
    assert capability_set(["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]) == 1 | 1 << 21 | 1 << 40


def test_every_capability_of_this_kernel_has_a_name() -> None:
    assert int(Path("/proc/sys/kernel/cap_last_cap").read_text()) < len(CAPABILITIES) + 1


def test_a_name_that_there_is_not_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        capability_set(["CAP_FLY"])
