"""What a container may do, and how that is changed: capabilities, the kernel's calls, what is hidden."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machine import SLEEP, Machine, said
from nbcontain.errors import SetupFailed, UsageError
from nbcontain.linux.capabilities import CAPABILITIES as EVERY
from nbcontain.runtime.confinement import (
    CAPABILITIES,
    ConfinementOptions,
    capabilities_of,
    confinement,
)
from nbcontain.runtime.generate import RunOptions
from nbcontain.runtime.hidden import MASKED, READONLY


def options(**given: object) -> ConfinementOptions:
    return ConfinementOptions(**given)  # type: ignore[arg-type]


def status(machine: Machine, **given: object) -> dict[str, str]:
    lines = machine.run("grep", "-E", "^(Cap|NoNewPrivs|Seccomp:)", "/proc/self/status", **given).stdout.splitlines()
    return {name.rstrip(":"): value for name, value in map(str.split, lines)}


def mask(*names: str) -> str:
    return f"{sum(1 << EVERY.index(name) for name in names):016x}"


ELEVEN = [name.removeprefix("CAP_") for name in CAPABILITIES]
NONE = "0" * 16


# --- capabilities ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("add", "drop", "left"),
    [
        ((), (), ELEVEN),
        (("NET_RAW", "cap_sys_ptrace"), (), [*ELEVEN, "NET_RAW", "SYS_PTRACE"]),
        ((), ("CAP_CHOWN", "kill"), [each for each in ELEVEN if each not in ("CHOWN", "KILL")]),
        ((), ("ALL",), []),
        (("chown",), ("all",), ["CHOWN"]),
        (("ALL",), ("SYS_ADMIN",), [each for each in EVERY if each != "SYS_ADMIN"]),
        (("CHOWN",), ("CHOWN",), ELEVEN),
    ],
)
def test_capabilities_are_added_and_dropped_as_docker_does(
    add: tuple[str, ...], drop: tuple[str, ...], left: list[str]
) -> None:
    assert set(capabilities_of(add, drop)) == {f"CAP_{each}" for each in left}


@pytest.mark.parametrize(
    ("add", "drop", "said"), [(("FLY",), (), "FLY"), (("ALL",), ("ALL",), "at once"), (("",), (), "''")]
)
def test_capabilities_that_are_none_are_an_error(add: tuple[str, ...], drop: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        capabilities_of(add, drop)


def test_root_has_what_is_left_in_three_sets(profile: str, machine: Machine) -> None:
    has = status(machine, cap_add=("NET_RAW",), cap_drop=("CHOWN", "DAC_OVERRIDE"))
    wanted = mask(*[each for each in ELEVEN if each not in ("CHOWN", "DAC_OVERRIDE")], "NET_RAW")
    assert has == {
        "CapInh": NONE,
        "CapPrm": wanted,
        "CapEff": wanted,
        "CapBnd": wanted,
        "CapAmb": NONE,
        "NoNewPrivs": "0",
        "Seccomp": "2",
    }


@pytest.mark.parametrize(
    "given", [{"cap_add": ("ALL",)}, {"cap_drop": ("ALL",)}, {"security_opt": ("seccomp=unconfined",)}]
)
def test_another_user_has_none_whatever_is_added(profile: str, machine: Machine, given: dict[str, object]) -> None:
    if profile == "rootless-single":
        pytest.skip("this user has one id only, so that nobody else exists inside")
    has = status(machine, user="app", **given)
    assert [has[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [NONE] * 4


def test_a_further_program_has_the_same(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP, cap_drop=("ALL",), cap_add=("KILL",), security_opt=("no-new-privileges",))
    code, lines = machine.execute(container, "grep", "-E", "^(CapBnd|NoNewPrivs|Seccomp:)", "/proc/self/status")
    assert (code, lines.split()) == (0, ["CapBnd:", mask("KILL"), "NoNewPrivs:", "1", "Seccomp:", "2"])


# --- calls ----------------------------------------------------------------------------------------


def written(path: Path, *rules: dict[str, object], default: str = "SCMP_ACT_ALLOW") -> tuple[str, ...]:
    path.write_text(json.dumps({"defaultAction": default, "syscalls": list(rules)}))
    return (f"seccomp={path}",)


def test_a_profile_of_ones_own_decides(profile: str, machine: Machine, tmp_path: Path) -> None:
    no = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    given = written(tmp_path / "profile.json", no)
    assert "No space left" in machine.sh("mkdir /new 2>&1; true", security_opt=given)
    container = machine.start(SLEEP, security_opt=given)
    assert (
        machine.execute(container, "sh", "-c", "mkdir /new 2>&1")[1]
        == "mkdir: can't create directory '/new': No space left on device\n"
    )
    container.stop(1)
    machine.engine.start(container)
    assert machine.execute(container, "mkdir", "/new")[0] == 1


@pytest.mark.parametrize("more", [(), ("no-new-privileges",)])
def test_a_profile_may_forbid_what_making_a_container_takes(
    profile: str, machine: Machine, tmp_path: Path, more: tuple[str, ...]
) -> None:
    names = ["setresuid", "setresgid", "setgroups", "umask", "mount", "setns", "unshare", "pivot_root"]
    given = written(tmp_path / "profile.json", {"names": names, "action": "SCMP_ACT_KILL_PROCESS"})
    user = "0" if profile == "rootless-single" else "app"
    assert machine.run("echo", "runs", user=user, security_opt=(*given, *more)).stdout == "runs\n"


def test_the_reaper_is_under_the_filter_too(profile: str, machine: Machine) -> None:
    container = machine.start(SLEEP, init=True)
    assert machine.execute(container, "grep", "Seccomp:", "/proc/1/status")[1].split() == ["Seccomp:", "2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not valid JSON"),
        ('{"syscalls": []}', "defaultAction"),
        ('{"defaultAction": "SCMP_ACT_ERRNO", "defaultAction": "SCMP_ACT_ALLOW"}', "twice"),
        ('{"defaultAction": "SCMP_ACT_NOTIFY"}', "nobody would answer"),
    ],
)
def test_a_profile_that_is_none_is_one_clear_error(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(UsageError) as error:
        confinement(options(security_opt=(f"seccomp={tmp_path}/profile.json",)), "amd64", "6.1", "x86_64")
    assert said in f"{error.value.message} {error.value.why}"


def test_a_missing_profile_is_one_clear_error() -> None:
    with pytest.raises(UsageError, match="that is no profile"):
        confinement(options(security_opt=("seccomp=/nowhere.json",)), "amd64", "6.1", "x86_64")


def test_programs_of_32_bits_run_in_images_of_32_bits() -> None:
    def architectures(image: str, machine: str) -> object:
        return confinement(options(), image, "6.1", machine).seccomp.get("architectures")

    assert architectures("amd64", "x86_64") is None
    assert architectures("386", "x86_64") == ["SCMP_ARCH_X86"]
    assert architectures("386", "aarch64") is None
    assert architectures("arm", "aarch64") == ["SCMP_ARCH_ARM"]


# --- what is hidden -------------------------------------------------------------------------------


def test_what_is_hidden_can_be_shown_and_more_be_hidden() -> None:
    def hidden(*words: str) -> tuple[set[str], set[str]]:
        made = confinement(options(security_opt=words), "amd64", "6.1", "x86_64")
        return set(made.masked), set(made.readonly)

    assert hidden() == (set(MASKED), set(READONLY))
    assert hidden("systempaths=unconfined") == (set(), set())
    assert hidden("unmask=ALL") == (set(), set())
    assert hidden("unmask=/proc/kcore:/proc/sys") == (set(MASKED) - {"/proc/kcore"}, set(READONLY) - {"/proc/sys"})
    assert hidden("unmask=/proc/*") == ({each for each in MASKED if each.startswith("/sys/")}, set())
    assert hidden("mask=/proc/cpuinfo:/sys/class") == ({*MASKED, "/proc/cpuinfo", "/sys/class"}, set(READONLY))


def test_a_path_of_ones_own_is_hidden(profile: str, machine: Machine) -> None:
    given = ("mask=/proc/cpuinfo:/sys/class:/nowhere",)
    assert machine.sh("cat /proc/cpuinfo; ls /sys/class", security_opt=given) == ""


@pytest.mark.parametrize(
    "word",
    [
        "",
        "seccomp",
        "seccomp=",
        "no-new-privileges=maybe",
        "systempaths=all",
        "mask=proc",
        "label=colour:red",
        "rainbow=1",
    ],
)
def test_a_word_that_is_not_known_is_one_clear_error(word: str) -> None:
    with pytest.raises(UsageError, match="--security-opt"):
        confinement(options(security_opt=(word,)), "amd64", "6.1", "x86_64")


def test_all_power_is_all_power(profile: str, machine: Machine) -> None:
    has = status(machine, privileged=True)
    assert has["CapEff"] == has["CapBnd"] and int(has["CapEff"], 16) >> 21 & 1
    # Where there is one id only, calls about users are answered for the kernel, which takes a filter that allows all.
    assert has["Seccomp"] == ("2" if machine.engine.profile.rung.answers else "0")
    assert bool(machine.engine.profile.rung.answers) == (profile == "rootless-single")
    container = machine.start(
        "mkdir -p /mnt; mount -t tmpfs tmpfs /mnt && grep -c ' /mnt ' /proc/mounts; sleep 9", privileged=True
    )
    assert said(container) == "1\n"


def test_a_label_that_the_kernel_does_not_take_is_one_clear_error(profile: str, machine: Machine) -> None:
    """As where a profile is not loaded: here no security module takes labels at all."""
    if Path("/sys/kernel/security/apparmor").exists() or Path("/sys/fs/selinux/enforce").exists():
        pytest.skip("this kernel takes labels")
    container = machine.engine.create(RunOptions(image="box", command=("true",)))
    bundle = container.bundle
    for given in ({"apparmor": "no-such-profile"}, {"label": "system_u:system_r:nothing_t:s0"}):
        document = json.loads((bundle.path / "config.json").read_text())
        key = {"apparmor": "apparmorProfile", "label": "selinuxLabel"}
        document["process"] |= {key[name]: value for name, value in given.items()}
        (bundle.path / "config.json").write_text(json.dumps(document))
        with pytest.raises(SetupFailed, match="cannot run under"):
            container.launch(machine.engine.launcher, start=True)
        container.settle()
