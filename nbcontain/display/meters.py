"""What a container uses, as its card says it: a sample a second, kept for a minute, as figures and lines. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbcontain.display import words
from nbcontain.display.html import element, escape
from nbcontain.display.sparkline import POINTS, blocks, sparkline
from nbcontain.values import dataclass, replace

if TYPE_CHECKING:
    from nbcontain.resources import Usage

_LINE = 3
"""So many samples make a line of what has ended worth its place."""


@dataclass(frozen=True, slots=True)
class Meters:
    """The samples of the last minute."""

    last: Usage | None = None
    cpu: tuple[float, ...] = ()
    """Percent of one processor between two samples."""
    memory: tuple[int, ...] = ()
    """Bytes."""
    most_memory: int = 0
    memory_limit: int | None = None

    def after(self, usage: Usage) -> Meters:
        """With one more sample."""
        cpu = self.cpu
        if self.last is not None and usage.at_s > self.last.at_s and usage.cpu_s >= self.last.cpu_s:
            cpu = (*cpu, 100 * (usage.cpu_s - self.last.cpu_s) / (usage.at_s - self.last.at_s))[-POINTS:]
        memory = (*self.memory, usage.memory)[-POINTS:]
        return replace(
            self, last=usage, cpu=cpu, memory=memory, most_memory=max(self.most_memory, usage.memory),
            memory_limit=usage.memory_limit,
        )  # fmt: skip

    def ended(self, memory_peak: int, memory_limit: int | None, *, is_full: bool) -> Meters:
        """With what the kernel says of a run that is over: between two looks there may have been more.

        `is_full` says that it was ended because it had come to its limit.
        """
        limit = memory_limit or self.memory_limit
        return replace(
            self, most_memory=max(self.most_memory, memory_peak, limit or 0 if is_full else 0), memory_limit=limit
        )


def meters_html(meters: Meters, *, is_over: bool = False) -> str:
    """The figures with their lines; of what has ended what it used in all. Nothing before the first sample."""
    parts = [_part(name, figure, line) for name, figure, line in _figures(meters, is_over=is_over)]
    return element("div", "".join(parts), "nbc-meters") if parts else ""


def meters_text(meters: Meters, *, is_over: bool = False) -> str:
    """The same in one line of text."""
    drawn = {"CPU": blocks(meters.cpu, cpu_top(meters)), "memory": blocks(meters.memory, memory_top(meters))}
    return " · ".join(
        " ".join(part for part in (name, drawn.get(name, ""), figure) if part)
        for name, figure, _ in _figures(meters, is_over=is_over)
    )


def cpu_top(meters: Meters) -> float:
    """What a full line means: one processor, or more where more was used."""
    return max(100.0, *meters.cpu) if meters.cpu else 100.0


def memory_top(meters: Meters) -> float:
    """The limit, or where there is none the most that was seen."""
    return float(meters.memory_limit or max(meters.memory, default=0))


def cpu_line(meters: Meters) -> str:
    """The processor's line as SVG."""
    most = max(meters.cpu, default=0.0)
    return sparkline(meters.cpu, cpu_top(meters), f"CPU in the last minute: at most {most:.0f} %")


def memory_line(meters: Meters) -> str:
    """The memory's line as SVG."""
    most = words.memory(max(meters.memory, default=0))
    return sparkline(meters.memory, memory_top(meters), f"memory in the last minute: at most {most}")


def cpu_figure(meters: Meters) -> str:
    """What is used now, of one processor."""
    return f"{meters.cpu[-1]:.0f} %" if meters.cpu else "–"


def _figures(meters: Meters, *, is_over: bool) -> list[tuple[str, str, str]]:
    """Name, figure in words, line."""
    usage = meters.last
    limit = f" of {words.memory(meters.memory_limit)}" if meters.memory_limit else ""
    found = []
    if is_over:
        if usage is not None:
            found.append(("CPU", f"{words.duration(usage.cpu_s)} in all"))
        # It may have ended before anything but zeros could be read.
        if meters.most_memory:
            found.append(("memory", f"at most {words.memory(meters.most_memory)}{limit}"))
    elif usage is not None:
        found += [("CPU", cpu_figure(meters)), ("memory", f"{words.memory(usage.memory)}{limit}")]
    if usage is not None and usage.received is not None and usage.sent is not None:
        found.append(("network", f"{words.size(usage.received)} in, {words.size(usage.sent)} out"))
    if usage is not None and not is_over:
        found.append(("processes", str(usage.pids)))
    lines = {"CPU": cpu_line(meters), "memory": memory_line(meters)}
    if is_over and len(meters.cpu) < _LINE:
        lines = {}
    return [(name, figure, lines.get(name, "")) for name, figure in found]


def _part(name: str, figure: str, line: str) -> str:
    return element("span", f"{element('span', escape(name), 'nbc-quiet')} {line} {element('b', escape(figure))}",
                   "nbc-meter")  # fmt: skip
