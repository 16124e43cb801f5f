"""A terminal in a cell: a program that is talked to, shown by xterm.js, and in the end the text that was on it.

The cell is over at once; the terminal lives as a card below it, as other cells have to be able to run meanwhile. What
the program says goes to the page as it is and is only ever interpreted there, by a terminal; what is saved is text.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import queue
import re
import select
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from nbcontain.consoles import Session
from nbcontain.detach_keys import DetachKeys, parse
from nbcontain.display import html
from nbcontain.display.ansi import Line, Pen, Run, unfinished, write
from nbcontain.display.direct import Direct, Page, runtime_directory
from nbcontain.display.harmless import visible
from nbcontain.display.html import Picture, Since
from nbcontain.display.surface import display, snapshot, widget_bundle
from nbcontain.errors import ContainerFailed, NbcontainError

KEPT_BYTES = 256 << 10
"""So much of what was said is shown again in a page that was reloaded, and saved as text."""
_LINES = 500
_AHEAD_BYTES = 256 << 10
"""So much may be on its way to the page before the program waits for it."""
_AT_ONCE_BYTES = 64
_ECHO_S = 0.003
"""So long a key's own answer is waited for before the message that brought the key is over."""
_PATIENCE_S = 2.0
"""A page that says nothing for so long is gone."""
_ALTERNATE = re.compile(rb"\x1b\[\?(?:1049|1047|47)h.*?(?:\x1b\[\?(?:1049|1047|47)l|\Z)", re.DOTALL)
"""What a program drew on the screen that goes away when it ends, as editors do."""


