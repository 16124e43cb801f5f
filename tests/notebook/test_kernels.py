"""The magics in real kernels of each ipykernel release: streaming, interrupts, buttons, and what survives a kernel."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kernels import BUSYBOX_CELL, HTML, PLAIN, WIDGET, Cell, Kernel
from machine import children_of

PATIENT = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done"
DEAF = "trap '' TERM INT; echo ready; while :; do sleep 0.1; done"
COUNTING = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.02; done"


def interrupted(kernel: Kernel, cell: Cell) -> float:
    """Interrupt a cell, and wait for its end; in how many seconds that came."""
    began = time.monotonic()
    kernel.interrupt()
    kernel.finish(cell, timeout_s=10)
    return time.monotonic() - began


def names_of(kernel: Kernel, *flags: str) -> list[str]:
    """What `%container ps -q` lists."""
    cell = kernel.check(f"%container ps -q {' '.join(flags)}")
    return re.findall(r"\b[0-9a-f]{12}\b", cell.text)


def test_a_dockerfile_cell_becomes_an_image_and_its_container_runs(kernel: Kernel) -> None:
    cell = kernel.check("%container run --rm box")
    assert "hello from the box\n" in cell.stdout
    assert names_of(kernel, "-a") == []


def test_output_comes_while_the_program_runs(kernel: Kernel) -> None:
    began = time.monotonic()
    cell = kernel.start("%container run --rm box sh -c 'echo first; sleep 3; echo last'")
    kernel.wait_for(lambda: "first" in cell.stdout)
    assert time.monotonic() - began < 2.5
    assert "last" not in cell.stdout
    kernel.finish(cell)
    assert "last" in cell.stdout


def test_both_streams_arrive_apart(kernel: Kernel) -> None:
    cell = kernel.check("%container run --rm box sh -c 'echo out; echo err >&2'")
    assert (cell.stdout.strip(), cell.stderr.strip()) == ("out", "err")


def test_an_exit_code_other_than_zero_fails_the_cell_without_a_traceback(kernel: Kernel) -> None:
    cell = kernel.run("%container run --rm box sh -c 'exit 7'")
    assert not cell.ok
    assert cell.ename == "ContainerFailed"
    assert "7" in cell.error
    assert "Traceback" not in cell.error
    assert len(cell.error.splitlines()) <= 6


def test_where_nothing_is_live_a_cell_is_no_terminal_and_says_where_to_type_instead(kernel: Kernel) -> None:
    kernel.run("session = get_ipython().nbcontain.session; session.mode = 'html'")
    cell = kernel.run("%container run --rm -it box sh")
    kernel.run("session.mode = 'card'")
    assert (cell.ok, cell.ename) == (False, "UsageError")
    assert "nbcontain container run --rm -it box sh" in cell.error
    assert names_of(kernel, "-a") == []
    assert "/dev/pts/0" in kernel.check("%container run --rm -t box tty").stdout


def test_interrupting_a_cell_ends_its_container_in_a_second(kernel: Kernel) -> None:
    cell = kernel.start(f'%container run --rm box sh -c "{DEAF}"')
    kernel.wait_for(lambda: "ready" in cell.stdout)
    assert interrupted(kernel, cell) < 1.5
    assert cell.ename == "Interrupted"
    assert names_of(kernel, "-a") == []


def test_interrupting_a_flood_ends_its_container_as_soon(kernel: Kernel) -> None:
    cell = kernel.start("%container run --rm box yes")
    time.sleep(2)
    assert interrupted(kernel, cell) < 2.5
    assert cell.ename == "Interrupted"
    assert names_of(kernel, "-a") == []
    # And what it wrote in the meantime is not read afterwards.
    began = time.monotonic()
    kernel.check("1 + 1")
    assert time.monotonic() - began < 1


def test_a_quiet_container_is_followed_waited_for_and_asked_to_end_until_somebody_interrupts(kernel: Kernel) -> None:
    kernel.check(f'%container run -d --name idle box sh -c "{DEAF}"')
    container = names_of(kernel)[0]
    for words, name in (("logs -f idle", "logs of idle"), ("stop -t 60 idle", "stop"), ("wait idle", "wait")):
        cell = kernel.start(f"%container {words}")
        time.sleep(0.7)
        assert interrupted(kernel, cell) < 1.5
        assert (cell.ename, name in cell.error) == ("Interrupted", True), cell.error
        assert container not in cell.text, "a card has a name that can be read"
    assert len(names_of(kernel)) == 1
    kernel.check("%container rm -f idle")


def test_interrupting_a_build_ends_its_step_and_leaves_nothing(kernel: Kernel) -> None:
    cell = kernel.start("%%dockerfile -t never\nFROM box\nRUN echo begun > /begun; sleep 60\n")
    time.sleep(1)
    assert interrupted(kernel, cell) < 1.5
    assert not cell.ok
    assert "never" not in kernel.check("%image ls").text


def test_an_interrupt_inside_a_function_ends_the_container_too(kernel: Kernel) -> None:
    # Indented magics cannot be awaited: they take the synchronous road.
    kernel.check(f'def f():\n    %container run --rm box sh -c "{DEAF}"\n')
    cell = kernel.start("f()")
    kernel.wait_for(lambda: "ready" in cell.stdout)
    assert interrupted(kernel, cell) < 1.5
    assert cell.ename == "Interrupted"


def test_a_detached_container_survives_an_interrupt(kernel: Kernel) -> None:
    kernel.check(f'%container run -d --name web box sh -c "{PATIENT}"')
    cell = kernel.start("import time; time.sleep(30)")
    time.sleep(0.3)
    kernel.interrupt()
    kernel.finish(cell)
    assert len(names_of(kernel)) == 1


def test_a_restarted_kernel_lists_follows_and_stops_what_the_last_one_started(kernel: Kernel) -> None:
    kernel.check(f'%container run -d --name web box sh -c "{PATIENT}"')
    kernel.restart()
    kernel.check("%load_ext nbcontain")
    assert "web" in kernel.check("%container ps").text
    assert "ready" in kernel.check("%container logs web").text
    kernel.check("%container stop web")
    assert "0" in kernel.check("%container wait web").text
    kernel.check("%container rm web")
    assert names_of(kernel, "-a") == []


def test_three_containers_outlive_a_killed_kernel_and_no_line_is_lost(
    start_kernel: Callable[..., Kernel], release: str
) -> None:
    first = start_kernel(release)
    first.check(BUSYBOX_CELL)
    for name in ("one", "two", "three"):
        first.check(f'%container run -d --name {name} box sh -c "{COUNTING}"')
    time.sleep(0.5)
    first.kill()
    time.sleep(1)
    second = start_kernel(release)
    assert len(names_of(second)) == 3
    for name in ("one", "two", "three"):
        second.check(f"%container kill {name}")
        numbers = [int(line) for line in second.check(f"%container logs {name}").stdout.split()]
        assert len(numbers) > 30
        assert numbers == list(range(len(numbers)))
        assert "137" in second.check(f"%container wait {name}").text
        second.check(f"%container rm {name}")


def test_an_attached_container_does_not_outlive_a_killed_kernel(
    start_kernel: Callable[..., Kernel], release: str
) -> None:
    first = start_kernel(release)
    first.check(BUSYBOX_CELL)
    cell = first.start(f'%container run --name tied box sh -c "{DEAF}"')
    first.wait_for(lambda: "ready" in cell.stdout)
    first.kill()
    second = start_kernel(release)
    end = time.monotonic() + 3
    while names_of(second) and time.monotonic() < end:
        time.sleep(0.1)
    assert names_of(second) == []


def test_assigning_gives_the_object_and_shows_nothing(kernel: Kernel) -> None:
    cell = kernel.check(f'c = %container run -d --name web box sh -c "{PATIENT}"')
    assert cell.displays == []
    assert "web running" in kernel.check("print(c.name, c.status)").stdout


def test_what_is_not_the_cells_value_has_no_card(kernel: Kernel) -> None:
    run = f'%container run -d --rm box sh -c "{PATIENT}"'
    assert kernel.check(f"{run};").displays == []
    assert kernel.check(f"{run}\nNone").displays == []
    assert len(kernel.check(f"1\n{run}\n\n# over").displays) == 1


def test_layers_stand_where_it_said_that_they_are_read(kernel: Kernel) -> None:
    cell = kernel.check("%image layers box")
    shown = [output for output in cell.outputs if output["type"] in ("display_data", "update_display_data")]
    assert [output["type"] for output in shown] == ["display_data", "update_display_data"]
    first, last = (output["data"] for output in shown)
    assert first[PLAIN] == "reading box layers" and WIDGET not in first
    assert {PLAIN, HTML, WIDGET} <= last.keys() and "CREATED BY" in last[PLAIN]
    assert kernel.check("x = %image layers box").displays == []
    # Asked for later, they are shown as ever.
    (again,) = kernel.check("x").displays
    assert WIDGET in again["data"]


def test_layers_that_cannot_be_read_say_so_where_they_would_stand(kernel: Kernel) -> None:
    damage = (
        "import nbcontain as nb, pathlib\nimage = get_ipython().nbcontain.session.engine.image('box')\n"
        "blobs = get_ipython().nbcontain.session.engine.store.blobs\n"
        "path = pathlib.Path(blobs.path(image.layers[0].descriptor.digest))\n"
        "kept = path.read_bytes(); path.chmod(0o600); path.write_bytes(kept[:-1] + b'?')"
    )
    kernel.check(damage)
    cell = kernel.run("%image layers box")
    kernel.check("path.write_bytes(kept)")
    assert cell.ename
    (card,) = cell.displays
    assert card["data"][PLAIN] == "failed box layers" and WIDGET not in card["data"]


def test_every_display_has_three_pictures(kernel: Kernel) -> None:
    cell = kernel.check(f'%container run -d --name web box sh -c "{PATIENT}"')
    (card,) = cell.displays
    assert {PLAIN, HTML, WIDGET} <= card["data"].keys()
    assert "web" in card["data"][PLAIN]
    assert "web" in card["data"][HTML]


def test_the_stored_card_of_a_detached_container_says_how_it_ended(kernel: Kernel) -> None:
    cell = kernel.check(f'%container run -d --name web box sh -c "{PATIENT}"')
    kernel.check("%container stop web")
    kernel.wait_for(lambda: "exited" in cell.displays[0]["data"][PLAIN], 5, "a snapshot that says exited")
    kernel.check("%container rm web")
    kernel.wait_for(lambda: WIDGET not in cell.displays[0]["data"], 5, "a snapshot without a widget")


def test_a_finished_build_is_stored_without_a_widget(kernel: Kernel) -> None:
    cell = kernel.check(BUSYBOX_CELL)
    (card,) = cell.displays
    assert WIDGET not in card["data"]
    assert "cached" in card["data"][PLAIN].lower()
    assert "cached" in card["data"][HTML].lower()


def test_dollars_and_double_braces_of_a_command_are_left_alone(kernel: Kernel) -> None:
    cell = kernel.check("%container run --rm -e x=inside box sh -c 'echo $x {{x}}'")
    assert cell.stdout.strip() == "inside {{x}}"


def test_a_python_name_in_braces_becomes_one_word(kernel: Kernel) -> None:
    cell = kernel.check("who = 'two words; exit 3'\n%container run --rm box echo {who}")
    assert cell.stdout.strip() == "two words; exit 3"


def test_a_python_name_that_is_not_there_is_an_error(kernel: Kernel) -> None:
    cell = kernel.run("%container run --rm box echo {nobody}")
    assert cell.ename == "UsageError"
    assert "nobody" in cell.error


# --- buttons ----------------------------------------------------------------------------------


def card_with(kernel: Kernel, word: str) -> str:
    """The comm of the widget whose state tells of `word`."""
    found = [comm for comm, state in kernel.comms.items() if "_esm" in state and word in repr(state)]
    assert found, f"no card tells of {word}"
    return found[-1]


def click(kernel: Kernel, card: str, label: str, subshell: str | None = None) -> None:
    """What the page sends when a button of a card is clicked (display/static/card.js)."""
    action = next(each for each in kernel.comms[card]["actions"] if each["label"].startswith(label))
    kernel.send_to_widget(card, {"action": action["id"]}, subshell=subshell)


def test_the_stop_button_of_a_detached_card_ends_its_container(kernel: Kernel) -> None:
    kernel.check(f'%container run -d --name web box sh -c "{PATIENT}"')
    click(kernel, card_with(kernel, "web"), "Stop")
    end = time.monotonic() + 3
    while names_of(kernel) and time.monotonic() < end:
        time.sleep(0.05)
    assert names_of(kernel) == []


# ipykernel 6 has one shell: a click waits for the cell's end there, and only the interrupt works.
@pytest.mark.parametrize("release", ["7.3", "7.4"], indirect=True)
def test_the_stop_button_ends_an_attached_container_while_its_cell_runs(kernel: Kernel) -> None:
    subshell = kernel.subshell()
    cell = kernel.start(f'%container run --rm --name front box sh -c "{DEAF}"')
    kernel.wait_for(lambda: "ready" in cell.stdout)
    began = time.monotonic()
    click(kernel, card_with(kernel, "front"), "Stop", subshell)
    kernel.finish(cell, timeout_s=10)
    assert time.monotonic() - began < 1.5
    assert cell.ename == "Interrupted"


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "ename", "word"),
    [
        ("%container run nothing-of-that-name", "ImageNotFound", "nothing-of-that-name"),
        ("%container run --rm box no-such-program", "CommandNotFound", "no-such-program"),
        ("%container run --rm box /etc", "CommandNotExecutable", "/etc"),
        ("%container run --frobnicate box", "UsageError", "--frobnicate"),
        ("%container stop nobody", "ContainerNotFound", "nobody"),
        ("%%dockerfile -t x\nFROM box\nCPOY a b\n", "DockerfileError", "COPY"),
        ("%%dockerfile -t x\nFROM box\nCOPY no-such-file /\n", "", "no-such-file"),
        ("%%dockerfile -t x\nFROM box\nRUN exit 3\n", "StepFailed", "RUN exit 3"),
        ("%image rm nobody", "ImageNotFound", "nobody"),
    ],
)
def test_a_mistake_gets_one_clear_error_and_leaves_nothing(
    start_kernel: Callable[..., Kernel], code: str, ename: str, word: str
) -> None:
    kernel = start_kernel()
    kernel.check(BUSYBOX_CELL)
    cell = kernel.run(code)
    assert not cell.ok
    assert ename in cell.ename
    assert word in cell.error
    assert "Traceback" not in cell.error
    assert len(cell.error.splitlines()) <= 14
    assert names_of(kernel, "-a") == []
    assert "x " not in kernel.check("%image ls -q x").text


def test_a_taken_name_is_refused(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel()
    kernel.check(BUSYBOX_CELL)
    kernel.check(f'%container run -d --name web box sh -c "{PATIENT}"')
    cell = kernel.run("%container run -d --name web box")
    assert cell.ename == "NameTaken"
    (card,) = cell.displays
    assert card["data"][PLAIN] == "failed web box" and WIDGET not in card["data"]
    assert len(names_of(kernel, "-a")) == 1


def test_the_kernel_never_forks_without_exec(start_kernel: Callable[..., Kernel]) -> None:
    # A forked kernel would hold the user's secrets and sockets: whatever runs below it was executed anew.
    kernel = start_kernel()
    kernel.check(BUSYBOX_CELL)
    kernel.check(f'%container run -d --name web box sh -c "{PATIENT}"')
    own = Path(f"/proc/{kernel.pid}/cmdline").read_bytes()
    assert all(Path(f"/proc/{child}/cmdline").read_bytes() != own for child in children_of(kernel.pid))


def test_a_signal_to_the_group_of_the_kernel_reaches_no_container(start_kernel: Callable[..., Kernel]) -> None:
    kernel = start_kernel()
    kernel.check(BUSYBOX_CELL)
    kernel.check(f'%container run -d --name web box sh -c "{PATIENT}"')
    os.killpg(os.getpgid(kernel.pid), signal.SIGKILL)
    time.sleep(0.3)
    assert len(names_of(start_kernel())) == 1
