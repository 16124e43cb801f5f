"""How often a thing is tried: in the suite a few times, in `make soak` (NBCONTAIN_SOAK=1) as often as is claimed."""

from __future__ import annotations

import os

SOAK = os.environ.get("NBCONTAIN_SOAK", "") not in ("", "0")


def rounds(soak: int, suite: int) -> range:
    """The numbers of the rounds to go."""
    return range(soak if SOAK else suite)
