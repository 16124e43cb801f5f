"""Symlinks of a tree that is a root to its programs alone, for the kernel an ordinary directory. Pure.

As fakechroot has them: what is absolute has the tree's own path in front (its symlink(2) puts it there, its readlink(2)
takes it away), so that the kernel, which knows of no root, stays in the tree. So does here what would climb above the
root by `..`, which stays there in a real one. Nothing of that is seen by whoever asks what is in the tree.
"""

from __future__ import annotations

import os
import re

from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ROOTED = "rooted"
"""The file beside an active tree that has its path in it, as it was when its links were made."""
_CLIMBING = re.compile(rb"((?:/\.)+)(//|$)")
"""What stands for as many `..` at the beginning of what is told."""
_NOWHERE = re.compile(rb"^(?:\.?/)*(?:\.$)?")


@dataclass(frozen=True, slots=True)
class RootedLinks:
    """How links of the tree at `base` are kept; `shown` are paths that are the machine's for these programs."""

    base: bytes
    shown: tuple[bytes, ...] = ()

    def words(self) -> dict[str, object]:
        """Itself for a worker (see `of`)."""
        return {"rooted": os.fsdecode(self.base), "shown": [os.fsdecode(each) for each in self.shown]}

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> RootedLinks | None:
        """Those that a worker was told of, if there are any."""
        if "rooted" not in words:
            return None
        return cls(os.fsencode(words["rooted"]), tuple(map(os.fsencode, words.get("shown", ()))))

    def kept(self, target: bytes, depth: int) -> bytes:
        """What a link says there that is to lead to `target`; it lies in a directory so far below the root."""
        parts = target.split(b"/")
        is_absolute = target.startswith(b"/")
        if is_absolute and b".." not in parts and any((target + b"/").startswith(each + b"/") for each in self.shown):
            return target
        last, height = -1, 0 if is_absolute else depth
        for index, part in enumerate(parts):
            height += {b"": 0, b".": 0, b"..": -1}.get(part, 1)
            if height < 0:
                last, height = index, 0
        if last < 0 and not is_absolute:
            return target
        if last < 0 and not _CLIMBING.match(target):
            return self.base + target
        rest = b"/".join(parts[last + 1 :])
        if not is_absolute and set(parts[: last + 1]) == {b".."}:
            return self.base + b"/." * (last + 1) + (b"//" + rest if last + 1 < len(parts) else b"")
        # Which way it took to the root is lost: what it leads to is the same.
        return self.base + b"/" + _NOWHERE.sub(b"", rest)

    def told(self, target: bytes) -> bytes:
        """What it leads to, as programs see it. The inverse of `kept`, also for links that programs have made."""
        while target.startswith(self.base + b"/"):
            target = target[len(self.base) :]
            if climbing := _CLIMBING.match(target):
                rest = [target[climbing.end() :]] if climbing[2] else []
                return b"/".join([b".."] * (len(climbing[1]) // 2) + rest)
        return b"/" if target == self.base else target
