"""How programs run: exit codes, signals, environment, user, directory, standard streams. Under every profile."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest

from machine import SLEEP, Machine, said, until
from nbcontain.errors import CommandNotExecutable, CommandNotFound, ContainerFailed, SetupFailed, UsageError
from nbcontain.events import Output
from nbcontain.runtime.answered_calls import filter_of
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions
from nbcontain.store.contents import read_contents


@pytest.mark.parametrize("code", [0, 1, 2, 42, 124, 125, 126, 127, 128, 129, 137, 200, 254, 255])
def test_an_exit_code_arrives_as_it_is(profile: str, machine: Machine, code: int) -> None:
    assert machine.exit_code("sh", "-c", f"exit {code}") == code


@pytest.mark.parametrize("name, number", [("HUP", 1), ("INT", 2), ("KILL", 9), ("USR1", 10), ("SEGV", 11)])
def test_a_program_ended_by_a_signal_has_128_and_its_number(
    profile: str, machine: Machine, name: str, number: int
) -> None:
    # A process of its own, since a namespace's first process hears no signal of its own that it has no handler for.
    assert machine.exit_code("sh", "-c", f"sh -c 'kill -{name} $$'; exit $?") == 128 + number


def test_a_first_process_killed_from_outside_has_137(profile: str, machine: Machine) -> None:
    container = machine.start("echo ready; sleep 60")
    container.kill(9)
    assert container.wait(10) == 137


def test_a_program_that_is_not_there_is_127(profile: str, machine: Machine) -> None:
    with pytest.raises(CommandNotFound) as caught:
        machine.run("frobnicate")
    assert caught.value.exit_status == 127
    assert "PATH=/bin" in caught.value.why


def test_a_mask_is_the_programs_and_that_of_further_ones(profile: str, machine: Machine) -> None:
    assert machine.sh("umask; umask -S >/dev/null; touch /x; stat -c %a /x", umask="027") == "0027\n640\n"
    container = machine.start(SLEEP, umask="0077", user="1000" if profile != "rootless-single" else "")
    assert machine.execute(container, "sh", "-c", "umask")[1] == "0077\n"
    with pytest.raises(UsageError, match="no mask"):
        machine.run("true", umask="9")


def test_one_that_has_the_name_makes_way_where_that_is_said(profile: str, machine: Machine) -> None:
    first = machine.start(SLEEP, name="web")
    with pytest.raises(UsageError, match="needs --name"):
        machine.run("true", replace=True)
    with pytest.raises(UsageError):
        machine.run("true", replace=True, name="web", umask="x")
    assert first.status == "running"
    second = machine.start(SLEEP, name="web", replace=True)
    assert second.id != first.id and [each.id for each in machine.engine.containers()] == [second.id]


@pytest.mark.parametrize("program", ["/bin", "/etc/passwd"])
def test_what_is_no_program_is_126(profile: str, machine: Machine, program: str) -> None:
    with pytest.raises(CommandNotExecutable) as caught:
        machine.run(program)
    assert caught.value.exit_status == 126


def test_a_script_without_its_interpreter_is_127_and_the_error_says_so(profile: str, machine: Machine) -> None:
    container = machine.start(r"printf '#!/no/such\n' > /bin/script; chmod +x /bin/script; echo ready; sleep 60")
    with pytest.raises(CommandNotFound, match="script") as caught:
        machine.execute(container, "script")
    assert "interpreter" in caught.value.why


def test_the_environment_is_the_images_with_what_was_given(profile: str, machine: Machine) -> None:
    given = ("A=1", "GREETING=moin", "EMPTY=", "EQUALS=a=b", "OF_OURS")
    lines = machine.sh("env", environment=given, hostname="box").splitlines()
    wanted = {"PATH=/bin", "GREETING=moin", "A=1", "EMPTY=", "EQUALS=a=b", "HOME=/root", "HOSTNAME=box"}
    assert wanted <= set(lines)
    of_the_shell = {"PWD", "SHLVL", "OLDPWD"}
    assert {line.split("=")[0] for line in lines} - of_the_shell == {each.split("=")[0] for each in wanted}


def test_a_variable_that_is_called_hostname_is_left_as_it_was_given(machine: Machine) -> None:
    """Images say by it where to listen (ENV HOSTNAME=0.0.0.0)."""
    assert machine.sh("echo $HOSTNAME; hostname", environment=("HOSTNAME=0.0.0.0",), hostname="box") == "0.0.0.0\nbox\n"


def test_a_bare_name_passes_the_callers_variable_on(
    profile: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_OURS", "ours")
    assert machine.sh("echo $OF_OURS", environment=("OF_OURS",)) == "ours\n"
    assert machine.sh("hostname", network=("host",)) == f"{os.uname().nodename}\n"
    # What is named and not to be had here takes the image's own away, as with docker.
    assert machine.sh("echo $GREETING-", environment=("GREETING",)) == "-\n"


def test_the_host_name_is_the_id_or_what_was_asked(profile: str, machine: Machine) -> None:
    container = machine.start("hostname; cat /etc/hostname; sleep 60")
    until(lambda: said(container).count("\n") == 2)
    assert said(container) == f"{container.id[:12]}\n" * 2
    assert machine.sh("hostname; grep -c box.example /etc/hosts", hostname="box.example") == "box.example\n1\n"


def test_the_working_directory_is_made_if_it_is_missing(profile: str, machine: Machine) -> None:
    assert machine.sh("pwd", workdir="/srv/deep/down") == "/srv/deep/down\n"
    assert machine.sh("pwd") == "/\n"


def test_a_relative_working_directory_is_refused(profile: str, machine: Machine) -> None:
    with pytest.raises(UsageError, match="not absolute"):
        machine.run("true", workdir="srv")


# --- users ----------------------------------------------------------------------------------------

IDENTITY = "id -u; id -g; id -G; echo $HOME"
needs_ids = "this user has one id only, and nobody can answer for the kernel: others are only pretended"


@pytest.mark.parametrize(
    "user, expected",
    [
        ("app", "1000\n1001\n1001 29 50\n/home/app\n"),
        ("1000", "1000\n1001\n1001 29 50\n/home/app\n"),
        ("app:staff", "1000\n50\n50\n/home/app\n"),
        ("app:77", "1000\n77\n77\n/home/app\n"),
        ("4242", "4242\n0\n0\n/\n"),
        ("4242:4243", "4242\n4243\n4243\n/\n"),
        ("7", "7\n0\n0\n/\n"),  # a number is an id, also where somebody is called that (CVE-2016-3697)
        (":staff", "0\n50\n50\n/root\n"),
    ],
    ids=lambda text: text if "\n" not in text else "",
)
def test_a_user_is_found_by_name_and_number_in_the_images_own_files(
    profile: str, machine: Machine, user: str, expected: str
) -> None:
    if machine.engine.profile.rung.ids == "blind":
        pytest.skip(needs_ids)
    found = machine.sh(IDENTITY, user=user).splitlines()
    wanted = expected.splitlines()
    assert (found[:2], set(found[2].split()), found[3]) == (wanted[:2], set(wanted[2].split()), wanted[3])


def test_root_has_no_groups_of_the_hosts(profile: str, machine: Machine) -> None:
    groups = set(machine.sh("id -G").split())
    # A map of one id denies setgroups(2); those that are not mapped show as the overflow group.
    assert groups <= ({"0", "65534"} if profile == "rootless-single" else {"0"})


def test_where_there_is_one_id_another_user_is_kept_in_mind(profile: str, machine: Machine) -> None:
    if profile != "rootless-single":
        pytest.skip("here other users exist")
    if machine.engine.profile.rung.ids != "notify":
        pytest.skip("this kernel lets nobody answer for it")
    assert machine.sh("id -u; id -g", user="app") == "1000\n1001\n"
    # It has none of root's powers, and does not come back.
    script = "chown 0 /bin 2> /dev/null || echo refused; su -c true 2> /dev/null || echo stays"
    assert machine.sh(script, user="app") == "refused\nstays\n"
    assert machine.run("grep", "^CapEff", "/proc/self/status", user="app").stdout.split()[1] == f"{0:016x}"


def made_for(machine: Machine, answers: str) -> Container:
    """One that is made as where these calls are answered for the kernel: its record and its filter say so."""
    command = ("sh", "-c", "id -u; su app -c 'echo told' 2> /dev/null; grep ^CapEff /proc/self/status; touch /made")
    path = machine.engine.create(RunOptions(image="box", command=command, user="app", name="other")).bundle.path
    document = json.loads((path / "container.json").read_text())
    (path / "container.json").write_text(json.dumps({**document, "answers": answers}))
    (path / "answers.bpf").unlink()
    if answers:
        (path / "answers.bpf").write_bytes(filter_of(answers, os.uname().machine))
    return machine.engine.container("other")


def test_where_users_are_only_pretended_they_are_all_root_without_power(profile: str, machine: Machine) -> None:
    if profile != "rootless-single":
        pytest.skip("here other users exist")
    container = made_for(machine, "blind")
    machine.engine.start(container)
    assert container.wait(30) == 0
    assert said(container).split() == ["0", "told", "CapEff:", f"{0:016x}"]
    # What such a program makes is its user's all the same.
    committed = machine.engine.archives.commit(container, "made").result()
    found = read_contents(machine.engine.store.blobs, committed.layers[-1], lambda count: None)
    made = dict(found.entries)[b"made"]
    assert (made.uid, made.gid) == (1000, 1001)


def test_where_nobody_answers_another_user_is_refused_with_a_reason(profile: str, machine: Machine) -> None:
    if profile != "rootless-single":
        pytest.skip("here other users exist")
    container = made_for(machine, "")
    with pytest.raises(SetupFailed, match="cannot become user app") as caught:
        machine.engine.start(container)
    assert "ids" in caught.value.why


def test_a_user_that_nobody_knows_is_refused(profile: str, machine: Machine) -> None:
    with pytest.raises(SetupFailed, match="there is no user 'nemo'"):
        machine.run("true", user="nemo")


def test_a_user_may_write_to_its_own_standard_streams(profile: str, machine: Machine) -> None:
    if machine.engine.profile.rung.ids == "blind":
        pytest.skip(needs_ids)
    assert machine.sh("echo there > /dev/stdout; echo also > /proc/self/fd/1", user="app") == "there\nalso\n"


# --- standard streams -----------------------------------------------------------------------------


def test_standard_input_is_empty_unless_asked_for(profile: str, machine: Machine) -> None:
    assert machine.sh("cat; echo end") == "end\n"


def test_standard_input_is_handed_through_on_request(profile: str, machine: Machine) -> None:
    environ = {**os.environ, "NBCONTAIN_ROOT": str(machine.engine.layout.root)}
    command = [sys.executable, "-m", "nbcontain", "run", "--rm", "-i", "box", "sha256sum"]
    data = os.urandom(3_000_000)
    done = subprocess.run(command, env=environ, input=data, capture_output=True, timeout=30, check=True)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest()


def test_the_two_streams_arrive_apart_and_in_order(profile: str, machine: Machine) -> None:
    # Two pipes have no common clock: what comes within a few milliseconds may change places.
    script = "for i in $(seq 8); do echo o$i; sleep 0.05; echo e$i >&2; sleep 0.05; done"
    result = machine.run("sh", "-c", script)
    assert result.stdout.split() == [f"o{n}" for n in range(1, 9)]
    assert result.stderr.split() == [f"e{n}" for n in range(1, 9)]
    assert str(result).split() == [word for n in range(1, 9) for word in (f"o{n}", f"e{n}")]


def test_ten_megabytes_arrive_without_a_loss(profile: str, machine: Machine) -> None:
    result = machine.run("sh", "-c", "seq 1500000 | head -c 10000000 | tee /dev/stderr")
    everything = "".join(f"{n}\n" for n in range(1, 1_500_001))[:10_000_000]
    # Not `==` at once: pytest would draw the difference of two texts of 10 MB.
    assert (len(result.stdout), len(result.stderr)) == (10_000_000, 10_000_000)
    assert all(text == everything for text in (result.stdout, result.stderr))


def test_output_is_bytes_and_not_text(profile: str, machine: Machine) -> None:
    task = machine.engine.run(RunOptions(image="box", command=("printf", r"\377\000\n\r\033[1m"), remove=True))
    result = task.result()
    assert b"".join(each.data for each in result.output) == b"\xff\x00\n\r\x1b[1m"  # type: ignore[union-attr]


def test_what_a_failed_program_wrote_is_in_the_journal(profile: str, machine: Machine) -> None:
    task = machine.engine.run(RunOptions(image="box", command=("sh", "-c", "echo no; exit 3"), remove=True))
    with pytest.raises(ContainerFailed):
        task.result()
    events = [record.event for record in task.journal.read()]
    assert [event.data for event in events if isinstance(event, Output)] == [b"no\n"]


def test_ignored_signals_are_not_inherited(profile: str, machine: Machine) -> None:
    ignored = machine.run("grep", "-E", "Sig(Ign|Blk)", "/proc/self/status").stdout.split()
    # 32 and 33 are the C library's own, which it lets nobody set; a program started by posix_spawn may ignore them.
    own = 1 << 31 | 1 << 32
    assert [int(mask, 16) & ~own for mask in ignored[1::2]] == [0, 0]


# --- exec -----------------------------------------------------------------------------------------


def test_a_further_program_runs_in_the_same_container(profile: str, machine: Machine) -> None:
    container = machine.start("echo mine > /mark; " + SLEEP, hostname="box", environment=("A=1",))
    assert machine.execute(container, "cat", "/mark") == (0, "mine\n")
    assert machine.execute(container, "hostname") == (0, "box\n")
    assert machine.execute(container, "sh", "-c", "echo $A $B; pwd", env=("B=2",), cwd="/etc") == (0, "1 2\n/etc\n")
    # Only for the first program it is made.
    with pytest.raises(SetupFailed, match="cannot use /nowhere as the working directory"):
        machine.execute(container, "pwd", cwd="/nowhere")
    assert machine.execute(container, "sh", "-c", "exit 9") == (9, "")
    assert machine.execute(container, "sh", "-c", "kill -KILL $$") == (137, "")
    _, seen = machine.execute(container, "ps")
    assert "while :; do sleep" in seen
    spaces = "for n in mnt pid ipc uts net user cgroup; do readlink /proc/{}/ns/$n; done"
    mine = machine.execute(container, "sh", "-c", spaces.replace("{}", "self"))[1]
    assert mine == machine.execute(container, "sh", "-c", spaces.replace("{}", "1"))[1]


def test_a_further_program_that_is_not_there_is_an_error_of_its_own(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP)
    with pytest.raises(CommandNotFound):
        machine.execute(container, "frobnicate")
    assert container.status == "running"


def test_a_further_program_can_be_another_user(profile: str, machine: Machine) -> None:
    if machine.engine.profile.rung.ids == "blind":
        pytest.skip(needs_ids)
    container = machine.start(SLEEP)
    assert machine.execute(container, "id", "-un", user="app") == (0, "app\n")
