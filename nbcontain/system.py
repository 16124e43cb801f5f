"""The store itself, in Python's hands: `nb.system.df()`, `nb.system.check()`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain import api
from nbcontain.filters import texts_of
from nbcontain.listing import Asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from nbcontain.engine import Engine
    from nbcontain.housekeeping import Pruned, Usage
    from nbcontain.soundness import Report


class System:
    """What takes room, what may go, and whether all of it is sound."""

    def __init__(self, engine: Callable[[], Engine]) -> None:
        self._engine = engine

    def df(self) -> Usage:
        """What is on the disk, measured now: `.shares`, `.images`, `.containers`, `.volumes`, `.size_bytes`."""
        return api.df()

    def prune(self, filters: Asked = None, *, all: bool = False, volumes: bool = False) -> Pruned:
        """Remove stopped containers, images without a name, and what builds did not use for a week; without asking.

        With `all` every image that no container is made of, and all that builds keep; with `volumes` the anonymous
        ones too. Where there are filters, what builds keep stays.
        """
        asked = texts_of(filters or ())
        task = self._engine().housekeeping.prune(all_images=all, builds=not asked, volumes=volumes, filters=asked)
        return api.shown(task, "work")

    def check(self, *, full: bool = False, repair: bool = False) -> Report:
        """Whether images, layers and containers are whole: `.is_clean`, `.findings`; `full` reads every blob.

        With `repair` what can be is put right, when nobody else is at work here; `.left` is the rest.
        """
        return api.shown(self._engine().soundness.check(lambda report: report, full=full, fix=repair), "work")

    def __repr__(self) -> str:
        return f"<System {self._engine().layout.root}>"


system = System(api.engine)
