"""What can be done with a container while it lives, verb by verb, through the commands that people type."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from machine import SLEEP, Machine, said, supervisor_of, until
from nbcontain import names
from nbcontain.commands import parse_words
from nbcontain.display.present import present
from nbcontain.display.values import InProgress, Live, Log
from nbcontain.errors import ContainerNotFound, NameTaken, UsageError
from nbcontain.events import Output
from nbcontain.runtime.generate import RunOptions, environment_of
from nbcontain.store import files


def command(machine: Machine, *words: str) -> Any:
    """What a command gives, once it is done."""
    found, options = parse_words("", words)
    value = found.function(machine.engine, options)
    if isinstance(value, InProgress):
        return present(value.task, value.kind, mode="plain")
    return value


def written(log: object) -> str:
    assert isinstance(log, Log)
    return b"".join(each.event.data for each in log.records if isinstance(each.event, Output)).decode()


# --- names ----------------------------------------------------------------------------------------


def test_a_container_is_renamed_while_it_runs_and_events_know(machine: Machine) -> None:
    began = time.time()
    container = machine.start(SLEEP, name="one")
    other = machine.engine.create(RunOptions(image="box", name="two"))
    with pytest.raises(NameTaken, match="named two"):
        command(machine, "rename", "one", "two")
    with pytest.raises(UsageError, match="its name already"):
        command(machine, "rename", "two", "two")
    command(machine, "rename", "one", "three")
    assert machine.engine.container("three") == container
    with pytest.raises(ContainerNotFound):
        machine.engine.container("one")
    assert other.name == "two"
    machine.engine.stop(machine.engine.container("three"), 5)
    heard = machine.engine.events.between(str(began), filters=["type=container"], follow=False)
    told = [each for each in heard if each]
    assert ("rename", "/one") in [(e["Action"], e["Actor"]["Attributes"].get("oldName")) for e in told]
    assert [e["Actor"]["Attributes"]["name"] for e in told if e["Action"] == "die"] == ["three"]


def test_a_name_of_ours_that_somebody_has_is_not_taken(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.engine.create(RunOptions(image="box", name="calm_hopper"))
    given = iter(("calm_hopper", "calm_hopper", "keen_noether"))
    monkeypatch.setattr(names, "random_name", lambda: next(given))
    made = machine.engine.create(RunOptions(image="box"))
    assert made.name == "keen_noether"
    # Nothing is left of what was written with the other name.
    assert [each.name for each in made.bundle.path.iterdir() if each.name.startswith(".")] == []


def test_nobody_waits_for_anothers_disk(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are unique by a lock, but who has it waits for nothing."""
    sync, waits, goes_on, slow = files.sync_file, threading.Semaphore(0), threading.Semaphore(0), set()

    def waiting(fd: int) -> None:
        if threading.current_thread() in slow:
            waits.release()
            assert goes_on.acquire(timeout=30)
        sync(fd)

    def create_slowly() -> str:
        slow.add(threading.current_thread())
        return machine.engine.create(RunOptions(image="box", name="slow")).name

    monkeypatch.setattr(files, "sync_file", waiting)
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        first = one.submit(create_slowly)
        until(lambda: waits.acquire(blocking=False) or first.done())
        while not first.done():
            assert other.submit(machine.engine.create, RunOptions(image="box")).result(20).name
            goes_on.release()
            until(lambda: waits.acquire(blocking=False) or first.done())
        assert first.result() == "slow"


# --- logs -----------------------------------------------------------------------------------------


