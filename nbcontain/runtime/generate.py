"""From an image's config and what the user asked for to a runtime spec. Pure: nothing is looked up or made."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nbcontain import detach_keys
from nbcontain.errors import UsageError
from nbcontain.oci.image import ImageConfig
from nbcontain.oci.spec import Linux, Mount, Process, Spec, User
from nbcontain.options import REST, argument, option, with_defaults
from nbcontain.runtime import hosts, limits, sharing
from nbcontain.runtime.annotations import DEFAULT_PATH, GROUPS, REAPER, USER
from nbcontain.runtime.confinement import ConfinementOptions, confinement
from nbcontain.runtime.grants import GrantOptions, device_rules, devices, groups, oom_score, sysctls
from nbcontain.runtime.hosts import NETWORK_FILES
from nbcontain.runtime.lifetimes import LifeOptions
from nbcontain.runtime.mounts import MountOptions
from nbcontain.runtime.networking import NetworkOptions, is_own, mode_of
from nbcontain.runtime.resources import LimitOptions, ThrottleOptions, resources_of
from nbcontain.runtime.sharing import Donor, NamespaceOptions
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.host import Host

_SHM_BYTES = 64 << 20
STREAMS = ("stdin", "stdout", "stderr")
_NO_DONORS: Mapping[str, Donor] = MappingProxyType({})
_UMASK = r"[0-7]{1,4}"
_QUIET = ("nosuid", "noexec", "nodev")
_ALL_QUIET = ("rnosuid", "rnoexec", "rnodev")
"""Of every mount below, where a tree of the host's is mounted."""


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ProgramOptions:
    """What whoever starts a program in a new container can say of it, and of what it finds there."""

    heading = "the program and its surroundings"

    environment: tuple[str, ...] = option("-e", "--env", help="NAME=value, or NAME to pass it on", metavar="NAME=VALUE")
    env_file: tuple[str, ...] = option("--env-file", help="a file of NAME=value lines", metavar="FILE")
    env_host: bool = option("--env-host", help="all variables that there are here, as podman has it")
    workdir: str = option("-w", "--workdir", help="the directory to run in", metavar="DIR")
    user: str = option("-u", "--user", help="user[:group], by name or number", metavar="USER")
    umask: str = option("--umask", help="of its first program (0022), as podman has it", metavar="MODE")
    hostname: str = option("-h", "--hostname", help="what the container calls itself")
    domainname: str = option("--domainname", help="the NIS domain that it calls itself of", metavar="NAME")
    attach: tuple[str, ...] = option(
        "-a", "--attach", help="only these streams are seen: stdin, stdout, stderr", metavar="STREAM"
    )
    shm_size: str = option("--shm-size", help="of /dev/shm (default: 64m)", metavar="SIZE")
    ulimits: tuple[str, ...] = option("--ulimit", help="a limit, as in nofile=1024:2048", metavar="TYPE=SOFT[:HARD]")
    labels: tuple[str, ...] = option("-l", "--label", help="NAME=value, for people and programs", metavar="NAME=VALUE")
    read_only: bool = option("--read-only", help="nothing in its root can be changed")
    pull: str = option("--pull", help="always, missing, never or newer", default="missing", metavar="POLICY")
    quiet: bool = option("-q", "--quiet", help="nothing is said of what is pulled")
    platform: str = option("--platform", help="of the image, as in linux/arm64", metavar="PLATFORM")
    isolation: str = option("--isolation", help="how it is shut in: %nbcontain doctor lists the rungs", metavar="RUNG")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ExchangeOptions:
    """What `run` and `exec` can be told of what goes in and comes out. docker has none of it."""

    heading = "what goes in and comes out, which docker has not"

    put: tuple[str, ...] = option("--put", help="a variable of the notebook, or a file, to be there at the beginning",
                                  metavar="NAME:/PATH")  # fmt: skip
    get: tuple[str, ...] = option("--get", help="a file to be had at the end, in a variable or a file",
                                  metavar="NAME=/PATH")  # fmt: skip
    stdin: str = option("--stdin", help="a variable of the notebook, or a file, for it to read", metavar="NAME")
    exchange: Any = None
    """What these three say (`nbcontain.exchange`), where that is known already."""
    no_raise: bool = option("--no-raise", help="an exit code other than 0 is no error")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class RunOptions(
    ProgramOptions, NetworkOptions, MountOptions, LimitOptions, LifeOptions, ExchangeOptions, ConfinementOptions,
    GrantOptions, NamespaceOptions, ThrottleOptions
):
    """What `run` and `create` can be told. Flags, help and completion are made from this, what is said most first."""

    image: str = argument(help="an image's name or id")
    command: tuple[str, ...] = argument(help="in place of the image's CMD", nargs=REST)
    detach: bool = option("-d", "--detach", help="leave it running and return at once")
    remove: bool = option("--rm", help="forget it when it exits")
    interactive: bool = option("-i", "--interactive", help="hand standard input through")
    tty: bool = option("-t", "--tty", help="give it a terminal; -it is your own")
    name: str = option("--name", help="what to call the container")
    replace: bool = option("--replace", help="one that has this --name is removed first, as podman has it")
    entrypoint: str | None = option("--entrypoint", help="in place of the image's ENTRYPOINT", default=None)
    init: bool = option("--init", help="a small first process that reaps and passes signals on")
    detach_keys: str = option("--detach-keys", help="what to type to leave it running", default=detach_keys.DEFAULT)
    sig_proxy: bool = option(
        "--sig-proxy", help="signals that a terminal's command gets go to the program; =false leaves it running",
        default=True,
    )  # fmt: skip
    console_size: tuple[int, int] = (0, 0)
    runtime: str = option(
        "--runtime", help="another program makes it: crun, runc, or a path", metavar="RUNTIME"
    )
    stop_signal: str = option("--stop-signal", help="what stop sends", metavar="SIGNAL")
    stop_timeout: int = option("--stop-timeout", help="how long stop waits", default=10, metavar="SECONDS")


