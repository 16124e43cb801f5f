"""The same bundle under nbcontain-runtime, crun and runc: what a program sees of itself is the same, or is explained.

security.md of the design calls this the differential oracle. What differs is listed here with its reason; a difference
that is not listed fails.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

import pytest

import bpf
from bundles import OURS, Bundle, Runtime, sections
from machine import until
from nbcontain.linux import seccomp
from nbcontain.linux.seccomp_default import default
from nbcontain.oci import seccomp as profiles
from nbcontain.runtime.confinement import CAPABILITIES

pytestmark = pytest.mark.slow

SCRIPT = r"""
echo '== status'
grep -E '^(Uid|Gid|Groups|Umask|NoNewPrivs|Seccomp|Cap|Sig(Blk|Ign|Cgt)|CoreDumping|THP|Speculation)' /proc/self/status
echo '== limits'; cat /proc/self/limits
echo '== mounts'; cut -d' ' -f4- /proc/self/mountinfo
echo '== dev'; cd /dev
find . ! -path './pts/*' | sort | while read each; do stat -c '%n %F %t:%T %a %u:%g %N' $each; done; cd /
echo '== attr'; for each in /proc/self/attr/*; do echo $each $(cat $each 2>&1); done
echo '== cgroup'; cut -d: -f3 /proc/self/cgroup | sort -u
echo '== fds'; for each in 0 1 2 3 4 5 6 7 8 9; do test -e /proc/self/fd/$each && echo $each; done
echo '== env'; env | sort
echo '== ns'; ls /proc/self/ns
echo '== oom'; cat /proc/self/oom_score_adj /proc/self/coredump_filter
echo '== tree'; ps -o args | grep -v -e '^{ps' -e ' -c ' | head -4
echo '== readable'; find /proc -maxdepth 1 -type f | sort | while read each; do
  head -c 1 $each >/dev/null 2>&1 && echo $each || echo no $each; done
echo '== writable'; for each in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/vm/drop_caches \
  /sys/kernel/uevent_helper /proc/sys/kernel/hostname /sys/fs/cgroup/memory/release_agent; do
  (: >> $each) 2>/dev/null && echo $each; done; true
"""

EXPLAINED = {
    "dev": {
        # crun adds a link to /proc/kcore, which is masked anyway; docker has none any more.
        r"\./core .*",
        # crun gives what it takes as standard input to the user; ours stays root's, and is open.
        r"\./null character special file 1:3 666 .*",
    },
    "env": {
        r"HOME=.*",  # runc and we take it from passwd where it is not given, crun does so where there is an entry
        r"(PWD|OLDPWD|SHLVL|_)=.*",  # of the shell
    },
    "mounts": {
        # runc has the file system itself be read-only, and not only this mount of it.
        r"/ /sys ro,.* - sysfs sysfs r[ow]",
        # Sizes of what masks a directory: an empty tmpfs that cannot be written to in all three.
        r"\S+ /(proc/(acpi|asound|scsi)|sys/firmware|sys/devices/\S*) .*",
        # The directory of control groups: ours and runc's are made alike, crun's without a size and with other names.
        r"\S+ /sys/fs/cgroup\S* .*",
        # Files are masked by a mount of the null device: of the container's with us and crun, of the same by runc.
        r"/null /proc/\S+ .*",
    },
    "cgroup": {r"/.*"},  # their names
}


def _settled(lines: list[str], explained: set[str]) -> list[str]:
    """Lines without what differs by chance (numbers of devices, addresses) or is explained."""
    kept = [_signals(line) for line in lines if not any(re.fullmatch(each, line) for each in explained)]
    return sorted(re.sub(r"shared:\d+|master:\d+|/\S*/bundle\d+", "…", line) for line in kept)


def _signals(line: str) -> str:
    """The mask of ignored signals without the C library's own two (32 and 33).

    They may come from whoever started the tests; the Go that runc is written in takes the second for itself.
    """
    name, _, mask = line.partition("\t")
    return f"{name}\t{int(mask, 16) & ~(3 << 31):016x}" if name == "SigIgn:" else line


def seen(runtime: Runtime, bundle: Bundle) -> Mapping[str, list[str]]:
    found = sections(runtime.run(bundle.twin()))
    return {name: _settled(lines, EXPLAINED.get(name, set())) for name, lines in found.items()}


def _differing(ours: Mapping[str, list[str]], theirs: Mapping[str, list[str]]) -> dict[str, object]:
    return {
        name: (sorted({*lines} - {*theirs[name]}), sorted({*theirs[name]} - {*lines}))
        for name, lines in ours.items()
        if {*lines} != {*theirs[name]}
    }


@pytest.mark.parametrize("kind", ["root", "user", "readonly"])
def test_a_program_sees_the_same(runtimes: list[Runtime], bundle: Bundle, kind: str) -> None:
    if kind == "user":
        bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 50]}
        bundle.process["noNewPrivileges"] = True
        bundle.process["capabilities"] |= {"inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}
    if kind == "readonly":
        bundle.config["root"]["readonly"] = True
        bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
        bundle.process["oomScoreAdj"] = 50
        bundle.mount("/data", "tmpfs", "tmpfs", "nosuid", "noexec", "mode=1777")
    bundle.process["env"] += ["HOME=/", "TERM=dumb"]
    bundle.sh(SCRIPT)
    first, *others = [(each.name, seen(each, bundle)) for each in runtimes]
    assert first[0] == OURS
    assert {name: _differing(first[1], found) for name, found in others} == {name: {} for name, _ in others}


@pytest.fixture
def filters(runtimes: list[Runtime], make: Callable[[], Bundle]) -> dict[str, bytes]:
    """The filter that the kernel has for the same profile under each."""
    found = {}
    for runtime in runtimes:
        bundle = make()
        profile = default(CAPABILITIES, "x86_64", with_32_bit=True)
        bundle.linux["seccomp"] = profiles.to_json(profile) | {"architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]}
        runtime.create(bundle.sh("echo ready; sleep 100"))
        runtime("start", bundle.name)
        said = bundle.path / "said"
        until(lambda said=said: "ready" in said.read_text())  # type: ignore[misc]
        pid = json.loads(runtime("state", bundle.name).stdout)["pid"]
        (found[runtime.name],) = bpf.installed(pid)
    return found


@pytest.mark.parametrize(("machine", "column"), [(bpf.X86_64, "x86_64"), (bpf.I386, "i386")])
def test_every_call_has_the_same_verdict(filters: dict[str, bytes], machine: int, column: str) -> None:
    numbers = seccomp.numbers()[column]
    unknown = set(range(512)) - {*numbers.values()}
    tables = {
        name: {number: bpf.Filter(program).verdict(number, (), machine) for number in range(512)}
        for name, program in filters.items()
    }
    names = {number: name for name, number in numbers.items()}
    for peer in tables.keys() - {OURS}:
        differing = {
            names.get(number, number) for number, verdict in tables[OURS].items()
            if tables[peer][number] != verdict and number not in unknown
        }  # fmt: skip
        # libseccomp 2.5.4 does not know calls of later kernels, and runc answers ENOSYS for what is newer than all.
        assert {each for each in differing if numbers.get(str(each), 0) <= 448} - {"uretprobe"} == set(), peer
