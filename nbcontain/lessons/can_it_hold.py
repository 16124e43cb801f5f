"""Lesson 00, Can this computer hold a container?"""

from __future__ import annotations

from nbcontain.lessons.exercise import Choice, Lesson, Question

LESSON = Lesson(
    "00",
    "Can this computer hold a container?",
    questions=(
        Question(
            "00-a",
            "What is a container made of?",
            (
                Choice(
                    "a small computer that is imitated by a program",
                    "That is a virtual machine: it has a kernel of its own.",
                ),
                Choice(
                    "an ordinary process that the kernel shows its own files, processes and network",
                    "Namespaces decide what it sees, control groups what it may use. There is no more to it.",
                    is_right=True,
                ),
                Choice("a file that can be copied", "That comes near to an image. A container is something that runs."),
            ),
        ),
        Question(
            "00-b",
            "A hosted notebook refuses user namespaces. What still works there?",
            (
                Choice("nothing", "Much of it needs no permission at all: an image is files and JSON."),
                Choice(
                    "pulling, looking into, tagging, copying into and pushing images",
                    "All of that is done with files. Only starting a program inside needs the kernel's help.",
                    is_right=True,
                ),
                Choice(
                    "everything, with a password", "No password helps: the rule belongs to whoever runs the machine."
                ),
            ),
        ),
    ),
)
