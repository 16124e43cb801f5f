"""`doctor`: each finding says what, why and what to try, and nothing that is not so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import needs
from nbcontain import diagnosis, probe_file
from nbcontain.commands import parse_words
from nbcontain.diagnosis import Finding, findings, lacking_limits, ladder
from nbcontain.display.table import Table
from nbcontain.engine import Engine
from nbcontain.errors import Unavailable, UsageError
from nbcontain.host import Ability, Host, Probe
from nbcontain.linux import fakechroot, probe, proot
from nbcontain.linux.cgroups import Tree
from nbcontain.linux.idmap import IdMap
from nbcontain.profiles import choose, storage_driver
from nbcontain.values import replace


def host(*missing: Ability, uid: int = 1000, why: str = "Operation not permitted") -> Host:
    missing = (*missing, Ability.USERNS_CHROOT) if uid == 0 else (*missing, Ability.ADMIN, Ability.CHROOT)
    missing = (*missing, Ability.PROOT, Ability.PRELOAD)  # of others, and seldom there
    ids = IdMap.identity() if uid == 0 else IdMap.single(uid, uid)
    abilities = {each: Probe(each not in missing, why if each in missing else "") for each in Ability}
    return Host(uid, uid, uid == 0, "6.1", "v2", ids, abilities)


def told(machine: Host, refusal: str = "", as_root: str = "") -> dict[str, Finding]:
    driver, why = storage_driver(machine, {})
    return {each.what: each for each in findings(machine, choose(machine), driver, why, refusal, "ada", as_root)}


def test_what_is_there_needs_no_advice() -> None:
    found = told(host(uid=0))
    assert {each.state for each in found.values()} == {"yes"}
    assert {each.attempt for each in found.values()} == {""}
    # Root needs neither.
    assert not any("user namespaces" in what or "newuidmap" in what for what in found)


def test_without_an_overlay_trees_are_copied_and_it_is_said_why() -> None:
    found = told(host(Ability.OVERLAY, Ability.REFLINKS, why="Invalid argument"))
    [storage] = [each for what, each in found.items() if "storage driver" in what]
    assert (storage.state, "copy" in storage.what, "Invalid argument" in storage.why) == ("partly", True, True)
    assert "NBCONTAIN_ROOT" in storage.attempt
    assert found["containers"].state == "yes"
    assert "share" in told(host(Ability.OVERLAY))["storage driver copy: whole trees"].why


def test_with_one_id_it_is_said_what_cannot_be_and_who_can_change_that() -> None:
    found = told(host(Ability.ID_RANGES))
    assert "usermod" in found[Ability.ID_RANGES.value].attempt and "ada" in found[Ability.ID_RANGES.value].attempt
    owners = "RUN chown, and users other than root inside"
    assert found[owners].state == "partly"
    blind = told(host(Ability.ID_RANGES, Ability.NOTIFY))[owners]
    assert (blind.state, blind.attempt[:12]) == ("no", "COPY --chown")


def test_groups_that_keep_no_limit_are_told(tmp_path: Path) -> None:
    """As where version 2 is mounted beside version 1, which has the controllers, and the place shows the former."""
    (tmp_path / "cgroup.controllers").write_text("pids\n")
    [found] = lacking_limits(host(uid=0), Tree({}, tmp_path))
    assert (found.state, found.what) == ("no", "limits of memory, cpu")
    assert str(tmp_path) in found.why
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    assert not list(lacking_limits(host(uid=0), Tree({}, tmp_path)))
    assert not list(lacking_limits(host(Ability.CGROUPS), Tree({}, None)))


def test_where_nothing_runs_and_sudo_is_there_it_is_said_who_may_more(tmp_path: Path) -> None:
    """As in a development container: root's rung may be another."""
    nothing = host(Ability.USER_NAMESPACES, Ability.USERNS_CHROOT, Ability.PIVOT)
    found = told(nothing, as_root="sudo /v/bin/python -m nbcontain doctor")
    assert found["containers"].attempt == "as root there may be more: sudo /v/bin/python -m nbcontain doctor"
    assert told(nothing)["containers"].attempt == ""
    (tmp_path / "sudo").write_text("#!/bin/sh\n")
    (tmp_path / "sudo").chmod(0o755)
    assert diagnosis.as_root({"PATH": str(tmp_path)}, "NoNewPrivs:\t0\n").startswith("sudo ")
    for path, status in ((tmp_path, "NoNewPrivs:\t1\n"), (tmp_path / "none", "NoNewPrivs:\t0\n")):
        assert diagnosis.as_root({"PATH": str(path)}, status) == ""


