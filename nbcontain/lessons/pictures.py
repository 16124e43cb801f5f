"""How a judged exercise, a hint and a question look: as text, and as HTML that needs no kernel and no script."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nbcontain.display import html
from nbcontain.display.words import count
from nbcontain.lessons.exercise import Choice, Claim, Exercise, Question
from nbcontain.values import dataclass


@dataclass(frozen=True, slots=True)
class Judged:
    """An exercise and what was found of it."""

    exercise: Exercise
    claims: tuple[Claim, ...]

    @property
    def ok(self) -> bool:
        """Whether all holds."""
        return all(claim.holds for claim in self.claims)

    def __repr__(self) -> str:
        said = [f"{'✔' if claim.holds else '✘'} {claim.text}" for claim in self.claims]
        tried = [f"    try: {claim.attempt}" if not claim.holds and claim.attempt else "" for claim in self.claims]
        lines = [line for pair in zip(said, tried, strict=True) for line in pair if line]
        return "\n".join([f"{self.exercise.id} {self.exercise.title}: {self._summary()}", *lines])

    def _repr_html_(self) -> str:
        head = html.heading(
            "done" if self.ok else "waiting", self._summary(), f"{self.exercise.id} · {self.exercise.title}", ()
        )
        body = "".join(_drawn(claim) for claim in self.claims)
        return html.card(html.Picture(f"exercise {self.exercise.id}", head, body))

    def _summary(self) -> str:
        held = sum(claim.holds for claim in self.claims)
        if self.ok:
            return "done"
        return f"{held} of {count(len(self.claims), 'claim')} · %hint {self.exercise.id} helps"


def _drawn(claim: Claim) -> str:
    mark = html.state_mark("done" if claim.holds else "failed", "")
    more = html.notes([f"try: {claim.attempt}"]) if not claim.holds and claim.attempt else ""
    return html.element("div", f"{mark}{_prose(claim.text)}{more}", "nbc-finding")


def _prose(text: str) -> str:
    """Escaped, and what stands between backticks as code."""
    return re.sub("`([^`]+)`", lambda found: html.element("code", found[1]), html.escape(text))


@dataclass(frozen=True, slots=True)
class Asked:
    """A question; each choice opens what there is to say to it. With an answer given, that one is open."""

    question: Question
    answer: str = ""

    @property
    def ok(self) -> bool:
        """Whether the answer given is the right one."""
        return bool(self.answer) and self.question.letters()[self.answer].is_right

    def __repr__(self) -> str:
        lines = [f"{self.question.id} {self.question.text}"]
        for letter, choice in self.question.letters().items():
            lines.append(f"  {letter}) {choice.text}")
            if letter == self.answer:
                lines.append(f"     {_verdict(choice)}")
        if not self.answer:
            lines.append(f"%quiz {self.question.id} --answer {next(iter(self.question.letters()))} answers")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        drawn = []
        for letter, choice in self.question.letters().items():
            summary = html.element("summary", _prose(f"{letter}) {choice.text}"))
            mark = html.state_mark("done" if choice.is_right else "failed", "right" if choice.is_right else "no")
            inside = html.element("div", f"{mark} {_prose(choice.because)}", "nbc-answer")
            drawn.append(html.opening("details", summary + inside, is_open=letter == self.answer, classes="nbc-choice"))
        title = html.element("strong", _prose(self.question.text), "nbc-title")
        head = f"{html.state_mark('running', 'question')} {title}"
        body = html.element("div", "".join(drawn), "nbc-choices")
        return html.card(html.Picture(f"question {self.question.id}", head, body))


def _verdict(choice: Choice) -> str:
    return f"{'✔ right' if choice.is_right else '✘ no'}: {choice.because}"


@dataclass(frozen=True, slots=True)
class Told:
    """Hints so far, or a solution."""

    title: str
    lines: Sequence[str]
    code: str = ""

    def __repr__(self) -> str:
        return "\n".join([self.title, *self.lines, *(f"    {line}" for line in self.code.splitlines())])

    def _repr_html_(self) -> str:
        body = html.notes(self.lines)
        if self.code:
            code = "\n".join(html.escape(line) for line in self.code.splitlines())
            body += html.element("div", html.element("pre", code, "nbc-source"), "nbc-finding")
        return html.card(html.Picture(self.title, html.heading("running", "hint", self.title, ()), body))
