"""What a container's card can do, as values: which button, in which state, and what one would type instead."""

from __future__ import annotations

from collections.abc import Callable

from nbcontain.display.html import Action
from nbcontain.values import dataclass, field

ALWAYS = ("created", "running", "paused", "restarting", "exited", "lost")
RUNNING = ("running", "restarting", "paused")
STOPPED = ("created", "exited", "lost")


@dataclass(frozen=True, slots=True)
class Button:
    """One thing that can be done. `act` runs on a thread of its own; what it gives is shown in the card.

    That may be anything with `html()` or `_repr_html_()`, a widget, or None.
    """

    id: str
    label: str
    act: Callable[[], object] = field(compare=False)
    command: str = ""
    """What does the same in a terminal, {name} being the container's: "docker stop {name}"."""
    states: tuple[str, ...] = ALWAYS
    """In which it is there."""
    busy: str = ""
    """What it says meanwhile."""
    confirm: str = ""
    """What it says after a first press, where the container runs."""

    def action(self, name: str, status: str, *, is_busy: bool, is_free: bool) -> Action:
        """The button as it is drawn for a container of this name and status."""
        confirm = self.confirm if status in RUNNING else ""
        label = (self.busy or f"{self.label}…") if is_busy else self.label
        return Action(self.id, label, name, is_free, confirm, self.command.format(name=name))
