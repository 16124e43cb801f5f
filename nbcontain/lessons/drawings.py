"""A drawing of one image and the containers that stand on it, with what each changed: made of what there is. Pure.

Names, commands and paths are other people's: whatever is drawn of them is text, and escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nbcontain.display.harmless import visible
from nbcontain.display.words import count, size
from nbcontain.engine import Engine
from nbcontain.values import dataclass

_WIDTH, _COLUMNS, _SHEET, _ROOF, _HOUSE = 760, 5, 22, 26, 92
_STYLE = (
    ".nb-street{font:13px system-ui,sans-serif}"
    ".nb-street text{fill:currentColor}"
    ".nb-street .small{font-size:11px;opacity:.8}"
    ".nb-street .sheet{fill:#3b82c4;fill-opacity:.14;stroke:#3b82c4}"
    ".nb-street .house{fill:currentColor;fill-opacity:.05;stroke:currentColor;stroke-opacity:.45}"
    ".nb-street .empty{stroke-dasharray:5 4}"
    ".nb-street .own{fill:#b7791f;fill-opacity:.22;stroke:#b7791f}"
    ".nb-street .wire{stroke:currentColor;stroke-opacity:.35;fill:none}"
)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A layer of the image."""

    made_by: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class House:
    """A container, and how many files in its own layer are other than in the image."""

    name: str
    status: str
    changes: int


@dataclass(frozen=True, slots=True)
class Street:
    """An image with its layers, lowest first, and the containers that were made of it."""

    image: str
    digest: str
    sheets: tuple[Sheet, ...]
    houses: tuple[House, ...]

    def text(self) -> str:
        """The same in words."""
        lines = [f"image {self.image}  {self.digest}, read-only"]
        lines += [f"  layer {number}: {each.made_by}  {size(each.size_bytes)}" for number, each in self._numbered()]
        lines += [f"container {each.name}: {each.status}, {_changed(each)}" for each in self.houses]
        if not self.houses:
            lines.append("no containers")
        return "\n".join(map(visible, lines))

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f'<div class="nb-street"><style>{_STYLE}</style>{self._svg()}</div>'

    def _numbered(self) -> list[tuple[int, Sheet]]:
        return list(enumerate(self.sheets, 1))

    def _svg(self) -> str:
        parts = [_text(8, 18, self.image, weight="600"), _text(_WIDTH - 8, 18, self.digest, anchor="end", small=True)]
        y = 28
        for number, sheet in reversed(self._numbered()):
            parts.append(f'<rect class="sheet" x="8" y="{y}" width="{_WIDTH - 16}" height="{_SHEET - 4}" rx="3"/>')
            parts.append(_text(16, y + 13, f"{number}  {sheet.made_by}", small=True, most=90))
            parts.append(_text(_WIDTH - 16, y + 13, size(sheet.size_bytes), anchor="end", small=True))
            y += _SHEET
        for first in range(0, len(self.houses), _COLUMNS):
            row = self.houses[first : first + _COLUMNS]
            for column, house in enumerate(row):
                parts += _house(8 + column * (_WIDTH - 16) // _COLUMNS, y + 14, house)
            y += 14 + _ROOF + _HOUSE
        label = escape(self.text(), quote=True)
        return (
            f'<svg role="img" aria-label="{label}" viewBox="0 0 {_WIDTH} {y + 8}" width="100%" '
            f'style="max-width:{_WIDTH}px">{"".join(parts)}</svg>'
        )


def street(engine: Engine, image: str, names: Sequence[str] = ()) -> Street:
    """An image as it is now, with all of its containers, or those of these names. Raises ImageNotFound."""
    found = engine.image(image)
    made_by = [each.created_by.removesuffix(" # buildkit") for each in found.config.history if not each.empty_layer]
    made_by += [""] * len(found.layers)  # a history may say less
    sheets = tuple(Sheet(text, each.descriptor.size) for text, each in zip(made_by, found.layers, strict=False))
    houses = tuple(
        House(each.name, each.status, len(engine.diff(each)))
        for each in sorted(engine.containers(), key=lambda each: each.name)
        if each.info.image_id == str(found.id) and (not names or each.name in names)
    )
    return Street(image, f"sha256:{found.id.short}…", sheets, houses)


def _changed(house: House) -> str:
    return f"{count(house.changes, 'change')} of its own" if house.changes else "nothing of its own yet"


def _house(x: int, y: int, house: House) -> list[str]:
    """A roof, a name, what it does, and its own layer at the bottom: thin, and thicker the more is in it."""
    width = (_WIDTH - 16) // _COLUMNS - 14
    look = "house" if house.status == "running" else "house empty"
    top, middle = y + _ROOF, x + width // 2
    own = min(24, 4 + 5 * house.changes)
    foot = top + _HOUSE - 14
    return [
        f'<path class="{look}" d="M{x} {top} L{middle} {y} L{x + width} {top} Z"/>',
        f'<rect class="{look}" x="{x}" y="{top}" width="{width}" height="{foot - top}"/>',
        f'<rect class="own" x="{x}" y="{foot - own}" width="{width}" height="{own}"/>',
        _text(middle, top + 18, house.name, anchor="middle", weight="600", most=16),
        _text(middle, top + 34, house.status, anchor="middle", small=True),
        _text(middle, top + 49, count(house.changes, "change"), anchor="middle", small=True),
    ]


def _text(x: int, y: int, text: str, *, weight: str = "", anchor: str = "", small: bool = False, most: int = 60) -> str:
    extra = f' font-weight="{weight}"' * bool(weight) + f' text-anchor="{anchor}"' * bool(anchor)
    extra += ' class="small"' * small
    shown = visible(text)
    shown = shown if len(shown) <= most else shown[: most - 1] + "…"
    return f'<text x="{x}" y="{y}"{extra}>{escape(shown)}</text>'
