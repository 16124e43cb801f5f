"""How often a thing is tried: in the suite a few times, in `make soak` (NBCONTAIN_SOAK=1) as often as is claimed.

NBCONTAIN_SOAK_SHARE=2/8 does the second of eight equal shares of what is enumerated: in pieces, or on several machines.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
SOAK = os.environ.get("NBCONTAIN_SOAK", "") not in ("", "0")


def rounds(soak: int, suite: int) -> range:
    """The numbers of the rounds to go."""
    return range(soak if SOAK else suite)


def share(points: Sequence[T]) -> Sequence[T]:
    """Those of them that are this run's: all, or every n-th."""
    number, _, count = os.environ.get("NBCONTAIN_SOAK_SHARE", "1/1").partition("/")
    return points[int(number) - 1 :: int(count)]
