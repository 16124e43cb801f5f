"""What running containers use of the machine, and changing that: `engine.resources`."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbcontain.errors import ContainerError, NotRunning, UsageError
from nbcontain.linux import limits
from nbcontain.linux.cgroups import Group, Tree, sweep
from nbcontain.linux.limits import Limits
from nbcontain.linux.procfs import interfaces_of
from nbcontain.runtime.container import Container
from nbcontain.runtime.resources import LimitOptions, limits_of
from nbcontain.values import dataclass, fields, replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.runtime.generate import RunOptions

_SAMPLE_S = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a container used until a moment; None where nothing counts it."""

    at_s: float
    cpu_s: float
    memory: int
    """Bytes; of a container without a group the sum over its processes, so that what they share counts for each."""
    memory_limit: int | None
    pids: int
    read: int | None = None
    written: int | None = None
    """Bytes, from and to disks."""
    received: int | None = None
    sent: int | None = None
    """Bytes, from and to its network; None where it is the host's."""


@dataclass(frozen=True, slots=True)
class Look:
    """Two moments of a container."""

    container: Container
    before: Usage
    after: Usage

    @property
    def cpu_percent(self) -> float:
        """Of one processor."""
        return 100 * max(0.0, self.after.cpu_s - self.before.cpu_s) / max(1e-6, self.after.at_s - self.before.at_s)

    def to_dict(self) -> dict[str, Any]:
        """Numbers in bytes and seconds; None for what nothing counts."""
        now = self.after
        return {
            "name": self.container.name, "cpu_percent": self.cpu_percent, "cpu_s": now.cpu_s,
            "memory": now.memory, "memory_limit": now.memory_limit, "pids": now.pids,
            "read": now.read, "written": now.written, "received": now.received, "sent": now.sent,
        }  # fmt: skip

    @property
    def df(self) -> Any:
        """The same as a pandas DataFrame of one row: `pandas.concat` makes a series of many. Raises Unavailable."""
        from nbcontain import objects

        row = self.to_dict()
        return objects.frame([row], tuple(row))

    def __repr__(self) -> str:
        used = f"{self.cpu_percent:.1f} % CPU  {self.after.memory / (1 << 20):.4g} MiB"
        return f"<Stats of {self.container.name}  {used}  {self.after.pids} processes>"


