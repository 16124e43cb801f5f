"""A store with one small image, and short ways to run things in it: for the conformance tests of the runtime."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import needs
import places
from nbcontain.build.plan import BuildOptions
from nbcontain.engine import Engine
from nbcontain.errors import NbcontainError
from nbcontain.linux.starts import start_of
from nbcontain.outcomes import RunResult
from nbcontain.profiles import ISOLATION
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import RunOptions

BOX = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY etc /etc
ENV PATH=/bin GREETING=hello
CMD ["sh"]
"""
BOX_OF_HOST = """\
FROM host
COPY etc /etc
COPY more /
ENV GREETING=hello
CMD ["sh"]
"""
"""As many layers, of this machine's own programs: they are not static."""
SU = """\
#!/usr/bin/env python3
import grp, os, pwd, sys
*_, name, _, script = sys.argv
user = pwd.getpwnam(name)
os.setgroups([each.gr_gid for each in grp.getgrall() if name in each.gr_mem])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
os.execv("/bin/sh", ["sh", "-c", script])
"""
"""As busybox has it: this machine's own asks who may. (And its chown takes a name of digits for a name.)"""
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n7:x:1234:1234::/:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\nstaff:x:50:app\naudio:x:29:nobody,app\n"
SLEEP = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done"


class Machine:
    """An engine, and the image `box`: busybox, two users, three groups."""

    def __init__(self, engine: Engine, context: Path, dockerfile: str = BOX) -> None:
        self.engine = engine
        etc = context / "etc"
        etc.mkdir(exist_ok=True)
        (etc / "passwd").write_text(PASSWD)
        (etc / "group").write_text(GROUP)
        self.build(dockerfile, "box", context)

    @classmethod
    def on(cls, engine: Engine) -> Machine:
        """Another engine, in whose store `box` is already, or is not needed."""
        machine = cls.__new__(cls)
        machine.engine = engine
        return machine

    def build(self, dockerfile: str, tag: str, context: Path | None = None) -> str:
        """Build an image; gives its name."""
        self.engine.build(dockerfile, BuildOptions(tags=(tag,), context=context)).result()
        return tag

    def run(self, *command: str, image: str = "box", **options: object) -> RunResult:
        """Run a program to its end and forget the container. Raises ContainerFailed and the like."""
        chosen = RunOptions(image=image, command=command, **{"remove": True, **options})  # type: ignore[arg-type]
        result = self.engine.run(chosen).result()
        assert isinstance(result, RunResult)
        return result

    def sh(self, script: str, **options: object) -> str:
        """What a shell script writes to standard output."""
        return self.run("sh", "-c", script, **options).stdout

    def exit_code(self, *command: str, **options: object) -> int:
        """How a run ends, as a terminal's `$?`."""
        try:
            self.run(*command, **options)
        except NbcontainError as error:
            return error.exit_status
        return 0

    def start(self, script: str, *, image: str = "box", **options: object) -> Container:
        """A detached container that runs a shell script, once it has written its first line."""
        command = ("sh", "-c", script)
        chosen = RunOptions(image=image, command=command, detach=True, **options)  # type: ignore[arg-type]
        container = self.engine.run(chosen).result()
        assert isinstance(container, Container)
        until(lambda: any(container.output()))
        return container

    def execute(self, container: Container, *command: str, **options: object) -> tuple[int, str]:
        """Run a further program in a container: its exit code, and what it wrote to standard output."""
        said: list[bytes] = []
        code = container.execute(
            command, on_output=lambda stream, data: said.append(data) if stream == "stdout" else None, **options
        )  # type: ignore[arg-type]
        return code, b"".join(said).decode()

    def left(self) -> list[str]:
        """What is in the store besides images and caches: containers, their layers, and temporary things."""
        layout = self.engine.layout
        places = (layout.containers, layout.actives, layout.tmp)
        return [f"{place.name}/{name}" for place in places for name in os.listdir(place)]

    def clear(self) -> None:
        """Remove every container."""
        for container in self.engine.containers():
            self.engine.remove_container(container, force=True)


@contextlib.contextmanager
def fresh(context: Path) -> Iterator[Machine]:
    """A machine on a store of its own, which goes with it."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch()))
    with Engine(directory) as engine:
        yield Machine(engine, context)
        engine.prune()
    places.remove(directory)


@contextlib.contextmanager
def preloaded(context: Path) -> Iterator[Machine]:
    """A machine on a store of its own into whose programs a library is loaded; or the end of this test."""
    directory = Path(tempfile.mkdtemp(prefix="nbcontain-test-", dir=needs.scratch()))
    with Engine(directory, {**os.environ, ISOLATION: "preload"}) as engine:
        with Engine(directory) as any_rung:
            needs.fakechroot(any_rung.host)
            any_rung.from_host("host", ("ps", "setsid", "unshare", "chroot")).result()
        for name, text in (("usr/local/bin/su", SU), ("etc/passwd", PASSWD.replace("7:x:", "seven:x:"))):
            (context / "more" / name).parent.mkdir(parents=True)
            (context / "more" / name).write_text(text)
            (context / "more" / name).chmod(0o755)
        yield Machine(engine, context, BOX_OF_HOST)
        engine.prune()
    places.remove(directory)


def network_processes(root: Path) -> dict[int, str]:
    """The processes of a store's networks, by pid, as `ps` calls them: worker, names, forwarder."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0")
            name, _, words = line.decode(errors="replace").partition(" ")
            if name == "nbcontain-network" and words.startswith(f"{root}/"):
                found[int(pid)] = words.rpartition("/")[2]
    return found


