"""What a check of a Dockerfile found: each finding with the lines it is about."""

from __future__ import annotations

from nbcontain.build.lint import CheckReport
from nbcontain.display import html
from nbcontain.display.harmless import visible
from nbcontain.display.words import count
from nbcontain.dockerfile.ast import Remark
from nbcontain.dockerfile.rules import CHECKS, HINTS, RULES
from nbcontain.errors import draw_excerpt
from nbcontain.values import dataclass

_STATES = {"error": "failed", "check": "cancelled", "hint": "running", "note": "lost"}
"""The colours, as those of states; the word tells them apart without."""


@dataclass(frozen=True, slots=True)
class Findings:
    """A report to draw: BuildKit's checks and our own hints told apart by a word."""

    report: CheckReport

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    @property
    def _all(self) -> tuple[Remark, ...]:
        return (*self.report.errors, *self.report.remarks)

    def _kind(self, remark: Remark) -> str:
        if remark in self.report.errors:
            return "error"
        return "check" if remark.rule in CHECKS else "hint" if remark.rule in HINTS else "note"

    @property
    def summary(self) -> str:
        """How many of which."""
        kinds = [self._kind(each) for each in self._all]
        parts = [count(kinds.count(kind), kind) for kind in _STATES if kind in kinds]
        return ", ".join(parts) or "nothing found"

    def text(self) -> str:
        """For a terminal."""
        drawn: list[str] = []
        for each in self._all:
            drawn.append(f"{self._kind(each)}  {_said(each)}")
            drawn += [f"  {visible(line)}" for line in self._excerpt(each)]
            drawn += [f"        try: {visible(each.hint)}"] if each.hint else []
            drawn += [f"        {_url(each)}"] if _url(each) else []
            drawn.append("")
        return "\n".join([*drawn, self.summary])

    def html(self) -> str:
        """For a cell: no link, as in all that is drawn."""
        state = "failed" if self.report.errors else "cancelled" if self.report.checks else "done"
        word = "not to be built" if self.report.errors else "checked"
        body = "".join(self._drawn(each) for each in self._all)
        head = html.heading(state, word, "Dockerfile", [self.summary])
        return html.card(html.Picture("check of a Dockerfile", head, body))

    def _drawn(self, each: Remark) -> str:
        kind = self._kind(each)
        mark = html.element("span", kind, f"nbc-state nbc-is-{_STATES[kind]}")
        inside = f"{mark} {html.escape(_said(each))}"
        if lines := self._excerpt(each):
            inside += html.element("pre", "\n".join(html.escape(line) for line in lines), "nbc-source")
        more = [f"try: {each.hint}"] if each.hint else []
        more += [_url(each)] if _url(each) else []
        return html.element("div", inside + html.notes(more), "nbc-finding")

    def _excerpt(self, each: Remark) -> list[str]:
        return draw_excerpt(self.report.source, each.span, around=0)


def _said(remark: Remark) -> str:
    name = f"{remark.rule}: " if remark.rule else ""
    place = f" (line {remark.span.first})" if remark.span else ""
    return visible(f"{name}{remark.message}{place}")


def _url(remark: Remark) -> str:
    return RULES[remark.rule].url if remark.rule else ""
