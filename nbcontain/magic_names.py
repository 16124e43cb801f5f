"""What our magics are called. Known before anything that is behind them is imported."""

from __future__ import annotations

GROUP_MAGICS = ("compose", "image", "container", "kernel", "network", "volume")
"""Those whose words are a group of commands."""
LINE_MAGICS = (*GROUP_MAGICS, "nbcontain")
CELL_MAGICS = ("compose", "container", "dockerfile")
LESSON_MAGICS = ("check", "hint", "solution", "quiz")