def murderous(
    machine: Machine, chance: random.Random, number: int, roles: Sequence[str], living: Callable[[], dict[int, str]]
) -> tuple[str, float]:
    """Run a container on the network `lab` while somebody is killed at a random moment; gives who, and after how long.

    That is a process of the networks' with one of these roles, of those that are `living` then, the kernel that starts
    it (a terminal's command stands in for one), its supervisor, or its program.
    """
    victim, delay_s = chance.choice((*roles, "kernel", "supervisor", "program")), chance.random() * 0.3
    name, port = f"r{number}", f"{9300 + number}:80"
    if victim == "kernel":
        # It is longer about it: Python begins.
        delay_s *= 3
        words = ("run", "--rm", "--network", "lab", "-p", port, "--name", name, "box", "sleep", "0.1")
        environ = {**os.environ, "NBCONTAIN_ROOT": str(machine.engine.layout.root)}
        begun = subprocess.Popen([sys.executable, "-m", "nbcontain", *words], env=environ,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        with contextlib.suppress(subprocess.TimeoutExpired):
            begun.wait(delay_s)
        begun.kill()
        begun.wait()
        return victim, delay_s

    def kill() -> None:
        threading.Event().wait(delay_s)
        pids = [pid for pid, role in living().items() if role == victim]
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if victim in ("program", "supervisor"):
                pids = [each.pid for each in machine.engine.containers() if each.pid and each.name == name]
            if victim == "supervisor":
                pids = [pid for pid in map(supervisor_of, pids) if pid not in (1, os.getpid())]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            # Until then it holds what it held.
            until(lambda: not any(map(start_of, pids)))

    killer = threading.Thread(target=kill)
    killer.start()
    with contextlib.suppress(NbcontainError):
        machine.run("sleep", "0.1", network="lab", publish=(port,), name=name)
    killer.join()
    return victim, delay_s


def stat_of(pid: int | None) -> tuple[str, int]:
    """A process's state and its parent (proc(5), stat). Raises FileNotFoundError, ProcessLookupError if it is gone."""
    state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return state, int(parent)


def is_running(pid: int) -> bool:
    """Whether there is such a process that is more than a memory."""
    try:
        return stat_of(pid)[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def supervisor_of(pid: int | None) -> int:
    """Whose child a container's first process is."""
    return stat_of(pid)[1]


def is_small(supervisor: int) -> bool:
    """Whether it is idle: a pump, and no more."""
    return "pump" in Path(f"/proc/{supervisor}/cmdline").read_text()


def children_of(parent: int) -> dict[int, str]:
    """The processes that any of its threads has begun, each with its state: "Z" is dead and not waited for."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, its_parent = stat_of(pid)
            if its_parent == parent:
                found[pid] = state
    return found


def helpers_of(init: int) -> list[int]:
    """The children of a first process' supervisor but for that itself, the dead, and its predecessor, which may be
    there for a moment longer than it is needed: one whose children are in another namespace of processes than it."""
    found = []
    for pid, state in children_of(supervisor_of(init)).items():
        if pid == init or state == "Z":
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            try:
                own, others = (os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "pid_for_children"))
            except PermissionError:
                own = others = ""  # That one lets itself be looked at.
            if own == others:
                found.append(pid)
    return found


def inside_of(space: str) -> list[int]:
    """Whoever lives in this pid namespace. Not the dead: for some of them this machine's first process is to wait."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/pid") == space and is_running(pid):
                found.append(pid)
    return found


def assert_on_this_machines_network(machine: Machine, why: str) -> None:
    """Who names no network has this machine's, where 192.0.2.1 is; and is told why."""
    assert machine.engine.networks.default() == "host"
    assert why in machine.engine.networks.no_way_out()
    assert "192.0.2.1" in machine.sh("ip addr")


def said(container: Container) -> str:
    """All that a container wrote so far, both streams."""
    return b"".join(record.event.data for record in container.output()).decode()  # type: ignore[union-attr]


def until(holds: Callable[[], object], timeout_s: float = 30, what: Callable[[], str] = str) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s {what()}"
        time.sleep(0.01)