class Resources:
    """What containers use, and what they may."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @cached_property
    def _tree(self) -> Tree:
        return Tree.here(is_root=self._engine.host.ids.is_identity)

    def with_usual(self, options: RunOptions) -> RunOptions:
        """The options with the limit of processes that a container has which is told none, where one can be kept.

        There is none unless NBCONTAIN_PIDS_LIMIT says so: a control group takes longer to enter than a container
        takes to start. Raises UsageError.
        """
        text = self._engine.environ.get("NBCONTAIN_PIDS_LIMIT", "")
        if not text or options.pids_limit is not None:
            return options
        if not text.removeprefix("-").isdecimal():
            raise UsageError(f"NBCONTAIN_PIDS_LIMIT={text} is no number", hint="2048, or -1 for no limit")
        number = int(text)
        return replace(options, pids_limit=number) if number > 0 and self._tree.keeps("pids") else options

    def group(self, container: Container) -> Group:
        """A container's control group; there may be none."""
        return Group(self._tree, container.id)

    def sweep(self) -> list[Path]:
        """Take away groups that a crash has left; gives them."""
        return sweep(self._tree)

    # --- pausing ---

    def pause(self, container: Container) -> None:
        """Stop all of a container's processes where they are. Raises NotRunning, SetupFailed."""
        self._require_running(container)
        if container.is_paused:
            raise ContainerError(f"{container.name} is paused already", hint=f"%container unpause {container.name}")
        group = self.group(container)
        group.freezer()
        self._adopt(container, group)
        group.freeze(frozen=True)
        container.bundle.mark_paused(paused=True)
        self._engine.events.container(container, "pause")

    def unpause(self, container: Container) -> None:
        """Let them go on. Raises ContainerError for one that is not paused."""
        self._require_running(container)
        if not container.is_paused:
            raise ContainerError(f"{container.name} is not paused")
        self.group(container).freeze(frozen=False)
        container.bundle.mark_paused(paused=False)
        self._engine.events.container(container, "unpause")

    @contextmanager
    def paused(self, container: Container) -> Iterator[None]:
        """Its processes stand still meanwhile, if it runs and they do not already. Raises SetupFailed."""
        if container.status != "running" or container.is_paused:
            yield
            return
        self.pause(container)
        try:
            yield
        finally:
            # It may have been killed, or somebody has let it go on.
            with suppress(ContainerError):
                self.unpause(container)

    def thaw(self, container: Container, number: int = signal.SIGKILL) -> None:
        """So that a signal can end it: nothing for one that is not paused, or for a signal that may wait."""
        if container.is_paused and number == signal.SIGKILL:
            with suppress(OSError):
                self.group(container).freeze(frozen=False)
            container.bundle.mark_paused(paused=False)

    def _require_running(self, container: Container) -> None:
        if container.status != "running":
            raise NotRunning(f"{container.name} is not running", why=f"it is {container.status}")

    def _adopt(self, container: Container, group: Group) -> None:
        """Move every process of the container into its group, also those that are forked meanwhile."""
        known: set[int] = set()
        for _ in range(100):
            new = set(self.pids(container)) - known
            if not new:
                return
            for pid in new:
                group.enter(pid)
            known |= new
        raise ContainerError(f"{container.name} makes processes faster than they can be moved", hint="try again")

    def pids(self, container: Container) -> Iterator[int]:
        """All processes in a running container, as this machine counts."""
        first = container.pid
        yield from _Processes().of(first) if first else ()

    # --- limits ---

    def update(self, container: Container, options: LimitOptions) -> Limits:
        """Change a container's limits, now and for its next start; gives all it has. Raises UsageError, SetupFailed."""
        asked = limits_of(options)
        if not asked:
            raise UsageError("update: which limit?", hint=f"%container update --memory 512m {container.name}")
        bundle = container.bundle
        spec = bundle.spec
        known = limits.from_json(spec.linux.resources)
        named = [each.name for each in fields(Limits) if getattr(asked, each.name) != getattr(Limits(), each.name)]
        changed = replace(known, **{name: getattr(asked, name) for name in named})
        if container.status == "running":
            group = self.group(container)
            group.limit(changed if not known else replace(Limits(), **{name: getattr(changed, name) for name in named}))
            self._adopt(container, group)
        resources = limits.merged(spec.linux.resources, limits.to_json(changed))
        bundle.write_resources(replace(spec, linux=replace(spec.linux, resources=resources)))
        return changed

    # --- looking ---

    def look(self, containers: Sequence[Container]) -> list[Look]:
        """What running containers use, over a quarter of a second; without those that end meanwhile."""
        before = self.sample(containers)
        if before:
            time.sleep(_SAMPLE_S)
        now = self.sample(list(before))
        return [Look(each, usage, now[each]) for each, usage in before.items() if each in now]

    def sample(self, containers: Sequence[Container]) -> dict[Container, Usage]:
        """What containers have used until now; without those that do not run. This machine is looked over once."""
        firsts = {each: pid for each in containers if (pid := each.pid)}
        if not firsts:
            return {}
        processes = _Processes()
        usages = {each: self._usage(each, first, processes.of(first)) for each, first in firsts.items()}
        return {each: usage for each, usage in usages.items() if usage is not None}

    def _usage(self, container: Container, first: int, pids: Sequence[int]) -> Usage | None:
        """Of these processes and their group; None where there are none any more."""
        group = self.group(container)
        if not pids:
            return None
        own = [each for pid in pids if (each := _of_process(pid))]
        # A group whose processes were never moved into it counts nothing: then the processes themselves do.
        return Usage(
            at_s=time.monotonic(),
            cpu_s=group.cpu_s() or sum(each[0] for each in own),
            memory=group.memory() or sum(each[1] for each in own),
            memory_limit=self._limit(group),
            pids=len(pids),
            read=_sum([each[2] for each in own]),
            written=_sum([each[3] for each in own]),
            **_traffic(first),
        )

    def _limit(self, group: Group) -> int | None:
        found = group.number("memory.limit_in_bytes", "memory.max")
        # "No limit" is the highest multiple of a page in version 1, and a word in version 2.
        return found if found is not None and found < 1 << 60 else None


class _Processes:
    """The processes of this machine that can be seen, at one moment."""

    def __init__(self) -> None:
        self._by_namespace: dict[int, list[int]] = {}
        for name in os.listdir("/proc"):
            if name.isdecimal():
                self._by_namespace.setdefault(_namespace(name), []).append(int(name))

    def of(self, first: int) -> list[int]:
        """Those of the container whose first process this is; none if it is gone."""
        inode = _namespace(first)
        found = self._by_namespace.get(inode, [])
        if inode not in (0, _namespace("self")):
            return found
        if first not in found:
            return []
        # It has no namespace of its own, or none that is shown: they are its descendants, and not all that runs here.
        parents = {pid: _parent(pid) for pid in found}
        family = {first}
        while fresh := {pid for pid, parent in parents.items() if parent in family} - family:
            family |= fresh
        return sorted(family)


def _namespace(pid: int | str) -> int:
    """The inode of its pid namespace; 0 if it is gone, hidden, or has another number each time (gVisor of 2022)."""
    try:
        inode = os.stat(f"/proc/{pid}/ns/pid").st_ino
        return inode if os.readlink(f"/proc/{pid}/ns/pid") == f"pid:[{inode}]" else 0
    except OSError:
        return 0


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _of_process(pid: int) -> tuple[float, int, int | None, int | None] | None:
    """Seconds of processors, resident bytes, and bytes read and written of one process; None if it is gone."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return None
    read = written = None
    with suppress(OSError, ValueError, IndexError):
        words = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
        read, written = int(words["read_bytes"]), int(words["write_bytes"])
    # With what its children that were waited for have used.
    return sum(map(int, times[11:15])) / _TICKS, resident, read, written


def _traffic(pid: int) -> dict[str, int]:
    """Bytes from and to the interfaces of a network namespace, but for lo; {} where it is this one, or gone."""
    try:
        if os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:
            return {}
        devices = interfaces_of(Path(f"/proc/{pid}/net/dev").read_text(errors="replace"))
        counted = [traffic for name, traffic in devices.items() if name != "lo"]
        return {"received": sum(each for each, _ in counted), "sent": sum(each for _, each in counted)}
    except (OSError, ValueError):
        return {}


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [each for each in numbers if each is not None]
    return sum(known) if known else None
