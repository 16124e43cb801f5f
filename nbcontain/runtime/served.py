"""Files of /proc, /dev and /sys that a container without mounts may open: a list, and nothing that is not on it. Pure.

A name is looked up as it is written. Whatever has a `..` in it, leads through a link of the kernel's (root, cwd), is
another process's, or is a directory, is not served: from an open directory outside one could walk anywhere.
"""

from __future__ import annotations

import re

from nbcontain.values import dataclass

_OF_PROCESS = frozenset({
    "auxv", "cgroup", "cmdline", "comm", "environ", "io", "limits", "loginuid", "maps", "oom_adj", "oom_score",
    "oom_score_adj", "personality", "schedstat", "sessionid", "smaps", "smaps_rollup", "stat", "statm", "status",
    "timerslack_ns", "uid_map", "gid_map", "setgroups", "net/dev", "net/if_inet6", "net/ipv6_route", "net/route",
    "net/tcp", "net/tcp6", "net/udp", "net/udp6",
})  # fmt: skip
_OF_ALL = frozenset({
    "cpuinfo", "filesystems", "loadavg", "meminfo", "stat", "swaps", "uptime", "version", "vmstat",
    *(f"sys/fs/{name}" for name in ("file-max", "nr_open", "pipe-max-size")),
    *(f"sys/fs/inotify/{name}" for name in ("max_user_instances", "max_user_watches")),
    *(f"sys/kernel/random/{name}" for name in ("boot_id", "entropy_avail", "poolsize", "uuid")),
    *(f"sys/kernel/{name}" for name in ("cap_last_cap", "hostname", "ngroups_max", "osrelease", "ostype", "pid_max")),
    "sys/kernel/threads-max", "sys/kernel/version", "sys/net/core/somaxconn", "sys/net/ipv4/ip_local_port_range",
    *(f"sys/vm/{name}" for name in ("max_map_count", "mmap_min_addr", "overcommit_memory", "swappiness")),
})  # fmt: skip
_OF_SYS = frozenset({
    *(f"devices/system/cpu/{name}" for name in ("online", "possible", "present")), "devices/system/node/online",
    *(f"kernel/mm/transparent_hugepage/{name}" for name in ("enabled", "hpage_pmd_size")),
})  # fmt: skip
_DEVICES = frozenset({"null", "zero", "full", "random", "urandom"})
_STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}
_MOUNTS = frozenset({"mounts", "mountinfo", "mountstats"})


@dataclass(frozen=True, slots=True)
class Served:
    """What stands for a path."""

    kind: str
    """proc: of all; process: of the caller; task: of its thread; sys; device; fd; tty; exe; mounts."""
    name: str = ""
    number: int = -1
    """Of a descriptor of the caller's."""


def served(path: bytes, own: tuple[int, ...]) -> Served | None:
    """What an absolute `path` stands for; None where the kernel is to look itself. `own` are the caller's pids."""
    try:
        parts = [part for part in path.decode("ascii").split("/") if part not in ("", ".")]
    except UnicodeDecodeError:
        return None
    if len(parts) < 2 or ".." in parts or path.endswith(b"/"):
        return None
    place, rest = parts[0], "/".join(parts[1:])
    if place == "dev":
        return _device(rest)
    if place == "sys":
        return Served("sys", rest) if rest in _OF_SYS else None
    return _proc(parts[1], "/".join(parts[2:]), rest, own) if place == "proc" else None


def _device(rest: str) -> Served | None:
    if rest in _DEVICES:
        return Served("device", rest)
    if rest in _STREAMS:
        return Served("fd", number=_STREAMS[rest])
    if match := re.fullmatch(r"fd/(\d{1,7})", rest):
        return Served("fd", number=int(match[1]))
    return Served("tty") if rest == "tty" else None


def _proc(first: str, leaf: str, rest: str, own: tuple[int, ...]) -> Served | None:
    if not leaf and first in _MOUNTS:
        return Served("mounts", first)
    if first == "net":
        return Served("process", rest) if rest in _OF_PROCESS else None
    if first not in ("self", "thread-self") and not (first.isdecimal() and int(first) in own):
        return Served("proc", rest) if rest in _OF_ALL else None
    if match := re.fullmatch(r"(?:task/\d{1,7}/)?fd/(\d{1,7})", leaf):
        return Served("fd", number=int(match[1]))
    leaf = re.sub(r"^task/\d{1,7}/", "", leaf)
    if leaf in _MOUNTS:
        return Served("mounts", leaf)
    if leaf == "exe":
        return Served("exe")
    if leaf in _OF_PROCESS:
        return Served("task" if first == "thread-self" else "process", leaf)
    return None
