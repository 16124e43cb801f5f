"""A log on its way to the browser, in pieces over the widget's channel, for which no server need be reached.

The last part of a log that is larger than a page should hold is what is given, and the first line says so.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from nbcontain.display import words
from nbcontain.events import Output, Record

LIMIT_BYTES = 64 << 20
_PIECE_BYTES = 1 << 20
_PAUSE_S = 0.02

Send = Callable[[dict[str, Any], list[bytes]], None]
"""A message to the page, with bytes beside it."""


class Download:
    """One log for one view of a card, sent by a thread of its own."""

    def __init__(
        self, log: Callable[[], Iterator[Record]], view: str, send: Send, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self._log, self._view, self._send, self._limit_bytes = log, view, send, limit_bytes
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run,), name="nbcontain download", daemon=True).start()

    def _run(self) -> None:
        error = ""
        try:
            for number, piece in enumerate(_pieces(self._log(), self._limit_bytes)):
                self._send({"download": self._view, "part": number}, [piece])
                time.sleep(_PAUSE_S)
        except Exception as wrong:  # noqa: BLE001 - told to whoever waits for the log: else a part looks like all of it
            error = str(wrong) or type(wrong).__name__
        finally:
            self._send({"download": self._view, "over": True, "error": error}, [])


def _pieces(records: Iterator[Record], limit_bytes: int) -> Iterator[bytes]:
    """The output of both streams as it came, at most so much of its end."""
    kept: deque[bytes] = deque()
    size = left_out = 0
    for record in records:
        if isinstance(record.event, Output):
            kept.append(record.event.data)
            size += len(record.event.data)
            while size > limit_bytes:
                left_out += len(kept[0])
                size -= len(kept.popleft())
    if left_out:
        yield f"… {words.size(left_out)} before this are left out here: nbcontain logs has them\n".encode()
    piece = bytearray()
    while kept:
        piece += kept.popleft()
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
