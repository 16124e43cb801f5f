"""A terminal's own lines to its pages: keys one way, output the other, one page each, and nothing left behind."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("anywidget")

from machine import until
from nbcontain.channel import Channel  # noqa: E402
from nbcontain.display import direct, terminals  # noqa: E402
from nbcontain.display.direct import OUTPUT, REPLAY, connect  # noqa: E402
from nbcontain.display.terminals import Terminal  # noqa: E402
from nbcontain.events import Output  # noqa: E402


class Cat:
    """A program that says what is typed."""

    name = "web"

    def __init__(self) -> None:
        self.heard, self.master = os.pipe()
        self.size = (0, 0)

    def output(self) -> Iterator[Output]:
        while data := os.read(self.heard, 1 << 16):
            yield Output("web", "stdout", data)

    def result(self) -> None:
        return None

    def detach(self) -> str:
        return "web goes on"

    def signal(self, number: int) -> bool:
        return False

    def end(self) -> bool:
        master, self.master = self.master, -1
        if master >= 0:
            os.close(master)
        return True

    def close(self) -> None:
        self.end()

    def resize(self, size: tuple[int, int]) -> None:
        self.size = size


class Desk:
    """A terminal, the directory of its lines, and the messages that it sent."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(terminals, "runtime_directory", lambda: directory)
        self.directory = directory
        self.program = Cat()
        self.terminal = Terminal(self.program, "cat", "ctrl-p,ctrl-q")
        self.sent: list[tuple[dict[str, object], bytes]] = []
        monkeypatch.setattr(self.terminal.widget, "send", self._send)

    def _send(self, content: dict[str, object], buffers: list[bytes] | None = None) -> None:
        self.sent.append((content, b"".join(buffers or [])))

    def message(self, **content: object) -> None:
        self.terminal.widget._handle_custom_msg(content, [])

    def named(self) -> str:
        """The name of a line, as a page asks for one."""
        self.message(kind="line", id="view")
        content, _ = self.sent.pop()
        assert content["kind"] == "line" and content["to"] == "view"
        return str(content["name"])

    def page(self) -> Channel:
        """A page with a line of its own, which has been told what was said before."""
        line = connect(self.directory, self.named())
        line.send({"kind": "ready", "id": "view"})
        return line

    def told(self) -> Channel:
        """The same, once it will be told what follows."""
        page = self.page()
        assert page.socket.recv(1 << 16) == REPLAY
        with self.terminal._lock:
            return page

    def left(self) -> list[Path]:
        return list(self.directory.iterdir())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    made = Desk(tmp_path, monkeypatch)
    yield made
    made.terminal.close()
    until(lambda: not made.terminal.widget.alive)


def test_keys_and_their_echo_pass_no_message(desk: Desk) -> None:
    page = desk.page()
    assert page.socket.recv(1 << 16) == REPLAY
    page.send({"kind": "in", "data": "é", "view": "view"})
    assert page.socket.recv(1 << 16) == OUTPUT + "é".encode()
    page.send({"kind": "size", "rows": 10, "cols": 40})
    until(lambda: desk.program.size == (10, 40))
    assert not desk.sent
    page.close()


def test_a_page_is_told_all_that_was_said_before_it_came_and_then_what_follows(desk: Desk) -> None:
    desk.message(kind="in", data="x" * 50)
    until(lambda: len(desk.sent) == 1)
    os.write(desk.program.master, b"y" * 40_000)
    until(lambda: sum(len(data) for _, data in desk.sent) == 40_050)
    page = desk.page()
    packets = [page.socket.recv(1 << 16) for _ in range(2)]
    assert [each[:1] for each in packets] == [REPLAY, REPLAY]
    assert b"".join(each[1:] for each in packets) == b"x" * 50 + b"y" * 40_000
    os.write(desk.program.master, b"z")
    assert page.socket.recv(1 << 16) == OUTPUT + b"z"
    page.close()


def test_a_page_without_a_line_gets_messages_beside_one_that_has(desk: Desk) -> None:
    desk.message(kind="ready", id="other")
    page = desk.page()
    desk.sent.clear()
    assert page.socket.recv(1 << 16) == REPLAY
    os.write(desk.program.master, b"both")
    assert page.socket.recv(1 << 16) == OUTPUT + b"both"
    until(lambda: [data for _, data in desk.sent] == [b"both"])
    page.close()


