"""The card of a detached container: follows its journal, with buttons that act on it, for as long as it runs."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from nbcontain.display.ansi import Line
from nbcontain.display.html import Action, Picture
from nbcontain.display.pictures import ContainerFacts, container_picture
from nbcontain.display.present import Mode
from nbcontain.display.surface import Surface
from nbcontain.display.view import View, update
from nbcontain.errors import NbcontainError
from nbcontain.events import Record

_GRACE_S = 2.0
"""So long a container that ended is given to be started again before its card becomes a snapshot."""


class Shown(Protocol):
    """What a card asks of a container."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def image(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def pid(self) -> int | None: ...

    def follow(self) -> Iterator[Record]: ...


def show_container(
    container: Shown,
    actions: Mapping[str, Callable[[], object]],
    *,
    mode: Mode,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Show a container and return at once; its card goes on living until the container has ended.

    `actions` are buttons in their order ("stop", "restart", "remove"), each run on a thread of its own when
    pressed. `facts` may hold "network" and "command".
    """
    card = LiveContainer(container, actions, dict(facts or {}))
    if mode == "plain":
        print(card.picture().text)
        return
    surface = Surface(card.draw, card.act, mode)
    card.surface = surface
    surface.open()
    context = contextvars.copy_context()
    name = f"nbcontain card {container.name}"
    threading.Thread(target=context.run, args=(card.follow,), name=name, daemon=True).start()


class LiveContainer:
    """What the card of one container knows. Drawn by the ticker's thread, fed by its own, clicked in any."""

    def __init__(
        self, container: Shown, actions: Mapping[str, Callable[[], object]], facts: dict[str, str]
    ) -> None:
        self.surface: Surface | None = None
        self._container = container
        self._actions = actions
        self._facts = facts
        self._view = View()
        self._busy: frozenset[str] = frozenset()
        self._messages: tuple[str, ...] = ()
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()

    def picture(self) -> Picture:
        return container_picture(self._asked(), self._view, time.time(), self._messages)

    def draw(self) -> tuple[Picture, Sequence[Line], Sequence[Action]]:
        """For the surface: the picture, the unfinished lines, and the buttons that make sense now."""
        view, container = self._view, self._asked()
        picture = container_picture(container, view, time.time(), self._messages, with_begun=False)
        root = view.tasks.get(container.id)
        begun = root.begun_lines() if root is not None else ()
        return picture, begun, [self._button(name, container) for name in self._actions]

    def follow(self) -> None:
        """Fold the journal until the container has ended for good, then leave the snapshot. A thread of its own."""
        seen = 0
        while True:
            count = 0
            try:
                for count, record in enumerate(self._container.follow(), 1):
                    if count > seen:
                        self._view = update(self._view, record)
                        self._mark()
            except (NbcontainError, OSError):
                break  # its directory is gone
            seen = max(seen, count)
            if not self._runs_again():
                break
        if self.surface is not None:
            self.surface.close()

    def act(self, name: str) -> None:
        """A click; main or subshell thread. The work gets a thread of its own, as a stop may take seconds."""
        with self._lock:
            if name not in self._actions or self._busy:
                return
            self._busy = frozenset({name})
            self._messages = ()
            self._idle.clear()
        self._mark()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._do, name), name=f"nbcontain {name}", daemon=True).start()

    def _do(self, name: str) -> None:
        try:
            self._actions[name]()
        except NbcontainError as error:
            self._messages = (f"{name}: {error.message}", *((error.hint,) if error.hint else ()))
        except Exception as error:  # noqa: BLE001 - nobody waits for this thread: the card has to say it
            self._messages = (f"{name}: {type(error).__name__}: {error}",)
        finally:
            self._busy = frozenset()
            self._idle.set()
            self._mark()

    def _runs_again(self) -> bool:
        """Whether it was started again, by a button here or by somebody else, soon after it ended."""
        self._mark()
        self._idle.wait()
        until = time.monotonic() + _GRACE_S
        while time.monotonic() < until:
            if self._asked().status in ("running", "created"):
                return True
            time.sleep(0.1)
            self._idle.wait()
        return False

    def _asked(self) -> ContainerFacts:
        container = self._container
        pid = None
        try:
            status = container.status
            if status == "running":
                pid = container.pid
        except (NbcontainError, OSError):
            status = "removed"
        return ContainerFacts(
            container.id, container.name, str(container.image), status, pid, self._facts.get("network", ""),
            self._facts.get("command", ""),
        )  # fmt: skip

    def _button(self, name: str, container: ContainerFacts) -> Action:
        runs = container.status in ("running", "created")
        label = name.capitalize()
        if name in self._busy:
            label = {"stop": "Stopping…", "restart": "Restarting…", "remove": "Removing…"}.get(name, f"{label}…")
        enabled = not self._busy and container.status != "removed" and (runs or name != "stop")
        confirm = "Stop and remove?" if name == "remove" and runs else ""
        return Action(name, label, container.name, enabled, confirm)

    def _mark(self) -> None:
        if self.surface is not None:
            self.surface.mark()
