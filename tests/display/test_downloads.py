"""A log on its way to the browser."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

from nbcontain.display.downloads import Download
from nbcontain.events import Output, Record


def test_a_log_that_breaks_off_for_whatever_reason_is_not_told_as_whole() -> None:
    def log() -> Iterator[Record]:
        yield Record(0.5, Output("c", "stdout", b"one"))
        raise ZeroDivisionError("nobody foresaw this")

    sent: queue.Queue[dict[str, Any]] = queue.Queue()
    Download(log, "view", lambda message, _: sent.put(message))
    while not (message := sent.get(timeout=30)).get("over"):
        pass
    assert message == {"download": "view", "over": True, "error": "nobody foresaw this"}
