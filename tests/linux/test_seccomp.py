"""Filters of the kernel's calls: compiled ones do what their profiles say, and what libseccomp's do."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bpf
import needs
from bpf import AARCH64, ALLOW, ARM, ERRNO, I386, KILL_PROCESS, X86_64, Filter
from nbcontain.errors import BadDocument, UsageError
from nbcontain.linux import seccomp
from nbcontain.linux.filter_bytes import packed
from nbcontain.linux.seccomp_default import default
from nbcontain.oci.seccomp import ACTIONS, FLAGS, OPERATORS, Argument, Rule, Seccomp, from_docker, from_json, to_json
from nbcontain.runtime import answered_calls
from nbcontain.runtime.confinement import CAPABILITIES

EPERM, ENOSYS = ERRNO | 1, ERRNO | 38
NUMBERS = seccomp.numbers()["x86_64"]
COMPARED = {
    "SCMP_CMP_NE": operator.ne,
    "SCMP_CMP_LT": operator.lt,
    "SCMP_CMP_LE": operator.le,
    "SCMP_CMP_EQ": operator.eq,
    "SCMP_CMP_GE": operator.ge,
    "SCMP_CMP_GT": operator.gt,
}


def filter_of(
    *rules: Rule, action: str = "SCMP_ACT_ERRNO", machine: str = "x86_64", others: tuple[str, ...] = ()
) -> Filter:
    return Filter(seccomp.program(Seccomp(action, None, others, (), rules), machine))


def docker_default(capabilities: tuple[str, ...] = CAPABILITIES, machine: str = "x86_64") -> Filter:
    return Filter(seccomp.program(default(capabilities, machine), machine))


# --- the compiler ---------------------------------------------------------------------------------

numbers64 = st.one_of(
    st.integers(0, 300),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0xFFFFFFFF, 1 << 32, (1 << 32) + 38, 1 << 63, 2**64 - 1]),
)
conditions = st.builds(Argument, st.integers(0, 5), numbers64, st.sampled_from(sorted(OPERATORS)), numbers64)
actions = st.sampled_from(sorted(ACTIONS))
names = st.lists(st.sampled_from(sorted(NUMBERS)), min_size=1, max_size=6).map(tuple)
rules = st.builds(Rule, names, actions, st.none() | st.integers(0, 4095), st.lists(conditions, max_size=3).map(tuple))
profiles = st.builds(
    Seccomp,
    actions,
    st.none() | st.integers(0, 4095),
    st.sampled_from([(), ("SCMP_ARCH_X86",)]),
    st.lists(st.sampled_from(sorted(FLAGS)), unique=True).map(tuple),
    st.lists(rules, max_size=8).map(tuple),
)


def holds(condition: Argument, arguments: list[int]) -> bool:
    value = arguments[condition.index]
    if condition.operator == "SCMP_CMP_MASKED_EQ":
        return value & condition.value == condition.value_two & condition.value
    return bool(COMPARED[condition.operator](value, condition.value))


def returned(action: str, errno: int | None) -> int:
    return bpf._action(action, errno)


def meant(profile: Seccomp, name: str, arguments: list[int]) -> int:
    """What a profile says, read word by word."""
    otherwise = returned(profile.default_action, profile.default_errno)
    chosen: list[tuple[bool, int]] = []
    for rule in profile.rules:
        verdict = returned(rule.action, rule.errno)
        if name not in rule.names or verdict == otherwise:
            continue
        indices = [each.index for each in rule.arguments]
        every = [holds(each, arguments) for each in rule.arguments]
        matches = any(every) if len(set(indices)) < len(indices) else all(every)
        if not rule.arguments:
            return next((each for is_free, each in chosen if is_free), verdict)
        chosen += [(False, verdict)] * matches
    return chosen[0][1] if chosen else otherwise


@given(profiles, st.lists(numbers64, min_size=6, max_size=6), st.data())
@settings(max_examples=300)
def test_a_filter_returns_what_its_profile_says(profile: Seccomp, arguments: list[int], data: st.DataObject) -> None:
    named = sorted({name for rule in profile.rules for name in rule.names}) or ["read"]
    name = data.draw(st.sampled_from([*named, "read", "mseal"]))
    # Values near to those that are compared with tell more than any others.
    for rule in profile.rules:
        for each in rule.arguments:
            if data.draw(st.booleans()):
                arguments[each.index] = (each.value + data.draw(st.integers(-1, 1))) % 2**64
    made = Filter(seccomp.program(profile, "x86_64"))
    assert made.verdict(NUMBERS[name], arguments) == meant(profile, name, arguments)


@given(profiles)
@settings(max_examples=60)
def test_a_profile_survives_its_json(profile: Seccomp) -> None:
    assert from_json(to_json(profile)) == profile


one_name = st.sampled_from(sorted(NUMBERS)).map(lambda name: (name,))
simple = st.builds(Rule, one_name, st.just("SCMP_ACT_ALLOW"), st.none(), st.lists(conditions, max_size=1).map(tuple))


@given(st.lists(simple, max_size=6, unique_by=lambda rule: rule.names))
@settings(max_examples=60)
def test_libseccomp_makes_the_same_of_it(some: list[Rule]) -> None:
    if bpf.libseccomp() is None:
        needs.missing("libseccomp.so.2 is not installed (Debian package libseccomp2)")
    # One rule a call: of several with halves of 64 bits libseccomp 2.5 makes one that allows too much
    # (at most 0, or at least 2³²: it lets 1 pass).
    profile = Seccomp("SCMP_ACT_ERRNO", 5, ("SCMP_ARCH_X86",), (), tuple(some))
    ours, theirs = Filter(seccomp.program(profile, "x86_64")), Filter(bpf.made_by_libseccomp(profile, "x86_64"))
    values = {each.value for rule in some for each in rule.arguments} | {0}
    for name in {name for rule in some for name in rule.names}:
        if bpf.libseccomp().seccomp_syscall_resolve_name(name.encode()) != NUMBERS[name]:
            continue  # newer than this library
        for value in values:
            for near in (value - 1, value, value + 1):
                call = (NUMBERS[name], [near % 2**64] * 6)
                assert ours.verdict(*call) == theirs.verdict(*call), (name, near)


def test_programs_of_other_machines_are_killed() -> None:
    allows = filter_of(action="SCMP_ACT_ALLOW")
    assert [allows.verdict(1, machine=each) for each in (X86_64, I386, AARCH64, 0)] == [ALLOW, *[KILL_PROCESS] * 3]


def test_an_older_machine_has_numbers_of_its_own_where_it_is_let_in() -> None:
    made = filter_of(Rule(("socketcall", "read"), "SCMP_ACT_ALLOW"), others=("SCMP_ARCH_X86", "SCMP_ARCH_X32"))
    assert [made.verdict(each, machine=I386) for each in (3, 102, 0)] == [ALLOW, ALLOW, EPERM]
    assert [made.verdict(each) for each in (3, 102, 0)] == [EPERM, EPERM, ALLOW]
    arm = filter_of(Rule(("read",), "SCMP_ACT_ALLOW"), machine="aarch64", others=("SCMP_ARCH_ARM",))
    assert (arm.verdict(63, machine=AARCH64), arm.verdict(3, machine=ARM), arm.verdict(3, machine=X86_64)) == (
        ALLOW, ALLOW, KILL_PROCESS,
    )  # fmt: skip


@pytest.mark.parametrize("number", [0x40000000, 0x40000000 | 41, 0x7FFFFFFF, 0xFFFFFFFF])
def test_calls_of_x32_are_none_even_where_everything_is_allowed(number: int) -> None:
    assert filter_of(action="SCMP_ACT_ALLOW").verdict(number) == ENOSYS


def test_a_32_bit_machine_compares_32_bits() -> None:
    made = filter_of(Rule(("personality",), "SCMP_ACT_ALLOW", arguments=(Argument(0, 0xFFFF_FFFF_FFFF_FFFF),)),
                     others=("SCMP_ARCH_X86",))  # fmt: skip
    assert made.verdict(136, [0xFFFFFFFF], I386) == ALLOW
    assert made.verdict(135, [0xFFFFFFFF]) == EPERM


def test_a_profile_that_is_too_much_for_the_kernel_is_an_error_with_its_size() -> None:
    many = [Rule(("socket",), "SCMP_ACT_ALLOW", arguments=(Argument(0, each),)) for each in range(2000)]
    with pytest.raises(UsageError, match="instructions"):
        filter_of(*many)


def test_a_program_of_thousands_of_instructions_finds_its_far_places() -> None:
    some = sorted(NUMBERS)[::2]
    rules = [Rule((name,), "SCMP_ACT_ERRNO", n + 1, (Argument(1, n, "SCMP_CMP_GT"),)) for n, name in enumerate(some)]
    made = filter_of(*rules, action="SCMP_ACT_ALLOW")
    assert len(made.code) > 1000
    for n, name in enumerate(some):
        assert made.verdict(NUMBERS[name], [0, n + 1]) == ERRNO | n + 1
        assert made.verdict(NUMBERS[name], [0, n]) == ALLOW


# --- the default profile --------------------------------------------------------------------------

DENIED = """
    add_key bpf clone3 finit_module fsconfig fsmount fsopen init_module io_uring_setup io_uring_enter
    kexec_load keyctl mount mount_setattr move_mount open_by_handle_at open_tree perf_event_open pivot_root
    reboot request_key setns swapon syslog umount2 unshare userfaultfd vhangup iopl ioperm nfsservctl
    quotactl acct settimeofday kcmp
