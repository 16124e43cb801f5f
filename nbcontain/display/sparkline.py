"""Small pictures of a series of numbers: as SVG for a card, as eight heights of blocks for text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from nbcontain.display.html import element

POINTS = 60
"""So many values are drawn, the newest at the right edge."""
_HEIGHT = 14
_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], top: float, label: str) -> str:
    """The last values against `top`, as an SVG image whose name for assistive technology is `label`.

    Heights are whole pixels: what cannot be seen does not change the picture.
    """
    shown = values[-POINTS:]
    left = POINTS - len(shown)
    heights = [_HEIGHT - 1 - _height(value, top, _HEIGHT - 2) for value in shown]
    line = " ".join(f"{left + place},{height}" for place, height in enumerate(heights))
    area = f"{left},{_HEIGHT} {line} {POINTS - 1},{_HEIGHT}"
    drawn = f'<polygon points="{area}"></polygon><polyline points="{line}"></polyline>' if shown else ""
    size = f'viewBox="0 0 {POINTS} {_HEIGHT}" width="{POINTS}" height="{_HEIGHT}" preserveAspectRatio="none"'
    return element("svg", drawn, "nbc-spark", role="img", aria_label=label).replace("<svg", f"<svg {size}", 1)


def blocks(values: Sequence[float], top: float, width: int = 12) -> str:
    """The last values against `top` as characters, each the highest of those that it stands for."""
    shown = values[-POINTS:]
    step = max(1, -(-len(shown) // width))
    parts = [shown[begin : begin + step] for begin in range(0, len(shown), step)]
    return "".join(_BLOCKS[_height(max(part), top, len(_BLOCKS) - 1)] for part in parts)


def _height(value: float, top: float, steps: int) -> int:
    """What is more than nothing is never drawn as nothing, as far as there is a step for it."""
    if value <= 0 or top <= 0:
        return 0
    return max(1, round(steps * min(1.0, value / top)))
