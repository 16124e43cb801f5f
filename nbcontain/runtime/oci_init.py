"""The first process of somebody else's bundle, between `create` and its program. Run by init.

The steps, and their order, are those of `runtime.contained`; but all is just as the bundle says, hooks are run where
the specification wants them, and there is no supervisor: who creates it goes away, who starts it comes by a socket.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping

from nbcontain.errors import SetupFailed
from nbcontain.linux import confine, mount_options, syscalls, trees
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Mount, Spec
from nbcontain.runtime import cgroup_mounts, console, devices, furniture, hooks, isolation, namespaces, programs
from nbcontain.runtime.annotations import PART
from nbcontain.runtime.messages import Channel, Listener, Message, describe
from nbcontain.runtime.rungs import Rung
from nbcontain.runtime.stage import keep_only
from nbcontain.values import replace

_LONG = 300_000_000
"""Looks, not calls: some ten seconds. Whoever should have taken it is gone by then."""
ROOT, LISTENER = -1, -2
"""What descriptors are besides mounts by their number: the tree that is the root, and where `start` comes to."""


def be_container(channel: Channel, message: Message, fds: list[int], _: Rung) -> None:
    """Init: make the container and become its program, when somebody wants it started.

    `channel` is to whoever creates it. What goes wrong before "ready" is told there, and after it to who starts it.
    """
    # Its life hangs on nobody's any more: who creates it ends, and it is a child of whoever reaps then.
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 0)
    spec = spec_codec.spec_from_json(message["config"])
    state: Mapping[str, object] = message["state"]
    opened = dict(zip(message["opened"], fds, strict=True))
    listener, kept = opened.pop(LISTENER), range(3, 3 + message["preserved"])
    late = namespaces.late(spec.linux)
    isolation.separate(late)
    has_mounts = bool(late & syscalls.CLONE_NEWNS)
    if spec.hostname:
        syscalls.sethostname(spec.hostname)
    if spec.domainname:
        syscalls.setdomainname(spec.domainname)
    root_fd = opened.pop(ROOT)
    if has_mounts:
        root_fd = isolation.lay_root(root_fd if message["rooted"] else syscalls.open_tree(root_fd, recursive=True))
    elif spec.mounts or spec.linux.masked_paths or spec.linux.readonly_paths or spec.root_readonly:
        raise SetupFailed(
            "its mounts would be this machine's", why="it has no mount namespace of its own", hint="add one to it"
        )
    if spec.linux.sysctl:
        isolation.set_knobs(spec.linux.sysctl)
    if has_mounts:
        _furnish(root_fd, spec, opened)
    terminal = console.furnished(root_fd, spec.process.console_size) if spec.process.terminal else None
    # Hooks that see the container and are of the machine: run by who creates it, while everything is there.
    channel.send({"furnished": True})
    if channel.receive()[0] is None:
        return
    hooks.run("createContainer", spec.hooks.get("createContainer", ()), {**state, "pid": os.getpid()})
    if message["pivot"] and has_mounts:
        isolation.pivot(root_fd)
        isolation.propagate(spec.linux.rootfs_propagation)
    else:
        isolation.change_root(root_fd)
    if terminal is not None:
        for number in (0, 1, 2):
            os.dup2(terminal.peer, number)
    ends = [terminal.master] if terminal else []
    keep_only(channel, listener, *kept, *ends)
    if "pid" in spec.linux.paths or "pid" not in spec.linux.namespaces:
        # Whoever is there already must not reach into it through /proc.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    program = programs.prepare(
        spec.process, {}, bytes.fromhex(message["seccomp"]), path="", domain=spec.linux.personality
    )
    # Nor may whoever joins it while it waits.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    channel.send({"ready": True}, (terminal.master, 0) if terminal else ())
    if terminal is not None:
        os.close(terminal.master)
    channel.close()
    starter = _started(listener, kept)
    try:
        hooks.run(
            "startContainer", spec.hooks.get("startContainer", ()), {**state, "status": "created", "pid": os.getpid()}
        )
        tell_of_listener(program, starter)
        programs.execute(program, spec.process)
    except BaseException as error:  # noqa: BLE001 - told to who starts it
        starter.tell(describe(error))
        raise


def _started(listener: int, kept: range) -> Channel:
    """Wait until somebody comes who wants it started."""
    door = Listener(listener)
    while True:
        starter = door.accept()
        if starter.receive()[0] is not None:
            door.close()
            os.set_inheritable(starter.fileno(), False)
            keep_only(starter, *kept)
            return starter
        # Came and went.
        starter.close()


def tell_of_listener(program: programs.Program, channel: Channel) -> None:
    """Load a filter that hands calls on, after having said which descriptor it will do that on.

    Who waits takes it from here, and says so by a byte in memory: after that filter there may be no call of the kernel
    that does not wait for somebody who has the descriptor. By then it must not have been closed by exec.
    """
    if not program.tells:
        return
    memory = os.memfd_create("taken", os.MFD_CLOEXEC)
    os.write(memory, b"\0")
    taken = mmap.mmap(memory, 1)
    number = os.open("/", os.O_PATH | os.O_CLOEXEC)
    os.close(number)
    channel.send({"listener": number}, (memory,))
    program.enforce()
    for _ in range(_LONG):
        if taken[0]:
            break


def be_process(channel: Channel, message: Message, fds: list[int]) -> None:
    """A further process, inside the container's namespaces: become its program."""
    process = spec_codec.process_from_json(message["process"])
    kept = range(3, 3 + message["preserved"])
    terminal = None
    if process.terminal:
        confine.reduce(process)
        terminal = console.inside(process.console_size)
        for number in (0, 1, 2):
            os.dup2(terminal.peer, number)
        channel.send({"console": True}, (terminal.master, 0))
        terminal.close()
    keep_only(channel, *kept)
    program = programs.prepare(
        process, {}, bytes.fromhex(message["seccomp"]), path="", domain=message["personality"], is_first=False
    )
    tell_of_listener(program, channel)
    programs.execute(program, process)


