"""A terminal's own lines to its pages, past the kernel's messages: sockets to which Jupyter's server leads.

A key that comes as a kernel message passes four threads here, and every page is told that the kernel is busy, and then
that it is idle. By a line of its own it comes to the program at once (`relay.py`). Where no server leads to it, as in
editors that have none, messages do what they always did.

A line has a name that cannot be guessed, in the directory where Jupyter keeps what this user alone may read, and is
there for one page: who comes first has it, within seconds, and the name is gone.
"""

from __future__ import annotations

import contextvars
import json
import os
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nbcontain import channel, host
from nbcontain.channel import Channel, Listener, is_readable

NAME = "nbcontain-{}.sock"
OUTPUT, REPLAY = b"\x00", b"\x01"
"""The first byte of what a page is sent: what the program says, and what it had said before the page came."""
_COMES_WITHIN_S = 10.0
_PATIENCE_S = 2
"""A page that takes nothing for so long is let go."""
_BEHIND_BYTES = 1 << 20
"""And so is one for which so much waits."""
_LEFT_S = 3600.0
"""Whose name is so old is no kernel's any more: it was killed while it waited for a page."""
_PACKET_BYTES = 32 << 10
_HEARD_BYTES = 1 << 17


class Page:
    """One view of a terminal, at the other end of a line. Nobody who tells it something waits for it."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._is_told = False
        """It has what was said before."""
        self._lock = threading.Lock()
        self._behind: deque[bytes] = deque()
        """What it did not take at once; the first of them is being sent."""
        self._is_over = False
        """It is let go once it has all of that."""
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", _PATIENCE_S, 0))

    def replay(self, data: bytes) -> None:
        """What the program said before; from now on it gets what follows."""
        self._send(REPLAY, data)
        self._is_told = True

    def output(self, data: bytes) -> None:
        """What the program says."""
        if self._is_told:
            self._send(OUTPUT, data)

    def heard(self) -> bytes:
        """The next that it says; nothing once it is gone."""
        try:
            return self._end.recv(_HEARD_BYTES)
        except OSError:
            return b""

    def let_go(self) -> None:
        """Hang up; whoever waits for what it says hears that it is gone."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Hang up once it has been told all."""
        with self._lock:
            self._is_over = True
            if not self._behind:
                self.let_go()

    def _send(self, kind: bytes, data: bytes) -> None:
        """All of it, in packets. A page that is let go asks anew, by messages."""
        starts = range(0, max(1, len(data)), _PACKET_BYTES)
        packets = deque(kind + data[start : start + _PACKET_BYTES] for start in starts)
        with self._lock:
            was_behind = bool(self._behind)
            if not was_behind:
                self._send_at_once(packets)
            # What comes in small pieces is sent in large ones, to who has to catch up.
            if packets and len(self._behind) > 1 and self._behind[-1][:1] == kind:
                whole = self._behind[-1] + packets[0][1:]
                if len(whole) <= _PACKET_BYTES:
                    self._behind.pop()
                    packets[0] = whole
            self._behind += packets
            if sum(map(len, self._behind)) > _BEHIND_BYTES:
                self.let_go()
        if packets and not was_behind:
            threading.Thread(target=self._catch_up, name="nbcontain behind", daemon=True).start()

    def _send_at_once(self, packets: deque[bytes]) -> None:
        """What it takes now; what it does not take stays in `packets`."""
        try:
            while packets:
                self._end.send(packets[0], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                packets.popleft()
        except BlockingIOError:
            pass
        except OSError:
            packets.clear()
            self.let_go()

    def _catch_up(self) -> None:
        """Send what waits, in a thread that ends when nothing does."""
        is_there = True
        while is_there:
            try:
                self._end.send(self._behind[0], socket.MSG_NOSIGNAL)
            except OSError:
                self.let_go()
                is_there = False
            with self._lock:
                if is_there:
                    self._behind.popleft()
                else:
                    self._behind.clear()
                is_there = bool(self._behind)
                if self._is_over and not is_there:
                    self.let_go()


class Direct:
    """The lines of one terminal. `on_message` is told what a page says, in a thread of that page's own."""

    def __init__(self, on_message: Callable[[dict[str, Any], Page], None], directory: Path | None) -> None:
        """In no directory there are no lines."""
        self._on_message = on_message
        self._directory = directory
        self._lock = threading.Lock()
        self._pages: set[Page] = set()
        self._is_closed = False
        self._context = contextvars.copy_context()
        """The cell's: what comes of a key is shown there."""

    def line(self) -> str:
        """The name of a line for one page that will come; "" where there can be none."""
        if self._directory is None or self._is_closed:
            return ""
        name = os.urandom(16).hex()
        listener = Listener()
        try:
            listener.open(self._directory, NAME.format(name))
        except OSError:
            listener.close()
            return ""
        arguments = (self._attend, listener, self._directory / NAME.format(name))
        run = self._context.copy().run
        threading.Thread(target=run, args=arguments, name="nbcontain keys", daemon=True).start()
        return name

    def output(self, data: bytes) -> bool:
        """What the program says, to every page; whether there are any."""
        with self._lock:
            pages = list(self._pages)
        for page in pages:
            page.output(data)
        return bool(pages)

    def close(self) -> None:
        """Let every page go that has been told all. Idempotent."""
        with self._lock:
            self._is_closed = True
            for page in self._pages:
                page.finish()

    # --- a thread for each page ---

    def _attend(self, listener: Listener, path: Path) -> None:
        try:
            found = listener.accept() if is_readable(listener, _COMES_WITHIN_S) else None
        except OSError:
            found = None
        finally:
            listener.close()
            path.unlink(missing_ok=True)
        if found is not None:
            is_own = found.peer_uid() == host.user()
            with socket.socket(fileno=found.socket.detach()) as end:
                if is_own:
                    self._hear(Page(end))
        _sweep(path.parent)

    def _hear(self, page: Page) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._pages.add(page)
        try:
            while data := page.heard():
                with suppress(ValueError, RecursionError):  # What is no message is nothing.
                    if isinstance(content := json.loads(data), dict):
                        self._on_message(content, page)
        finally:
            with self._lock:
                self._pages.discard(page)


def _sweep(directory: Path) -> None:
    """Remove the names of kernels that were killed in the moment before a page came."""
    before = time.time() - _LEFT_S
    for path in directory.glob(NAME.format("?" * 32)):
        with suppress(OSError):
            if path.lstat().st_mtime < before:
                path.unlink()


def runtime_directory() -> Path | None:
    """Where this kernel's connection file lies, as those of its server do; None for what is no kernel."""
    module = sys.modules.get("ipykernel.kernelapp")
    if module is None or not module.IPKernelApp.initialized():
        return None
    app = module.IPKernelApp.instance()
    directory = Path(app.connection_dir, app.connection_file).parent
    return directory if directory.is_dir() else None


def connect(directory: Path, name: str) -> Channel:
    """The server's end of a line. Raises OSError where there is none, or where it is another user's."""
    line = channel.connect(directory, NAME.format(name))
    if line.peer_uid() != host.user():
        line.close()
        raise PermissionError(f"{name} is another user's")
    return line
