"""How what one looks into is shown in a notebook: live where there are widgets, and as what stays of it.

One output with three pictures under one display id. While the kernel lives the page asks it for more; when it ends
the output becomes the static picture, so that a saved notebook has no empty box.
"""

from __future__ import annotations

import atexit
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from nbcontain.display.present import Mode
from nbcontain.display.surface import Place, widget_part

if TYPE_CHECKING:
    from nbcontain.display.explored import Explored
    from nbcontain.display.opened import Opened
    from nbcontain.display.xrayed import Xrayed
    from nbcontain.images import Layers


@cache
def _live() -> deque[tuple[Any, dict[str, Any]]]:
    """Outputs that become static when the kernel ends, with what they become: the last so many, as it may live long."""
    atexit.register(_end)
    return deque(maxlen=100)


def _end() -> None:
    while _live():
        handle, static = _live().popleft()
        handle.update(static, raw=True)


def prepared() -> Any:
    """An explorer that has nothing to look into yet. Raises ImportError without widgets."""
    from nbcontain.display.explorer_widget import ExplorerWidget

    return ExplorerWidget()


def show_explored(value: Explored, mode: Mode, place: Place | None = None) -> None:
    """Show layers in the current cell, perhaps in a place that is there already."""
    exploration = value.exploration

    def made() -> Any:
        from nbcontain.display.explorer_widget import ExplorerWidget

        widget = place.widget(ExplorerWidget) if place is not None else None
        widget = widget or ExplorerWidget()
        widget.look_into(exploration, lambda: exploration.again().result())
        return widget

    show(made, value, mode, place)


def show_layers(layers: Layers, mode: Mode) -> None:
    """Show an image's layers, `image.layers`, as the command does."""
    if not layers:
        show(lambda: None, layers, "plain")
        return
    from nbcontain.display.explored import Explored

    image = layers[0].image
    show_explored(Explored(image.engine.explorer.image(str(image.id), image.name).result()), mode)


def show_xray(value: Xrayed, mode: Mode) -> None:
    """Show both sides of a container; its meters move while it runs."""

    def made() -> Any:
        from nbcontain.display.xray_widget import XrayWidget

        return XrayWidget(value)

    show(made, value, mode)


def show_opened(value: Opened, mode: Mode) -> None:
    """Show a container's page."""

    def made() -> Any:
        from nbcontain.display.browser_widget import BrowserWidget

        return BrowserWidget(value)

    show(made, value, "html" if value.is_external and mode == "card" else mode)


def show(make: Callable[[], Any], value: Any, mode: Mode, place: Place | None = None) -> None:
    """Publish the widget that `make` makes of a value, with the value's own pictures beside it."""
    from IPython.display import display as publish

    widget = None
    if mode == "card":
        with suppress(ImportError):  # widgets are not installed: the static picture has to do
            # First: the page makes ready for it while the static pictures are drawn here.
            widget = make()
    static = {"text/plain": repr(value)}
    if mode != "plain":
        static["text/html"] = value._repr_html_()
    if widget is None:
        publish(static, raw=True)  # type: ignore[no-untyped-call]
        return
    _live().append(((place or Place()).show(static | widget_part(widget)), static))
