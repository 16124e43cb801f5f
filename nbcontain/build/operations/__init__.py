"""What each operation of a build graph does: its cache key, and its execution. One module per kind of operation."""

from __future__ import annotations

from nbcontain.build.operations import bases, copy, run
from nbcontain.build.operations.workshop import Filesystem, Workshop, cache_key, execute, timestamp

__all__ = ["Filesystem", "Workshop", "bases", "cache_key", "copy", "execute", "run", "timestamp"]
