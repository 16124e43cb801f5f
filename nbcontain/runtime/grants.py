"""What a container gets besides its image: devices, temporary file systems, groups, knobs of the kernel. Pure.

But for one thing: whether a device is there is looked up, as it is for a volume.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nbcontain.errors import UsageError
from nbcontain.linux.device_rules import ANY, DeviceRule, within
from nbcontain.oci.spec import Mount
from nbcontain.options import option, with_defaults
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.host import Host

_TMPFS = ("noexec", "nosuid", "nodev")
_TMPFS_WORDS = {
    "exec": "noexec",
    "noexec": "exec",
    "suid": "nosuid",
    "nosuid": "suid",
    "dev": "nodev",
    "nodev": "dev",
    "ro": "rw",
    "rw": "ro",
}
"""What may be said of one, and what it takes back."""
_SIZE = r"(?i)(\d+)([kmgt%]?)b?"
_OWN_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
"""Of the ipc namespace, which is the container's own, as is fs.mqueue (ipc_namespaces(7))."""
_SYSCTL = r"[a-z0-9_]+([./][A-Za-z0-9_-]+)+"
_RULE = r"([acb]) (\d{1,7}|\*):(\d{1,7}|\*) ([rwm]{1,3})"
_NOT_DEVICES = ("pts", "shm", "mqueue", "fd", "hugepages", "console", "ptmx", "stdin", "stdout", "stderr", "log")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class GrantOptions:
    """What `run` and `create` can be told of it."""

    heading = "devices and grants"

    device: tuple[str, ...] = option(
        "--device", help="/dev/…[:/dev/… inside][:r], or vendor.com/class=name of a CDI file", metavar="DEVICE"
    )
    device_cgroup_rule: tuple[str, ...] = option(
        "--device-cgroup-rule", help="nodes that it may make in /dev and use: c 10:* rwm", metavar="RULE"
    )
    gpus: str = option("--gpus", help="all, how many, or device=0,1: NVIDIA's, by their CDI file", metavar="GPUS")
    group_add: tuple[str, ...] = option("--group-add", help="a group more, by name or number", metavar="GROUP")
    sysctl: tuple[str, ...] = option("--sysctl", help="NAME=value of its own namespaces", metavar="NAME=VALUE")
    oom_score_adj: int | None = option(
        "--oom-score-adj", help="-1000 to 1000: how soon it is killed for memory", default=None, metavar="NUMBER"
    )


def tmpfs_options(words: Sequence[str], said: str) -> tuple[str, ...]:
    """The options of a directory in memory, of which some words were said. Raises UsageError.

    Unless its mode is said it has that of the directory it covers, as with docker, and the kernel's 1777 where there is
    none.
    """
    options = dict.fromkeys(_TMPFS, "")
    for each in words:
        name, _, value = each.partition("=")
        if name in _TMPFS_WORDS and not value:
            options.pop(_TMPFS_WORDS[name], None)
            options[name] = ""
        elif name == "size" and re.fullmatch(_SIZE, value):
            options[name] = value.removesuffix("b").removesuffix("B")
        elif (
            name == "mode"
            and re.fullmatch("[0-7]{3,4}", value)
            or name in ("uid", "gid", "nr_inodes")
            and value.isdecimal()
        ):
            options[name] = value
        else:
            raise UsageError(f"{said}: {each!r} is not known", hint="size=64m mode=1777 uid= gid= ro exec suid dev")
    return tuple(name + (f"={value}" if value else "") for name, value in options.items())


def devices(words: Sequence[str], *, privileged: bool = False) -> tuple[Mount, ...]:
    """The mounts of --device, and of every device of this machine where all power is given. Raises UsageError.

    A mount, so that the same works for ordinary users; read-only, which keeps the node's mode and owner from change,
    and not the device from being written.
    """
    found = [(source, target) for word in words for source, target, _ in _device(word)]
    if privileged:
        taken = {target for _, target in found}
        found += [(each, str(each)) for each in _nodes(Path("/dev")) if str(each) not in taken]
    return tuple(Mount(target, "bind", str(source), ("bind", "nosuid", "noexec", "ro")) for source, target in found)


def device_rules(
    words: Sequence[str], *, privileged: bool, is_rootless: bool, more: Sequence[str] = ()
) -> list[dict[str, object]]:
    """`resources.devices` of config.json, where a --device may be less than read and written, or `more` rules are said;
    otherwise nothing, since what is there may be used as its node's mode says, and nothing else is there.

    Raises UsageError.
    """
    said = [rule for word in more for rule in _cgroup_rules(word)]
    found = [(source, access, word) for word in words for source, _, access in _device(word)]
    limited = [word for _, access, word in found if not {"r", "w"} <= set(access)]
    if privileged or not (limited or more):
        return []
    if is_rootless and not limited:
        raise UsageError(
            f"--device-cgroup-rule {more[0]!r} is root's to give",
            why="a control group keeps it from all other devices, and those for devices are root's",
            hint="--device /dev/NAME gives one",
        )
    if is_rootless:
        raise UsageError(
            f"--device {limited[0]}: only root can have less of a device",
            why="a control group says who may read and write it, and those for devices are root's",
            hint="leave the access out; the node's own mode says what this user may do",
        )
    rules = []
    for source, access, _ in found:
        status = source.stat()
        kind, number = "b" if stat.S_ISBLK(status.st_mode) else "c", status.st_rdev
        rules.append(DeviceRule(True, kind, os.major(number), os.minor(number), access))
    return [each.to_json() for each in within([*rules, *said])]


