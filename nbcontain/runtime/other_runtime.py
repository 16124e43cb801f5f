"""Containers whose first process another OCI runtime makes: crun, runc, or a program of that kind (--runtime).

The supervisor is theirs as it is of others: it keeps the output, the exit code and the lock, and further programs,
copies and signals are its own doing. Only the way from the bundle to the program is the runtime's: a process of
ours stands in for init, in mounts of its own where the container's root is, and has the runtime create and start it
(runtime.md).
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import SetupFailed, Unavailable, UsageError
from nbcontain.linux import confine, syscalls, trees
from nbcontain.linux.device_rules import DeviceRule, within
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Mount, Spec
from nbcontain.runtime import identity, isolation, stage
from nbcontain.runtime.annotations import GROUPS, OF, PART, REAPER, USER
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.messages import Channel
from nbcontain.store import files, removal
from nbcontain.values import replace

OWN = ("", "nbcontain", "nbcontain-runtime")
"""What --runtime means this one by."""
_LIMIT_BYTES = 1 << 20
_PARENT = "/nbcontain"
"""The control group that ours are in."""
_KINDS = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}


# --- the kernel -----------------------------------------------------------------------------------


def found(name: str, path: str) -> str:
    """The program that --runtime means, on PATH where it is a name; "" for our own. Raises UsageError."""
    if name in OWN:
        return ""
    places = [name] if "/" in name else [f"{each}/{name}" for each in path.split(":") if each]
    for place in places:
        if os.path.isfile(place) and os.access(place, os.X_OK):
            return os.path.realpath(place)
    where = "there is no such program" if "/" in name else f"no program of that name is on PATH ({path})"
    raise UsageError(
        f"unknown or invalid runtime name: {name}", why=where,
        hint="crun, runc or a path; without --runtime it is our own",
    )


def fitted(spec: Spec, container_id: str, runtime: str, *, is_full: bool, restart: str) -> Spec:
    """`spec` as another runtime can have it. Raises Unavailable for what only ours does."""
    marks = [word for each in spec.mounts for word in each.options if word.startswith((OF, PART))]
    refused = {
        "with this isolation: it is for root, where all is allowed": not is_full,
        "with a terminal (-t)": spec.process.terminal,
        "with --init": spec.annotations.get(REAPER) == "true",
        "with --restart": bool(restart),
        "with --userns": "user" in spec.linux.namespaces,
        "with the namespaces of another container": bool(spec.linux.paths),
        "with a part of a volume, or a scratch": bool(marks) or any(each.type == "overlay" for each in spec.mounts),
    }
    for what, is_so in refused.items():
        if is_so:
            raise Unavailable(
                f"--runtime {os.path.basename(runtime)} cannot be had {what}",
                why="that is made by our own runtime alone", hint="leave --runtime out",
            )  # fmt: skip
    # An image may bring nodes, and crun makes a root where they can be opened: so a group keeps it from them.
    resources = {**spec.linux.resources, "devices": spec.linux.resources.get("devices") or _device_rules(spec)}
    linux = replace(spec.linux, resources=resources, cgroups_path=f"{_PARENT}/{container_id}")
    return replace(spec, linux=linux, mounts=tuple(map(_with_nodes, spec.mounts)))


def _device_rules(spec: Spec) -> list[dict[str, object]]:
    """Those of all devices that it was given; of any one for who may mount, and so make one."""
    if "CAP_SYS_ADMIN" in spec.process.capabilities:
        return [DeviceRule(True).to_json()]
    rules = []
    for mount in spec.mounts:
        if mount.type != "bind":
            continue
        # What is not there yet is a file of ours or a volume.
        with suppress(FileNotFoundError):
            status = os.stat(mount.source)
            if kind := _KINDS.get(stat.S_IFMT(status.st_mode)):
                rules.append(DeviceRule(True, kind, os.major(status.st_rdev), os.minor(status.st_rdev)))
    return [each.to_json() for each in within(rules)]


def _with_nodes(mount: Mount) -> Mount:
    """It makes those of /dev itself, also for who may make others, and they are to be used."""
    if mount.destination != "/dev":
        return mount
    return replace(mount, options=tuple(each for each in mount.options if each != "nodev"))


def keeps_groups(runtime: str) -> bool:
    """Whether it has to make the control group itself. crun need not, and cannot where both versions are mounted."""
    return os.path.basename(runtime) != "crun"


# --- the supervisor, and its child ----------------------------------------------------------------


def stand_in(bundle: Bundle) -> stage.Inside:
    """Supervisor: a process that does what init does otherwise, up to the start. It tells the pid of the real one."""
    return stage.attended(lambda channel: _create_and_start(bundle, channel))


def _create_and_start(bundle: Bundle, channel: Channel) -> None:
    message, fds = channel.receive()
    if message is None:
        return
    stage.keep_only(channel, *fds)
    confine.default_signals()
    place, spec = bundle.path / "runtime", bundle.spec
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    if not keeps_groups(bundle.info.runtime):
        # crun refuses a machine where both versions are mounted, also where it is to make no group.
        with suppress(OSError):
            syscalls.umount("/sys/fs/cgroup/unified", syscalls.MNT_DETACH)
    root_fd = isolation.mount_root(bundle.rootfs, volatile=message["volatile"])
    # Of a run before.
    removal.remove_tree(place)
    files.make_directory(place, durable=False)
    document = _document(spec, root_fd, os.readlink(f"/proc/self/fd/{root_fd}"), bundle.info.runtime)
    files.write_new(place / "config.json", json.dumps(document).encode(), durable=False)
    made = _missing(spec, root_fd)
    os.close(root_fd)
    asked = ("create", "--bundle", str(place), "--pid-file", str(place / "pid"))
    _run(bundle, asked, fds[:3])
    channel.send({"ready": True, "made": made, "held": [], "pid": int(files.read(place / "pid", 64))})
    if message["start"] or channel.receive()[0] is not None:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        _run(bundle, ("start",), (null, null, null))


def _run(bundle: Bundle, words: Sequence[str], stdio: Sequence[int]) -> None:
    """One of the runtime's commands. Raises SetupFailed with what it says."""
    place, runtime = bundle.path / "runtime", bundle.info.runtime
    log = place / f"{words[0]}.log"
    flags = () if keeps_groups(runtime) else ("--cgroup-manager=disabled",)
    argv = [runtime, *flags, "--root", str(place / "state"), "--log", str(log), *words, bundle.path.name]
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(stdio)]
    try:
        pid = os.posix_spawn(runtime, argv, {"PATH": os.defpath}, file_actions=actions)
        status = os.waitpid(pid, 0)[1]
    except FileNotFoundError as error:
        raise SetupFailed(
            f"{runtime} is not here any more", errno=errno.ENOENT, path=runtime, why="the container was made for it"
        ) from error
    if status:
        told = b""
        with suppress(FileNotFoundError):
            told = files.read(log, _LIMIT_BYTES)
        said = told.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"it ended with exit code {os.waitstatus_to_exitcode(status)}"
        raise SetupFailed(f"{os.path.basename(runtime)} cannot {words[0]} the container", why=why)


