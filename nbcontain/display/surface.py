"""Where a picture is shown in a notebook: as a live card or as HTML that is replaced; at the end as a snapshot.

One output with three pictures in one bundle (widget, HTML, plain text) under one display id: whatever
reads the notebook takes the best it can draw, and what is saved in the end is the last picture.
"""

from __future__ import annotations

import atexit
import contextvars
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from nbcontain.display import html
from nbcontain.display.downloads import Send
from nbcontain.display.html import Drawn, Picture
from nbcontain.display.ticker import Ticker, shared_ticker

if TYPE_CHECKING:
    from nbcontain.display.widgets import Card

W = TypeVar("W")
HTML_EVERY_S = 0.5
"""Between two drawings of what is replaced as a whole, at least."""
WIDGET = "application/vnd.jupyter.widget-view+json"


class Place:
    """An output that says that something begins, before it is known what it will show; who is shown first takes it.

    It is HTML, which a page has at once. The widget that will be there is made meanwhile, by `prepare`, so that the
    page has loaded its script when there is something to be seen.
    """

    def __init__(self, prepare: Callable[[], Any] = lambda: None, begins: tuple[str, str] = ("", "")) -> None:
        self.prepare = prepare
        self.name, self.about = begins
        """What is beginning, if that is known better than by its task's name; and small print."""
        self._handle: Any = None
        self._widget: Any = None

    def say(self, picture: Picture) -> None:
        """Show this in the current cell."""
        self._handle = display(snapshot(picture))

    def open(self, picture: Picture) -> None:
        """Show this, if nothing is shown yet."""
        if self._handle is None:
            self.say(picture)

    def make_ready(self) -> None:
        """Prepare for what will be shown. It may import much: what stands there should be on its way by then."""
        with suppress(ImportError):  # widgets are not installed
            self._widget = self.prepare()

    def show(self, bundle: dict[str, Any]) -> Any:
        """Put this there, once: afterwards, and where it never was opened, it gets an output of its own. The handle."""
        handle, self._handle = self._handle, None
        if handle is None:
            return display(bundle)
        handle.update(bundle, raw=True)
        return handle

    def widget(self, kind: type[W]) -> W | None:
        """The widget that was prepared, if it is of this kind, for whoever asks first."""
        if not isinstance(self._widget, kind):
            return None
        widget, self._widget = self._widget, None
        return widget

    def leave(self) -> None:
        """Nobody comes any more for what was prepared."""
        if self._widget is not None:
            self._widget.close()
            self._widget = None


class Surface:
    """An output of the current cell, perhaps in a place that is there already.

    `draw` gives what it looks like now; it is called in the ticker's thread and has to be safe there. `on_action`
    is told of clicks, `on_message` of what else the page says, with a way to answer. `open` and, if it comes first,
    `close` belong into the cell's thread.
    """

    def __init__(
        self,
        draw: Callable[[], Drawn],
        on_action: Callable[[str], None],
        kind: Literal["card", "html"] = "card",
        on_message: Callable[[Mapping[str, Any], Send], None] = lambda content, send: None,
        ticker: Ticker | None = None,
        place: Place | None = None,
    ) -> None:
        self._draw = draw
        self._place = place or Place()
        self._on_action = on_action
        self._on_message = on_message
        self._kind = kind
        self._ticker = ticker or shared_ticker()
        self._handle: Any = None
        self._card: Card | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._shown_at = 0.0
        self._last: dict[str, Any] = {}
        """What it became."""
        self._heard: dict[str, Any] = {}
        """What was said of it last while a cell ran."""

    def open(self) -> None:
        """Show it; from now on it follows `mark`. What is no widget is redrawn every second too, for its times."""
        drawn = self._draw()
        if self._kind == "card":
            self._card = self._made(drawn)
        self._heard = widget_bundle(drawn.saved, self._card)
        self._handle = self._place.show(self._heard)
        atexit.register(self.close)
        if self._card is None:
            self._ticker.keep(self._redraw)

    def outlive_its_cell(self) -> None:
        """It may become something else after its cell: later cells have it said. Whoever opened it."""
        if self._card is None:
            _outliving()[self] = None

    def settle(self) -> None:
        """Say what it is by now, in the thread of a cell that runs; nothing where that was heard before."""
        with self._lock:
            bundle = self._last or snapshot(self._draw().saved)
            if bundle != self._heard:
                self._heard = bundle
                self._handle.update(bundle, raw=True)
            if self._last:
                _outliving().pop(self, None)

    def mark(self) -> None:
        """Something changed. Any thread, any number of times."""
        if self._handle is not None and not self._is_closed:
            self._ticker.mark(self._redraw)

    def close(self, last: Picture | None = None) -> None:
        """Replace it by the last picture, which stays."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._ticker.drop(self._redraw)
        atexit.unregister(self.close)
        picture = last or self._draw().saved
        self._last = snapshot(picture)
        if self._card is not None:
            # A page that was reloaded forgot the display id and goes on showing the widget: it has to end, too.
            self._card.end(picture)
        if self._handle is None:
            self._handle = self._place.show(self._last)
        else:
            self._replace(self._last)

    def _made(self, drawn: Drawn) -> Card | None:
        """A live card, or None where widgets are not installed: then HTML has to do."""
        try:
            from nbcontain.display.widgets import Card
        except ImportError:
            return None
        card = self._place.widget(Card)
        if card is None:
            return Card(drawn, self._on_action, self._on_message)
        card.become(drawn, self._on_action, self._on_message)
        return card

    def _replace(self, bundle: dict[str, Any]) -> None:
        """Put this in the output's place.

        Where no page follows widgets, what runs the notebook hears of the cell that runs now, and of no earlier one.
        """
        if self._card is not None:
            self._handle.update(bundle, raw=True)
        else:
            contextvars.Context().run(self._handle.update, bundle, raw=True)

    def _redraw(self) -> int:
        with self._lock:
            if self._is_closed:
                return 0
            if self._card is not None:
                return self._card.redraw(self._draw())
            if time.monotonic() - self._shown_at < HTML_EVERY_S:
                return 0
            self._shown_at = time.monotonic()
            bundle = snapshot(self._draw().saved)
            self._replace(bundle)
            return len(bundle["text/html"])


@cache
def _outliving() -> dict[Surface, None]:
    """HTML of which some cell has yet to say what it became."""
    return {}


def settle(*_: object) -> None:
    """At the end of each cell: say what became of what earlier cells have shown as HTML.

    What runs a notebook by itself hears only what is said while a cell runs. The thread that draws knows nothing of
    cells, and most of what it says is said between two of them, where such cells are short.
    """
    for surface in list(_outliving()):
        surface.settle()


def snapshot(picture: Picture) -> dict[str, Any]:
    """The static bundle of a picture."""
    return {"text/plain": picture.text, "text/html": html.card(picture)}


def widget_bundle(picture: Picture, widget: Any) -> dict[str, Any]:
    """The same with a widget beside it, if there is one."""
    return snapshot(picture) | (widget_part(widget) if widget is not None else {})


def widget_part(widget: Any) -> dict[str, Any]:
    """What names a widget in a bundle."""
    return {WIDGET: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}}


def display(bundle: dict[str, Any]) -> Any:
    """Publish in the current cell; the handle replaces it later."""
    from IPython.display import display as publish

    return publish(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
