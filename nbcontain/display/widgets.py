"""The live card: finished HTML and output lines as synced traits, and real buttons.

Loaded only when a card is shown. Traits are set by the ticker's thread; clicks come in the main thread
or in a subshell's, so handlers only note what was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

from nbcontain.display.ansi import Line
from nbcontain.display.html import Action, Picture, style_sheet
from nbcontain.display.view import TAIL_LINES
from nbcontain.values import asdict


class Card(anywidget.AnyWidget):
    """A card in a running notebook; `on_action` is called with an action's id.

    Only the new lines travel (`delta`); `tail`, the state of the whole log, is kept for views that are
    opened later and after a reload of the page, and is sent only when such a one asks for it.
    """

    _esm = (files("nbcontain.display") / "static" / "card.js").read_text("utf-8")
    _css = style_sheet()

    label = traitlets.Unicode().tag(sync=True)
    head = traitlets.Unicode().tag(sync=True)
    body = traitlets.Unicode().tag(sync=True)
    actions: traitlets.List[Any] = traitlets.List().tag(sync=True)
    log_label = traitlets.Unicode().tag(sync=True)
    whole_log = traitlets.Unicode().tag(sync=True)
    delta: traitlets.Dict[str, Any] = traitlets.Dict({"from": 0, "lines": [], "begun": []}).tag(sync=True)
    tail: traitlets.Dict[str, Any] = traitlets.Dict({"end": 0, "lines": [], "begun": []}).tag(sync=True)

    def __init__(self, picture: Picture, actions: Sequence[Action], on_action: Callable[[str], None]) -> None:
        drawn = [_drawn(line) for line in picture.log]
        super().__init__(
            label=picture.label,
            head=picture.head,
            body=picture.body,
            actions=[asdict(action) for action in actions],
            log_label=picture.log_label,
            whole_log=picture.whole_log,
            tail={"end": picture.hidden_lines + len(drawn), "lines": drawn, "begun": []},
        )
        self._on_action = on_action
        self.on_msg(self._take)
        answer_while_busy(self)

    def redraw(self, picture: Picture, actions: Sequence[Action], begun: Sequence[Line] = ()) -> int:
        """Show this now, in one message; says about how many bytes that took. Lines in `begun` may still change."""
        end = picture.hidden_lines + len(picture.log)
        fresh = min(max(0, end - self.tail["end"]), len(picture.log))
        new = [_drawn(line) for line in picture.log[len(picture.log) - fresh :]]
        unfinished = [_drawn(line) for line in begun]
        sent = 0
        with self.hold_sync():
            for name in ("label", "head", "body", "log_label", "whole_log"):
                wanted = getattr(picture, name)
                if getattr(self, name) != wanted:
                    setattr(self, name, wanted)
                    sent += len(wanted)
            self.actions = [asdict(action) for action in actions]
            if new or unfinished != self.tail["begun"]:
                lines = [*self.tail["lines"], *new][-TAIL_LINES:]
                self.tail = {"end": end, "lines": lines, "begun": unfinished}
                self.delta = {"from": end - fresh, "lines": new, "begun": unfinished}
                sent += sum(len(run[0]) + 20 for line in new for run in line[1:])
        return sent

    def _should_send_property(self, key: str, value: Any) -> bool:
        """ipywidgets asks before a change is sent: the tail never is, as `delta` says the same in less."""
        return key != "tail" and bool(super()._should_send_property(key, value))

    def _take(self, _widget: object, content: object, _buffers: object) -> None:
        if isinstance(content, dict) and isinstance(content.get("action"), str):
            self._on_action(content["action"])


def answer_while_busy(widget: Card) -> None:
    """Let clicks be handled in ipykernel's subshell while a cell runs.

    ipykernel 7.4 sends a widget's messages to the shell that published on it last, which for a widget made
    in a cell is the main one, and that is busy. This undoes it for this widget; other versions lack the
    attribute, and nothing happens.
    """
    comm = widget.comm
    if comm is not None and hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default


def _drawn(line: Line) -> list[Any]:
    """A line as the card takes it: its source, then text and class names of each run."""
    return [line.source, *([run.text, run.style.classes] for run in line.runs)]
