"""What the runtime specification says that a runtime MUST do, as far as one can see it (runtime.md, config.md).

Each test names the clause. With NBCONTAIN_SOAK crun and runc are asked too: what they do otherwise is in `DEVIATIONS`.
"""

from __future__ import annotations

import array
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundles import OURS, Bundle, Deviation, Runtime
from machine import until

DEVIATIONS = {
    "test_only_what_has_stopped_is_deleted[runc]": Deviation(
        "runc 1.1 deletes what is only created", r"assert 0 != 0(?s:.*)'delete', 'test-"
    ),
    "test_only_what_has_stopped_is_deleted[crun]": Deviation(
        "crun 1.8 deletes what is only created", r"assert 0 != 0(?s:.*)'delete', 'test-"
    ),
    "test_an_id_is_no_path[crun-a b]": Deviation(
        "crun 1.8 takes an id with a blank in it", r"assert 0 != 0(?s:.*), 'a b'\], returncode=0"
    ),
    "test_hooks_are_run_in_their_order_where_they_belong[crun]": Deviation(
        "crun 1.8 tells startContainer hooks a state of its own, where the container is in one that there is",
        r"assert 'starting' in \('created', 'creating'\)",
    ),
    "test_hooks_are_run_in_their_order_where_they_belong[runc]": Deviation(
        "runc 1.1 runs poststart hooks at the end of create (opencontainers/runc#4347)",
        r"== \['prestart'(?s:.*)Left contains one more item: 'poststart'",
    ),
    "test_time_namespaces_have_their_own_clocks[runc]": Deviation(
        "runc 1.1 knows no time namespaces", r'namespace \{\\"time\\" \\"\\"\} does not exist'
    ),
    "test_time_namespaces_have_their_own_clocks[crun]": Deviation(
        "crun 1.8 forks once more to be in it, and the first process of its new pid namespace ends: so all in that do",
        r"^crun run [^:]*: (write to sync socket: (Connection reset by peer|Broken pipe))?\s*\Z",
    ),
    "test_a_user_namespace_may_be_joined[runc]": Deviation(
        "runc 1.1 wants id mappings of a namespace that has its own",
        "User namespaces enabled, but no uid mappings found",
    ),
    "test_devices_are_used_as_they_are_allowed[runc]": Deviation(
        "runc 1.1 allows /dev/net/tun to everybody", r"Extra items in the left set:\s*'tun unwritable'\s*$"
    ),
    "test_a_weight_that_the_kernel_has_no_file_for_hinders_nothing[crun]": Deviation(
        "crun 1.8 refuses it", "opening file `blkio.weight` for writing: No such file or directory"
    ),
    "test_the_machine_may_be_a_smaller_one[runc]": Deviation(
        "runc 1.1 knows no personality", r"assert 'x86_64\\n' == 'i686\\n'"
    ),
    "test_the_root_may_be_shared[runc]": Deviation(
        "runc 1.1 does not make the root itself shared", r"^shared\nassert 'shared:' in '"
    ),
    "test_a_further_program_has_the_groups_it_is_given_and_a_control_group_that_is_there[crun]": Deviation(
        "crun 1.8 has no such option", "crun exec .*: exec: unrecognized option '--additional-gids'"
    ),
}
"""What peers do otherwise than the specification wants, by the name of the test: each is asserted (conftest.py)."""


def test_only_peers_deviate_and_only_from_tests_that_there_are() -> None:
    names = [re.fullmatch(r"(test_\w+)\[(crun|runc)(-.*)?\]", name) for name in DEVIATIONS]
    assert all(name and callable(globals().get(name[1])) for name in names)


# --- runtime.md: operations and state ---------------------------------------------------------------


def test_a_life_has_its_states(runtime: Runtime, bundle: Bundle) -> None:
    bundle.config["annotations"] = {"org.example.key": "value"}
    bundle.sh("echo begun; sleep 100")
    runtime.create(bundle)
    state = json.loads(runtime("state", bundle.name).stdout)
    # The version of the specification that the runtime keeps to: of the major one that the bundle asks for.
    assert state["ociVersion"].startswith("1.") and (runtime.name != OURS or state["ociVersion"] == "1.0.2")
    assert state["id"] == bundle.name
    assert state["status"] == "created"
    assert state["bundle"] == str(bundle.path)
    assert state["annotations"]["org.example.key"] == "value"
    assert Path(f"/proc/{state['pid']}").exists()
    # "the user-specified program MUST NOT be run at this time"
    assert (bundle.path / "said").read_text() == ""
    runtime("start", bundle.name)
    assert runtime.status(bundle.name) == "running"
    until(lambda: (bundle.path / "said").read_text() == "begun\n")
    # "attempting to start a container that is not created MUST have no effect and MUST generate an error"
    assert runtime("start", bundle.name, check=False).returncode != 0
    assert runtime("delete", bundle.name, check=False).returncode != 0
    runtime("kill", bundle.name, "KILL")
    runtime.await_status(bundle.name, "stopped")
    assert runtime("kill", bundle.name, "KILL", check=False).returncode != 0
    assert runtime("start", bundle.name, check=False).returncode != 0
    runtime("delete", bundle.name)
    for words in (["state"], ["start"], ["kill"], ["delete"]):
        assert runtime(*words, bundle.name, check=False).returncode != 0
        assert runtime(*words, check=False).returncode != 0
    runtime.create(bundle)  # "once a container is deleted its ID MAY be used"
    runtime("delete", "--force", bundle.name)