@dataclass(frozen=True, kw_only=True)
@with_defaults
class ExecOptions(ExchangeOptions):
    """What `exec` can be told."""

    name: str = argument(help="a running container", metavar="CONTAINER")
    command: tuple[str, ...] = argument(help="the program and its arguments", nargs=REST, metavar="COMMAND")
    detach: bool = option("-d", "--detach", help="leave it running and return at once")
    environment: tuple[str, ...] = option("-e", "--env", help="NAME=value, or NAME to pass it on", metavar="NAME=VALUE")
    env_file: tuple[str, ...] = option("--env-file", help="a file of NAME=value lines", metavar="FILE")
    privileged: bool = option("--privileged", help="with all capabilities, and every call of the kernel's")
    workdir: str = option("-w", "--workdir", help="the directory to run in", metavar="DIR")
    user: str = option("-u", "--user", help="user[:group], by name or number", metavar="USER")
    interactive: bool = option("-i", "--interactive", help="hand standard input through")
    tty: bool = option("-t", "--tty", help="give it a terminal; -it is your own")
    detach_keys: str = option("--detach-keys", help="what to type to leave it running", default=detach_keys.DEFAULT)


def generate(
    config: ImageConfig,
    options: RunOptions,
    host: Host,
    *,
    files: Path | None = None,
    hostname: str = "",
    environ: Mapping[str, str] = os.environ,
    mounts: Sequence[Mount] = (),
    donors: Mapping[str, Donor] = _NO_DONORS,
) -> Spec:
    """The spec of a container of an image with this config. Raises UsageError for what makes no sense.

    The network is one that was decided on (see `runtime.networking`). `files` is where hosts, hostname and resolv.conf
    for its /etc are; `hostname` is used unless the options name one.
    `mounts` is what else it sees: volumes and the like. `donors` are the containers whose namespaces it joins, by
    "pid", "ipc" and "user". The host's ids are the container's: where root's containers have others, what they are
    given is shown with their map (`runtime.shifted`).
    """
    has_network = is_own(mode_of(options.network))
    args = _arguments(config, options)
    environment = without(merged(config.env, environment_of(options, environ)), options.environment, environ)
    if not any(entry.startswith("PATH=") for entry in environment):
        environment = (f"PATH={DEFAULT_PATH}", *environment)
    if options.tty and not any(entry.startswith("TERM=") for entry in environment):
        environment = ("TERM=xterm", *environment)
    is_mapped = not host.ids.is_identity
    sharing.checked(options, options.hostname or options.domainname)
    shared = sharing.shared(options, host, donors=donors, own_network=has_network)
    has_name = "uts" in shared.namespaces
    name = options.hostname or hostname if has_name else os.uname().nodename
    if options.device_cgroup_rule and is_mapped and host.is_root:
        raise UsageError(
            f"--device-cgroup-rule and --userns {options.userns} cannot be together",
            why="in a user namespace no node can be made", hint="--device /dev/NAME gives one",
        )  # fmt: skip
    if name and not any(entry.startswith("HOSTNAME=") for entry in environment):
        # Some images say where to listen by that name.
        environment = (*environment, f"HOSTNAME={name}")
    confined = confinement(options, config.platform.architecture, host.kernel)
    shm_bytes = limits.size_bytes(options.shm_size, "--shm-size") if options.shm_size else _SHM_BYTES
    # Who may make nodes must not be able to open what they stand for: then devices are mounts, and nothing else.
    makes_nodes = "CAP_MKNOD" in confined.capabilities and not options.privileged
    own = _own_mounts(
        host, options, sharing.memory(options, shm_bytes, donors, is_rootless=is_mapped),
        # With rules of its own a control group is what keeps it from them.
        ("nodev",) if makes_nodes and not options.device_cgroup_rule else (),
    )  # fmt: skip
    annotations = {
        **_annotations(options.annotations), **shared.annotations, USER: options.user or config.user,
        GROUPS: groups(options.group_add),
    }  # fmt: skip
    if options.init:
        annotations[REAPER] = "true"
    annotations[hosts.HOSTS] = hosts.lines(tuple(map(hosts.added, options.add_hosts)))
    shown = ("idmap",) if is_mapped and host.is_root and _mounts(host) else ()
    shown = (*shown, "ro") if options.read_only else shown
    return Spec(
        process=Process(
            args=args,
            env=environment,
            cwd=_directory(options.workdir or config.working_dir or "/"),
            terminal=options.tty,
            console_size=options.console_size,
            capabilities=confined.capabilities,
            no_new_privileges=confined.no_new_privileges,
            apparmor=confined.apparmor,
            label=confined.label,
            oom_score_adj=oom_score(options.oom_score_adj),
            rlimits=limits.ulimits(options.ulimits),
            user=User(umask=_umask(options.umask)),
        ),
        hostname=name if has_name else "",
        domainname=options.domainname,
        mounts=(
            *own,
            *devices(options.device, privileged=options.privileged),
            # What lies inside of another comes after it, whoever asked for that.
            *sorted((*_network_mounts(files, shown), *mounts), key=lambda each: each.destination.count("/")),
        ),
        linux=Linux(
            namespaces=shared.namespaces,
            paths=shared.paths,
            uid_mappings=host.ids.uids if is_mapped else (),
            gid_mappings=host.ids.gids if is_mapped else (),
            masked_paths=confined.masked,
            readonly_paths=confined.readonly,
            seccomp=confined.seccomp,
            resources=resources_of(options) | _device_rules(options, is_rootless=not host.is_root),
            rootfs_propagation=_propagation(mounts),
            sysctl=sysctls(
                options.sysctl, has_network=has_network,
                has_ipc="ipc" in shared.namespaces and "ipc" not in shared.paths,
            ),
        ),
        root_readonly=options.read_only,
        annotations={key: value for key, value in annotations.items() if value},
    )