def test_logs_between_times_with_stamps_and_the_last_lines(machine: Machine) -> None:
    container = machine.start("echo one; echo two >&2; sleep 0.4; printf three; sleep 0.2; echo ' more'", name="l")
    container.wait(5)
    middle = list(container.output())[-2].time - 0.1
    assert written(command(machine, "logs", "l")) == "one\ntwo\nthree more\n"
    assert written(command(machine, "logs", "--since", str(round(middle, 6)), "l")) == "three more\n"
    assert written(command(machine, "logs", "--until", str(round(middle, 6)), "l")) == "one\ntwo\n"
    assert written(command(machine, "logs", "--since", "1h", "--tail", "2", "l")) == "two\nthree more\n"
    assert written(command(machine, "logs", "--tail", "0", "l")) == ""
    stamped = written(command(machine, "logs", "-t", "l")).splitlines()
    assert [line.split(" ", 1)[1] for line in stamped] == ["one", "two", "three more"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", line.split(" ")[0]) for line in stamped)
    with pytest.raises(UsageError, match="--tail x"):
        command(machine, "logs", "--tail", "x", "l")


def test_logs_are_searched_by_the_line_and_by_the_stream(machine: Machine) -> None:
    machine.start("echo one; printf 'tw' >&2; sleep 0.1; printf 'o\\r\\n' >&2; echo three; sleep 0.1; printf to",
                  name="g").wait(5)  # fmt: skip
    assert written(command(machine, "logs", "--grep", "^t", "g")).splitlines()[-1] == "to"
    assert sorted(written(command(machine, "logs", "--grep", "^t", "-f", "g")).split()) == ["three", "to", "two"]
    assert written(command(machine, "logs", "--stderr", "g")) == "two\r\n"
    assert written(command(machine, "logs", "--stderr", "--grep", "one", "g")) == ""
    assert written(command(machine, "logs", "-t", "--grep", "thr", "g")).endswith("Z three\n")
    with pytest.raises(UsageError, match=r"--grep \( is no regular expression"):
        command(machine, "logs", "--grep", "(", "g")


def test_who_follows_the_tail_sees_what_comes_and_the_restarts(machine: Machine) -> None:
    machine.start("echo a; echo b; sleep 0.5; echo c; [ -e /again ] || { touch /again; exit 1; }",
                  name="f", restart="on-failure")  # fmt: skip
    assert written(command(machine, "logs", "-f", "--tail", "1", "f")) == "b\nc\na\nb\nc\n"


def test_following_ends_at_its_time(machine: Machine) -> None:
    machine.start("echo a; sleep 30", name="u")
    began = time.monotonic()
    until_s = str(round(time.time() + 0.5, 3))
    assert written(command(machine, "logs", "-f", "--until", until_s, "u")) == "a\n"
    assert time.monotonic() - began < 5


def test_details_are_those_that_log_opts_name(machine: Machine) -> None:
    machine.start("echo a", name="d", labels=("team=blue", "other=x"), log_opts=("labels=team", "env=GREETING"))
    assert written(command(machine, "logs", "--details", "d")) == "GREETING=hello,team=blue a\n"


def test_a_log_is_rotated_and_who_follows_misses_nothing(machine: Machine) -> None:
    # Not faster than somebody can follow: what is rotated away before it was read is gone.
    script = "i=0; while [ $i -lt 12000 ]; do i=$((i+1)); echo line $i of many; [ $((i % 200)) = 0 ] && sleep 0.03; "
    script += "done; sleep 0.3"
    container = machine.start(script, name="r", log_opts=("max-size=20k", "max-file=3"))
    followed = written(command(machine, "logs", "-f", "r")).splitlines()
    container.wait(20)
    kept = written(command(machine, "logs", "r")).splitlines()
    files = [each for each in os.listdir(container.bundle.path) if each.startswith("journal.jsonl")]
    assert len(files) <= 3
    assert sum((container.bundle.path / each).stat().st_size for each in files) < 3 * 20 * 1024 + 16384
    numbers = [int(line.split()[1]) for line in followed]
    assert numbers == list(range(numbers[0], 12001))
    assert kept[-1] == "line 12000 of many"
    # A line may have begun in what was removed.
    numbers = [int(line.split()[1]) for line in kept[1:]]
    assert numbers == list(range(numbers[0], 12001))
    assert numbers[0] > 1


def test_none_keeps_nothing_and_who_is_attached_hears_all_the_same(machine: Machine) -> None:
    assert machine.sh("echo heard", log_driver="none") == "heard\n"
    container = machine.engine.run(
        RunOptions(image="box", command=("sh", "-c", "echo secret; sleep 9"), detach=True, log_driver="none", name="n")
    ).result()
    with pytest.raises(UsageError, match="keeps no log"):
        command(machine, "logs", "n")
    time.sleep(0.2)
    assert b"secret" not in (container.bundle.path / "journal.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"log_driver": "syslog"}, "syslog"), ({"log_opts": ("max-sise=1k",)}, "unknown log opt"),
        ({"log_opts": ("max-size=x",)}, "invalid size"), ({"log_opts": ("max-file=0",)}, "max-file"),
        ({"log_opts": ("max-buffer-size=1m",)}, "non-blocking"),
    ],
)  # fmt: skip
def test_log_options_that_make_no_sense_are_refused(machine: Machine, options: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        machine.engine.create(RunOptions(image="box", **options))


# --- looking --------------------------------------------------------------------------------------


def test_top_shows_this_machines_view_without_running_anything(machine: Machine) -> None:
    container = machine.start("echo ready; exec sleep 4567", name="t", user="app")
    table = command(machine, "top", "t")
    assert [str(title) for title in table.columns] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    [row] = table.rows
    assert (row[1], row[-1]) == (str(container.pid), "sleep 4567")
    assert command(machine, "top", "t", "-o", "pid,args=WHAT").rows == ((str(container.pid), "sleep 4567"),)
    assert command(machine, "top", "t", "pid", "comm").rows == ((str(container.pid), "sleep"),)
    assert len(command(machine, "top", "t", "aux").rows[0]) == 11
    with pytest.raises(UsageError, match="no such column"):
        command(machine, "top", "t", "colour")


def test_stats_goes_on_and_has_dockers_fields(machine: Machine) -> None:
    container = machine.start(SLEEP, name="s", network="none")
    live = command(machine, "stats")
    assert isinstance(live, Live)
    assert "s" in str(live.look())
    [line] = command(machine, "stats", "--no-stream", "--format", "json").lines
    found = json.loads(line)
    assert (found["Name"], found["ID"], found["NetIO"]) == ("s", container.id[:12], "0B / 0B")
    assert re.fullmatch(r"[\d.]+[KMG]?i?B / [\d.]+[KMG]iB", found["MemUsage"])
    assert re.fullmatch(r"[\d.]+%", found["CPUPerc"])
    machine.engine.stop(container, 5)
    assert command(machine, "stats", "--no-stream", "--format", "{{.Name}}").lines == ()
    assert command(machine, "stats", "-a", "--no-stream", "--format", "{{.CPUPerc}}").lines == ("--",)


def test_ps_tells_health_and_restarts_and_filters_by_them(machine: Machine) -> None:
    machine.start(SLEEP, name="well", health_cmd="true", health_interval="50ms")
    machine.start("echo x; exit 3", name="again", restart="always")
    machine.start(SLEEP, name="plain")
    names = lambda *words: sorted(command(machine, "ps", "--format", "{{.Names}}", *words).lines)  # noqa: E731
    until(lambda: names("--filter", "health=healthy") == ["well"])
    until(lambda: names("--filter", "status=restarting") == ["again"])
    # It runs now and then.
    until(lambda: names("--filter", "health=none", "--filter", "status=running") == ["plain"])
    [status] = command(machine, "ps", "--filter", "name=well", "--format", "{{.Status}}").lines
    assert status.endswith(" (healthy)")
    until(lambda: command(machine, "ps", "--filter", "name=again", "--format", "{{.Status}}").lines[0].startswith(
        "Restarting (3) "))  # fmt: skip
    with pytest.raises(UsageError, match="no such health"):
        names("--filter", "health=good")


# --- waiting, booting, more programs --------------------------------------------------------------


def test_wait_knows_conditions(machine: Machine) -> None:
    container = machine.start("echo ready; sleep 0.3; exit 4", name="w")
    assert command(machine, "wait", "w").lines == ("4",)
    assert command(machine, "wait", "w").lines == ("4",)
    found, options = parse_words("", ["wait", "--condition", "next-exit", "w"])
    task = found.function(machine.engine, options).task  # type: ignore[attr-defined]
    assert not task.wait(0.2)
    machine.engine.start(container)
    assert task.result().lines == ("4",)
    found, options = parse_words("", ["wait", "--condition", "removed", "w"])
    task = found.function(machine.engine, options).task  # type: ignore[attr-defined]
    assert not task.wait(0.2)
    machine.engine.remove_container(container)
    assert task.result().lines == ("4",)
    assert command(machine, "wait", "--ignore", "w").lines == ("-1",)
    with pytest.raises(UsageError, match="no such condition"):
        command(machine, "wait", "--condition", "tired", "w")


def test_boot_starts_what_policies_want_and_removes_what_was_to_be_forgotten(machine: Machine) -> None:
    kept = {
        name: machine.start(SLEEP, name=name, restart=policy)
        for name, policy in (("a", "always"), ("u", "unless-stopped"), ("x", "unless-stopped"), ("f", "on-failure"))
    }
    plain = machine.start(SLEEP, name="p")
    gone = machine.start(SLEEP, name="g", remove=True)
    machine.engine.stop(kept["x"], 5)
    for container in (*kept.values(), plain, gone):
        power_cut(container)
    assert command(machine, "system", "boot").lines == ("a", "u")
    assert sorted(each.name for each in machine.engine.containers(["status=running"])) == ["a", "u"]
    assert "g" not in [each.name for each in machine.engine.containers()]


def power_cut(container: Any) -> None:
    """As after a reboot: nobody holds its lock, nothing of it runs, and nobody has written that down."""
    if container.pid is None:
        return
    os.kill(supervisor_of(container.pid), 9)
    until(lambda: container.status == "lost")


@pytest.mark.parametrize("line", ["export A=1", "A =1", "two words"])
def test_a_variable_of_an_env_file_has_no_whitespace_in_its_name(tmp_path: Path, line: str) -> None:
    (tmp_path / "env").write_text(f"OK=1\n{line}\n")
    with pytest.raises(UsageError, match="contains whitespace"):
        environment_of(RunOptions(image="box", env_file=(str(tmp_path / "env"),)), {})


def test_an_env_file_is_read_past_its_mark_and_value_by_value(tmp_path: Path) -> None:
    """With Windows' byte order mark and line ends; what is in a value, also U+2028, ends no line."""
    (tmp_path / "env").write_bytes("\ufeffA=1\r\nB=x\u2028y\r\n".encode())
    assert environment_of(RunOptions(image="box", env_file=(str(tmp_path / "env"),)), {}) == ("A=1", "B=x\u2028y")


def test_exec_can_be_left_alone_and_told_everything(machine: Machine, tmp_path: Path) -> None:
    machine.start(SLEEP, name="e")
    (tmp_path / "env").write_text("# told\nONE=1\nTWO=2\n")
    assert command(machine, "exec", "-d", "--env-file", str(tmp_path / "env"), "-e", "TWO=3", "e", "sh", "-c",
                   "echo $ONE$TWO > /told; sleep 60") is None  # fmt: skip
    container = machine.engine.container("e")
    until(lambda: machine.execute(container, "cat", "/told")[1] == "13\n")
    assert "sleep 60" in machine.execute(container, "ps")[1]
    caps = lambda *words: re.search(  # noqa: E731
        r"CapEff:\s*([0-9a-f]+)", command(machine, "exec", *words, "e", "cat", "/proc/self/status").stdout
    )[1]  # type: ignore[index]
    assert int(caps(), 16) & int(caps("--privileged"), 16) == int(caps(), 16) < int(caps("--privileged"), 16)


def test_stop_and_restart_take_another_signal(machine: Machine) -> None:
    container = machine.start("trap 'exit 9' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done", name="k")
    command(machine, "restart", "-s", "USR1", "-t", "5", "k")
    assert said(container).count("ready") >= 1
    until(lambda: said(container).count("ready") == 2)
    command(machine, "stop", "--signal", "SIGUSR1", "--timeout", "5", "k")
    assert container.state().exit_code == 9


def test_several_are_stopped_at_once_and_what_fails_stops_none(machine: Machine) -> None:
    for name in ("a", "b", "c"):
        machine.start("trap '' TERM; echo ready; while :; do sleep 0.05; done", name=name)
    began = time.monotonic()
    with pytest.raises(ContainerNotFound) as caught:
        command(machine, "stop", "-t", "1", "a", "nobody", "b", "c")
    assert time.monotonic() - began < 2.5
    assert caught.value.done == ("a", "b", "c")
    assert [each.status for each in machine.engine.containers()] == ["exited"] * 3


def test_who_is_interrupted_while_several_are_stopped_does_not_wait_for_them(machine: Machine) -> None:
    for name in ("a", "b"):
        machine.start("trap '' TERM; echo ready; while :; do sleep 0.05; done", name=name)
    words = [sys.executable, "-m", "nbcontain", "stop", "-t", "60", "a", "b"]
    environ = {**os.environ, "NBCONTAIN_ROOT": str(machine.engine.layout.root)}
    began = time.monotonic()
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environ) as command:
        time.sleep(1.5)
        command.send_signal(signal.SIGINT)
        assert command.wait(10) == 130
    assert time.monotonic() - began < 8
    assert [each.status for each in machine.engine.containers()] == ["running"] * 2