def test_only_what_has_stopped_is_deleted(runtime: Runtime, bundle: Bundle) -> None:
    runtime.create(bundle.sh("true"))
    assert runtime("delete", bundle.name, check=False).returncode != 0
    assert runtime.status(bundle.name) == "created"


def test_an_id_is_unique(runtime: Runtime, bundle: Bundle) -> None:
    runtime.create(bundle.sh("sleep 100"))
    assert runtime.create(bundle, check=False).returncode != 0
    assert runtime.status(bundle.name) == "created"


@pytest.mark.parametrize("name", ["../x", "a/b", "", "..", "a b"])
def test_an_id_is_no_path(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.name = name
    assert runtime.create(bundle.sh("true"), check=False).returncode != 0


def test_what_is_changed_in_the_bundle_later_has_no_effect(runtime: Runtime, bundle: Bundle) -> None:
    runtime.create(bundle.sh("echo first"))
    bundle.sh("echo second")
    runtime("start", bundle.name)
    until(lambda: (bundle.path / "said").read_text() == "first\n")


def test_what_cannot_be_made_leaves_nothing(runtime: Runtime, bundle: Bundle) -> None:
    bundle.mount("/data", "bind", "/nothing/is/here", "bind")
    bundle.sh("true")
    assert runtime.create(bundle, check=False).returncode != 0
    assert runtime("state", bundle.name, check=False).returncode != 0
    assert not list(Path("/sys/fs/cgroup").glob(f"*/nbcontain-tests/{bundle.name}"))


def test_a_delete_leaves_no_group(runtime: Runtime, bundle: Bundle) -> None:
    runtime.create(bundle.sh("true"))
    assert list(Path("/sys/fs/cgroup").glob(f"*/nbcontain-tests/{bundle.name}"))
    runtime("delete", "--force", bundle.name)
    assert not list(Path("/sys/fs/cgroup").glob(f"*/nbcontain-tests/{bundle.name}"))


def test_a_signal_reaches_the_program(runtime: Runtime, bundle: Bundle) -> None:
    bundle.sh("trap 'echo got it; exit' USR1; echo ready; while :; do sleep 0.05; done")
    runtime.create(bundle)
    runtime("start", bundle.name)
    until(lambda: "ready" in (bundle.path / "said").read_text())
    runtime("kill", bundle.name, "USR1")
    until(lambda: "got it" in (bundle.path / "said").read_text())


def test_a_run_ends_as_its_program_does(runtime: Runtime, bundle: Bundle) -> None:
    assert runtime("run", "-b", str(bundle.sh("exit 42").path), bundle.name, check=False).returncode == 42
    assert runtime("state", bundle.name, check=False).returncode != 0


@pytest.mark.parametrize("program", ["nothing", "/bin/nothing", "/etc"])
def test_a_program_that_is_not_there_is_told_at_once(runtime: Runtime, bundle: Bundle, program: str) -> None:
    bundle.process["args"] = [program]
    bundle.written()
    assert runtime.create(bundle, check=False).returncode != 0
    assert runtime("state", bundle.name, check=False).returncode != 0


# --- config.md: root, process -----------------------------------------------------------------------


def test_the_process_is_as_it_is_said(runtime: Runtime, bundle: Bundle) -> None:
    bundle.process |= {
        "cwd": "/tmp", "env": ["PATH=/bin", "A=b c", "B="],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}],
        "user": {"uid": 5, "gid": 6, "additionalGids": [7, 8], "umask": 0o27}, "oomScoreAdj": 100,
        "noNewPrivileges": True,
    }  # fmt: skip
    bundle.config |= {"hostname": "myhost"}
    said = runtime.run(
        bundle.sh(
            "pwd; echo $A; id -u; id -g; id -G; umask; ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; hostname; "
            "grep NoNewPrivs /proc/self/status; env | sort | grep ^[AB]="
        )
    ).split("\n")
    assert said[:4] == ["/tmp", "b c", "5", "6"]
    assert {*said[4].split()} == {"6", "7", "8"}
    assert said[5:-1] == ["0027", "77", "88", "100", "myhost", "NoNewPrivs:\t1", "A=b c", "B="]


