"""The terminal's widget: bytes one way, keys the other, and xterm.js for the page that has not got it yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from nbcontain.display.assets import module, text_of
from nbcontain.display.html import style_sheet
from nbcontain.display.widgets import answer_while_busy


class TerminalWidget(anywidget.AnyWidget):
    """`on_message` is told what the page says, but for the wish to have xterm.js."""

    _esm = module("dom", "terminal")
    _css = style_sheet()

    name = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    head = traitlets.Unicode().tag(sync=True)
    alive = traitlets.Bool(True).tag(sync=True)
    detaches = traitlets.Bool(True).tag(sync=True)
    farewell = traitlets.Unicode().tag(sync=True)
    now = traitlets.Float().tag(sync=True)

    def __init__(self, *, on_message: Callable[[dict[str, Any]], None], **state: Any) -> None:
        super().__init__(**state)
        self._on_message = on_message
        self.on_msg(self._take)
        answer_while_busy(self)

    def _take(self, _widget: object, content: object, _buffers: object) -> None:
        if not isinstance(content, dict):
            return
        if content.get("kind") == "asset":
            names = ("xterm/xterm.mjs", "xterm/addon-fit.mjs", "xterm/xterm.css")
            self.send({"kind": "asset"}, [text_of(name).encode() for name in names])
        else:
            self._on_message(content)