def _device_rules(options: RunOptions, *, is_rootless: bool) -> dict[str, object]:
    rules = device_rules(
        options.device, privileged=options.privileged, is_rootless=is_rootless, more=options.device_cgroup_rule
    )
    return {"devices": rules} if rules else {}


def streams(options: RunOptions) -> frozenset[str]:
    """Those of a container that runs in the foreground which are seen, and "stdin" if it is. Raises UsageError."""
    found = frozenset(each.lower() for each in options.attach) or frozenset(STREAMS)
    if unknown := found - set(STREAMS):
        raise UsageError(f"--attach {', '.join(sorted(unknown))}: valid streams are STDIN, STDOUT and STDERR")
    if options.attach and options.detach:
        raise UsageError("conflicting options: -a and -d", why="-d: none of its streams is seen")
    return found


def _annotations(entries: Sequence[str]) -> dict[str, str]:
    """--annotation: NAME=value each; names of ours mean something and are not to be had. Raises UsageError."""
    found = dict(entry.partition("=")[::2] for entry in entries)
    for name in found:
        if not name or name.startswith("org.nbcontain."):
            raise UsageError(f"--annotation {name}={found[name]}: that is no name for one", hint="--annotation a.b=c")
    return found


def _arguments(config: ImageConfig, options: RunOptions) -> tuple[str, ...]:
    """ENTRYPOINT and CMD as docker combines them: a given entrypoint drops the image's CMD."""
    if options.entrypoint is not None:
        entrypoint = (options.entrypoint,) if options.entrypoint else ()
        args = (*entrypoint, *options.command)
    else:
        args = (*(config.entrypoint or ()), *(options.command or config.cmd or ()))
    if not args:
        raise UsageError(
            "there is no command to run",
            why="the image has neither CMD nor ENTRYPOINT",
            hint="give one after the image",
        )
    return args