def test_the_five_sets_of_capabilities(runtime: Runtime, bundle: Bundle) -> None:
    bits = {"CHOWN": 0, "KILL": 5, "SETUID": 7, "NET_BIND_SERVICE": 10, "NET_RAW": 13}
    every = [f"CAP_{name}" for name in bits]
    bundle.process["capabilities"] = {
        "bounding": every, "permitted": every[:4], "effective": every[:4], "inheritable": every[2:4],
        "ambient": every[2:3],
    }  # fmt: skip
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    lines = runtime.run(bundle.sh("grep ^Cap /proc/self/status")).split()
    sets = {name: int(value, 16) for name, value in zip(lines[::2], lines[1::2], strict=True)}
    assert sets["CapBnd:"] == sum(1 << bit for bit in bits.values())
    assert sets["CapInh:"] == 1 << 7 | 1 << 10
    assert sets["CapAmb:"] == sets["CapPrm:"] == sets["CapEff:"] == 1 << 7


def test_root_may_have_less_in_effect_than_in_its_bounding_set(runtime: Runtime, bundle: Bundle) -> None:
    bundle.process["capabilities"] = {"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]}
    said = runtime.run(bundle.sh("grep ^Cap /proc/self/status"))
    assert "CapPrm:\t0000000000000001\nCapEff:\t0000000000000001" in said


def test_a_capability_that_there_is_not_is_only_warned_of(runtime: Runtime, bundle: Bundle) -> None:
    if runtime.name == "crun":
        pytest.skip("crun 1.8 refuses")
    bundle.process["capabilities"]["bounding"].append("CAP_OF_TOMORROW")
    assert runtime.run(bundle.sh("echo fine")) == "fine\n"


def test_the_root_may_be_read_only(runtime: Runtime, bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True
    assert "Read-only" in runtime.run(bundle.sh("touch /new 2>&1; touch /dev/new && echo made"))


def test_preserved_descriptors_reach_the_program_and_no_others(runtime: Runtime, bundle: Bundle) -> None:
    bundle.sh("cat <&3; for each in /proc/self/fd/*; do echo ${each##*/}; done | sort -n | tr '\\n' ' '")
    reading, writing = os.pipe()
    os.write(writing, b"from three\n")
    os.close(writing)
    command = [*runtime.words("run", "-b", str(bundle.path), "--preserve-fds", "1", bundle.name)]
    program = f"import os,sys; os.dup2({reading}, 3); os.execvp(sys.argv[1], sys.argv[1:])"


    done = subprocess.run([sys.executable, "-c", program, *command], pass_fds=[reading, 3] if reading != 3 else [3],
                          capture_output=True, text=True, check=True)  # fmt: skip
    os.close(reading)
    first, second = done.stdout.split("\n", 1)
    assert first == "from three"
    assert {*second.split()} - {"0", "1", "2", "3"} <= {"4", "5", "10"}, "the shell's own"


def test_a_pid_file_says_its_pid(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    runtime.create(bundle.sh("sleep 100"), "--pid-file", str(tmp_path / "pid"))
    assert int((tmp_path / "pid").read_text()) == json.loads(runtime("state", bundle.name).stdout)["pid"]


def received(listener: socket.socket, timeout_s: float = 20) -> tuple[bytes, int]:
    """What comes, with its descriptor."""
    assert select.select([listener], [], [], timeout_s)[0]
    end, _ = listener.accept()
    with end:
        data, ancillary, _, _ = end.recvmsg(1 << 16, socket.CMSG_SPACE(4 * 4))
    fds = array.array("i", ancillary[0][2])
    return data, fds[0]


@pytest.fixture
def listener(directory: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(directory / "socket"))
    made.listen()
    return made


def test_the_terminal_goes_to_the_console_socket(runtime: Runtime, bundle: Bundle, listener: socket.socket) -> None:
    bundle.process |= {"terminal": True, "consoleSize": {"height": 33, "width": 77}}
    bundle.sh("tty; stty size; ls -l /dev/console | cut -c1-10; read line; echo got $line")
    runtime.create(bundle, "--console-socket", listener.getsockname())
    _, master = received(listener)
    runtime("start", bundle.name)
    os.write(master, b"typed\n")
    said = b""
    while b"got typed" not in said:
        assert select.select([master], [], [], 20)[0]
        said += os.read(master, 4096)
    assert b"/dev/pts/0" in said
    assert b"33 77" in said
    os.close(master)
    listener.close()


# --- config.md: hooks -------------------------------------------------------------------------------

HOOK = """#!/bin/sh
read state
echo "$1 $(readlink /proc/self/ns/mnt) $(cat /proc/self/mountinfo | grep -c '/inside ') $state" >> {said}
"""


@pytest.fixture
def hooked(bundle: Bundle) -> Callable[..., None]:
    """Has the bundle run hooks that write down what they see."""
    program, said = bundle.path / "hook", bundle.path / "hooks"
    program.write_text(HOOK.format(said=said))
    program.chmod(0o755)
    shutil_into = bundle.root / "hook"
    shutil_into.write_text(HOOK.format(said="/tmp/hooks"))
    shutil_into.chmod(0o755)

    def add(*names: str) -> None:
        for name in names:
            path = "/hook" if name == "startContainer" else str(program)
            hook = {"path": path, "args": ["hook", name], "env": ["PATH=/bin:/usr/bin"]}
            bundle.config.setdefault("hooks", {}).setdefault(name, []).append(hook)

    return add


def test_hooks_are_run_in_their_order_where_they_belong(
    runtime: Runtime, bundle: Bundle, hooked: Callable[..., None]
) -> None:
    bundle.mount("/inside", "tmpfs", "tmpfs")
    hooked("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    runtime.create(bundle.sh("sleep 100"))
    own = os.readlink("/proc/self/ns/mnt")
    rows = [line.split(" ", 3) for line in (bundle.path / "hooks").read_text().splitlines()]
    assert [row[0] for row in rows] == ["prestart", "createRuntime", "createContainer"]
    pid = json.loads(runtime("state", bundle.name).stdout)["pid"]
    inside = os.readlink(f"/proc/{pid}/ns/mnt")
    assert [row[1] == inside for row in rows] == [False, False, True]
    assert rows[2][2] == "1", "the mounts are there"
    for row in rows:
        state = json.loads(row[3])
        assert state["id"] == bundle.name
        assert state["bundle"] == str(bundle.path)
        assert state["status"] in ("creating", "created")
    assert json.loads(rows[0][3])["pid"] == pid
    assert not (bundle.root / "tmp" / "hooks").exists()
    runtime("start", bundle.name)
    inside_said = bundle.root / "tmp" / "hooks"
    if runtime.name != OURS:  # crun may come back from start before it has run this hook (containers/crun#1562)
        until(lambda: inside_said.exists() and inside_said.read_text().endswith("\n"))
    assert json.loads(inside_said.read_text().split(" ", 3)[3])["status"] in ("created", "creating")
    rows = [line.split(" ", 3) for line in (bundle.path / "hooks").read_text().splitlines()][3:]
    assert [row[0] for row in rows] == ["poststart"]
    assert json.loads(rows[0][3])["status"] == "running"
    runtime("kill", bundle.name, "KILL")
    runtime.await_status(bundle.name, "stopped")
    runtime("delete", bundle.name)
    last = (bundle.path / "hooks").read_text().splitlines()[-1].split(" ", 3)
    assert last[0] == "poststop"
    assert json.loads(last[3])["status"] == "stopped"
    assert own != inside


@pytest.mark.parametrize("name", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_ends_the_creation(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.config["hooks"] = {name: [{"path": "/bin/false"}]}
    assert runtime.create(bundle.sh("true"), check=False).returncode != 0
    assert runtime("state", bundle.name, check=False).returncode != 0


def test_a_hook_has_its_time(runtime: Runtime, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "30"], "timeout": 1}]}
    assert runtime.create(bundle.sh("true"), check=False).returncode != 0


def test_a_poststop_hook_that_fails_hinders_nothing(runtime: Runtime, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"poststop": [{"path": "/bin/false"}]}
    runtime.create(bundle.sh("true"))
    runtime("start", bundle.name)
    runtime.await_status(bundle.name, "stopped")
    runtime("delete", bundle.name)
    assert runtime("state", bundle.name, check=False).returncode != 0


# --- config.md: mounts ------------------------------------------------------------------------------


def test_mounts_come_in_their_order_with_their_options(runtime: Runtime, bundle: Bundle, directory: Path) -> None:
    (directory / "data").mkdir()
    (directory / "data" / "file").write_text("content")
    bundle.mount("/a", "tmpfs", "tmpfs", "nosuid", "size=1m", "mode=700")
    bundle.mount("/a/b/c", "bind", directory / "data", "rbind", "ro", "noexec")
    bundle.mount("/file", "bind", directory / "data" / "file", "bind")
    script = "cat /a/b/c/file /file; touch /a/b/c/x || echo ' refused'; stat -c %a /a"
    said = runtime.run(bundle.sh(f"grep ' /a' /proc/self/mountinfo; {script}"))
    *mounts, last, mode = said.splitlines()
    options = {line.split()[4]: line for line in mounts}
    assert "nosuid" in options["/a"].split()[5]
    assert "size=1024k" in options["/a"]
    assert {"ro", "noexec"} <= {*options["/a/b/c"].split()[5].split(",")}
    assert (last, mode) == ("contentcontent refused", "700")


@pytest.mark.parametrize(
    ("word", "seen"),
    [("rprivate", False), ("rslave", True), ("rshared", True)],
)
def test_mounts_of_the_host_come_in_as_the_propagation_says(
    runtime: Runtime, bundle: Bundle, directory: Path, word: str, seen: bool
) -> None:
    place = directory / "shared"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "t", place], check=True)
    try:
        subprocess.run(["mount", "--make-shared", place], check=True)
        (place / "sub").mkdir()
        bundle.linux["rootfsPropagation"] = "rshared" if word == "rshared" else "rslave"
        bundle.mount("/data", "bind", place, "rbind", word)
        bundle.sh("while ! test -e /tmp/go; do sleep 0.02; done; ls /data/sub; echo end")
        # Without the view of control groups, whose namespace nothing gets into.
        with (bundle.path / "said").open("wb") as said:
            words = runtime.words("create", "-b", str(bundle.path), bundle.name)
            subprocess.run([*words[:3], "unchanged", *words[4:]], stdout=said, stderr=said, check=True)
        runtime("start", bundle.name)
        subprocess.run(["mount", "-t", "tmpfs", "late", place / "sub"], check=True)
        (place / "sub" / "late").touch()
        (bundle.root / "tmp" / "go").touch()
        until(lambda: "end" in (bundle.path / "said").read_text())
        assert ("late" in (bundle.path / "said").read_text()) == seen
    finally:
        subprocess.run(["umount", "-R", place], check=True)


def test_read_only_may_reach_all_mounts_below(runtime: Runtime, bundle: Bundle, directory: Path) -> None:
    place = directory / "deep"
    (place / "sub").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "t", place / "sub"], check=True)
    try:
        bundle.mount("/flat", "bind", place, "rbind", "ro")
        bundle.mount("/deep", "bind", place, "rbind", "rro")
        script = "for each in /flat /flat/sub /deep /deep/sub; do touch $each/x 2>/dev/null && echo $each; done"
        assert runtime.run(bundle.sh(f"{script}; true")).split() == ["/flat/sub"]
    finally:
        subprocess.run(["umount", place / "sub"], check=True)


