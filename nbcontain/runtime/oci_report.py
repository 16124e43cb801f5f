"""What a runtime of the specification tells of containers and itself: list, ps, features, an example; and update."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from nbcontain.errors import BadDocument, NotRunning, SetupFailed, UsageError
from nbcontain.linux import limits, more_limits
from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.oci import strict_json
from nbcontain.runtime import hooks, oci_state
from nbcontain.runtime.namespaces import FLAGS as NAMESPACES
from nbcontain.runtime.oci_state import Place
from nbcontain.store import files

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_LIMITS = {
    "memory": ("memory", "limit"), "memory-swap": ("memory", "swap"), "memory-reservation": ("memory", "reservation"),
    "kernel-memory": ("memory", "kernel"), "kernel-memory-tcp": ("memory", "kernelTCP"),
    "cpu-share": ("cpu", "shares"), "cpu-shares": ("cpu", "shares"), "cpu-quota": ("cpu", "quota"),
    "cpu-period": ("cpu", "period"), "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"), "cpuset-cpus": ("cpu", "cpus"), "cpuset-mems": ("cpu", "mems"),
    "pids-limit": ("pids", "limit"), "blkio-weight": ("blockIO", "weight"),
}  # fmt: skip


def listing(root: Path, form: str, *, quiet: bool) -> str:
    """All containers, as a table or (with the format json) as a list of states."""
    rows = []
    for place in oci_state.places(root):
        known = place.known()
        state = oci_state.document(place, known)
        rows.append({**state, "rootfs": known.rootfs, "created": known.created, "owner": known.owner})
    if quiet:
        return "".join(f"{row['id']}\n" for row in rows)
    if form == "json":
        return json.dumps(rows) + "\n"
    if form not in ("", "table"):
        raise UsageError(f"there is no format {form!r}", hint="table, or json")
    names = ("id", "pid", "status", "bundle", "created", "owner")
    table = [[name.upper() for name in names], *([str(row[name]) for name in names] for row in rows)]
    widths = [max(len(row[number]) for row in table) for number in range(len(names))]
    lines = ("   ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in table)
    return "\n".join(lines) + "\n"


def processes(place: Place, form: str, words: Sequence[str]) -> str:
    """The processes of a container: `ps`, of which only their lines are left, or their numbers as JSON."""
    known = place.known()
    if oci_state.status(place, known) == "stopped":
        raise NotRunning(f"container {place.id} is not running")
    group = oci_state.group_of(known)
    if group is None:
        raise SetupFailed(f"container {place.id} has no control group that would tell its processes")
    pids = group.processes()
    if form == "json":
        return json.dumps(pids) + "\n"
    if form != "table":
        raise UsageError(f"there is no format {form!r}", hint="table, or json")
    return _table(pids, words or ("-ef",))


def _table(pids: Sequence[int], words: Sequence[str]) -> str:
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        child = os.posix_spawnp("ps", ["ps", *words], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writing, 1)])
    except OSError as error:
        os.close(reading)
        os.close(writing)
        raise SetupFailed("cannot run ps", why=error.strerror or "", hint="--format json") from error
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as said:
        first, *lines = said.read().splitlines() or [""]
    os.waitpid(child, 0)
    try:
        column = first.split().index("PID")
    except ValueError:
        raise UsageError(f"ps {' '.join(words)} tells no PID") from None
    own = {str(pid) for pid in pids}
    kept = [line for line in lines if len(line.split()) > column and line.split()[column] in own]
    return "\n".join([first, *kept]) + "\n"


def update(place: Place, path: str, given: Mapping[str, str]) -> None:
    """Other limits for a container: those of a document ("-" reads standard input), or of flags. Raises SetupFailed."""
    resources: dict[str, Any] = {}
    if path:
        if path == "-":
            data = sys.stdin.buffer.read(strict_json.DOCUMENT_LIMIT + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(strict_json.DOCUMENT_LIMIT + 1)
        resources = dict(strict_json.load(data, "resources").values)
    for name, text in given.items():
        section, key = _LIMITS[name]
        if not path:
            resources.setdefault(section, {})[key] = text if key in ("cpus", "mems") else _number(name, text)
    with place.alone():
        known = place.known()
        if oci_state.status(place, known) == "stopped":
            raise NotRunning(f"container {place.id} is not running")
        group = oci_state.group_of(known)
        if group is None:
            raise SetupFailed(f"container {place.id} has no control group that could limit it")
        kept = {name: value for name, value in resources.items() if name != "devices"}
        group.limit(limits.from_json(kept), (), more_limits.more_limits(kept).settings)


def _number(name: str, text: str) -> int:
    from nbcontain.runtime.limits import size_bytes

    if text.removeprefix("-").isdecimal():
        return int(text)
    return size_bytes(text, f"--{name}")


def features() -> dict[str, object]:
    """What this runtime knows (features.md)."""
    from nbcontain.linux import mount_options, seccomp
    from nbcontain.oci.seccomp import ACTIONS, FLAGS, OPERATORS

    machine = os.uname().machine
    own, others = seccomp.MACHINES.get(machine, ("", ()))
    return {
        "ociVersionMin": oci_state.VERSIONS[0],
        "ociVersionMax": oci_state.VERSIONS[1],
        "hooks": list(hooks.NAMES),
        "mountOptions": sorted(mount_options.KNOWN),
        "linux": {
            "namespaces": sorted(NAMESPACES),
            "capabilities": [f"CAP_{name}" for name in CAPABILITIES],
            "cgroup": {"v1": True, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": bool(own), "actions": sorted(ACTIONS), "operators": sorted(OPERATORS),
                "archs": sorted((own, *others)), "knownFlags": sorted(FLAGS), "supportedFlags": sorted(FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
    }  # fmt: skip


def write_example(bundle: Path, *, rootless: bool) -> None:
    """A config.json to begin with, beside which a directory rootfs belongs. Raises BadDocument if there is one."""
    path = bundle / "config.json"
    if path.exists():
        raise BadDocument(f"there is a {path} already", hint="remove it first")
    files.write_new(path, (json.dumps(example(rootless=rootless), indent=4) + "\n").encode(), 0o644)


def example(*, rootless: bool = False) -> dict[str, object]:
    """What `spec` writes: a shell, as confined as containers usually are."""
    from nbcontain.runtime.confinement import CAPABILITIES as USUAL
    from nbcontain.runtime.hidden import MASKED, READONLY

    quiet = ["nosuid", "noexec", "nodev"]
    terminals = [] if rootless else ["gid=5"]
    sets = {name: list(USUAL) for name in ("bounding", "effective", "permitted")}
    namespaces = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    mounts: list[dict[str, object]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *terminals]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": [*quiet, "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*quiet, "relatime", "ro"]},
    ]  # fmt: skip
    linux: dict[str, object] = {
        "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        "namespaces": [{"type": name} for name in (*namespaces, *(["user"] if rootless else []))],
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READONLY),
    }
    if rootless:
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.getuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getgid(), "size": 1}]
        linux.pop("resources")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": True, "user": {"uid": 0, "gid": 0}, "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/", "capabilities": sets, "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "container",
        "mounts": mounts,
        "linux": linux,
    }  # fmt: skip


