"""Where a layer touches what it lies on, and its tar does not say all: told by who unpacks it, settled by `fitting`.

In overlayfs' form a layer is unpacked alone. A directory that its tar does not name, and that is there since something
is in it, would hide whose the one below is, and its mode. A whiteout is left out of a listing only where there is a
directory below, too; elsewhere it is a name that nobody finds (overlayfs.rst#whiteouts).
"""

from __future__ import annotations

import json

from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Seams:
    """Directories of a layer, by their paths below its root."""

    unnamed: tuple[bytes, ...] = ()
    """Those that its tar does not name."""
    hiding: tuple[bytes, ...] = ()
    """Those with whiteouts in them."""

    def written(self) -> bytes:
        """As a file has them; nothing where there are none."""
        if not self.unnamed and not self.hiding:
            return b""
        lists = [[path.decode("latin-1") for path in paths] for paths in (self.unnamed, self.hiding)]
        return json.dumps(lists).encode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> Seams:
        """What was written."""
        lists = json.loads(data) if data else ((), ())
        return cls(*(tuple(path.encode("latin-1") for path in paths) for paths in lists))