def merged(base: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """NAME=value lists, the later one winning, each name once in the place it first had."""
    values: dict[str, str] = {}
    for entry in (*base, *more):
        name, _, value = entry.partition("=")
        values[name] = value
    return tuple(f"{name}={value}" for name, value in values.items())


def without(entries: Sequence[str], asked: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """An environment without what -e NAME asks for and the caller does not have: docker takes the image's own away."""
    gone = {name for name in asked if "=" not in name and name not in environ}
    return tuple(each for each in entries if each.partition("=")[0] not in gone)


def passed_on(entries: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """NAME=value as given; NAME alone with the caller's value, or not at all where the caller has none."""
    given = (
        entry if "=" in entry else f"{entry}={environ[entry]}" for entry in entries if "=" in entry or entry in environ
    )
    return tuple(given)


def environment_of(options: RunOptions | ExecOptions, environ: Mapping[str, str]) -> tuple[str, ...]:
    """What --env-file and -e say, those of -e last. Raises UsageError."""
    entries = [f"{name}={value}" for name, value in environ.items()] if getattr(options, "env_host", False) else []
    for name in options.env_file:
        try:
            text = Path(name).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UsageError(f"cannot read --env-file {name}", why=why, hint="a file of NAME=VALUE lines") from error
        # Not splitlines(), which also breaks values at form feeds and U+2028.
        lines = (line.lstrip().removesuffix("\r") for line in text.split("\n"))
        told = [line for line in lines if line and not line.startswith("#")]
        if spaced := next((each for each in told if re.search(r"\s", each.partition("=")[0])), ""):
            # No shell could ask for it: more often than not it is a comment, or `export NAME=value`.
            variable = spaced.partition("=")[0]
            raise UsageError(f"--env-file {name}: variable {variable!r} contains whitespace", hint="NAME=VALUE")
        entries += told
    for entry in (*entries, *options.environment):
        if not entry.partition("=")[0] or "\0" in entry:
            raise UsageError(f"-e {entry!r} names no variable", hint="-e NAME=value")
    return passed_on((*entries, *options.environment), environ)


def _umask(text: str) -> int:
    if not text:
        return User().umask
    if not re.fullmatch(_UMASK, text):
        raise UsageError(f"--umask {text!r} is no mask", hint="--umask 0077")
    return int(text, 8)


def _directory(path: str) -> str:
    if not path.startswith("/"):
        raise UsageError(f"the working directory {path!r} is not absolute", hint="-w /some/directory")
    return path


def _propagation(mounts: Sequence[Mount]) -> str:
    """What the root has to be for the mounts in it that are shared with the host, or follow it, to be that."""
    words = {word.removeprefix("r") for each in mounts for word in each.options}
    return "shared" if "shared" in words else "slave" if "slave" in words else ""


def _mounts(host: Host) -> bool:
    from nbcontain.host import Ability

    return host.can(Ability.ADMIN)


def _own_mounts(
    host: Host, options: RunOptions, memory: tuple[Mount, ...], nodes: tuple[str, ...]
) -> tuple[Mount, ...]:
    """/proc, /dev, /sys and what is in them."""
    from nbcontain.host import Ability

    is_mapped = not host.ids.is_identity
    proc = Mount("/proc", "proc", "proc", _QUIET)
    access = () if options.privileged else ("ro",)
    if is_mapped and options.pid == "host":
        proc = Mount("/proc", "bind", "/proc", ("rbind", *_ALL_QUIET))
    elif not host.can(Ability.FRESH_PROC):
        # It shows this machine's processes, whose files (oom_score_adj) are a user's own inside, too.
        proc = Mount("/proc", "bind", "/proc", ("rbind", *_ALL_QUIET, *(f"r{each}" for each in access)))
    sys_ = Mount("/sys", "sysfs", "sysfs", (*_QUIET, *access))
    owns_network = host.is_root or is_own(mode_of(options.network))
    if is_mapped and not (owns_network and host.can(Ability.FRESH_PROC)):
        # A sysfs shows the network namespace of whoever mounts it, and may be mounted by the owner of that alone (root
        # owns all); and like a procfs not at all where parts of this machine's are covered.
        sys_ = Mount("/sys", "bind", "/sys", ("rbind", *_ALL_QUIET, *(f"r{each}" for each in access)))
    tty = ("gid=5",) if host.ids.has_gid(5) else ()
    return (
        proc,
        Mount("/dev", "tmpfs", "tmpfs", ("nosuid", *nodes, "noexec", "strictatime", "mode=755", "size=65536k")),
        Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *tty)),
        *memory,
        sys_,
    )


def _network_mounts(files: Path | None, words: tuple[str, ...]) -> tuple[Mount, ...]:
    if files is None:
        return ()
    return tuple(
        Mount(f"/etc/{name}", "bind", f"{files}/{name}", ("bind", "nosuid", "nodev", *words)) for name in NETWORK_FILES
    )
