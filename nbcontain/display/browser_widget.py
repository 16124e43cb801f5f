"""A container's page in a notebook. Loaded only when one is shown.

The page's frame can reach nothing; what it asks for comes here as messages and is got inside of the container's
network.
"""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import anywidget
import traitlets

from nbcontain.display.assets import module
from nbcontain.display.harmless import visible
from nbcontain.display.html import style_sheet
from nbcontain.display.opened import Opened
from nbcontain.display.widgets import answer_while_busy
from nbcontain.errors import NbcontainError

_AT_ONCE = 4
_WAITING = 64
"""So many questions may wait; what comes then is refused: a page may ask without end."""
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_BODY = 1 << 20


class BrowserWidget(anywidget.AnyWidget):
    """One frame on one port."""

    _esm = module("dom", "browser")
    _css = style_sheet() + style_sheet("looking.css")
    name = traitlets.Unicode().tag(sync=True)
    start = traitlets.Unicode().tag(sync=True)
    height = traitlets.Int().tag(sync=True)

    def __init__(self, opened: Opened) -> None:
        visit = opened.visit
        super().__init__(name=visible(f"{visit.container.name}:{visit.port}"), start=opened.path, height=opened.height)
        self._visit = visit
        self._turns = threading.Semaphore(_AT_ONCE)
        self._room = threading.Semaphore(_WAITING)
        self.on_msg(self._take)
        answer_while_busy(self)

    def _take(self, _widget: object, content: object, _buffers: object) -> None:
        """A question; main or subshell thread."""
        if not isinstance(content, dict) or not isinstance(content.get("reference"), str):
            return
        if not self._room.acquire(blocking=False):
            self.send({"error": "too much is asked for at once", "reference": content["reference"][:100]})
            return
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._do, content), name="nbcontain page", daemon=True).start()

    def _do(self, asked: dict[str, Any]) -> None:
        try:
            with self._turns:
                said, data = self._answer(asked)
        finally:
            self._room.release()
        self.send({**said, "reference": asked["reference"][:100]}, [data])

    def _answer(self, asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        path, method = str(asked.get("path", "")), str(asked.get("method", "GET")).upper()
        body, kind = str(asked.get("body", "")), str(asked.get("kind", ""))[:200]
        if not path.startswith("/") or method not in _METHODS or len(body) > _BODY:
            return {"error": "that cannot be asked for"}, b""
        try:
            page = self._visit.fetch(path[:8000], method, body, kind)
        except (NbcontainError, OSError) as error:
            why = f": {error.why}" if isinstance(error, NbcontainError) and error.why else ""
            return {"error": visible(f"{error.message if isinstance(error, NbcontainError) else error}{why}")}, b""
        return {"status": page.status, "kind": page.kind, "path": page.path, "cut": page.is_cut}, page.data
