"""The card of a detached container: follows its journal, with buttons that act on it, for as long as it runs."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from nbcontain.display import drawer
from nbcontain.display.ansi import Line
from nbcontain.display.buttons import RUNNING, STOPPED, Button
from nbcontain.display.downloads import Download, Send
from nbcontain.display.html import Action, Drawn, Picture
from nbcontain.display.lookout import Lookout
from nbcontain.display.meters import Meters
from nbcontain.display.pictures import ContainerFacts, Port, container_picture
from nbcontain.display.present import Mode
from nbcontain.display.surface import Place as Output
from nbcontain.display.surface import Surface
from nbcontain.display.view import View, fold
from nbcontain.errors import NbcontainError
from nbcontain.events import Finished, Record, Started
from nbcontain.values import dataclass, field, replace

if TYPE_CHECKING:
    from nbcontain.resources import Usage

_GRACE_S = 2.0
"""So long a container that ended is given to be started again before its card becomes a snapshot."""
_FIRST_S = 0.5
"""So long a card may read before it is drawn for the first time."""
KEPT_LINES = 2000
"""So many last lines a live card holds, to be searched; the page draws a part of them."""


class Ending(Protocol):
    """How a container's last run ended."""

    @property
    def exit_code(self) -> int | None: ...
    @property
    def oom_killed(self) -> bool: ...
    @property
    def memory_peak(self) -> int: ...


class Shown(Protocol):
    """What a card asks of a container."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def image(self) -> str: ...
    @property
    def exists(self) -> bool: ...
    @property
    def status(self) -> str: ...
    @property
    def is_paused(self) -> bool: ...
    @property
    def pid(self) -> int | None: ...

    def state(self) -> Ending: ...
    def batches(self, enough: Callable[[], bool]) -> Iterator[list[Record]]: ...


class Place(Protocol):
    """Where it is shown: a surface, or a row of a board."""

    def mark(self) -> None: ...
    def close(self, last: Picture | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a container's card knows and can do beside the container's own account."""

    buttons: Sequence[Button] = ()
    """In their order."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """network, command, isolation."""
    ports: Callable[[], Sequence[Port]] = field(default=lambda: (), compare=False)
    log: Callable[[], Iterator[Record]] | None = field(default=None, compare=False)
    """All that it wrote, read anew."""
    lookout: Lookout | None = None
    memory_limit: Callable[[], int | None] = field(default=lambda: None, compare=False)
    """Bytes."""


def prepared() -> Any:
    """A card that becomes a container's: a page loads its script meanwhile. Raises ImportError without widgets."""
    from nbcontain.display.widgets import Card

    return Card(Drawn(Picture("starting", "")))


def show_container(container: Shown, around: Surroundings, *, mode: Mode, place: Output | None = None) -> None:
    """Show a container, perhaps in a place that is there already, and return at once; its card goes on living until the
    container has ended."""
    card = LiveContainer(container, around)
    card.catch_up()
    if mode == "plain":
        print(card.picture().text)
        return
    surface = Surface(card.draw, card.act, mode, card.take, place=place)
    card.surface = surface
    surface.open()
    surface.outlive_its_cell()
    context = contextvars.copy_context()
    name = f"nbcontain card {container.name}"
    threading.Thread(target=context.run, args=(card.follow,), name=name, daemon=True).start()