def test_a_tmpfs_may_begin_with_what_was_there(runtime: Runtime, bundle: Bundle) -> None:
    (bundle.root / "etc" / "file").write_text("as it was\n")
    (bundle.root / "etc" / "link").symlink_to("file")
    os.chown(bundle.root / "etc" / "file", 3, 4)
    bundle.mount("/etc", "tmpfs", "tmpfs", "tmpcopyup")
    said = runtime.run(bundle.sh("cat /etc/link; stat -c %u:%g /etc/file; echo new > /etc/file"))
    assert said == "as it was\n3:4\n"
    assert (bundle.root / "etc" / "file").read_text() == "as it was\n"


def test_a_mount_may_show_other_ids(runtime: Runtime, bundle: Bundle, directory: Path) -> None:
    if runtime.name == "runc":
        pytest.skip("runc 1.1 has no mounts with maps of ids")
    (directory / "data").mkdir()
    ids = [{"containerID": 0, "hostID": 1000, "size": 10}]
    bundle.mount("/data", "bind", directory / "data", "bind", "idmap", uidMappings=ids, gidMappings=ids)
    assert runtime.run(bundle.sh("stat -c %u:%g /data")) == "1000:1000\n"


# --- config-linux.md --------------------------------------------------------------------------------


def test_the_file_systems_that_there_must_be(runtime: Runtime, bundle: Bundle) -> None:
    """config-linux.md#default-filesystems, #default-devices, #dev-symbolic-links."""
    script = (
        "for each in /proc /sys /dev/pts /dev/shm; do grep -q \" $each \" /proc/self/mountinfo || echo no $each; done; "
        "stat -c '%n %F %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; "
        "for each in fd stdin stdout stderr ptmx; do readlink /dev/$each; done"
    )
    assert runtime.run(bundle.sh(script)).splitlines() == [
        *(f"/dev/{name} character special file {number} 666" for name, number in [
            ("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0"),
        ]),
        "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx",
    ]  # fmt: skip


