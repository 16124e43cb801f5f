"""Terminals in cells without a front end: what is kept of them as text, and whoever writes too fast."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("anywidget")

from machine import until
from nbcontain.display import terminals  # noqa: E402
from nbcontain.display.terminals import Terminal, transcript  # noqa: E402
from nbcontain.errors import ContainerFailed  # noqa: E402
from nbcontain.events import Output  # noqa: E402


class Talker:
    """A program at a terminal that says what it is told to."""

    name = "web"

    def __init__(self, *said: bytes) -> None:
        self.said = said
        self.heard, self.master = os.pipe()
        self.size = (0, 0)
        self.is_closed = False
        self.taken = 0

    def output(self) -> Iterator[Output]:
        for data in self.said:
            self.taken += 1
            yield Output("web", "stdout", data)

    def result(self) -> None:
        return None

    def detach(self) -> str:
        return "web goes on:  %container attach web"

    def interrupt(self) -> None:
        return None

    def end(self) -> bool:
        return True

    def close(self) -> None:
        self.is_closed = True

    def resize(self, size: tuple[int, int]) -> None:
        self.size = size


def lines(data: bytes) -> list[str]:
    return [line.text for line in transcript(data)]


def test_what_is_kept_is_what_the_lines_looked_like_in_the_end() -> None:
    assert lines(b"$ lz\b \bs\r\n\x1b[31mred\x1b[0m\r\n\x1b]0;title\x07$ ") == ["$ ls", "red", "$ "]


def test_what_an_editor_drew_is_not_kept() -> None:
    assert lines(b"before\r\n\x1b[?1049hscreen of vi\x1b[?1049lafter\r\n") == ["before", "after"]


def test_of_very_much_the_end_is_kept_and_it_is_said() -> None:
    kept = lines(b"".join(b"%d\n" % number for number in range(2000)))
    assert kept[0] == "1500 lines before these are not kept" and kept[-1] == "1999"


class Failing(Talker):
    """One that ends with an exit code."""

    def result(self) -> None:
        raise ContainerFailed("web ended with exit code 4", 4)


def test_a_program_that_failed_is_not_shown_as_one_that_went_well() -> None:
    well, failed = Terminal(Talker(b"$ "), "sh"), Terminal(Failing(b"$ "), "sh")
    until(lambda: not well.widget.alive and not failed.widget.alive)
    assert (well.picture().label, failed.picture().label) == ("terminal web: ended", "terminal web: exited 4")
    assert "nbc-is-failed" in failed.picture().head and "nbc-is-done" in well.picture().head
    assert "exit code 4" in failed.picture().body and "ended" not in well.picture().body


def test_keys_arrive_and_the_size_is_told_and_kept_within_reason() -> None:
    talker = Talker()
    terminal = Terminal(talker, "sh", "ctrl-p,ctrl-q")
    until(lambda: not terminal.widget.alive)
    talker.master = os.dup(talker.master)
    size = {"kind": "size", "rows": 10**9, "cols": 1}
    for message in ({"kind": "in", "data": "ls\r"}, size, {"kind": "in", "data": 3}):
        terminal.widget._handle_custom_msg(message, [])
    assert os.read(talker.heard, 10) == b"ls\r" and talker.size == (500, 2)


def test_whoever_writes_faster_than_the_page_draws_waits_for_it() -> None:
    talker = Talker(*[b"y" * 65536] * 12)
    terminal = Terminal(talker, "yes")
    until(lambda: talker.taken >= 4)
    time.sleep(0.2)
    assert talker.taken <= 5
    terminal.widget._handle_custom_msg({"kind": "drawn", "bytes": 4 * 65536}, [])
    until(lambda: talker.taken > 5)


def test_of_several_pages_one_answers_what_a_program_asks_of_its_terminal() -> None:
    talker = Talker()
    terminal = Terminal(talker, "sh", "ctrl-p,ctrl-q")
    until(lambda: not terminal.widget.alive)
    talker.master = os.dup(talker.master)

    def say(**content: object) -> None:
        terminal.widget._handle_custom_msg({"kind": "in", **content}, [])

    for view in ("first", "second"):
        terminal.widget._handle_custom_msg({"kind": "ready", "id": view}, [])
    for view in ("first", "second"):
        say(data=f"[{view}]", view=view, answers=True)
    say(data="x", view="first", answers=False)
    for view in ("first", "second"):
        say(data=f"<{view}>", view=view, answers=True)
    assert os.read(talker.heard, 100) == b"[second]x<first>"


class Echoing(Talker):
    """It says what was typed, but not before whoever brought that waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.echoes = True
        self.may_echo = threading.Event()

    def output(self) -> Iterator[Output]:
        while self.may_echo.wait() and (data := os.read(self.heard, 100)):
            yield Output("web", "stdout", data)


Echoed = tuple[Echoing, Terminal, list[bytes]]


@pytest.fixture
def echoed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Echoed]:
    """A program that echoes, its terminal, and what the page was sent so far."""
    talker, sent = Echoing(), list[bytes]()

    class Said(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            if talker.echoes:
                talker.may_echo.set()
            return super().wait(timeout)

    terminal = Terminal(talker, "sh")
    monkeypatch.setattr(terminal, "_said", Said())
    monkeypatch.setattr(terminal.widget, "send", lambda content, buffers: sent.extend(buffers))
    yield talker, terminal, sent
    os.close(talker.master)
    talker.may_echo.set()
    until(lambda: not terminal.widget.alive)


def test_a_keys_echo_is_sent_before_the_message_that_brought_it_is_over(
    echoed: Echoed, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, terminal, sent = echoed
    monkeypatch.setattr(terminals, "_ECHO_S", 60)
    for key in ("l", "s"):
        terminal.widget._handle_custom_msg({"kind": "in", "data": key}, [])
        assert sent.pop() == key.encode() and not sent


def test_a_message_whose_keys_nobody_echoes_is_over_all_the_same(echoed: Echoed) -> None:
    talker, terminal, sent = echoed
    talker.echoes = False
    terminal.widget._handle_custom_msg({"kind": "in", "data": "secret"}, [])
    assert sent == [] and os.read(talker.heard, 100) == b"secret"


def test_no_echo_is_waited_for_of_what_was_pasted(echoed: Echoed) -> None:
    talker, terminal, sent = echoed
    terminal.widget._handle_custom_msg({"kind": "in", "data": "x" * 65}, [])
    assert sent == [] and not talker.may_echo.is_set()
    assert os.read(talker.heard, 100) == b"x" * 65