class Terminal:
    """One program at a terminal. `show` puts it below the current cell; `widget` is what it looks like elsewhere."""

    def __init__(self, session: Session, title: str, detach_keys: str = "", *, detaches: bool = True) -> None:
        from nbcontain.display.terminal_widget import TerminalWidget

        self._session = session
        self._title = title
        self._keys = DetachKeys(parse(detach_keys))
        self._began = time.time()
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._drawn = threading.Condition()
        self._said = threading.Event()
        self._ahead = 0
        self._typed: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._is_typing = False
        self._handle: Any = None
        self._over = ""
        self._outcome = ("done", "ended")
        """How it looks when it is over, and the word for it."""
        self._speaker = ""
        """The view that answers what programs ask of their terminal: the one that came or was typed in last."""
        self._direct = Direct(self._take_direct, runtime_directory())
        self._has_views = False
        """Whether there are views without a line of their own, which get messages."""
        self.widget = TerminalWidget(
            name=visible(session.name), label=f"terminal {visible(session.name)}", head=self._head("up", "running"),
            detaches=detaches, now=time.time(), on_message=self._take,
        )  # fmt: skip
        for body in (self._listen, self._type):
            context = contextvars.copy_context()
            name = f"nbcontain terminal {session.name}"
            threading.Thread(target=context.run, args=(body,), name=name, daemon=True).start()
        atexit.register(self.close)

    def show(self) -> None:
        """Below the current cell, whose thread this is; when it is over its text takes its place."""
        self._handle = display(widget_bundle(self.picture(), self.widget))
        if self._over:  # before there was anything whose place to take
            self._handle.update(snapshot(self.picture()), raw=True)

    def close(self) -> None:
        """End what runs in it, if it lives for us. Idempotent."""
        self._session.end()

    def picture(self) -> Picture:
        """As it is saved: the text that was on it."""
        state, word = ("up", "running") if not self._over else self._outcome
        lines = transcript(bytes(self._kept))
        name = visible(self._session.name)
        said = (self._over,) if self._over not in ("", word) else ()
        text = [f"terminal {name}: {self._over or 'running'}", *(f"  {line.text}" for line in lines)]
        return Picture(
            f"terminal {name}: {word}", self._head(state, word), body=html.notes(said), log=tuple(lines),
            log_label=f"what was on the terminal of {name}", text="\n".join(text),
        )  # fmt: skip

    def _head(self, state: str, word: str) -> str:
        passed: Since | str = Since(self._began, time.time()) if state == "up" else ""
        return html.heading(state, word, visible(self._session.name), (visible(self._title), passed))

    # --- threads ---

    def _listen(self) -> None:
        said = ""
        try:
            for output in self._session.output():
                with self._lock:
                    self._kept += output.data
                    del self._kept[:-KEPT_BYTES]
                    has_pages = self._direct.output(output.data)
                    if self._has_views or not has_pages:
                        self.widget.send({"kind": "out"}, [output.data])
                self._said.set()
                self._wait_for_page(len(output.data))
            if not self._over:
                self._session.result()
                said = "ended"
        except NbcontainError as error:
            said = error.message
            if not self._over:
                word = f"exited {error.exit_status}" if isinstance(error, ContainerFailed) else "failed"
                self._outcome = ("failed", word)
        except (OSError, ValueError):
            said = "ended"  # It was closed while it was read.
        finally:
            self._end(said or "ended")

    def _wait_for_page(self, size: int) -> None:
        """Whoever writes faster than a page can draw has to wait, as at every terminal."""
        with self._drawn:
            self._ahead += size
            if not self._drawn.wait_for(lambda: self._ahead < _AHEAD_BYTES, _PATIENCE_S):
                self._ahead = 0

    def _written(self, data: bytes) -> bytes:
        """Write a key at once, unless something waits already or it would have to wait; gives what is left."""
        master = self._session.master
        if not self._typed.empty() or self._is_typing or master < 0 or len(data) > _AT_ONCE_BYTES:
            return data
        with suppress(OSError, ValueError):
            if select.select([], [master], [], 0)[1]:
                data = data[os.write(master, data) :]
        return data

    def _type(self) -> None:
        """Write what was typed; a program that reads nothing holds up this thread only."""
        while data := self._typed.get():
            self._is_typing = True
            while data and self._session.master >= 0:
                try:
                    data = data[os.write(self._session.master, data) :]
                except BlockingIOError:
                    select.select([], [self._session.master], [], 0.5)
                except (OSError, ValueError):
                    break
            self._is_typing = False

    def _end(self, said: str) -> None:
        self._over = self._over or said
        atexit.unregister(self.close)
        self._session.close()
        self._direct.close()
        self._typed.put(b"")
        with self.widget.hold_sync():
            self.widget.alive = False
            self.widget.farewell = self._over
            self.widget.head = self._head(*self._outcome)
            self.widget.label = f"terminal {visible(self._session.name)}: {self._outcome[1]}"
        if self._handle is not None:
            self._handle.update(snapshot(self.picture()), raw=True)

    # --- what the page says: main or subshell thread; by a line of its own, that line's thread ---

    def _take(self, content: dict[str, Any]) -> None:
        """A message."""
        match content:
            case {"kind": "in", "data": str()}:
                self._said.clear()
                if self._take_keys(content):
                    # Jupyter says that the kernel is idle once this is over. What comes after that is held back in
                    # the server until the page has said that it got it, up to 40 ms, where nobody undid Nagle's rule.
                    self._said.wait(_ECHO_S)
            case {"kind": "ready", "id": str(view)}:
                self._speaker = view
                with self._lock:  # Nothing may come between the replay and what follows.
                    self._has_views = True
                    self.widget.send({"kind": "out", "to": view}, [bytes(self._kept)])
            case {"kind": "line", "id": str(view)}:
                self.widget.send({"kind": "line", "to": view, "name": self._direct.line()})
            case _:
                self._take_other(content)

    def _take_direct(self, content: dict[str, Any], page: Page) -> None:
        """What came by a page's own line."""
        match content:
            case {"kind": "in", "data": str()}:
                self._take_keys(content)
            case {"kind": "ready", "id": str(view)}:
                self._speaker = view
                with self._lock:
                    page.replay(bytes(self._kept))
            case _:
                self._take_other(content)

    def _take_keys(self, content: dict[str, Any]) -> bool:
        """Pass on what was typed; whether that was at once, so that its echo may soon be there."""
        view = str(content.get("view", self._speaker))
        if content.get("answers") is True and view != self._speaker:
            return False
        self._speaker = view
        with self._turn:  # Two pages may be typed in.
            passed, leaves = self._keys.feed(content["data"].encode("utf-8", "surrogatepass"))
            if left := self._written(passed):
                self._typed.put(left)
        if leaves:
            self._detach()
        return bool(passed) and not left

    def _take_other(self, content: dict[str, Any]) -> None:
        match content:
            case {"kind": "size", "rows": int(rows), "cols": int(cols)}:
                self._session.resize((min(max(rows, 2), 500), min(max(cols, 2), 500)))
            case {"kind": "drawn", "bytes": int(size)}:
                with self._drawn:
                    self._ahead = max(0, self._ahead - size)
                    self._drawn.notify_all()
            case {"kind": "detach"}:
                self._detach()
            case {"kind": "end"}:
                self._over = "ended from the notebook"
                if not self._session.end():
                    self._end(self._over)

    def _detach(self) -> None:
        with suppress(NbcontainError, OSError):
            self._end(self._session.detach())


def transcript(data: bytes) -> Sequence[Line]:
    """What was said as lines of text, without what was drawn on screens that have gone."""
    pen, lines = write(Pen(), _ALTERNATE.sub(b"", data))
    rest = unfinished(pen)
    found = [*lines, *([rest] if rest is not None else [])]
    while found and not found[-1].text.strip():
        found.pop()
    left_out = len(found) - _LINES
    note = [Line((Run(f"{left_out} lines before these are not kept"),), "note")] if left_out > 0 else []
    return [*note, *found[-_LINES:]]