def test_namespaces_are_new_or_the_machines_or_those_of_a_path(
    runtime: Runtime, bundle: Bundle, make: Callable[[], Bundle]
) -> None:
    bundle.without("ipc")
    script = "for each in pid net ipc uts mnt cgroup; do readlink /proc/self/ns/$each; done; sleep 100"
    runtime.create(bundle.sh(script))
    runtime("start", bundle.name)
    until(lambda: len((bundle.path / "said").read_text().split()) == 6)
    names = ("pid", "net", "ipc", "uts", "mnt", "cgroup")
    first = dict(zip(names, (bundle.path / "said").read_text().split(), strict=True))
    machines = {name: os.readlink(f"/proc/self/ns/{name}") for name in names}
    assert {name for name in names if first[name] == machines[name]} == {"ipc"}
    pid = json.loads(runtime("state", bundle.name).stdout)["pid"]
    second = make()
    for each in second.linux["namespaces"]:
        if each["type"] in ("pid", "network", "ipc", "uts"):
            each["path"] = f"/proc/{pid}/ns/{'net' if each['type'] == 'network' else each['type']}"
    second.config.pop("hostname")
    said = dict(zip(names, runtime.run(second.sh(script.removesuffix("; sleep 100"))).split(), strict=True))
    assert {name for name in names if said[name] == first[name]} == {"pid", "net", "ipc", "uts"}


