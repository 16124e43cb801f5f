"""Terminals: `run -it`, `exec -it`, `attach`, `start -ai`, as somebody types them."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import needs
import places
from images import BUSYBOX
from machine import is_small, supervisor_of, until
from nbcontain import consoles, detach_keys
from nbcontain.build.plan import BuildOptions
from nbcontain.channel import Channel
from nbcontain.consoles import ExecSession
from nbcontain.detach_keys import DetachKeys
from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError, SetupFailed, UsageError
from nbcontain.runtime import console, unmounted
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import ExecOptions, RunOptions
from nbcontain.sig_proxy import passing
from typing_hands import Hands

COMMAND = (sys.executable, "-m", "nbcontain")
PROMPT = r"[#$] (\x1b\[\S*n)?"
PLAIN = RunOptions(image="busybox", command=("sleep", "1000"), name="plain", detach=True)
Sits = Callable[..., Hands]


@pytest.fixture(scope="module")
def shared(busybox_context: Path) -> Iterator[Engine]:
    """One engine for all: what is tested is what somebody at a terminal sees of it."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch()))
    with Engine(directory) as engine:
        engine.build(BUSYBOX, BuildOptions(tags=("busybox",), context=busybox_context)).result()
        yield engine
        engine.store.snapshots.remove_tree(engine.layout.snapshots)
    places.remove(directory)


@pytest.fixture
def box(shared: Engine) -> Iterator[Engine]:
    """An engine with the image `busybox` and no containers."""
    yield shared
    for container in shared.containers():
        shared.remove_container(container, force=True)


@pytest.fixture
def environment(box: Engine) -> dict[str, str]:
    return {**os.environ, "NBCONTAIN_ROOT": str(box.layout.root)}


@pytest.fixture
def sits(environment: dict[str, str]) -> Iterator[Sits]:
    """Starts `nbcontain` with these words at a terminal."""
    all_hands: list[Hands] = []

    def sit(*words: str, size: tuple[int, int] = (24, 80)) -> Hands:
        all_hands.append(Hands([*COMMAND, *words], environment, size))
        return all_hands[-1]

    yield sit
    for hands in all_hands:
        hands.close()


def journal_of(container: Container) -> str:
    return b"".join(getattr(each.event, "data", b"") for each in container.output()).decode()


def test_a_shell_has_a_terminal_of_the_containers_own(profile: str, box: Engine, sits: Sits) -> None:
    hands = sits("run", "-it", "--name", "shell", "busybox", "sh", size=(33, 101))
    hands.sees(PROMPT)
    hands.says("tty", "/dev/pts/0\r\n")
    hands.says("stat -c %t:%T /dev/console /dev/pts/0; echo $TERM; stty size", "(88:0\r\n)88:0\r\nxterm\r\n33 101\r\n")
    hands.resize(20, 50)
    until(lambda: hands.says("stty size", r"(\d+) (\d+)\r\n").groups() == ("20", "50"))
    hands.says("sh -c 'echo up; exec sleep 100'", "\r\nup\r\n")
    hands.types("\x03")
    hands.says("echo $?", "130\r\n")
    hands.types("exit 7\r")
    assert (hands.ends(), hands.is_as_before) == (7, True)
    assert "33 101\r\n" in journal_of(box.container("shell"))


def test_the_one_command_of_a_failed_step_opens_a_shell_in_what_it_left(profile: str, box: Engine, sits: Sits) -> None:
    text = "FROM busybox\nWORKDIR /w\nENV X=seen\nRUN echo half > left; exit 3\n"
    with pytest.raises(NbcontainError) as caught:
        box.build(text, BuildOptions(tags=("made",))).result()
    found = re.search(r"%container (run --rm -it \S+ sh)", caught.value.hint)
    assert found is not None, caught.value.hint
    hands = sits(*found[1].split())
    hands.sees(PROMPT)
    hands.says("cat left; pwd; echo $X", "half\r\n/w\r\nseen\r\n")
    hands.types("exit\r")
    assert hands.ends() == 0
    assert box.containers() == []


def test_detached_from_it_goes_on_and_is_attached_to_again(box: Engine, sits: Sits) -> None:
    hands = sits("run", "-it", "--name", "shell", "busybox", "sh")
    hands.sees(PROMPT)
    hands.types("X=kept\r\x10\x11")
    assert (hands.ends(), hands.is_as_before) == (0, True)
    assert "nbcontain attach shell" in hands.seen
    again = sits("attach", "shell")
    again.says('echo "<$X>"', "<kept>")
    again.types("exit 5\r")
    assert again.ends() == 5
    third = sits("start", "-ai", "shell")
    third.sees(PROMPT)
    third.types("exit 6\r")
    assert third.ends() == 6


