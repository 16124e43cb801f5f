"""Room for those who remove: to take a name out of the index it is written anew, and on a full disk it could not be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nbcontain.errors import StoreError
from nbcontain.store import files
from nbcontain.store.layout import Layout

_BYTES = 64 << 10
"""More than an index of a hundred names takes."""


def keep(layout: Layout) -> None:
    """Have some room put by, as far as there is any. Of bytes that no file system makes smaller."""
    with suppress(StoreError, FileExistsError):
        files.write_new(layout.spare, os.urandom(_BYTES))


@contextmanager
def given_up(layout: Layout, *, when: bool) -> Iterator[None]:
    """What was put by is to be had inside, and put by again afterwards; nothing happens if not `when`."""
    if when:
        files.unlink(layout.spare)
    try:
        yield
    finally:
        if when:
            keep(layout)