def test_time_namespaces_have_their_own_clocks(runtime: Runtime, bundle: Bundle) -> None:
    if runtime.name == "crun" and Path("/proc/2").exists() and Path("/proc/2/comm").read_text() != "kthreadd\n":
        pytest.skip("crun 1.8 kills process 2 of the namespace that it is called in, where it means its own")
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 1_000_000, "nanosecs": 0}, "monotonic": {"secs": 5}}
    assert float(runtime.run(bundle.sh("cat /proc/uptime")).split()[0]) > 1_000_000


def test_user_namespaces_have_their_maps(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = [
        {"containerID": 0, "hostID": 100000, "size": 1000}, {"containerID": 2000, "hostID": 300000, "size": 5},
    ]  # fmt: skip
    bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 200000, "size": 2000}]
    subprocess.run(["chown", "-R", "100000:200000", bundle.root], check=True)
    bundle.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [9]}
    script = "cat /proc/self/uid_map /proc/self/gid_map; id -G; stat -c %u:%g /bin; echo x > /dev/null && touch /new"
    said = runtime.run(bundle.sh(script)).splitlines()
    assert [line.split() for line in said[:3]] == [
        ["0", "100000", "1000"], ["2000", "300000", "5"], ["0", "200000", "2000"],
    ]  # fmt: skip
    assert {*said[3].split()} == {"0", "9"}
    assert said[4] == "0:0"
    assert os.stat(bundle.root / "new").st_uid == 100000


def test_a_user_namespace_may_be_joined(runtime: Runtime, bundle: Bundle, make: Callable[[], Bundle]) -> None:
    ids = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux |= {"uidMappings": ids, "gidMappings": ids}
    subprocess.run(["chown", "-R", "100000:100000", bundle.root], check=True)
    runtime.create(bundle.sh("sleep 100"))
    pid = json.loads(runtime("state", bundle.name).stdout)["pid"]
    second = make()
    subprocess.run(["chown", "-R", "100000:100000", second.root], check=True)
    second.linux["namespaces"].append({"type": "user", "path": f"/proc/{pid}/ns/user"})
    for each in second.linux["namespaces"]:
        if each["type"] == "network":
            each["path"] = f"/proc/{pid}/ns/net"
    said = runtime.run(second.sh("cat /proc/self/uid_map; readlink /proc/self/ns/user"))
    assert said.split()[:3] == ["0", "100000", "1000"]
    assert said.split()[3] == os.readlink(f"/proc/{pid}/ns/user")


def test_devices_are_made_as_they_are_said(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["devices"] = [
        {"path": "/dev/own", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 3, "gid": 4},
        {"path": "/dev/deep/loop", "type": "b", "major": 7, "minor": 0, "fileMode": 0o600},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o622},
    ]
    said = runtime.run(bundle.sh("stat -c '%n %F %t:%T %a %u:%g' /dev/own /dev/deep/loop /dev/pipe")).splitlines()
    assert said == [
        "/dev/own character special file a:e5 640 3:4", "/dev/deep/loop block special file 7:0 600 0:0",
        "/dev/pipe fifo 0:0 622 0:0",
    ]  # fmt: skip


def test_devices_are_used_as_they_are_allowed(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["devices"] = [
        {"path": f"/dev/{name}", "type": "c", "major": 10, "minor": minor, "fileMode": 0o666}
        for name, minor in (("fuse", 229), ("rtc", 135), ("tun", 200))
    ]
    bundle.linux["resources"]["devices"] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "r"},
    ]
    script = (
        "exec 3<>/dev/fuse && echo fuse; (exec 3</dev/tun) && echo tun read; (exec 3>/dev/tun) || echo tun unwritable; "
        "(exec 3</dev/rtc) || echo no rtc; echo x > /dev/null && echo null"
    )
    said = runtime.run(bundle.sh(f"({script}) 2>&1 | grep -v ':'"))
    assert {"tun unwritable", "no rtc", "null"} <= {*said.splitlines()}


