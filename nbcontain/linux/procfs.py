"""What files of /proc say of a process, as values (proc(5), namespaces(7), user_namespaces(7)). Pure: texts come in."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from nbcontain.linux.capabilities import CAPABILITIES
from nbcontain.oci.spec import IdMapping
from nbcontain.values import dataclass

NAMESPACES = {
    "user": "user", "pid": "pid", "mount": "mnt", "network": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup",
    "time": "time",
}  # fmt: skip
"""The runtime specification's words, and what their files in /proc/PID/ns are called."""


@dataclass(frozen=True, slots=True)
class MountLine:
    """One line of mountinfo."""

    destination: str
    kind: str
    source: str
    root: str
    """What of the file system is mounted."""
    is_readonly: bool


def status_of(text: str) -> dict[str, str]:
    """/proc/PID/status: names and what follows them."""
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs}


def mounts_of(text: str) -> list[MountLine]:
    """/proc/PID/mountinfo. What is mounted over something else at the same place stands for both."""
    found: dict[str, MountLine] = {}
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        words, rest = left.split(), right.split()
        if not separator or len(words) < 6 or len(rest) < 2:
            continue
        readonly = "ro" in words[5].split(",") or (len(rest) > 2 and "ro" in rest[2].split(","))
        point = unescaped(words[4])
        found[point] = MountLine(point, rest[0], unescaped(rest[1]), unescaped(words[3]), readonly)
    return list(found.values())


def unescaped(text: str) -> str:
    """A path as it is: blanks and the like are written in octal there."""
    if "\\" not in text:
        return text
    head, *parts = text.split("\\")
    return head + "".join(
        chr(int(part[:3], 8)) + part[3:] if part[:3].isdigit() and len(part) >= 3 and "8" not in part[:3] and
        "9" not in part[:3] else f"\\{part}" for part in parts
    )  # fmt: skip


def id_map_of(text: str) -> tuple[IdMapping, ...]:
    """/proc/PID/uid_map or gid_map."""
    rows = (line.split() for line in text.splitlines())
    return tuple(IdMapping(*map(int, row)) for row in rows if len(row) == 3)


def inside(number: int, mappings: Sequence[IdMapping]) -> int | None:
    """What an id of this machine is called inside; None for one that has no name there."""
    for each in mappings:
        if each.host_id <= number < each.host_id + each.size:
            return each.container_id + number - each.host_id
    return None


def capabilities_of(mask: str) -> tuple[str, ...]:
    """The names of a mask of status, without CAP_."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return ()
    return tuple(name for number, name in enumerate(CAPABILITIES) if bits >> number & 1)


def addresses_of(fib_trie: str, if_inet6: str) -> tuple[str, ...]:
    """The addresses of a network namespace: of IPv4 from the table of local routes, of IPv6 with their interfaces."""
    found: dict[str, None] = {}
    last = ""
    for line in fib_trie.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "|--":
            last = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"] and last:
            found[last] = None
    for line in if_inet6.splitlines():
        words = line.split()
        if len(words) == 6 and len(words[0]) == 32:
            found[str(ipaddress.IPv6Address(bytes.fromhex(words[0])))] = None
    return tuple(found)


def interfaces_of(net_dev: str) -> dict[str, tuple[int, int]]:
    """/proc/PID/net/dev: interfaces, with the bytes that came and went."""
    found = {}
    for line in net_dev.splitlines()[2:]:
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) >= 9:
            found[name.strip()] = (int(words[0]), int(words[8]))
    return found


SECCOMP: Mapping[str, str] = {"0": "none", "1": "strict", "2": "a filter"}
"""Modes of status."""
