"""What each operation of a build graph does: its cache key, and its execution. One module per kind of operation.

What is cached needs the keys only: the others are imported by `execute`, when something has to be done.
"""

from __future__ import annotations

from nbcontain.build.operations import bases, keys
from nbcontain.build.operations.workshop import Filesystem, Workshop, cache_key, execute

__all__ = ["Filesystem", "Workshop", "bases", "cache_key", "execute", "keys"]
