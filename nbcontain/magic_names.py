"""What our magics are called. Known before anything that is behind them is imported."""

from __future__ import annotations

GROUP_MAGICS = ("compose", "image", "container", "kernel", "network", "volume")
"""Those whose words are a group of commands."""
LINE_MAGICS = (*GROUP_MAGICS, "nbcontain")
CELL_MAGICS = ("compose", "container", "dockerfile")
LESSON_MAGICS = ("check", "hint", "solution", "quiz")


def on_a_terminal(text: str) -> str:
    """What we advise, which names commands as one types them in a cell, as one types them on a terminal."""
    for magic in LINE_MAGICS:
        said = "nbcontain" if magic in ("nbcontain", "container") else f"nbcontain {magic}"
        text = text.replace(f"%{magic} ", f"{said} ")
    return text