def test_another_program_gets_a_terminal_in_a_container_that_has_none(profile: str, box: Engine, sits: Sits) -> None:
    box.run(PLAIN).result()
    hands = sits("exec", "-it", "plain", "sh", size=(30, 90))
    hands.sees(PROMPT)
    hands.says("tty; stty size", "/dev/pts/0\r\n30 90\r\n")
    hands.types("exit 9\r")
    assert (hands.ends(), hands.is_as_before) == (9, True)
    wrong = sits("exec", "-it", "plain", "no-such-program")
    assert wrong.ends() == 127
    assert "there is no command no-such-program" in wrong.seen


def test_another_program_goes_on_when_it_is_detached_from(box: Engine, sits: Sits) -> None:
    box.run(PLAIN).result()
    hands = sits(
        "exec", "-it", "--detach-keys", "ctrl-a,q", "plain", "sh", "-c", "while :; do echo on; sleep 0.1; done"
    )
    hands.sees("on\r\n")
    hands.types("\x01q")
    assert hands.ends() == 0
    assert "echo on" in box.exec(ExecOptions(name="plain", command=("ps",))).result().stdout


def test_a_terminals_journal_is_kept_while_nobody_looks(box: Engine, sits: Sits) -> None:
    script = "while read x; do echo got-$x; done"
    box.run(RunOptions(image="busybox", command=("sh", "-c", script), name="quiet", detach=True, tty=True)).result()
    container = box.container("quiet")
    supervisor = supervisor_of(container.pid)
    until(lambda: is_small(supervisor), 15)
    hands = sits("attach", "quiet")
    hands.says("one", "got-one\r\n")
    hands.types("\x10\x11")
    assert hands.ends() == 0
    assert "got-one" in journal_of(container)
    container.kill(signal.SIGKILL)
    assert container.wait(10) == 137


def test_what_a_program_says_to_a_terminal_is_not_touched(box: Engine, sits: Sits) -> None:
    hands = sits("run", "-it", "--rm", "busybox", "printf", r"\033]0;title\007\033[2J\233\nend")
    assert hands.ends() == 0
    assert "\x1b]0;title\x07\x1b[2J\udc9b\r\nend" in hands.seen
    without = sits("run", "--rm", "busybox", "printf", r"\033]0;title\007end")
    assert without.ends() == 0
    assert "\x1b" not in without.seen


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_put_back_when_the_command_is_killed(box: Engine, sits: Sits, number: int) -> None:
    hands = sits("run", "-it", "--rm", "busybox", "sh")
    hands.sees(PROMPT)
    assert not hands.is_as_before
    hands.process.send_signal(number)
    assert (hands.ends(), hands.is_as_before) == (128 + number, True)
    until(lambda: box.containers() == [])


def test_a_killed_container_gives_the_terminal_back(box: Engine, sits: Sits) -> None:
    hands = sits("run", "-it", "--name", "shell", "busybox", "sh")
    hands.sees(PROMPT)
    box.container("shell").kill(signal.SIGKILL)
    assert (hands.ends(), hands.is_as_before) == (137, True)


def test_with_a_first_process_of_ours_ctrl_c_reaches_the_program(box: Engine, sits: Sits) -> None:
    hands = sits(
        "run", "-it", "--rm", "--init", "busybox", "sh", "-c", "trap 'exit 4' INT; echo up; while :; do sleep 0.1; done"
    )
    hands.sees("up\r\n")
    hands.types("\x03")
    assert hands.ends() == 4


def test_another_user_owns_the_terminal(box: Engine, sits: Sits) -> None:
    hands = sits(
        "run", "-it", "--rm", "-u", "1234:5", "busybox", "sh", "-c", "echo hi > /dev/tty; stat -c %u $(tty); id -u"
    )
    assert hands.ends() == 0
    assert hands.seen == "hi\r\n1234\r\n1234\r\n"


