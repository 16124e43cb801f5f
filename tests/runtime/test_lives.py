"""How containers live and end: stop, restart, leash, deaths around them, and what is left. Under every profile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from machine import SLEEP, Machine, inside_of, is_running, said, supervisor_of, until
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import BuildError, Cancelled, ContainerError, ContainerNotFound, InUse, NameTaken, NotRunning
from nbcontain.handles import Container as Held
from nbcontain.runtime.generate import RunOptions

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
CHECKOUT = Path(__file__).resolve().parents[2]


def python(machine: Machine, program: str) -> subprocess.Popen[str]:
    """Another process that uses the same store."""
    preamble = f"""
        import os, sys, time
        from nbcontain.engine import Engine
        from nbcontain.runtime.generate import RunOptions
        engine = Engine({str(machine.engine.layout.root)!r})
    """
    text = textwrap.dedent(preamble) + textwrap.dedent(program)
    return subprocess.Popen([sys.executable, "-c", text], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)


# --- stop, start, restart -------------------------------------------------------------------------


def test_stop_asks_first(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP)
    assert container.status == "running"
    container.stop(5)
    assert (container.status, container.state().exit_code) == ("exited", 3)


def test_stop_kills_what_does_not_listen(profile: str, machine: Machine) -> None:
    container = machine.start(STUBBORN)
    began = time.monotonic()
    container.stop(0.3)
    assert 0.3 <= time.monotonic() - began < 1.5
    assert (container.status, container.state().exit_code) == ("exited", 137)


def test_stop_sends_the_signal_that_was_chosen(profile: str, machine: Machine) -> None:
    container = machine.start("trap 'exit 4' USR1; echo ready; while :; do sleep 0.05; done", stop_signal="SIGUSR1")
    container.stop(5)
    assert container.wait(1) == 4


def test_stopping_what_is_stopped_is_nothing_and_killing_it_an_error(profile: str, machine: Machine) -> None:
    container = machine.start("echo ready; exit 5")
    assert container.wait(5) == 5
    container.stop(1)
    machine.engine.stop(container)
    with pytest.raises(NotRunning):
        container.kill(9)
    assert container.wait(1) == 5


def test_a_restarted_container_has_its_layer_as_it_was_left(profile: str, machine: Machine) -> None:
    container = machine.start("echo again >> /log; rm -f /bin/vi; cat /log; " + SLEEP, hostname="same")
    first = container.pid
    machine.engine.restart(container, 5)
    until(lambda: said(container).count("ready") == 2)
    assert said(container) == "again\nready\nagain\nagain\nready\n"
    assert container.pid != first
    assert machine.execute(container, "test", "-e", "/bin/vi")[0] == 1
    machine.engine.stop(container, 5)
    machine.engine.start(container)
    until(lambda: said(container).count("ready") == 3)
    assert ("/log", "A") in [(path, letter) for letter, path in machine.engine.diff(container)]


def test_the_journal_of_two_runs_is_one_account(profile: str, machine: Machine) -> None:
    container = machine.start("echo ready")
    container.wait(5)
    machine.engine.start(container)
    container.wait(5)
    kinds = [type(record.event).__name__ for record in container.bundle.journal().read()]
    assert kinds == ["Started", "Output", "Finished"] * 2


def test_everything_inside_ends_with_the_first_process(profile: str, machine: Machine) -> None:
    container = machine.start("(trap '' TERM HUP; exec sleep 4242) & setsid sleep 4242 & echo ready; sleep 4242")
    pid = container.pid
    assert pid is not None
    inside = f"/proc/{pid}/root"
    until(lambda: machine.execute(container, "ps")[1].count("sleep 4242") >= 3)
    space = os.readlink(f"/proc/{pid}/ns/pid")
    mine = inside_of(space)
    assert len(mine) >= 3
    container.kill(9)
    assert container.wait(5) == 137
    assert [each for each in mine if is_running(each)] == []
    assert not os.path.exists(inside)


# --- the leash ------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [SLEEP, STUBBORN], ids=["listens", "stubborn"])
def test_a_cancelled_run_ends_within_a_second(profile: str, machine: Machine, script: str) -> None:
    task = machine.engine.run(RunOptions(image="box", command=("sh", "-c", script), remove=True))
    until(lambda: any(each.status == "running" for each in machine.engine.containers()))
    began = time.monotonic()
    task.cancel()
    with pytest.raises((Cancelled, ContainerError)):
        task.result()
    until(lambda: machine.engine.containers() == [], 2)
    assert time.monotonic() - began < 1.2


def test_an_attached_container_ends_with_its_kernel_and_a_detached_one_does_not(profile: str, machine: Machine) -> None:
    kernel = python(
        machine,
        f"""
        engine.run(RunOptions(image="box", name="stays", detach=True, command=("sh", "-c", {SLEEP!r}))).result()
        task = engine.run(RunOptions(image="box", name="goes", command=("sh", "-c", {STUBBORN!r})))
        while len([each for each in engine.containers() if any(each.output())]) < 2:
            time.sleep(0.01)
        print("both", flush=True)
        task.result()
        """,
    )
    assert kernel.stdout is not None
    with kernel:
        assert kernel.stdout.readline() == "both\n"
        kernel.kill()
    goes, stays = machine.engine.container("goes"), machine.engine.container("stays")
    until(lambda: goes.status == "exited", 1.2)
    assert goes.state().exit_code == 137
    assert stays.status == "running"
    stays.stop(5)
    assert stays.state().exit_code == 3


def test_a_cancelled_build_leaves_nothing(profile: str, machine: Machine) -> None:
    text = 'FROM box\nRUN ["sh", "-c", "echo ready; sleep 60"]\n'
    task = machine.engine.build(text, BuildOptions(tags=("never",)))
    until(lambda: any(b"ready" in getattr(each.event, "data", b"") for each in task.journal.read()))
    began = time.monotonic()
    task.cancel()
    with pytest.raises((Cancelled, BuildError)):
        task.result()
    assert time.monotonic() - began < 1.2
    assert "never" not in [str(name) for name, _ in machine.engine.images()]


# --- deaths ---------------------------------------------------------------------------------------


def test_a_container_whose_supervisor_is_killed_dies_and_is_lost(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP)
    first = container.pid
    assert first is not None
    os.kill(supervisor_of(container.pid), signal.SIGKILL)
    until(lambda: not is_running(first), 1)
    assert container.status == "lost"
    with pytest.raises(ContainerError):
        container.wait(1)
    machine.engine.start(container)
    until(lambda: said(container).count("ready") == 2)
    assert container.status == "running"


def test_a_zygote_that_is_killed_is_replaced_and_containers_do_not_mind(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP)
    zygote = machine.engine.launcher._zygote
    assert zygote is not None
    os.kill(zygote.pid, signal.SIGKILL)
    assert machine.sh("echo alive") == "alive\n"
    assert container.status == "running"


def test_a_bundle_whose_writer_died_is_swept(profile: str, machine: Machine) -> None:
    half = machine.engine.layout.containers / ("ab" * 32)
    half.mkdir()
    (half / "config.json").write_text("{")
    assert machine.engine.containers() == []
    machine.engine.prune()
    assert not half.exists()


# --- names and numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("act", [
    lambda held: held.to_dict(), lambda held: held.start(), lambda held: held.restart(), lambda held: held.rename("y"),
    lambda held: held.commit("y"), lambda held: held.put("text", "/file"), lambda held: held.bundle.spec,
])  # fmt: skip
def test_a_handle_on_what_was_removed_says_so(machine: Machine, act: Callable[[Held], object]) -> None:
    machine.start("echo ready; sleep 60", name="gone")
    held = machine.engine.container("gone")
    held.remove(force=True)
    with pytest.raises(ContainerNotFound):
        act(held)


def test_a_name_is_taken_until_its_container_is_removed(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP, name="web")
    with pytest.raises(NameTaken, match="web"):
        machine.run("true", name="web")
    with pytest.raises(InUse):
        machine.engine.remove_container(container)
    machine.engine.remove_container(container, force=True)
    assert machine.run("true", name="web").name == "web"


def test_twenty_containers_at_once(profile: str, machine: Machine) -> None:
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda n: machine.sh(f"echo {n} > /mine; sleep 0.2; cat /mine"), range(20)))
    assert results == [f"{n}\n" for n in range(20)]


def test_of_twenty_that_want_one_name_one_gets_it(profile: str, machine: Machine) -> None:
    def start(_: int) -> str:
        try:
            return machine.start(SLEEP, name="only").id
        except NameTaken:
            return ""

    with ThreadPoolExecutor(8) as pool:
        assert len(list(filter(None, pool.map(start, range(20))))) == 1


def test_files_of_other_ids_go_with_their_container(profile: str, machine: Machine) -> None:
    make = "mkdir -p /a/b && echo x > /a/b/c && {} chmod 700 /a/b && chmod 500 /a && echo ready"
    own = "" if profile == "rootless-single" else "chown -R 1000:1000 /a &&"
    container = machine.start(make.format(own))
    container.wait(5)
    machine.engine.remove_container(container)
    machine.run("sh", "-c", make.format(own))
    # The fixture sees whether anything is left.


def test_images_can_be_removed_when_their_containers_are(profile: str, machine: Machine) -> None:
    machine.build('FROM box\nRUN ["sh", "-c", "echo x > /x"]\n', "mine")
    container = machine.start(SLEEP, image="mine")
    with pytest.raises(InUse):
        machine.engine.remove_image("mine")
    machine.engine.remove_container(container, force=True)
    machine.engine.remove_image("mine")
    machine.engine.prune()
    assert [str(name) for name, _ in machine.engine.images() if name and "mine" in str(name)] == []


# --- nothing is left ------------------------------------------------------------------------------


def test_no_process_and_no_mount_is_left_when_all_is_done(profile: str, machine: Machine) -> None:
    """As a subreaper, the child inherits every process that was started for it: none may be there at the end."""
    before = Path("/proc/self/mountinfo").read_text()
    child = python(
        machine,
        f"""
        from nbcontain.linux import syscalls
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
        engine.run(RunOptions(image="box", command=("true",), remove=True)).result()
        container = engine.run(RunOptions(image="box", detach=True, command=("sh", "-c", {SLEEP!r}))).result()
        container.execute(("true",))
        container.stop(5)
        engine.remove_container(container)
        try:
            engine.run(RunOptions(image="box", command=("no-such",))).result()
        except Exception as error:
            print(type(error).__name__, flush=True)
        engine.close()
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            try:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    time.sleep(0.01)
            except ChildProcessError:
                print("none")
                break
        """,
    )
    out, _ = child.communicate(timeout=30)
    assert out.split() == ["CommandNotFound", "none"]
    mine = str(machine.engine.layout.root)
    assert mine not in Path("/proc/self/mountinfo").read_text().replace(before, "")


# --- bad places -----------------------------------------------------------------------------------


def test_a_full_disk_is_one_error_and_nothing_is_left(profile: str, machine: Machine, tmp_path: Path) -> None:
    if profile != "root":
        pytest.skip("a small disk is mounted for it, which only root may")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "tmpfs", str(tmp_path)], check=True)
    try:
        with Engine(tmp_path / "store") as engine:
            small = Machine(engine, busybox_in(tmp_path))
            with pytest.raises(BuildError) as caught:
                small.build('FROM box\nRUN ["dd", "if=/dev/zero", "of=/big", "bs=1M", "count=20"]\n', "big")
            assert "No space left" in "\n".join(caught.value.lines())
            assert small.left() == []
            container = small.start("echo ready; dd if=/dev/zero of=/big bs=1M count=20 2>&1; sleep 60")
            until(lambda: container.state().error != "" or "No space" in said(container))
            engine.remove_container(container, force=True)
            assert small.left() == []
            assert small.sh("echo fine") == "fine\n"
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def busybox_in(directory: Path) -> Path:
    """A small context on the same disk."""
    import shutil

    context = directory / "context"
    context.mkdir()
    found = shutil.which("busybox")
    assert found is not None
    shutil.copy2(found, context / "busybox")
    return context


def test_without_user_namespaces_the_error_says_what_was_tried(profile: str, machine: Machine, tmp_path: Path) -> None:
    if profile == "root":
        pytest.skip("root needs none")
    # In a user namespace of its own, where the limit can be set, with the caller's own id again.
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps=-all --inh-caps=-all "$@"'
    run = [sys.executable, "-m", "nbcontain", "run", "--rm", "box", "true"]
    # Without the PRoot that the tests have built.
    environ = {**os.environ, "NBCONTAIN_ROOT": str(tmp_path / "store"), "PATH": os.defpath}
    command = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", forbid, "sh", *run]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False, cwd=CHECKOUT)
    assert done.returncode == 125, done.stderr
    assert "user namespaces" in done.stderr
    assert "Traceback" not in done.stderr
    doctor = subprocess.run(
        [*command[:-4], "doctor"], env=environ, capture_output=True, text=True, timeout=30, check=False, cwd=CHECKOUT
    )
    assert (doctor.returncode, "Traceback" in doctor.stderr) == (0, False), doctor


def test_what_is_asked_of_the_machine_is_remembered(profile: str, machine: Machine) -> None:
    facts = json.loads(machine.engine.layout.host_facts.read_text())
    assert set(facts["abilities"]) >= {"OVERLAY", "USER_NAMESPACES"}
    assert machine.engine.profile.name == {"root": "full"}.get(profile, profile)