def test_where_the_disk_keeps_no_owners_root_is_told_and_others_have_one_id() -> None:
    what = Ability.OWNERS.value
    mine, root = (told(host(Ability.OWNERS, uid=uid))[what] for uid in (1000, 0))
    assert (mine.state, root.state) == ("partly", "no")
    assert mine.why == "Operation not permitted; so one id alone is used"
    assert mine.attempt == root.attempt == "NBCONTAIN_ROOT on another disk"
    assert choose(host(Ability.OWNERS)).name == "rootless-single"
    # Another disk would not help there.
    unmapped = told(host(Ability.OWNERS, uid=0, why="Invalid argument"))[what]
    assert ("no other ids" in unmapped.why, unmapped.attempt) == (True, "")
    assert what not in told(host(uid=0))


def test_where_nothing_runs_nothing_is_advised_that_would_not_help() -> None:
    missing = (Ability.USER_NAMESPACES, Ability.USERNS_CHROOT, Ability.OVERLAY, Ability.FRESH_PROC)
    found = told(host(*missing, why="/: Permission denied"))
    assert found["containers"].state == "no"
    assert [what for what in found if "storage" in what or "/proc" in what] == []
    assert found[Ability.USER_NAMESPACES.value].attempt == ""


def test_where_no_proc_can_be_mounted_it_is_said_what_there_is_of_it_and_why() -> None:
    missing = (Ability.PIVOT, Ability.FRESH_PROC)
    served = told(host(*missing, uid=0))
    assert served[Ability.PIVOT.value].state == "partly" and "moved" in served[Ability.PIVOT.value].why
    assert served["files of /proc"].state == "partly"
    assert "none is mounted" in served[Ability.FRESH_PROC.value].why
    busy = told(host(*missing, Ability.NOTIFY, uid=0, why="Device or resource busy"))["files of /proc"]
    assert busy.state == "no" and "this place answers calls of programs itself" in busy.why


def test_where_nothing_can_be_mounted_nothing_is_advised_that_takes_mounts() -> None:
    missing = (Ability.USER_NAMESPACES, Ability.ID_RANGES, Ability.PIVOT, Ability.OVERLAY, Ability.FRESH_PROC)
    found = told(host(*missing, Ability.REFLINKS, why="/: Permission denied"))
    assert found["containers"].state == "yes" and "chroot" in found[Ability.PIVOT.value].why
    assert {each.attempt for each in found.values()} == {""}


@pytest.mark.parametrize(
    ("said", "attempt"),
    [
        ("Operation not permitted", ""),
        (f"Operation not permitted: {probe.IN_CHROOT}", ""),
        (f"Operation not permitted: {probe.NOT_FOR_USERS}", "unprivileged_userns_clone=1"),
        (f"Operation not permitted: {probe.FILTERED}", "seccomp=unconfined"),
        (f"No space left on device: {probe.NO_MORE}", "max_user_namespaces=15000"),
        ("writing the id map: Operation not permitted", "apparmor_restrict_unprivileged_userns=0"),
        (f"/: Permission denied: {probe.NO_MOUNTS}", "apparmor=unconfined"),
        ("/: Operation not permitted", ""),
    ],
)
def test_of_user_namespaces_only_that_is_advised_which_takes_away_what_refuses_them(said: str, attempt: str) -> None:
    found = told(host(Ability.USER_NAMESPACES, Ability.USERNS_CHROOT, why=said))
    advised = found[Ability.USER_NAMESPACES.value].attempt
    assert attempt in advised and bool(attempt) is bool(advised)


@pytest.mark.parametrize(
    ("said", "is_known"),
    [("/: Permission denied", True), ("/: Operation not permitted", False), ("the id map: Permission denied", False)],
)
def test_who_refuses_mounts_is_told(said: str, is_known: bool) -> None:
    """For a mount in a namespace of one's own only a security module has this word."""
    assert (probe._of_user_namespaces(False, said)[1] == f"{said}: {probe.NO_MOUNTS}") is is_known