def test_what_is_piped_in_needs_no_terminal_and_gets_none(box: Engine, environment: dict[str, str]) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "run", "--rm", *words]
        return subprocess.run(command, env=environment, input="piped", capture_output=True, text=True, check=False)

    assert run("-i", "busybox", "sh", "-c", "cat; tty; exit 3").stdout == "pipednot a tty\n"
    refused = run("-it", "busybox", "cat")
    assert (refused.returncode, refused.stderr.splitlines()[0]) == (125, "UsageError: the input device is not a TTY")
    assert run("-t", "busybox", "tty").stdout == "/dev/pts/0\n"  # text mode reads \r\n as \n
    assert box.containers() == []


def test_what_is_no_multiplexer_makes_no_terminal() -> None:
    place = os.open("/dev/null", os.O_PATH)
    with pytest.raises(SetupFailed, match="is not what makes terminals"):
        console.opened("/dev/null", (0, 0), place)


@pytest.mark.parametrize(("text", "keys"), [("ctrl-p,ctrl-q", b"\x10\x11"), ("a,ctrl-[", b"a\x1b"), ("", b"")])
def test_detach_keys_are_read_as_docker_reads_them(text: str, keys: bytes) -> None:
    assert detach_keys.parse(text) == keys


@pytest.mark.parametrize("text", ["ctrl-P", "ab", "ctrl-", "a,,b", "ctrl-p,é"])
def test_other_words_are_no_detach_keys(text: str) -> None:
    with pytest.raises(UsageError):
        detach_keys.parse(text)


@given(st.binary(max_size=12), st.lists(st.sampled_from([b"a", b"b", b"aa", b"ab", b"c"]), max_size=12))
def test_typing_piece_by_piece_is_typing_at_once(keys: bytes, pieces: list[bytes]) -> None:
    def typed(parts: list[bytes]) -> tuple[bytes, bool]:
        filter_, passed = DetachKeys(keys), b""
        for part in parts:
            more, leaves = filter_.feed(part)
            passed += more
            if leaves:
                return passed, True
        return passed, False

    assert typed(pieces) == typed([bytes([each]) for each in b"".join(pieces)])


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=12).map(b"".join))
def test_nothing_that_is_typed_is_lost(data: bytes) -> None:
    passed, leaves = DetachKeys(b"aab").feed(data + b"ccc")
    assert leaves or passed == data + b"ccc"
    assert not leaves or b"aab" in data


def test_who_still_listens_to_a_session_that_was_let_go_reads_nobody_elses_bytes() -> None:
    ours, theirs = Channel.pair()
    reading, writing = os.pipe()
    master, slave = os.openpty()
    kept = [os.dup(master), os.dup(slave)]  # whoever the program was left to has both ends
    session = ExecSession(cast(Container, SimpleNamespace(name="box")), ours, [master, slave])
    heard: list[object] = []
    listening = threading.Thread(target=lambda: heard.extend(session.output()))
    listening.start()
    time.sleep(0.2)
    session.close()
    os.dup2(reading, master)
    os.write(writing, b"somebody else's")
    os.write(kept[1], b"what the program says on")
    listening.join(5)
    assert not listening.is_alive() and heard == []
    assert os.read(reading, 100) == b"somebody else's"
    theirs.close()
    for fd in {*kept, reading, writing, master}:
        os.close(fd)


def test_where_it_cannot_be_tied_to_us_nothing_is_made(box: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(consoles, "Leash", refused)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Too many"):
        box.consoles.run(RunOptions(image="busybox", tty=True), (24, 80), lambda event: None)
    assert box.containers() == [] and os.listdir("/proc/self/fd") == before


def test_a_handler_that_is_not_pythons_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    known = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGUSR2 else known(number))
    told: list[int] = []
    with passing(lambda number: bool(told.append(number)) or True):
        assert known(signal.SIGUSR2) == signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGUSR1)
    assert told == [signal.SIGUSR1]
    assert known(signal.SIGUSR1) == signal.SIG_DFL


def test_a_kernel_that_opens_no_other_end_by_the_first_one_gives_a_terminal_by_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As gVisor of 2022 (TIOCGPTPEER is of Linux 4.13)."""
    own = console.fcntl.ioctl

    def older(fd: int, request: int, *more: object) -> object:
        if request == 0x5441:
            raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))
        return own(fd, request, *more)  # type: ignore[call-overload]

    monkeypatch.setattr(console.fcntl, "ioctl", older)
    made = unmounted.terminal((24, 80))
    try:
        assert os.get_terminal_size(made.peer) == (80, 24)
        os.write(made.peer, b"there")
        assert os.read(made.master, 5) == b"there"
    finally:
        made.close()