def test_resources_are_limited(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"] |= {
        "memory": {"limit": 64 << 20, "reservation": 32 << 20},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
        "pids": {"limit": 77},
    }
    runtime.create(bundle.sh("sleep 100"))
    def value(controller: str, name: str) -> str:
        return Path(f"/sys/fs/cgroup/{controller}/nbcontain-tests/{bundle.name}/{name}").read_text().strip()

    assert value("memory", "memory.limit_in_bytes") == str(64 << 20)
    assert value("memory", "memory.soft_limit_in_bytes") == str(32 << 20)
    assert value("cpu", "cpu.shares") == "512"
    assert value("cpu", "cpu.cfs_quota_us") == "50000"
    assert value("cpuset", "cpuset.cpus") == "0"
    assert value("pids", "pids.max") == "77"
    runtime("update", "--pids-limit", "55", bundle.name)
    assert value("pids", "pids.max") == "55"
    resources = json.dumps({"memory": {"limit": 96 << 20}})
    runtime("update", "--resources", "-", bundle.name, stdin=None, input=resources)
    assert value("memory", "memory.limit_in_bytes") == str(96 << 20)


def test_a_weight_that_the_kernel_has_no_file_for_hinders_nothing(runtime: Runtime, bundle: Bundle) -> None:
    if list(Path("/sys/fs/cgroup/blkio").glob("blkio.*weight")):
        pytest.skip("this kernel has it")
    bundle.linux["resources"]["blockIO"] = {"weight": 500}
    runtime.create(bundle.sh("true"))


def test_knobs_and_hidden_paths(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "9000"}
    bundle.linux["maskedPaths"] = ["/proc/timer_list", "/tmp/dir", "/nothing"]
    bundle.linux["readonlyPaths"] = ["/proc/sys", "/tmp/ro"]
    for name in ("dir", "ro"):
        (bundle.root / "tmp" / name).mkdir()
        (bundle.root / "tmp" / name / "file").touch()
    script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax; wc -c < /proc/timer_list; ls /tmp/dir; "
    script += "ls /tmp/ro; touch /tmp/ro/x || echo refused; echo 5 > /proc/sys/kernel/msgmax || echo kept"
    said = runtime.run(bundle.sh(script))
    assert said.split() == ["1", "9000", "0", "file", "refused", "kept"]


def test_a_knob_of_the_machine_is_refused(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"vm.swappiness": "1"}
    before = Path("/proc/sys/vm/swappiness").read_text()
    assert runtime.create(bundle.sh("true"), check=False).returncode != 0
    assert Path("/proc/sys/vm/swappiness").read_text() == before


def test_the_machine_may_be_a_smaller_one(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["personality"] = {"domain": "LINUX32"}
    assert runtime.run(bundle.sh("uname -m")) == "i686\n"


def test_the_root_may_be_shared(runtime: Runtime, bundle: Bundle) -> None:
    for word, sign in (("shared", "shared:"), ("unbindable", "unbindable"), ("private", " - ")):
        bundle.linux["rootfsPropagation"] = word
        each = bundle.twin()
        assert sign in runtime.run(each.sh("grep ' / / \\|rootfs / ' /proc/self/mountinfo")), word


# --- seccomp ----------------------------------------------------------------------------------------

NAME, NUMBER = "getpgrp", 111
"""A call that no runtime makes itself once the filter holds: runc asks for its parent then (getppid)."""
RULES = {
    "SCMP_ACT_ERRNO": ({"errnoRet": 77}, "77"),
    "SCMP_ACT_KILL_PROCESS": ({}, "-31"),
    "SCMP_ACT_TRAP": ({}, "-31"),
    "SCMP_ACT_TRACE": ({"errnoRet": 5}, "38"),
    "SCMP_ACT_LOG": ({}, "0"),
}


@pytest.mark.parametrize("action", RULES)
def test_every_action_of_a_filter(runtime: Runtime, bundle: Bundle, probe: Path, action: str) -> None:
    more, wanted = RULES[action]
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": [NAME], "action": action, **more}],
    }  # fmt: skip
    (bundle.root / "probe").write_bytes(probe.read_bytes())
    (bundle.root / "probe").chmod(0o755)
    bundle.process["args"] = ["/probe", str(NUMBER)]
    assert runtime.run(bundle.written(), check=False).strip() == wanted


