"""A task on show: its output, its result, its interruption."""

import asyncio
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest

import loops
from journals import endless, told
from machine import until
from nbcontain.display.present import Presentation, mode, present, present_async
from nbcontain.errors import ContainerFailed, Interrupted, UsageError
from nbcontain.events import Emit, Finished, Notice, Output, Started
from nbcontain.task import Task

STEPS = [
    Started("build", "build hello"),
    Started("s", "RUN true", "build", waiting=True),
    Started("s", "RUN true", "build"),
    Finished("s", "done"),
    Finished("build", "done"),
]
RUN = [Started("c", "web"), Output("c", "stdout", b"out\n"), Output("c", "stderr", b"err\n"), Finished("c", "done")]


def interrupt_soon() -> None:
    threading.Timer(0.4, signal.raise_signal, [signal.SIGINT]).start()


class FakeKernelShell:
    kernel: object = object()


def test_the_result_is_what_the_task_returned() -> None:
    assert present(told(STEPS, "an image"), "build", mode="plain") == "an image"


def test_a_build_prints_its_steps(capsys: pytest.CaptureFixture[str]) -> None:
    present(told(STEPS), "build", mode="plain")
    assert capsys.readouterr().out.splitlines()[:2] == ["#1 [1/1] RUN true", "#1 DONE 0.0s"]


def test_a_run_prints_its_streams(capsys: pytest.CaptureFixture[str]) -> None:
    present(told(RUN), "run", mode="plain")
    assert capsys.readouterr() == ("out\n", "err\n")


def test_output_that_was_not_ended_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    present(told([Started("c", "web"), Output("c", "stdout", b"no newline")]), "run", mode="plain")
    assert capsys.readouterr().out == "no newline"


def test_an_error_of_the_task_is_raised() -> None:
    def body(emit):  # type: ignore[no-untyped-def]
        raise ContainerFailed("web exited with 3", 3)

    with pytest.raises(ContainerFailed):
        present(Task("run", body), "run", mode="plain")


def test_an_interrupt_cancels_the_task_and_shows_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    task = endless([*STEPS[:3], Notice("s", "almost")])
    interrupt_soon()
    with pytest.raises(Interrupted):
        present(task, "build", mode="plain")
    assert task.is_done and "note: almost" in capsys.readouterr().out


def test_the_picture_of_what_goes_on_when_nobody_waits_any_more_does_not_say_that_it_runs() -> None:
    is_over = threading.Event()

    def body(emit: Emit) -> None:
        emit(Started("c", "down shop"))
        emit(Started("web", "remove web", "c"))
        is_over.wait(10)

    task = Task("down shop", body)
    shown = Presentation(task, "work", "plain", "", (), "", None)
    until(lambda: len(task.journal.read()) == 2)
    shown.close()
    picture = shown._draw().picture
    assert (picture.label, "running" in picture.body) == ("work down shop: interrupted", False)
    is_over.set()


def test_a_task_that_was_stopped_counts_as_interrupted() -> None:
    task = endless(RUN[:1])
    threading.Timer(0.3, task.cancel).start()
    begun = time.monotonic()
    with pytest.raises(Interrupted):
        present(task, "run", mode="plain")
    assert time.monotonic() - begun < 1.5


def test_awaiting_leaves_the_loop_free() -> None:
    async def cell() -> int:
        task, turns = endless(RUN[:1]), 0

        async def others() -> None:
            nonlocal turns
            while not task.is_done:
                turns += 1
                if turns == 20:
                    task.cancel()
                await asyncio.sleep(0.02)

        both = asyncio.gather(present_async(task, "run", mode="plain"), others(), return_exceptions=True)
        assert isinstance((await both)[0], Interrupted)
        return turns

    assert loops.run(cell()) >= 20


def test_a_cancelled_await_ends_the_task_first() -> None:
    task = endless(RUN[:1])

    async def cell() -> None:
        waiting = asyncio.ensure_future(present_async(task, "run", mode="plain"))
        await asyncio.sleep(0.3)
        waiting.cancel()
        await waiting

    with pytest.raises(Interrupted):
        loops.run(cell())
    assert task.is_done


def test_cards_are_for_kernels() -> None:
    assert mode({}, FakeKernelShell()) == "card"
    unattended = FakeKernelShell()
    unattended.kernel = SimpleNamespace(_allow_stdin=False)
    assert mode({}, unattended) == "html"
    assert mode({"NBCONTAIN_DISPLAY": "card"}, unattended) == "card"
    assert mode({}, None) == mode({}, object()) == "plain"


def test_colab_gets_html_until_it_is_allowed_to_load_widgets_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    widgets = SimpleNamespace(_installed_url=None)
    monkeypatch.setitem(sys.modules, "google.colab.output", SimpleNamespace(_widgets=widgets))
    assert mode({}, FakeKernelShell()) == "html"
    assert mode({"NBCONTAIN_DISPLAY": "card"}, FakeKernelShell()) == "card"
    widgets._installed_url = "https://widgets.example/manager.js"
    assert mode({}, FakeKernelShell()) == "card"


def test_the_environment_decides_if_it_says_something() -> None:
    assert mode({"NBCONTAIN_DISPLAY": "plain"}, FakeKernelShell()) == "plain"
    assert mode({"NBCONTAIN_DISPLAY": "html"}, None) == "html"


def test_a_word_that_is_no_mode_is_refused() -> None:
    with pytest.raises(UsageError, match="colourful"):
        mode({"NBCONTAIN_DISPLAY": "colourful"}, None)