class LiveContainer:
    """What the card of one container knows. Drawn by the ticker's thread, fed by its own, clicked in any."""

    def __init__(self, container: Shown, around: Surroundings) -> None:
        self.surface: Place | None = None
        self.is_over = False
        """It has ended, and nobody follows it any more."""
        self._container = container
        self._around = around
        self._view = View()
        self._lines: deque[Line] = deque(maxlen=KEPT_LINES)
        self._meters = Meters()
        self._taken = 0
        """So many records of its journal are in the view."""
        self._is_read = False
        """It does not run, and all that it said until then is in the view."""
        self._busy = ""
        self._messages: tuple[str, ...] = ()
        self._drawer = drawer.NOTHING
        self._held: object = None
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._is_left = threading.Event()
        self._facts = self._asked()

    def picture(self) -> Picture:
        """As it is saved."""
        return container_picture(self._with_meters(), self._view, time.time(), self._messages)

    def draw(self) -> Drawn:
        """For the surface: the picture, the unfinished lines, and the buttons that make sense now."""
        facts = self._with_meters()
        with self._lock:
            view, lines = self._view, tuple(self._lines)
        picture = container_picture(facts, view, time.time(), self._messages)
        root = view.tasks.get(facts.id)
        if root is None:
            return Drawn(picture, self.actions(facts), drawer=self._drawer)
        command = f"docker logs -f {facts.name}" if self._around.log is not None else ""
        return Drawn(picture, self.actions(facts), lines, root.line_count, root.begun_lines(), self._drawer, command)

    def catch_up(self, patience_s: float = _FIRST_S) -> None:
        """Take what there is to know by now, so that its first picture is no guess: of what has ended all of it, if
        that is no long story, and of what runs what it has said so far. Whoever shows it, before."""
        runs, until = self._facts.status in RUNNING, time.monotonic() + patience_s
        with suppress(NbcontainError, OSError):
            self._read(lambda: runs or time.monotonic() > until)
            self._is_read = not runs and time.monotonic() <= until

    def follow(self) -> None:
        """Fold the journal until the container has ended for good, then leave the snapshot. A thread of its own."""
        lookout = self._around.lookout
        if lookout is not None:
            lookout.watch(self._container, self._look)
        while True:
            try:
                if not self._is_read:
                    self._read(self._is_left.is_set)
            except (NbcontainError, OSError):
                break  # its directory is gone
            self._is_read = False
            if self._is_left.is_set() or not self._runs_again():
                break
        self.leave()
        self.is_over = True
        self._facts = self._asked()
        if self.surface is not None:
            self.surface.close(self.picture())

    def leave(self) -> None:
        """Look at it no more: who follows it soon ends."""
        self._is_left.set()
        if self._around.lookout is not None:
            self._around.lookout.forget(self._look)

    def seen(self) -> tuple[ContainerFacts, View]:
        """What is known of it now."""
        return self._with_meters(), self._view

    def _read(self, enough: Callable[[], bool]) -> None:
        """Take what its journal has besides what was taken, until the run ends or there was `enough`."""
        count = 0
        for batch in self._container.batches(enough):
            self._take(batch[max(0, self._taken - count) :])
            count += len(batch)
            self._taken = max(self._taken, count)

    def _take(self, records: Sequence[Record]) -> None:
        own = self._container.id
        view, fresh = fold(self._view, records, own)
        with self._lock:
            self._lines.extend(fresh)
            self._view = view
        if any(each.event.task == own and isinstance(each.event, Started | Finished) for each in records):
            self._facts = self._asked()
        self._mark()

    def _look(self, usage: Usage | None) -> None:
        """What the lookout saw; its thread, once a second."""
        facts = self._asked()
        if usage is not None:
            self._meters = self._meters.after(usage)
        if usage is not None or facts != self._facts:
            self._facts = facts
            self._mark()

    # --- buttons ---

    def act(self, name: str) -> None:
        """A click; main or subshell thread. The work gets a thread of its own, as a stop may take seconds."""
        button = next((each for each in self._around.buttons if each.id == name), None)
        with self._lock:
            if button is None or self._busy:
                return
            self._busy = name
            self._messages = ()
            self._idle.clear()
        self._mark()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._do, button), name=f"nbcontain {name}", daemon=True).start()

    def take(self, content: Mapping[str, Any], send: Send) -> None:
        """Another message of the page: a drawer that is to close, a download that is wanted. Any thread."""
        if "close" in content:
            self._put_away()
            self._mark()
        elif isinstance(view := content.get("download"), str) and self._around.log is not None:
            Download(self._around.log, view, send)

    def _put_away(self) -> None:
        """Close the drawer, and end what lived for it."""
        held, self._held, self._drawer = self._held, None, drawer.NOTHING
        close = getattr(held, "close", None)
        if callable(close):
            close()

    def _do(self, button: Button) -> None:
        try:
            given = button.act()
            if given is not None:
                self._put_away()
                self._drawer, self._held = drawer.holding(button.label, given), given
        except NbcontainError as error:
            self._messages = (f"{button.id}: {error.message}", *((error.hint,) if error.hint else ()))
        except Exception as error:  # noqa: BLE001 - nobody waits for this thread: the card has to say it
            self._messages = (f"{button.id}: {type(error).__name__}: {error}",)
        finally:
            self._facts = self._asked()
            self._busy = ""
            self._idle.set()
            self._mark()

    def actions(self, facts: ContainerFacts) -> list[Action]:
        """The buttons that make sense for it as it is."""
        busy = self._busy
        return [
            button.action(facts.name, facts.status, is_busy=button.id == busy, is_free=not busy)
            for button in self._around.buttons
            if facts.status in button.states or button.id == busy
        ]

    # --- what there is to know ---

    def _runs_again(self) -> bool:
        """Whether it was started again, by a button here or by somebody else, soon after it ended."""
        self._mark()
        self._idle.wait()
        until = time.monotonic() + _GRACE_S
        while time.monotonic() < until:
            if self._asked().status in ("running", "created", "restarting"):
                return True
            if self._is_left.wait(0.1):
                return False
            self._idle.wait()
        return False

    def _with_meters(self) -> ContainerFacts:
        facts, meters = self._facts, self._meters
        if facts.status in STOPPED:
            meters = meters.ended(facts.memory_peak, facts.memory_limit, is_full=facts.oom_killed)
        return replace(facts, meters=meters)

    def _asked(self) -> ContainerFacts:
        container, said = self._container, self._around.facts
        name = image = ""
        try:
            name, image = container.name, str(container.image)
            status = container.status if container.exists else "removed"
            facts = ContainerFacts(
                container.id, name, image, status, network=said.get("network", ""), command=said.get("command", ""),
                isolation=said.get("isolation", ""),
            )  # fmt: skip
            if status == "running":
                status = "paused" if container.is_paused else status
                return replace(facts, status=status, pid=container.pid, ports=tuple(self._around.ports()))
            if status == "exited":
                ending = container.state()
                return replace(facts, exit_code=ending.exit_code, oom_killed=ending.oom_killed,
                               memory_peak=ending.memory_peak, memory_limit=self._around.memory_limit())  # fmt: skip
            return facts
        except (NbcontainError, OSError, ValueError):
            before: ContainerFacts | None = getattr(self, "_facts", None)
            if before is not None:
                return replace(before, status="removed", pid=None, ports=())
            return ContainerFacts(container.id, name, image, "removed")

    def _mark(self) -> None:
        if self.surface is not None:
            self.surface.mark()