def _cgroup_rules(word: str) -> list[DeviceRule]:
    """docker's TYPE MAJOR:MINOR ACCESS. Raises UsageError."""
    match = re.fullmatch(_RULE, word)
    if match is None:
        raise UsageError(f"--device-cgroup-rule: invalid device cgroup format {word!r}", hint="'c 10:* rwm'")
    kind, major, minor, access = match.groups()
    numbers = [ANY if each == "*" else int(each) for each in (major, minor)]
    # The kernel reads no further than an "a", and allows everything.
    kinds = "bc" if kind == "a" and (numbers != [ANY, ANY] or set(access) != set("rwm")) else kind
    return [DeviceRule(True, each, numbers[0], numbers[1], access) for each in kinds]


def _device(word: str) -> Iterator[tuple[Path, str, str]]:
    """The nodes that --device names: each here, inside, and what may be done with it."""
    source, _, rest = word.partition(":")
    target, _, access = rest.rpartition(":") if ":" in rest else (rest, "", "")
    if target and not target.startswith("/"):
        target, access = "", target
    if set(access) - set("rwm") or not source.startswith("/"):
        raise UsageError(f"--device {word}: that is no device", hint="--device /dev/fuse, or /dev/sda:/dev/xvda")
    access = access or "rwm"
    path = Path(source)
    if not os.path.exists(path):
        raise UsageError(f"--device {word}: there is no {source} here")
    target = target or source
    if path.is_dir():
        try:
            nodes = [*_nodes(path)]
        except OSError as error:
            raise UsageError(
                f"--device {word}: cannot look into {error.filename}", why=error.strerror or "",
                hint="name the devices, or a directory in it",
            ) from error  # fmt: skip
        yield from ((each, target + str(each).removeprefix(source), access) for each in nodes)
    elif not _is_node(path):
        raise UsageError(
            f"--device {word}: {source} is no device", hint=f"-v {source}:{target} gives a file or directory"
        )
    else:
        yield path, os.path.normpath(target), access


def _nodes(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if path.parent == Path("/dev") and path.name in (
            *_NOT_DEVICES,
            "null",
            "zero",
            "full",
            "random",
            "urandom",
            "tty",
        ):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _nodes(path)
        elif not path.is_symlink() and _is_node(path):
            yield path


def _is_node(path: Path) -> bool:
    mode = path.stat().st_mode
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def groups(words: Sequence[str]) -> str:
    """--group-add as one annotation, whose words are resolved inside the image. Raises UsageError."""
    for word in words:
        if not word or set(word) & set(",:\n\0"):
            raise UsageError(f"--group-add {word!r} is no group", hint="--group-add audio, or a number")
    return ",".join(words)


def own_network(host: Host) -> dict[str, str]:
    """What everybody may do in a network of a container's own, as with docker: ping, and listen at any port.

    Nothing where /proc/sys is shown inside as it is outside, mostly read-only: nobody asked for these.
    """
    from nbcontain.host import Ability

    if not host.can(Ability.FRESH_PROC):
        return {}
    last = min(sum(each.size for each in host.ids.gids), 1 << 31) - 1
    return {"net.ipv4.ping_group_range": f"0 {last}", "net.ipv4.ip_unprivileged_port_start": "0"}


def sysctls(words: Sequence[str], *, has_network: bool, has_ipc: bool = True) -> dict[str, str]:
    """The knobs of --sysctl: those of namespaces that are the container's own. Raises UsageError."""
    found = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not re.fullmatch(_SYSCTL, name) or "\0" in value:
            raise UsageError(f"--sysctl {word!r}: that is no setting", hint="--sysctl kernel.shmmax=1048576")
        dotted = name.replace("/", ".") if name.find("/") >= 0 and "." not in name.split("/")[0] else name
        if dotted in _OWN_SYSCTLS or dotted.startswith("fs.mqueue."):
            if not has_ipc:
                raise UsageError(
                    f"--sysctl {name}: the ipc namespace is not its own", why="--ipc shares it",
                    hint="--ipc private",
                )  # fmt: skip
            found[dotted] = value
        elif dotted.startswith("net."):
            if not has_network:
                raise UsageError(
                    f"--sysctl {name}: the network is this machine's",
                    why="a container that shares it must not change it",
                    hint="--network none gives it one of its own",
                )
            found[dotted] = value
        else:
            raise UsageError(
                f"--sysctl {name} is this machine's", why="it belongs to no namespace of a container's own"
            )
    return found


def oom_score(number: int | None) -> int | None:
    """--oom-score-adj, checked. Raises UsageError."""
    if number is not None and not -1000 <= number <= 1000:
        raise UsageError(f"--oom-score-adj {number} is not between -1000 and 1000")
    return number
