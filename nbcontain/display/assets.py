"""Scripts and style sheets of the widgets, as they lie in `static/`: a widget's module is several of them, joined."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_STATIC = Path(__file__).with_name("static")


@cache
def text_of(name: str) -> str:
    """A file of `static/`."""
    return (_STATIC / name).read_text("utf-8")


@cache
def module(*names: str) -> str:
    """One module of these scripts, each of which uses what those before it define; the last exports.

    Without their comments' lines and what they are indented by: a notebook may keep it with each card.
    """
    lines = (line.strip() for name in names for line in text_of(f"{name}.js").splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))