def test_what_would_not_help_here_is_not_advised() -> None:
    for ability, why in (
        (Ability.ID_RANGES, probe.NO_GAIN), (Ability.CGROUPS, probe.NO_SYSTEMD), (Ability.PROOT, probe.NOT_TRACED),
    ):  # fmt: skip
        nothing = (Ability.USER_NAMESPACES, Ability.USERNS_CHROOT) if ability is Ability.PROOT else ()
        assert told(host(ability, *nothing))[ability.value].attempt
        assert told(host(ability, *nothing, why=f"no; {why}"))[ability.value].attempt == ""
    found = told(host(Ability.USER_NAMESPACES, Ability.USERNS_CHROOT, Ability.LANDLOCK))[Ability.PROOT.value]
    assert "Landlock" in found.why and not found.attempt


def test_a_chroot_is_known_by_a_root_that_is_no_mount() -> None:
    line = "24 1 254:0 {} {} rw,relatime - ext4 /dev/vda rw"
    assert not probe.is_chroot(f"{line.format('/', '/')}\n{line.format('/', '/proc')}\n")
    assert probe.is_chroot(f"{line.format('/', '/proc')}\n")
    assert not probe.is_chroot("")


def test_where_a_chroot_is_all_and_nothing_stands_behind_it_that_is_said() -> None:
    missing = (Ability.USER_NAMESPACES, Ability.PIVOT, Ability.OVERLAY)
    assert Ability.LANDLOCK.value not in told(host(*missing))
    assert "sent" in told(host(*missing, Ability.LANDLOCK))[Ability.LANDLOCK.value].why
    missing = (Ability.ADMIN, Ability.PIVOT, Ability.MOVE_ROOT, Ability.LANDLOCK)
    assert "processes" in told(host(*missing, uid=0))[Ability.LANDLOCK.value].why
    assert Ability.LANDLOCK.value not in told(host(Ability.LANDLOCK))


def test_what_the_trial_itself_says_comes_first() -> None:
    found = told(host(uid=0), refusal="it broke")
    assert (found["containers"].state, found["containers"].why) == ("no", "it broke")


@pytest.mark.parametrize(
    ("machine", "said", "driver"),
    [
        (host(), "", "overlay"),
        (host(), "copy", "copy"),
        (host(Ability.OVERLAY), "", "copy"),
        (host(), "overlay", "overlay"),
    ],
)
def test_the_driver_is_what_was_found_or_what_is_said(machine: Host, said: str, driver: str) -> None:
    assert storage_driver(machine, {"NBCONTAIN_STORAGE_DRIVER": said})[0] == driver


def test_a_driver_that_cannot_be_is_an_error_with_a_reason() -> None:
    with pytest.raises(Unavailable, match="no overlay"):
        storage_driver(host(Ability.OVERLAY), {"NBCONTAIN_STORAGE_DRIVER": "overlay"})
    with pytest.raises(UsageError, match="zfs"):
        storage_driver(host(), {"NBCONTAIN_STORAGE_DRIVER": "zfs"})


def with_proot(machine: Host) -> Host:
    """The same machine, with that in PATH."""
    return replace(machine, abilities={**machine.abilities, Ability.PROOT: Probe(True, "/opt/proot")})


def test_proot_is_taken_where_nothing_better_can_be_had() -> None:
    nothing = host(Ability.USER_NAMESPACES, Ability.USERNS_CHROOT, Ability.PIVOT, Ability.OVERLAY)
    assert choose(nothing).name == "none"
    assert choose(with_proot(host())).name == "rootless-range"
    taken = choose(with_proot(nothing))
    assert (taken.name, taken.rung.translator, taken.rung.answers) == ("proot", "/opt/proot", "ids translated")
    assert "no isolation but of files" in taken.describe()
    # Nobody may make a user namespace, so that calls are answered outside of one, or not.
    assert choose(with_proot(host(Ability.USER_NAMESPACES, Ability.USERNS_CHROOT, Ability.NOTIFY))).rung.ids == "notify"
    alone = with_proot(host(Ability.USER_NAMESPACES, Ability.USERNS_CHROOT, Ability.NOTIFY_OUTSIDE, why="Yama"))
    assert choose(alone).rung.answers == "translated"
    found = told(with_proot(nothing))
    assert found["containers"].state == "yes" and found["isolation"].state == "partly"


