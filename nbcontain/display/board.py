"""All containers on one card, a row each: how they are, what they use, what they said last, what can be done.

Each row is fed as a container's own card is; the board looks which containers there are once a second.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import Any

from nbcontain.display import html, words
from nbcontain.display.buttons import RUNNING, STOPPED
from nbcontain.display.html import Action, Drawn, Picture, element, escape
from nbcontain.display.live import LiveContainer, Shown, Surroundings
from nbcontain.display.meters import cpu_figure, cpu_line, memory_line
from nbcontain.display.pictures import ContainerFacts, container_state
from nbcontain.display.present import Mode
from nbcontain.display.surface import Surface
from nbcontain.display.table import Table
from nbcontain.display.text import one_line, tail_lines
from nbcontain.display.view import View
from nbcontain.errors import NbcontainError

_EVERY_S = 1.0
_AT_ONCE_S = 0.05
"""So long each row reads before it is drawn for the first time."""
_LAST_CHARACTERS = 100
_IN_A_ROW = {"start": STOPPED, "stop": RUNNING}
"""What a row has a button for; the container's own card has the rest."""


def show_board(list_: Callable[[], Sequence[Any]], around: Callable[[Any], Surroundings], *, mode: Mode) -> None:
    """Show it and return at once; it lives until somebody has seen enough, or the kernel ends."""
    board = Board(list_, around)
    board.look()
    if mode == "plain":
        print(board.picture().text)
        return
    board.surface = surface = Surface(board.draw, board.act, mode)
    surface.open()
    surface.outlive_its_cell()
    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(board.follow,), name="nbcontain board", daemon=True).start()


class Board:
    """The rows. Drawn by the ticker's thread, fed by its own, clicked in any."""

    def __init__(self, list_: Callable[[], Sequence[Shown]], around: Callable[[Any], Surroundings]) -> None:
        self.surface: Surface | None = None
        self._list = list_
        self._around = around
        self._rows: dict[str, LiveContainer] = {}
        self._is_over = threading.Event()

    def follow(self) -> None:
        """Look which containers there are, until it is over. A thread of its own."""
        while not self._is_over.wait(_EVERY_S):
            self.look()
        for row in self._rows.values():
            row.leave()
        if self.surface is not None:
            self.surface.close()

    def look(self) -> None:
        """Rows for those that are new, or run again; none for those that are gone."""
        containers = {each.id: each for each in self._list()}
        rows = {}
        for id_, container in containers.items():
            row = self._rows.get(id_)
            if row is None or (row.is_over and container.status in RUNNING):
                try:
                    row = self._begun(container)
                except (NbcontainError, OSError):
                    continue  # it was removed since it was listed
            rows[id_] = row
        if rows.keys() != self._rows.keys() or any(rows[each] is not self._rows[each] for each in rows):
            self._rows = rows
            self.mark()

    def _begun(self, container: Shown) -> LiveContainer:
        """A row that is fed from now on. Raises what its container does once it is gone."""
        row = LiveContainer(container, self._around(container))
        row.catch_up(_AT_ONCE_S)
        row.surface = _Row(self)
        context = contextvars.copy_context()
        name = f"nbcontain board {container.name}"
        threading.Thread(target=context.run, args=(row.follow,), name=name, daemon=True).start()
        return row

    def mark(self) -> None:
        """A row has changed."""
        if self.surface is not None:
            self.surface.mark()

    def act(self, name: str) -> None:
        """A click: "stop CONTAINER", or that it is enough."""
        verb, _, id_ = name.partition(" ")
        if verb == "enough":
            self._is_over.set()
        elif verb in _IN_A_ROW and (row := self._rows.get(id_)):
            row.act(verb)

    def draw(self) -> Drawn:
        picture = self._picture(with_buttons=True)
        return Drawn(picture, (Action("enough", "Stop watching", "the board"),), command="docker stats",
                     still=self.picture)  # fmt: skip

    def picture(self) -> Picture:
        """As it is saved."""
        return self._picture(with_buttons=False)

    def _picture(self, *, with_buttons: bool) -> Picture:
        seen = [(row, *row.seen()) for row in self._rows.values()]
        running = sum(facts.status in RUNNING for _, facts, _ in seen)
        about = f"{running} running, {len(seen) - running} stopped"
        titles = ("NAME", "STATE", "CPU", "MEMORY", *(("ACTIONS",) if with_buttons else ()), "LAST LINE")
        head = "".join(element("th", escape(title), scope="col") for title in titles)
        rows = "".join(_row(row, facts, view, with_buttons=with_buttons) for row, facts, view in seen)
        table = element("table", element("thead", element("tr", head)) + element("tbody", rows), "nbc-table nbc-board")
        inside = element("div", table, "nbc-scroll", tabindex="0", role="region", aria_label="containers")
        if with_buttons:
            head = html.heading("up", "live", "containers", (about,))
        else:
            head = html.heading("", "", "containers", (about, "as it was last seen"))
        return Picture("board of containers", head, body=inside if seen else "",
                       text=f"{about}\n{_table(seen).text()}")  # fmt: skip


class _Row:
    """What a row's container takes for the surface of a card."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def mark(self) -> None:
        self._board.mark()

    def close(self, last: Picture | None = None) -> None:
        self._board.mark()


def _row(row: LiveContainer, facts: ContainerFacts, view: View, *, with_buttons: bool) -> str:
    look, word = container_state(facts, view.tasks.get(facts.id))
    meters, is_up = facts.meters, facts.status in RUNNING
    usage = meters.last if is_up else None
    cells = [
        element("th", escape(facts.name), scope="row"),
        element("td", html.state_mark(look, word)),
        element("td", f"{cpu_line(meters)} {escape(cpu_figure(meters))}" if usage else "", "nbc-metered"),
        element("td", f"{memory_line(meters)} {escape(words.memory(usage.memory))}" if usage else "", "nbc-metered"),
    ]
    if with_buttons:
        drawn = "".join(
            element("button", escape(action.label), type="button", data_action=f"{action.id} {facts.id}",
                    aria_label=f"{action.label} {facts.name}", aria_disabled="" if action.enabled else "true")
            for action in row.actions(facts)
            if action.id in _IN_A_ROW
        )  # fmt: skip
        cells.append(element("td", drawn))
    cells.append(element("td", escape(_last_line(facts, view)), "nbc-code nbc-wide nbc-last"))
    return element("tr", "".join(cells), data_key=facts.id if with_buttons else "")


def _last_line(facts: ContainerFacts, view: View) -> str:
    root = view.tasks.get(facts.id)
    said = tail_lines(root, 1) if root is not None else []
    return one_line(said[-1], _LAST_CHARACTERS) if said else ""


def _table(seen: Sequence[tuple[LiveContainer, ContainerFacts, View]]) -> Table:
    """The same for who reads text."""
    rows = []
    for _, facts, view in seen:
        usage = facts.meters.last if facts.status in RUNNING else None
        figures = (cpu_figure(facts.meters), words.memory(usage.memory)) if usage else ("", "")
        state = container_state(facts, view.tasks.get(facts.id))[1]
        rows.append((facts.name, state, *figures, _last_line(facts, view)))
    return Table(("NAME", "STATE", "CPU", "MEMORY", "LAST LINE"), tuple(rows), "", "containers")
