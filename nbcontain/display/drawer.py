"""What a card shows below itself because somebody asked for it: a table, a text, another widget."""

from __future__ import annotations

from nbcontain.display.html import Drawer, element, escape

NOTHING = Drawer()


def holding(title: str, given: object) -> Drawer:
    """A drawer that shows this: HTML of ours where it has any, a widget, or its text."""
    model_id = getattr(getattr(given, "widget", given), "model_id", None)
    if isinstance(model_id, str) and model_id:
        return Drawer(title, model_id=model_id)
    for name in ("html", "_repr_html_"):
        draw = getattr(given, name, None)
        if callable(draw):
            return Drawer(title, str(draw()))
    return Drawer(title, element("pre", escape(given), "nbc-lines"))
