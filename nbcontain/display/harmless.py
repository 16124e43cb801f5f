"""Text that somebody else wrote, made harmless: no control function but the few that mean something here.

Apart from `display.ansi`, which makes lines and styles of it: a terminal's command has no use for these.
"""

from __future__ import annotations

import re
from functools import cache

LINE_CHARACTERS = 4096
"""A longer line is cut, with an ellipsis."""

_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_SEPARATORS = "\u2028\u2029"
SUSPECT = rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}{_SEPARATORS}\ufffe\uffff]"
TOKEN = (
    r"(?:\x1b\[|\x9b)(?P<parameters>[0-?]{0,64})[ -/]{0,8}(?P<final>[@-~])"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n\r]{0,4096}(?:\x07|\x1b\\|\x9c)"  # OSC, DCS …: a string
    r"|\x1b[ -/]{0,8}[0-~]?"
    rf"|(?P<control>[\x00-\x08\x0b-\x1f\x7f-\x9f{_BIDI}{_SEPARATORS}\ufffe\uffff])"
)
pattern = cache(re.compile)
"""Compiled when something has to be looked for: most text of a terminal's command is plain."""


def sanitized(text: str) -> str:
    """Text for a stream that understands SGR, CR, LF, tab and backspace; everything else is dropped."""
    if not pattern(SUSPECT).search(text):
        return text
    return pattern(TOKEN).sub(_kept, text)


def visible(text: str) -> str:
    """A name or label in one line: whatever is not printable is written out as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def written_out(control: str) -> str:
    """Reordering characters and the like are shown, since dropping them would hide that something is there."""
    return control.encode("unicode_escape").decode() if ord(control) > 0x9F else ""


def _kept(match: re.Match[str]) -> str:
    if match["final"] == "m" and not set(match["parameters"]) & set("<=>?"):
        return f"\x1b[{match['parameters'].replace(':', ';')}m"
    control = match["control"] or ""
    return control if control in "\r\b" else written_out(control)
