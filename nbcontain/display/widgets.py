"""The live card: finished HTML and output lines as synced traits, and real buttons.

Loaded only when a card is shown. Traits are set by the ticker's thread; clicks come in the main thread
or in a subshell's, so handlers only note what was asked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import traitlets

from nbcontain.display.ansi import Line
from nbcontain.display.assets import module
from nbcontain.display.downloads import Send
from nbcontain.display.html import Drawn, Picture, style_sheet
from nbcontain.display.html import card as drawn_card
from nbcontain.values import asdict

TAIL_LINES = 2000
_STILL = """export default { render({ model, el }) {
  el.innerHTML = model.get('body');
  if (document.querySelector('style[data-nbcontain]')) return;
  const sheet = document.createElement('style');
  sheet.dataset.nbcontain = '';
  document.head.append(sheet);
  model.on('msg:custom', (message) => { if (message?.style) sheet.textContent = message.style; });
  model.send({ style: true });
} }"""
"""What is left of a card's script: a page that never saw a live one asks for their style, once."""
_TICKING = re.compile(r'(<span class="nbc-since" data-since="[0-9.]+">)[^<]*')


class Card(anywidget.AnyWidget):
    """A card in a running notebook; `on_action` is called with an action's id, `on_message` with what else comes.

    Only the new lines travel (`delta`); `tail`, the state of the whole log, is kept for views that are
    opened later and after a reload of the page, and is sent only when such a one asks for it. So is `now`, this
    machine's clock, by which the page counts the times that pass. What is as it was is not sent.
    """

    _esm = module("dom", "log", "card")
    _css = style_sheet()

    label = traitlets.Unicode().tag(sync=True)
    head = traitlets.Unicode().tag(sync=True)
    meters = traitlets.Unicode().tag(sync=True)
    body = traitlets.Unicode().tag(sync=True)
    actions: traitlets.List[Any] = traitlets.List().tag(sync=True)
    drawer: traitlets.Dict[str, Any] = traitlets.Dict({"title": "", "html": "", "model_id": ""}).tag(sync=True)
    command = traitlets.Unicode().tag(sync=True)
    log_label = traitlets.Unicode().tag(sync=True)
    whole_log = traitlets.Unicode().tag(sync=True)
    delta: traitlets.Dict[str, Any] = traitlets.Dict({"from": 0, "lines": [], "begun": []}).tag(sync=True)
    tail: traitlets.Dict[str, Any] = traitlets.Dict({"end": 0, "lines": [], "begun": []}).tag(sync=True)
    now = traitlets.Float().tag(sync=True)

    def __init__(
        self,
        drawn: Drawn,
        on_action: Callable[[str], None] = lambda action: None,
        on_message: Callable[[Mapping[str, Any], Send], None] = lambda content, send: None,
    ) -> None:
        lines = [_drawn(line) for line in drawn.log][-TAIL_LINES:]
        super().__init__(
            **_texts(drawn),
            actions=[asdict(action) for action in drawn.actions],
            drawer=asdict(drawn.drawer),
            tail={"end": drawn.log_end, "lines": lines, "begun": []},
            now=time.time(),
        )
        self._on_action = on_action
        self._on_message = on_message
        self.on_msg(self._take)
        answer_while_busy(self)

    def become(
        self, drawn: Drawn, on_action: Callable[[str], None], on_message: Callable[[Mapping[str, Any], Send], None]
    ) -> None:
        """Show something else than what it was made for, before anybody has seen it."""
        self._on_action, self._on_message = on_action, on_message
        lines = [_drawn(line) for line in drawn.log][-TAIL_LINES:]
        self.tail = {"end": drawn.log_end, "lines": lines, "begun": []}
        self.redraw(drawn)
        if lines:
            # What a page does not have yet is not sent to it as what comes after.
            self.send_state("tail")

    def redraw(self, drawn: Drawn) -> int:
        """Show this now, in one message; says about how many bytes that took."""
        fresh = min(max(0, drawn.log_end - self.tail["end"]), len(drawn.log))
        new = [_drawn(line) for line in drawn.log[len(drawn.log) - fresh :]]
        begun = [_drawn(line) for line in drawn.begun]
        sent = 0
        with self.hold_sync():
            for name, wanted in _texts(drawn).items():
                if getattr(self, name) != wanted:
                    setattr(self, name, wanted)
                    sent += len(wanted)
            self.actions = [asdict(action) for action in drawn.actions]
            self.drawer = asdict(drawn.drawer)
            if new or begun != self.tail["begun"]:
                end = max(drawn.log_end, self.tail["end"])
                self.tail = {"end": end, "lines": [*self.tail["lines"], *new][-TAIL_LINES:], "begun": begun}
                self.delta = {"from": end - fresh, "lines": new, "begun": begun}
                sent += sum(len(run[0]) + 20 for line in new for run in line[1:])
        return sent

    def end(self, picture: Picture) -> None:
        """Show this for good. What a card is made of goes, or a notebook that keeps widgets' state would have it again
        for each that has ended; the page takes a new script, and keeps its style or asks for it."""
        with self.hold_sync():
            for name in ("head", "meters", "log_label", "whole_log", "command", "_css"):
                setattr(self, name, "")
            self.label, self.body, self.actions = picture.label, drawn_card(picture, with_style=False), []
            self.drawer = {"title": "", "html": "", "model_id": ""}
            end = self.tail["end"]
            self.tail = {"end": end, "lines": [], "begun": []}
            self.delta = {"from": end, "lines": [], "begun": []}
            self._esm = _STILL

    def get_state(self, key: Any = None, drop_defaults: bool = False) -> Any:
        """ipywidgets asks for all of it when a page wants to know: by then this machine's clock has gone on."""
        if key is None:
            self.now = time.time()
        return super().get_state(key, drop_defaults)

    def _should_send_property(self, key: str, value: Any) -> bool:
        """ipywidgets asks before a change is sent: the tail never is, as `delta` says the same in less."""
        return key not in ("tail", "now") and bool(super()._should_send_property(key, value))

    def _take(self, _widget: object, content: object, _buffers: object) -> None:
        if not isinstance(content, dict):
            return
        if content.get("style") is True:
            self.send({"style": style_sheet()})
        elif isinstance(content.get("action"), str):
            self._on_action(content["action"])
        else:
            self._on_message(content, self.send)


def answer_while_busy(widget: anywidget.AnyWidget) -> None:
    """Let clicks be handled in ipykernel's subshell while a cell runs.

    ipykernel 7.4 sends a widget's messages to the shell that published on it last, which for a widget made
    in a cell is the main one, and that is busy. This undoes it for this widget; other versions lack the
    attribute, and nothing happens.
    """
    comm = widget.comm
    if comm is not None and hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = lambda data, default: default


def _texts(drawn: Drawn) -> dict[str, str]:
    """The parts of a picture that are text; a time that passes is left to the page, which counts by itself."""
    picture = drawn.picture
    return {
        "label": picture.label,
        "head": _TICKING.sub(r"\1", picture.head),
        "meters": picture.meters,
        "body": _TICKING.sub(r"\1", picture.body),
        "log_label": picture.log_label,
        "whole_log": picture.whole_log,
        "command": drawn.command,
    }


def _drawn(line: Line) -> list[Any]:
    """A line as the card takes it: its source, then text and class names of each run."""
    return [line.source, *([run.text, run.style.classes] for run in line.runs)]