def _document(spec: Spec, root_fd: int, root: str, runtime: str) -> dict[str, object]:
    """config.json as the specification has it: with numbers for names, and nothing of ours."""
    words, groups = spec.annotations.get(USER, ""), spec.annotations.get(GROUPS, "")
    who = identity.resolve(words, _text(root_fd, "/etc/passwd"), _text(root_fd, "/etc/group"), groups)
    env = spec.process.env
    if not any(each.startswith("HOME=") for each in env):
        env = (*env, f"HOME={who.home}")
    user = replace(identity.with_own_group(who.user), umask=spec.process.user.umask)
    process = replace(spec.process, env=env, user=user)
    resources = spec.linux.resources if keeps_groups(runtime) else {}
    spec = replace(spec, process=process, linux=replace(spec.linux, resources=resources))
    document = spec_codec.spec_to_json(spec)
    return {**document, "root": {"path": root, "readonly": spec.root_readonly}}


def _text(root_fd: int, path: str) -> str:
    """A small file of the image's, with its symlinks resolved inside; "" where there is none."""
    try:
        fd = trees.open_in(root_fd, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        return file.read(_LIMIT_BYTES).decode(errors="replace")


def _missing(spec: Spec, root_fd: int) -> list[str]:
    """What the runtime has to make in the root to mount something there: no changes of the container's."""
    made = []
    for mount in spec.mounts:
        path = Path(mount.destination)
        for each in (*reversed(path.parents), path):
            try:
                os.close(trees.open_in(root_fd, str(each)))
            except OSError:
                made.append(str(each))
    return made