def _furnish(root_fd: int, spec: Spec, opened: Mapping[int, int]) -> None:
    """Init: everything that is mounted, just as the bundle says, with the devices that every container has."""
    by_binding = "user" in spec.linux.namespaces
    kernel_devices: set[int] = set()
    made: list[str] = []
    has_devices = is_own = False
    for number, mount in enumerate(spec.mounts):
        options = mount_options.parse(mount.options, PART)
        path = "/" + os.path.normpath(mount.destination).lstrip("/")
        place = furniture.Place(root_fd, path, furniture.may_be_covered(path))
        if path == "/dev":
            has_devices, is_own = True, mount.type != "bind" and not options.is_bind
        if mount.type == "cgroup":
            own = "cgroup" in spec.linux.namespaces
            mount_fd, within = cgroup_mounts.tree(mount, options, has_own=own)
            furniture.mount_into(place, replace(mount, options=()), made, kernel_devices, mount_fd)
            cgroup_mounts.fill(root_fd, path, within, options)
        elif path == "/dev" and is_own:
            # Read-only, if that is said, when the nodes are there.
            writable = replace(mount, destination=path, options=tuple(each for each in mount.options if each != "ro"))
            furniture.mount_into(place, _labelled(writable, spec), made, kernel_devices, -1)
            devices.make_usual(devices.opened(root_fd), by_binding=by_binding or "nodev" in mount.options)
        else:
            furniture.mount_into(
                place, _labelled(replace(mount, destination=path), spec), made, kernel_devices, opened.get(number, -1)
            )
    if not has_devices:
        os.close(trees.make_target(root_fd, "/dev", made, directory=True))
        devices.make_usual(devices.opened(root_fd), by_binding=by_binding)
    if is_own or not has_devices:
        for device in spec.linux.devices:
            devices.make(root_fd, device, by_binding=by_binding)
    for mount in spec.mounts:
        if os.path.normpath(mount.destination) == "/dev" and is_own and "ro" in mount.options:
            dev = trees.open_in(root_fd, "/dev")
            syscalls.mount_setattr(dev, syscalls.MOUNT_ATTR_RDONLY)
            os.close(dev)
    furniture.restrict(root_fd, spec)


def _labelled(mount: Mount, spec: Spec) -> Mount:
    """With SELinux's label for the file systems that are made, where there is one."""
    if not spec.linux.mount_label or mount.type in ("bind", "proc", "sysfs") or {"bind", "rbind"} & {*mount.options}:
        return mount
    return replace(mount, options=(*mount.options, f"context={spec.linux.mount_label}"))