"""


@pytest.mark.parametrize("name", DENIED.split())
def test_what_changes_the_machine_is_denied(name: str) -> None:
    assert docker_default().verdict(NUMBERS[name]) == (ENOSYS if name == "clone3" else EPERM)


def test_what_every_program_needs_is_allowed() -> None:
    made = docker_default()
    for name in [
        "read",
        "write",
        "openat",
        "execve",
        "mmap",
        "clone",
        "futex",
        "rt_sigaction",
        "chroot",
        "setresuid",
        "capset",
        "arch_prctl",
        "ptrace",
    ]:
        assert made.verdict(NUMBERS[name]) == ALLOW, name


@pytest.mark.parametrize(
    ("family", "verdict"), [(1, ALLOW), (2, ALLOW), (16, ALLOW), (38, EPERM), (40, EPERM), (44, ALLOW)]
)
def test_sockets_of_dangerous_families_are_denied(family: int, verdict: int) -> None:
    assert docker_default().verdict(NUMBERS["socket"], [family]) == verdict
    # The kernel looks at 32 bits only.
    assert docker_default().verdict(NUMBERS["socket"], [family | 7 << 32]) == EPERM


def test_namespaces_are_made_by_admins_alone() -> None:
    made, admin = docker_default(), docker_default((*CAPABILITIES, "CAP_SYS_ADMIN"))
    for flag in (0x10000000, 0x00020000, 0x02000000, 0x20000000, 0x40000000, 0x04000000, 0x08000000):
        assert made.verdict(NUMBERS["clone"], [flag | 17]) == EPERM
        assert admin.verdict(NUMBERS["clone"], [flag | 17]) == ALLOW
    assert made.verdict(NUMBERS["clone"], [0x003D0F00]) == ALLOW  # what pthread_create asks for
    assert [admin.verdict(NUMBERS[name]) for name in ("unshare", "mount", "clone3", "setns")] == [ALLOW] * 4


def test_personalities_are_the_harmless_ones() -> None:
    allowed = {0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF}
    for each in (*allowed, 1, 0x40000, 0x0400000, 1 << 32):
        assert (docker_default().verdict(NUMBERS["personality"], [each]) == ALLOW) == (each in allowed)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_name_of_the_default_is_a_call_of_some_machine(machine: str) -> None:
    known = set().union(*seccomp.numbers().values())
    gone = {"getsid", "fstatat64"}  # of machines that are not here
    assert {name for rule in default(CAPABILITIES, machine).rules for name in rule.names} <= known | gone


def test_the_numbers_are_libseccomps() -> None:
    library = bpf.libseccomp()
    if library is None:
        needs.missing("libseccomp.so.2 is not installed (Debian package libseccomp2)")
    for machine, audit in (("x86_64", X86_64), ("i386", I386), ("aarch64", AARCH64), ("arm", ARM)):
        for name, number in seccomp.numbers()[machine].items():
            found = library.seccomp_syscall_resolve_name_arch(bpf.ctypes.c_uint32(audit), name.encode())
            assert found < 0 or found == number, (machine, name)


# --- docker's files -------------------------------------------------------------------------------


def docker(*rules: dict[str, object], **more: object) -> dict[str, object]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": list(rules), **more}


def names_of(
    document: dict[str, object], *capabilities: str, machine: str = "x86_64", kernel: tuple[int, int] = (6, 1)
) -> set[str]:
    return {name for rule in from_docker(document, capabilities, machine, kernel).rules for name in rule.names}


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_BPF"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"includes": {"arches": ["amd64", "x32"]}}, True),
        ({"excludes": {"arches": ["s390x"]}}, True),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"includes": {"minKernel": "6.1"}}, True),
        ({"includes": {"minKernel": "6.2"}}, False),
        ({"excludes": {"minKernel": "4.8"}}, False),
    ],
)  # fmt: skip
def test_conditions_of_dockers_rules(condition: dict[str, object], taken: bool) -> None:
    document = docker({"names": ["mount"], "action": "SCMP_ACT_ALLOW", **condition})
    assert (names_of(document, "CAP_SYS_ADMIN") == {"mount"}) == taken


def test_the_map_of_machines_names_the_older_ones() -> None:
    maps = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}]
    assert from_docker(docker(archMap=maps), (), "x86_64", (6, 1)).architectures == (
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
    )
    assert from_docker(docker(archMap=maps), (), "aarch64", (6, 1)).architectures == ()


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {},
        {"defaultAction": "SCMP_ACT_MAYBE"},
        docker(architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "SCMP_ARCH_X86"}]),
        docker({"names": ["a"], "name": "b", "action": "SCMP_ACT_ALLOW"}),
        docker({"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}),
        docker({"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "EQ"}]}),
        docker(
            {"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1 << 64}]}
        ),
        docker({"names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5000}),
        docker({"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}),
        docker(flags=["SECCOMP_FILTER_FLAG_MAGIC"]),
    ],
)
def test_a_profile_that_is_none_is_an_error(wrong: object) -> None:
    with pytest.raises(BadDocument):
        from_docker(wrong, (), "x86_64", (6, 1))


FLAGS_BYTES = len(packed(b"", 0))


def test_only_opens_that_could_be_of_proc_or_dev_are_answered() -> None:
    """From the working directory or the root; not those of who walks a tree, which are many."""
    notify, at_cwd = 0x7FC0_0000, -100
    answered = Filter(answered_calls.filter_of("ids files", "x86_64")[FLAGS_BYTES:])
    openat = 257
    assert answered.verdict(openat, (at_cwd & 0xFFFF_FFFF_FFFF_FFFF,)) == notify
    assert answered.verdict(openat, (at_cwd & 0xFFFF_FFFF,)) == notify
    assert answered.verdict(openat, (5,)) == ALLOW
    assert answered.verdict(2) == notify
    of_users = Filter(answered_calls.filter_of("ids", "x86_64")[FLAGS_BYTES:])
    assert of_users.verdict(openat, (at_cwd & 0xFFFF_FFFF,)) == ALLOW
