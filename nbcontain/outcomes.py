"""How a program in a container went: what it wrote, and its exit code."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

from nbcontain.errors import ContainerError, ContainerFailed
from nbcontain.events import Notice, Output
from nbcontain.journal import KEPT_OUTPUT_BYTES
from nbcontain.task import Task
from nbcontain.values import dataclass, field

T = TypeVar("T")

_ENDING_S = 15.0
_MEANINGS = {125: "the engine failed", 126: "the command cannot be executed", 127: "the command was not found"}


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a foreground container went: `result.stdout`, `result.exit_code`; `str(result)` is its output.

    Of much output it is the end: the last 64 MiB.
    """

    container_id: str
    name: str
    exit_code: int
    output: tuple[Output, ...] = field(repr=False)
    files: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What `get` asked for: by its path, the object that its suffix says: a table, an array, text, bytes."""

    def _text(self, *streams: str) -> str:
        return b"".join(each.data for each in self.output if each.stream in streams).decode(errors="replace")

    @property
    def stdout(self) -> str:
        return self._text("stdout")

    @property
    def stderr(self) -> str:
        return self._text("stderr")

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()

    def __str__(self) -> str:
        return self._text("stdout", "stderr")

    def __repr__(self) -> str:
        count = len(self.lines)
        return f"<RunResult of {self.name}  exit code {self.exit_code}  {count} line{'s' * (count != 1)}>"

    def df(self, **how: Any) -> Any:
        """Standard output as a DataFrame: CSV, or JSON if it looks like that. `how` goes to the library's reader."""
        from nbcontain import objects

        return objects.table("stdout", b"".join(each.data for each in self.output if each.stream == "stdout"), **how)

    def to_dict(self) -> dict[str, Any]:
        """Everything that is known of it."""
        return {"name": self.name, "container_id": self.container_id, "exit_code": self.exit_code,
                "stdout": self.stdout, "stderr": self.stderr}  # fmt: skip


def waited(task: Task[T]) -> T:
    """What a task gives, or raises; an interrupt cancels it, and goes on when it has ended."""
    try:
        return task.result()
    except KeyboardInterrupt:
        task.cancel()
        task.wait(_ENDING_S)
        raise


class Tail:
    """The last of what a program wrote, as much as a journal in memory keeps."""

    def __init__(self) -> None:
        self.kept: deque[Output] = deque()
        self._size_bytes = 0

    def add(self, output: Output) -> None:
        self.kept.append(output)
        self._size_bytes += len(output.data)
        while self._size_bytes > KEPT_OUTPUT_BYTES:
            self._size_bytes -= len(self.kept.popleft().data)


def result_of(
    container_id: str, name: str, exit_code: int | None, output: Tail, told: Notice | None = None, *,
    check: bool = True, within: bool = False,
) -> RunResult:  # fmt: skip
    """The result of a program that ended well; raises ContainerFailed for another, ContainerError for a lost one.

    `within` says that it was one besides the container's own, which goes on.
    `told` is what was said about it last, and why it failed. Unless `check`, every exit code is well.
    """
    result = RunResult(container_id, name, -1 if exit_code is None else exit_code, tuple(output.kept))
    if exit_code is None:
        hint = "%container ps -a shows what is left"
        raise ContainerError(f"{name} was lost", why="its supervisor was killed", hint=hint)
    if exit_code != 0 and check:
        meaning = _MEANINGS.get(exit_code, "")
        if exit_code > 128:
            with suppress(ValueError):
                meaning = f"it was ended by {signal.Signals(exit_code - 128).name}"
        who = f"the program in {name}" if within else name
        error = ContainerFailed(f"{who} ended with exit code {exit_code}", exit_code, why=meaning, result=result)
        if told is not None and told.message:
            error.why, error.hint = told.message, told.hint
        raise error
    return result