def test_proot_needs_landlock_since_a_path_that_it_misses_would_be_one_of_this_machines() -> None:
    for machine, lacks in ((host(), "PATH"), (with_proot(host(Ability.LANDLOCK)), "Landlock")):
        with pytest.raises(Unavailable, match="the isolation proot") as error:
            choose(machine, "proot")
        assert lacks in error.value.why


def with_library(machine: Host) -> Host:
    """The same machine, with fakechroot's library."""
    return replace(machine, abilities={**machine.abilities, Ability.PRELOAD: Probe(True, "/opt/libfakechroot.so")})


def test_preload_is_taken_by_who_asks_for_it_alone_and_the_others_are_told_of_it() -> None:
    nothing = with_library(host(Ability.USER_NAMESPACES, Ability.USERNS_CHROOT, Ability.PIVOT, Ability.OVERLAY))
    assert choose(nothing).name == "none"
    taken = choose(nothing, "preload")
    assert (taken.name, taken.rung.translator) == ("preload", "/opt/libfakechroot.so")
    assert taken.rung.answers == "ids translated strays" and "static" in taken.describe()
    with pytest.raises(Unavailable, match="RUN needs a container") as error:
        choose(nothing).require(nothing, "RUN")
    assert "NBCONTAIN_ISOLATION=preload" in error.value.hint and "preload:" not in error.value.why
    [found] = [each for what, each in told(nothing).items() if "isolation preload" in what]
    assert (found.state, found.attempt) == ("partly", "NBCONTAIN_ISOLATION=preload")
    assert Ability.PRELOAD.value not in told(with_library(host()))
    # Without the library it is said what that would take.
    lacking = host(Ability.USER_NAMESPACES, Ability.USERNS_CHROOT)
    assert "fakechroot" in told(lacking)[Ability.PRELOAD.value].attempt
    with pytest.raises(Unavailable) as error:
        choose(lacking).require(lacking, "RUN")
    assert "NBCONTAIN_ISOLATION" not in error.value.hint and "preload: " in error.value.why


@pytest.mark.parametrize("lacks", [Ability.LANDLOCK, Ability.NOTIFY_OUTSIDE])
def test_preload_needs_what_keeps_programs_from_this_machines_files(lacks: Ability) -> None:
    with pytest.raises(Unavailable, match="the isolation preload") as error:
        choose(with_library(host(lacks, why="not here")), "preload")
    assert "not here" in error.value.why


