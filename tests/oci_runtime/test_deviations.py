"""What a peer is known to do otherwise is asserted: it has to happen, and nothing else."""

from __future__ import annotations

import pytest

from bundles import Deviation

KNOWN = Deviation("it has a bug", r"assert 0 == \d")


def test_what_is_known_passes() -> None:
    with KNOWN.expected():
        assert int("0") == 1


def test_another_failure_fails() -> None:
    with pytest.raises(AssertionError, match="it has a bug"), KNOWN.expected():
        assert int("5") == 1


def test_another_error_is_not_taken_for_it() -> None:
    with pytest.raises(ValueError, match="assert 0 == 1"), KNOWN.expected():
        raise ValueError("assert 0 == 1")


def test_a_peer_that_deviates_no_more_fails() -> None:
    with pytest.raises(AssertionError, match="not so any more"), KNOWN.expected():
        pass
