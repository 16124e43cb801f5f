"""Both sides of a container as a live widget: its meters move. Loaded only when one is shown."""

from __future__ import annotations

import time

import anywidget
import traitlets

from nbcontain.display.assets import module
from nbcontain.display.html import style_sheet
from nbcontain.display.ticker import shared_ticker
from nbcontain.display.xrayed import Xrayed, picture
from nbcontain.errors import NbcontainError
from nbcontain.values import replace
from nbcontain.xray import Meters


class XrayWidget(anywidget.AnyWidget):
    """Follows a container until it has ended."""

    _esm = module("dom", "xray")
    _css = style_sheet() + style_sheet("looking.css")
    label = traitlets.Unicode().tag(sync=True)
    inside = traitlets.Unicode().tag(sync=True)

    def __init__(self, value: Xrayed) -> None:
        self._value = value
        self._before: Meters | None = None
        self._looked_at = time.monotonic()
        super().__init__(label=f"both sides of {value.xray.name}", inside=picture(value.xray, None, value.sections))
        shared_ticker().keep(self._look)

    def _look(self) -> int:
        """Once a second, in the ticker's thread."""
        value = self._value
        if time.monotonic() - self._looked_at < 0.9:
            return 0
        self._looked_at = time.monotonic()
        try:
            container = value.sides.container(value.xray.id)
            meters = value.sides.meters(container) if container.status == "running" else None
        except (NbcontainError, OSError):
            meters = None
        if meters is None:
            shared_ticker().drop(self._look)
            self.inside = picture(value.xray, self._before, value.sections, ended=True)
            return len(self.inside)
        self._before = value.xray.meters
        self._value = replace(value, xray=replace(value.xray, meters=meters))
        drawn = picture(self._value.xray, self._before, value.sections)
        if drawn == self.inside:
            return 0
        self.inside = drawn
        return len(drawn)