def test_files_about_a_container(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "labels").write_text("# these\nteam=red\nsize=large\n")
    cidfile = tmp_path / "cid"
    container = machine.start("echo ready", cidfile=str(cidfile), label_file=(str(tmp_path / "labels"),),
                              labels=("team=blue",), annotations=("a.b=c",))  # fmt: skip
    assert cidfile.read_text() == container.id
    assert {**container.info.labels} == {"team": "blue", "size": "large"}
    assert container.bundle.spec.annotations["a.b"] == "c"
    with pytest.raises(UsageError, match="is there already"):
        machine.start("echo", cidfile=str(cidfile))
    with pytest.raises(UsageError, match="cannot write"):
        machine.engine.create(RunOptions(image="box", cidfile=str(tmp_path / "none" / "cid")))
    assert len(machine.engine.containers()) == 1


def test_inspect_has_dockers_words_for_what_it_was_asked_to_be(machine: Machine) -> None:
    container = machine.start(
        SLEEP, name="asked", hostname="h", environment=("A=b",), user="5:6", group_add=("7",), read_only=True,
        init=True, ulimits=("nofile=64:128",), shm_size="32m", tmpfs=("/run:size=1m",),
        restart="on-failure:3", network="none",
    )  # fmt: skip
    [document] = json.loads("\n".join(command(machine, "inspect", container.name, "--format", "[{{json .}}]").lines))
    config, host = document["Config"], document["HostConfig"]
    assert (config["Hostname"], config["User"], config["Tty"]) == ("h", "5:6", False)
    assert "A=b" in config["Env"]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert (host["ReadonlyRootfs"], host["Init"], host["GroupAdd"]) == (True, True, ["7"])
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 64, "Hard": 128}]
    assert (host["ShmSize"], list(host["Tmpfs"]), host["NetworkMode"]) == (32 << 20, ["/run"], "none")
    assert (host["PidMode"], host["IpcMode"], host["Memory"]) == ("", "private", 0)