def test_once_the_line_is_cut_messages_go_on(desk: Desk) -> None:
    page = desk.page()
    assert page.socket.recv(1 << 16) == REPLAY
    page.close()
    until(lambda: not desk.terminal._direct.output(b""))
    os.write(desk.program.master, b"again")
    until(lambda: [data for _, data in desk.sent] == [b"again"])


def test_a_name_is_good_once_and_leaves_nothing(desk: Desk) -> None:
    name = desk.named()
    page = connect(desk.directory, name)
    until(lambda: not desk.left())
    with pytest.raises(FileNotFoundError):
        connect(desk.directory, name)
    page.close()


def test_a_name_that_nobody_comes_for_is_gone_after_a_while(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_COMES_WITHIN_S", 0.1)
    name = desk.named()
    until(lambda: not desk.left())
    with pytest.raises(FileNotFoundError):
        connect(desk.directory, name)


def test_nobody_else_gets_a_line(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    name = desk.named()
    monkeypatch.setattr(Channel, "peer_uid", lambda channel: os.geteuid() + 1)
    with pytest.raises(PermissionError):
        connect(desk.directory, name)
    until(lambda: not desk.left())
    assert not desk.terminal._direct.output(b"secret")


def test_what_is_no_message_is_nothing(desk: Desk) -> None:
    page = desk.page()
    for packet in (b"{", b"[1]", b"\xff", b"[" * 100_000, json.dumps({"kind": "in", "data": 3}).encode()):
        page.socket.send(packet)
    page.send({"kind": "in", "data": "ok", "view": "view"})
    assert page.socket.recv(1 << 16) == REPLAY and page.socket.recv(1 << 16) == OUTPUT + b"ok"
    page.close()


def test_a_page_that_takes_nothing_keeps_nobody_waiting_and_is_let_go(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_PATIENCE_S", 60)
    asleep, awake = desk.told(), desk.told()
    awake.socket.settimeout(20)
    flood = threading.Thread(target=lambda: [desk.terminal._direct.output(b"f" * 30_000) for _ in range(30)])
    flood.start()
    for _ in range(30):
        assert awake.socket.recv(1 << 16) == OUTPUT + b"f" * 30_000
    flood.join()
    assert asleep.socket.recv(1 << 16) == OUTPUT + b"f" * 30_000
    awake.close()
    # So late nobody may be.
    until(lambda: not desk.terminal._direct.output(b"f" * 100_000))


def test_a_page_that_takes_nothing_for_a_while_is_let_go(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_PATIENCE_S", 1)
    page = desk.told()
    monkeypatch.setattr(direct, "_BEHIND_BYTES", 1 << 30)
    until(lambda: not desk.terminal._direct.output(b"f" * 100_000))
    page.close()


def test_a_page_that_is_slow_gets_all_in_order_to_the_end(desk: Desk) -> None:
    page = desk.told()
    said = [b"%d," % number * 2000 for number in range(60)] + [b"%d;" % number for number in range(2000)]
    for each in said:
        desk.terminal._direct.output(each)
    desk.program.end()
    until(lambda: not desk.terminal.widget.alive)
    packets = list(iter(lambda: page.socket.recv(1 << 16), b""))
    assert {each[:1] for each in packets} == {OUTPUT}
    assert b"".join(each[1:] for each in packets) == b"".join(said)
    page.close()


def test_names_that_killed_kernels_left_are_gone_after_an_hour(desk: Desk) -> None:
    left = [desk.directory / f"nbcontain-{number:032x}.sock" for number in range(2)]
    others = [desk.directory / "kernel-1.json", desk.directory / "nbcontain-web.sock"]
    for path in (*left, *others):
        path.touch()
        os.utime(path, (0, 0))
    os.utime(left[1])
    desk.page().close()
    until(lambda: sorted(desk.left()) == sorted([left[1], *others]))


def test_the_end_of_the_program_is_the_end_of_its_lines(desk: Desk) -> None:
    page = desk.page()
    assert page.socket.recv(1 << 16) == REPLAY
    desk.program.end()
    assert page.socket.recv(1 << 16) == b""
    assert desk.named() == ""
    page.close()


def test_where_there_is_no_kernel_there_are_no_lines() -> None:
    assert direct.runtime_directory() is None
    assert direct.Direct(lambda content, page: None, None).line() == ""
