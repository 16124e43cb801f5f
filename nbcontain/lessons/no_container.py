"""Lesson 08, There is no container."""

from __future__ import annotations

from nbcontain.lessons.exercise import Choice, Lesson, Question

LESSON = Lesson(
    "08",
    "There is no container",
    questions=(
        Question(
            "08-a",
            "A container's process is number 1 inside. What is it outside?",
            (
                Choice("nothing: it cannot be seen from outside", "`ps` on the host shows it like any other."),
                Choice(
                    "an ordinary process with another number",
                    "One process, two numbers: each process namespace counts for itself.",
                    is_right=True,
                ),
                Choice("number 1 as well", "That is the host's own first process."),
            ),
        ),
    ),
)
