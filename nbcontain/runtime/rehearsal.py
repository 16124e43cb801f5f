"""A start, done beforehand and without effect, by processes that wait for their order. Run by zygote, spare and init.

Memory is shared with the zygote until it is written to, and Python writes to what it merely looks at: the kernel
copies some hundred pages while nobody waits, instead of while somebody does. In the zygote a rehearsal makes the
interpreter fit its code to what it is used for, which it would otherwise do in each child anew.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from nbcontain.events import Finished, Record, Started, encode
from nbcontain.linux import mount_options, trees
from nbcontain.linux.idmap import IdMap
from nbcontain.linux.starts import start_time
from nbcontain.oci import spec_codec
from nbcontain.oci.spec import Linux, Mount, Process, Spec
from nbcontain.runtime import calls, endings, programs, rungs
from nbcontain.runtime.annotations import DEFAULT_PATH, PART, USER
from nbcontain.runtime.bundle import Bundle, ContainerInfo, info_of, info_to_json
from nbcontain.runtime.messages import Channel
from nbcontain.runtime.supervisor import Supervisor
from nbcontain.store import files
from nbcontain.values import replace

_NOWHERE = Path("/dev/null/containers/nowhere")
"""Nothing can be written there."""
_TIMES = 16
"""As often the interpreter has to see code before it is fitted."""
_CAPABILITIES = tuple(f"CAP_{name}" for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETUID", "SETGID"))
_MOUNTS = (
    Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
    Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "noexec", "strictatime", "mode=755", "size=65536k")),
    Mount("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    Mount("/dev/shm", "tmpfs", "shm", ("nosuid", "noexec", "nodev", "mode=1777", "size=65536k")),
    Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    *(Mount(path, "bind", path, ("bind", "nosuid", "nodev")) for path in sorted(rungs.FURNITURE)),
)
_SPEC = spec_codec.spec_to_text(
    Spec(
        Process(("true",), (f"PATH={DEFAULT_PATH}", "HOME=/root"), capabilities=_CAPABILITIES),
        hostname="rehearsal", mounts=_MOUNTS,
        linux=Linux(
            ("mount", "pid", "ipc", "uts", "cgroup", "network"),
            masked_paths=("/proc/kcore", "/proc/keys"), readonly_paths=("/proc/bus", "/proc/sys"),
        ),
        annotations={USER: "root"},
    )
)  # fmt: skip
_INFO = json.dumps(info_to_json(ContainerInfo("0" * 64, "rehearsal", "image", labels={"a": "b"}, command=("true",))))


def of_zygote(ids: IdMap) -> None:
    """Zygote, when there is nothing to do."""
    for _ in range(_TIMES):
        of_supervisor(ids)
        of_init()


def of_supervisor(ids: IdMap) -> None:
    """A spare, while it waits for its order."""
    info = info_of(json.loads(_INFO))
    ends = [end for _ in range(2) for end in os.pipe2(os.O_CLOEXEC)]
    run = Supervisor(ids, Bundle(_NOWHERE, info), 0, -1)
    run.outputs.are(dict.fromkeys(ends, "stdout"))
    run.outputs.watch(run.poll)
    run.choose_sink()
    run.serve_for(0.0)
    run.clients.listener.close()
    ours, theirs = Channel.pair()
    message = {"terminal": False, "volatile": True, "plain": False, "start": True}
    told = calls.be_program(ours, 0, run.bundle, message, -1, ())
    ends += [*told, *theirs.receive()[1]]
    for channel in (ours, theirs):
        channel.close()
    for end in ends:
        os.close(end)
    run.state = replace(run.state, status="running", pid=1, pid_start=start_time(os.getpid()))
    for each in (
        run.clients.open, run.journal.open, lambda: run.bundle.write_stubs(("/etc/hosts",)), run.write_state,
        lambda: run.tell("start"), lambda: endings.put_aside(run.bundle), run.reread,
    ):  # fmt: skip
        with suppress(OSError):
            each()
    for event in (Started(info.id, info.name), Finished(info.id, "done", exit_code=0)):
        encode(Record(0.5, event))
    spec_codec.mounts_from_json(json.loads(json.dumps(spec_codec.mounts_to_json(_MOUNTS[:1]))))


def of_init() -> None:
    """Init, while its supervisor waits."""
    with suppress(OSError):
        # Not there any more where nbcontain was installed anew, or removed, meanwhile.
        files.read(f"{Bundle(Path(__file__)).path}", 1 << 20).decode()
    info_of(json.loads(_INFO))
    spec = spec_codec.spec_from_json(json.loads(_SPEC))
    for mount in spec.mounts:
        mount_options.parse(mount.options, PART)
    programs.rehearse(spec.process, spec.annotations, b"")
    root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.close(trees.make_target(root_fd, "/", [], directory=True))
    os.close(root_fd)