def test_a_library_that_translates_nothing_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no library at all, and one that loads and lets paths through as they are."""
    place = tmp_path / "lib" / "fakechroot"
    place.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "fakechroot").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "fakechroot").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    library = place / "libfakechroot.so"
    library.write_text("no library")
    assert fakechroot.library() == str(library)
    found, said = fakechroot.tried()
    assert not found and str(library) in said
    before = fakechroot.known_by()
    words = (needs.program("cc", "gcc"), "-shared", "-o", str(library), "-x", "c", "-")
    subprocess.run(words, input="int nothing;", text=True, check=True)
    os.utime(library, ns=(0, 1))
    found, said = fakechroot.tried()
    assert not found and "translates no paths" in said
    assert before != fakechroot.known_by() == f"{library} 1"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo '|__|__| 5.1.0'", "5.1.0 lets statx"),  # as Debian 12's says it
        ('[ "$1" = -V ] && echo v5.4.0 && exit; shift 4; exec "$@"', "this PRoot lets statx"),  # translates nothing
        ('[ "$1" = -V ] && echo v5.4.0 && exit; echo "ptrace: no" >&2; exit 1', "ptrace: no"),
    ],
)
def test_a_proot_that_shows_this_machines_files_or_does_not_run_is_none(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "proot"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found, said = proot.tried()
    assert not found and why in said
    before = proot.known_by()
    program.write_text("#!/bin/sh\necho v5.4.0\n")
    os.utime(program, ns=(0, 1))
    # Another one in its place is tried anew.
    assert before.startswith(f"{program} ") and proot.known_by() == f"{program} 1"


def test_the_command_tries_everything_down_to_a_process_inside(engine: Engine) -> None:
    command, options = parse_words("", ["doctor"])
    table = command.function(engine, options)
    assert isinstance(table, Table)
    assert list(table)[0]["what"] == "containers"
    assert list(table)[0]["here"] == ("yes" if engine.profile.runs else "no")


@pytest.mark.parametrize(("columns", "width"), [("", 100), ("60", 60)])
def test_what_it_says_into_a_pipe_is_folded_and_whole(columns: str, width: int, root: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environ |= {"NBCONTAIN_ROOT": str(root), "NBCONTAIN_ISOLATION": "none"} | ({"COLUMNS": columns} if columns else {})
    words = (sys.executable, "-m", "nbcontain", "doctor", "--cached")
    said = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=True).stdout
    assert [line for line in said.splitlines() if len(line) > width] == []
    assert any(len(line) > width * 2 // 3 for line in said.splitlines())
    flat = " ".join(said.split())
    with Engine(root, environ) as engine:
        found = ladder(engine.host, engine.profile)
    assert [each.why for each in found if f"{each.what} why: {each.why}" not in flat] == []
    assert found


def test_the_file_for_reports_names_nobody_and_nothing_private(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Canaries in all that it could be taken from: the environment, the store's path, and what the kernel said."""
    environ = {**os.environ, "COLAB_RELEASE_TAG": "canary-1", "HF_TOKEN": "canary-2", "SLURM_JOB_ID": "canary-3"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANARY", "canary-4")
    name = os.uname().nodename
    said = f"/home/canary-5/x: {root}/canary-6: Denied; /sys/fs/cgroup/user.slice/canary-7: {name}: no; //canary-8/"
    with Engine(root / "canary-9", environ) as engine:
        own = engine.fresh_host
        told = {each: replace(probe, why=said) for each, probe in own().abilities.items()}
        monkeypatch.setattr(engine, "fresh_host", lambda: replace(own(), abilities=told))
        command, options = parse_words("", ["doctor", "-o", "probe.json"])
        command.function(engine, options)
        shown = probe_file.document(engine)
    written = (tmp_path / "probe.json").read_text()
    assert json.loads(written) == json.loads(json.dumps(shown))
    assert [each for each in ("canary", name, str(root), root.name, str(Path.home())) if each in written] == []
    assert "/…: Denied; /…: …: no" in written.replace("/…: /…", "/…")
    assert shown["surroundings"] == ["Colab", "Slurm"] and shown["file_system"] and shown["process"]


def test_a_report_that_cannot_be_written_is_one_error(engine: Engine) -> None:
    command, options = parse_words("", ["doctor", "-o", "/proc/nowhere/probe.json"])
    with pytest.raises(UsageError, match=r"cannot write /proc/nowhere/probe\.json"):
        command.function(engine, options)


def test_where_processes_have_no_descriptors_a_chroot_is_still_to_be_had() -> None:
    """As in gVisor of 2022: the rungs that mount take more of the kernel."""
    mounts = (Ability.USER_NAMESPACES, Ability.PIVOT)
    chosen = choose(host(Ability.KERNEL))
    assert (chosen.name, chosen.rung.joins, choose(host(*mounts)).rung.joins) == ("userns-chroot", False, True)
    assert choose(host(*mounts, Ability.KERNEL)).name == "userns-chroot"
    assert choose(host(*mounts, Ability.CHILDREN)).name == "none"
    # Root has no such rung where a better one is to be had, or where calls are answered with root's own descriptors.
    old = {each: Probe(True) for each in Ability} | {Ability.KERNEL: Probe(False), Ability.NOTIFY: Probe(False)}
    chosen = choose(replace(host(uid=0), abilities=old))
    assert (chosen.name, chosen.rung.ids) == ("userns-chroot", "")
    assert choose(replace(host(uid=0), abilities=old | {Ability.NOTIFY: Probe(True)})).name == "none"
    assert choose(replace(host(uid=0), abilities=old | {Ability.KERNEL: Probe(True)})).name == "full"


def test_what_was_not_tried_says_why_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who asks for preload is not to look for a proot."""
    monkeypatch.setattr(probe.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(probe, "begun", lambda *_: lambda: (True, ""))
    monkeypatch.setattr(probe.proot, "on_path", lambda: "")
    monkeypatch.setattr(probe.fakechroot, "tried", lambda: (False, fakechroot.MISSING))
    probe.main([str(tmp_path), "ada"])
    found = json.loads(capsys.readouterr().out)
    assert found["PROOT"][1].startswith(proot.MISSING)
    assert not found["NOTIFY_OUTSIDE"][0] and "proot" not in found["NOTIFY_OUTSIDE"][1]