OPERATORS: dict[str, tuple[int, int, Callable[[int], bool]]] = {
    "SCMP_CMP_NE": (5, 0, lambda number: number != 5),
    "SCMP_CMP_LT": (5, 0, lambda number: number < 5),
    "SCMP_CMP_LE": (5, 0, lambda number: number <= 5),
    "SCMP_CMP_EQ": (5, 0, lambda number: number == 5),
    "SCMP_CMP_GE": (5, 0, lambda number: number >= 5),
    "SCMP_CMP_GT": (5, 0, lambda number: number > 5),
    "SCMP_CMP_MASKED_EQ": (0b110, 0b100, lambda number: number & 0b110 == 0b100),
}


def test_every_operator_of_a_filter(runtime: Runtime, bundle: Bundle, probe: Path) -> None:
    numbers = [0, 4, 5, 6, 0b1101, 1 << 32 | 5, 1 << 40]
    (bundle.root / "probe").write_bytes(probe.read_bytes())
    (bundle.root / "probe").chmod(0o755)
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": [NAME], "action": "SCMP_ACT_ERRNO", "errnoRet": 100 + each,
             "args": [{"index": each % 5, "op": operator, "value": value, "valueTwo": two},
                      {"index": 5, "op": "SCMP_CMP_EQ", "value": each}]}
            for each, (operator, (value, two, _)) in enumerate(OPERATORS.items())
        ],
    }  # fmt: skip
    for each, (operator, (_, _, refused)) in enumerate(OPERATORS.items()):
        calls = []
        for number in numbers:
            values = [0] * 6
            values[5], values[each % 5] = each, number
            calls.append(",".join(map(str, (NUMBER, *values))))
        bundle.process["args"] = ["/probe", *calls]
        said = runtime.run(bundle.written().twin()).split()
        found = {number for number, answer in zip(numbers, said, strict=True) if answer == str(100 + each)}
        assert found == set(filter(refused, numbers)), operator


def test_a_filter_may_tell_somebody_of_calls(
    runtime: Runtime, bundle: Bundle, probe: Path, listener: socket.socket, request: pytest.FixtureRequest
) -> None:
    (bundle.root / "probe").write_bytes(probe.read_bytes())
    (bundle.root / "probe").chmod(0o755)
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": listener.getsockname(), "listenerMetadata": "of a test",
        "syscalls": [{"names": [NAME], "action": "SCMP_ACT_NOTIFY"}],
    }  # fmt: skip
    bundle.process["args"] = ["/probe", str(NUMBER)]
    process = subprocess.Popen(
        runtime.words("run", "-b", str(bundle.written().path), bundle.name), stdout=subprocess.PIPE, text=True
    )
    data, fd = received(listener)
    told = json.loads(data)
    assert told["fds"] == ["seccompFd"]
    assert told["metadata"] == "of a test"
    assert told["state"]["id"] == bundle.name
    assert Path(f"/proc/{told['pid']}").exists()
    assert "seccomp notify" in os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)  # nobody answers: the call is not there (ENOSYS)
    assert process.communicate(timeout=20)[0].strip() == "38"
    listener.close()


def test_a_filter_may_allow_almost_nothing(runtime: Runtime, bundle: Bundle, probe: Path) -> None:
    """A filter is loaded so late that only the program itself has to live with it."""
    if runtime.name != OURS:
        pytest.skip("how late is not specified")
    (bundle.root / "probe").write_bytes(probe.read_bytes())
    (bundle.root / "probe").chmod(0o755)
    names = ["execve", "write", "exit", "exit_group", "arch_prctl", "brk", "mmap", "munmap", "mprotect", "capset"]
    names += ["set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlinkat", "readlink", "getrandom", "fork"]
    names += ["newfstatat", "fstat", "clone", "wait4"]
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }  # fmt: skip
    bundle.process["args"] = ["/probe", str(NUMBER)]
    assert runtime.run(bundle.written(), check=False).strip() == "-31"


def test_signals_are_as_a_program_expects_them(runtime: Runtime, bundle: Bundle) -> None:
    said = runtime.run(bundle.sh("grep -E '^Sig(Blk|Ign|Cgt)' /proc/self/status")).split()
    sets = dict(zip(said[::2], (int(each, 16) for each in said[1::2]), strict=True))
    assert sets["SigBlk:"] == 0
    assert sets["SigIgn:"] & 1 << signal.SIGPIPE - 1 == 0


def test_a_further_program_has_the_groups_it_is_given_and_a_control_group_that_is_there(
    runtime: Runtime, bundle: Bundle
) -> None:
    runtime.create(bundle.sh("sleep 100"))
    runtime("start", bundle.name)
    words = ("--user", "5:6", "--additional-gids", "7", "--additional-gids", "8", bundle.name, "/bin/id", "-G")
    assert runtime("exec", *words).stdout.split() == ["6", "7", "8"]
    missing = runtime("exec", "--cgroup", "there/is/none", bundle.name, "/bin/true", check=False)
    assert missing.returncode != 0
    assert "there/is/none" in missing.stderr
