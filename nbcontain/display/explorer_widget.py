"""The layer explorer as a live widget. Loaded only when one is shown.

A page asks by messages, each with a reference of its own; answers carry it, since every view in every window gets all
of them. Reading a file may take a while, so each question has a thread, and they come one after the other.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import anywidget
import traitlets

from nbcontain.display.assets import module
from nbcontain.display.explored import Answers
from nbcontain.display.html import style_sheet
from nbcontain.display.widgets import answer_while_busy
from nbcontain.errors import NbcontainError
from nbcontain.explorer import Exploration


class ExplorerWidget(anywidget.AnyWidget):
    """Layers to look into; `again` opens them anew, for a container that goes on writing."""

    _esm = module("dom", "explorer")
    _css = style_sheet() + style_sheet("looking.css")
    begun: traitlets.Dict[str, Any] = traitlets.Dict().tag(sync=True)

    def __init__(self) -> None:
        super().__init__()
        self._answers: Answers | None = None
        self._again: Callable[[], Exploration] | None = None
        self._turn = threading.Lock()
        self.on_msg(self._take)
        answer_while_busy(self)

    def look_into(self, exploration: Exploration, again: Callable[[], Exploration]) -> None:
        """Have this looked into. Before, nobody is to see it."""
        self._again = again
        self._answers = Answers(exploration)
        self.begun = self._answers.begun()

    def _take(self, _widget: object, content: object, _buffers: object) -> None:
        """A question; main or subshell thread."""
        if isinstance(content, dict) and isinstance(content.get("reference"), str):
            context = contextvars.copy_context()
            work = threading.Thread(target=context.run, args=(self._do, content), name="nbcontain look", daemon=True)
            work.start()

    def _do(self, asked: dict[str, Any]) -> None:
        with self._turn:
            if self._answers is None or self._again is None:
                answer: dict[str, Any] = {"error": "there is nothing to be looked into yet"}
            elif asked.get("ask") == "again":
                answer = self._renewed(self._again)
            else:
                answer = self._answers.answer(asked)
            self.send({**answer, "reference": asked["reference"][:100]})

    def _renewed(self, again: Callable[[], Exploration]) -> dict[str, Any]:
        try:
            self.look_into(again(), again)
        except NbcontainError as error:
            return {"error": error.message}
        return {}
