"""Control groups, version 1, 2 and both at once: where they are, and a group's life (cgroups(7)).

What is to be written is a value of `limits`; where that goes is a `Tree`, which a test may make of directories.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import SetupFailed
from nbcontain.linux.limits import Limits, Setting, settings
from nbcontain.values import dataclass

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from nbcontain.linux.device_rules import DeviceRule

PARENT = "nbcontain"
"""The group that ours are in."""
_REMOVAL_S = 2.0
_YOUNG_S = 10.0
"""A group that is empty for longer belongs to nobody any more: processes enter theirs at once."""
_CONTROLLERS = frozenset(
    {
        *("cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "freezer", "devices", "hugetlb"),
        *("net_cls", "net_prio", "perf_event", "rdma", "misc", "name=systemd"),
    }
)
"""Of version 1, as far as they are used here; the last one is a hierarchy without a controller."""
_OLD_NAMES = {"io": "blkio"}
"""Of controllers of version 2."""
_INSIDE = "on a machine, or in a container that is privileged"
_GROUP = f"as root {_INSIDE}, or as a user whose session has a group of its own (systemd's Delegate=yes)"
_HINT = f"start it without the limit; or {_GROUP}"
_HINT_INSIDE = f"start it without the limit; or {_INSIDE}"
"""Where not even root may."""


# --- where groups are -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tree:
    """The hierarchies of a machine: one for each controller of version 1, and that of version 2, where there are."""

    first: Mapping[str, Path]
    second: Path | None

    @classmethod
    def of(cls, mountinfo: str, own: str, *, is_root: bool) -> Tree:
        """As /proc/self/mountinfo and /proc/self/cgroup say. Root's groups are below the roots, as docker's are.

        Others' are below the highest group that has been handed over to them.
        """
        first: dict[str, Path] = {}
        second: Path | None = None
        for line in mountinfo.splitlines():
            left, _, right = line.partition(" - ")
            point, kind, options = Path(_unescaped(left.split()[4])), right.split()[0], right.split()[-1]
            if kind == "cgroup2":
                second = second or point
            elif kind == "cgroup":
                for name in options.split(","):
                    if name in _CONTROLLERS:
                        first.setdefault(name, point)
        if second is not None and not is_root:
            path = next((line[3:] for line in own.splitlines() if line.startswith("0::")), "/")
            second = _delegated(second, path)
        return cls(first, second)

    @classmethod
    def here(cls, *, is_root: bool) -> Tree:
        """This machine's, for this process."""
        texts = [Path(f"/proc/self/{name}").read_text(errors="surrogateescape") for name in ("mountinfo", "cgroup")]
        return cls.of(*texts, is_root=is_root)

    def has_second(self, controller: str) -> bool:
        """Whether version 2 has this controller."""
        if self.second is None:
            return False
        with suppress(OSError):
            return controller in (self.second / "cgroup.controllers").read_text().split()
        return False

    def keeps(self, controller: str) -> bool:
        """Whether groups of ours can be made here that this controller keeps."""
        place = self.first.get(_OLD_NAMES.get(controller, controller))
        if place is None and self.has_second(controller):
            place = self.second
        return place is not None and os.access(place, os.W_OK)


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _delegated(root: Path, path: str) -> Path | None:
    """The highest group from one's own upwards in which one may make others and move processes between them."""
    found = None
    for each in (here := root / path.lstrip("/"), *here.parents):
        if not all(os.access(each / name, os.W_OK) for name in ("cgroup.procs", "cgroup.subtree_control")):
            break
        found = each
        if each == root:
            break
    return found


class Group:
    """A container's directories in the hierarchies. Equal handles may live in many processes."""

    def __init__(self, tree: Tree, name: str, parent: str = PARENT) -> None:
        """`parent` is the group that it is in, below the root of each hierarchy; "" for the root itself."""
        self._tree, self._name = tree, name
        self._parts = (*filter(None, parent.split("/")), name)

    def __bool__(self) -> bool:
        return any(self._directories())

    def hold(self) -> None:
        """Make it in every hierarchy that there is. Raises SetupFailed."""
        try:
            for controller in self._tree.first:
                self._first(controller)
            if self._tree.second is not None:
                self._made(self._tree.second)
        except OSError as error:
            raise self._failed(error) from error

    def limit(
        self, limits: Limits, devices: Sequence[DeviceRule] = (), more: Callable[[int], list[Setting]] | None = None
    ) -> None:
        """Make the group where it is missing, and have these limits from now on. Raises SetupFailed.

        `devices` are rules about them, and `more` are further settings of a version.
        """
        first, second = ([*settings(limits, version), *(more(version) if more else ())] for version in (1, 2))
        try:
            self._limit_first([each for each in first if each.controller in self._tree.first])
            for setting in second:
                if _OLD_NAMES.get(setting.controller, setting.controller) in self._tree.first:
                    continue
                if not setting.file:
                    raise SetupFailed("nothing here can limit it", why=setting.value)
                self._set(self._second(setting.controller), setting)
            if devices:
                self._allow(devices)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> SetupFailed:
        return SetupFailed(
            f"cannot limit it: {error.filename or self._name}",
            errno=error.errno,
            why=error.strerror or str(error),
            hint=_HINT if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT) else "",
        )

    def _allow(self, rules: Sequence[DeviceRule]) -> None:
        """Keep its processes from all other devices: by files in version 1, by a program of ours in version 2."""
        if "devices" in self._tree.first:
            directory = self._first("devices")
            for rule in rules:
                _write(directory / ("devices.allow" if rule.allow else "devices.deny"), rule.line())
        elif self._tree.second is not None:
            from nbcontain.linux import device_rules, syscalls

            directory = self._made(self._tree.second)
            group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                syscalls.attach_device_program(group, device_rules.program(rules))
            finally:
                os.close(group)
        else:
            raise SetupFailed("nothing here can keep it from devices", why="there is no control group", hint=_HINT)

    def enter(self, pid: int) -> None:
        """Move a process into all parts of it. Raises SetupFailed; nothing for one that is gone."""
        for directory in self._directories():
            try:
                _write(directory / "cgroup.procs", str(pid))
            except ProcessLookupError:
                return
            except OSError as error:
                raise SetupFailed(
                    "cannot limit it", errno=error.errno, path=str(directory), why=error.strerror or ""
                ) from error

    def doors(self) -> list[int]:
        """What a process puts itself into it by (`confine.enter_groups`), open, for the caller to close.

        To move another process the kernel waits until all processors have passed a quiet point, 10 ms or more, since
        that might fork meanwhile; a thread that moves itself does nothing else (cgroup_procs_write_start). Nothing
        where version 2 keeps a part of it, which has no such door. Raises SetupFailed.
        """
        directories = list(self._directories())
        if not all((each / "tasks").exists() for each in directories):
            return []
        doors: list[int] = []
        try:
            for each in directories:
                doors.append(os.open(each / "tasks", os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            for fd in doors:
                os.close(fd)
            raise self._failed(error) from error
        return doors

    def processes(self) -> list[int]:
        """All that are in it now, and in groups below it."""
        found: set[int] = set()
        for directory in self._directories():
            for place, _, _ in os.walk(directory):
                with suppress(OSError), open(f"{place}/cgroup.procs", encoding="utf-8") as file:
                    found.update(map(int, file.read().split()))
        return sorted(found)

    def freezer(self) -> Path:
        """Its part that can be stopped as a whole, made if it is missing."""
        if self._tree.second is not None:
            with suppress(OSError):
                directory = self._made(self._tree.second)
                if (directory / "cgroup.freeze").exists():
                    return directory
        why = "this machine gives no control group"
        if "freezer" in self._tree.first:
            try:
                return self._first("freezer")
            except OSError as error:
                why = f"{error.strerror or error}: {error.filename}"
        raise SetupFailed("nothing can be paused here", why=why, hint=f"start it {_GROUP}")

    def freeze(self, *, frozen: bool, timeout_s: float = 5.0) -> None:
        """Stop all its processes where they are, or let them go on. Raises SetupFailed."""
        directory = self.freezer()
        deadline = time.monotonic() + timeout_s
        if (directory / "cgroup.freeze").exists():
            _write(directory / "cgroup.freeze", str(int(frozen)))
            wanted, file = f"frozen {int(frozen)}", "cgroup.events"
        else:
            _write(directory / "freezer.state", wanted := "FROZEN" if frozen else "THAWED")
            file = "freezer.state"
        while wanted not in (directory / file).read_text():
            if time.monotonic() > deadline:
                raise SetupFailed("its processes do not stop", why=f"not within {timeout_s:.0f} s")
            time.sleep(0.002)

    def is_frozen(self) -> bool:
        """Whether all of it is stopped."""
        for directory in self._directories():
            for file, wanted in (("cgroup.events", "frozen 1"), ("freezer.state", "FROZEN")):
                with suppress(OSError):
                    if wanted in (directory / file).read_text():
                        return True
        return False

    def number(self, *names: str) -> int | None:
        """What the first of these files that is there says: a number, or one after a word ("cpu.stat usage_usec")."""
        for name in names:
            file, _, word = name.partition(" ")
            for directory in self._directories():
                with suppress(OSError, ValueError, StopIteration):
                    text = (directory / file).read_text()
                    if not word:
                        return int(text)
                    return int(next(line.split()[1] for line in text.splitlines() if line.split()[0] == word))
        return None

    def text(self, name: str) -> str:
        """What a file of it says; "" if there is none."""
        for directory in self._directories():
            with suppress(OSError):
                return (directory / name).read_text()
        return ""

    def cpu_s(self) -> float | None:
        """Seconds of processors that it has used; None where nobody counts them."""
        if (ns := self.number("cpuacct.usage")) is not None:
            return ns / 1e9
        us = self.number("cpu.stat usage_usec")
        return us / 1e6 if us is not None else None

    def memory(self) -> int | None:
        """Bytes that it holds; None where nobody counts them."""
        return self.number("memory.usage_in_bytes", "memory.current")

    def memory_peak(self) -> int | None:
        """Bytes that it held at most until now; None where nobody counts them, as version 2 before Linux 5.19."""
        return self.number("memory.max_usage_in_bytes", "memory.peak")

    def oom_kills(self) -> int:
        """How many of its processes were killed because there was no memory left for them."""
        return self.number("memory.events oom_kill", "memory.oom_control oom_kill") or 0

    def remove(self, timeout_s: float = _REMOVAL_S) -> None:
        """Take it away, now that its processes have ended: the kernel may need a moment for that. Idempotent."""
        deadline = time.monotonic() + timeout_s
        for directory in list(self._directories()):
            while True:
                try:
                    _remove_with_those_below(directory)
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY or time.monotonic() > deadline:
                        break  # the next sweep takes it
                    time.sleep(0.002)
                    continue
                break

    # --- its parts ---

    def _limit_first(self, wanted: list[Setting]) -> None:
        again = []
        for setting in wanted:
            try:
                directory = self._first(setting.controller)
                if setting.file == "cpu.rt_runtime_us":
                    self._lend_real_time()
                self._set(directory, setting)
            except OSError as error:
                # Memory may not be more than memory and swap, which come later.
                if error.errno != errno.EINVAL or setting.controller != "memory":
                    raise
                again.append(setting)
        for setting in again:
            self._set(self._first(setting.controller), setting)

    def _lend_real_time(self) -> None:
        """A group has no more time for real-time programs than those above it, which have none at first."""
        root = self._tree.first["cpu"]
        for number in range(1, len(self._parts)):
            file = root.joinpath(*self._parts[:number], "cpu.rt_runtime_us")
            if file.read_text().strip() == "0":
                _write(file, (root / "cpu.rt_runtime_us").read_text().strip())

    def _first(self, controller: str) -> Path:
        directory = self._made(self._tree.first[controller])
        if controller == "cpuset":
            parts = [directory, *directory.parents]
            for part in reversed(parts[: len(self._parts)]):
                for name in ("cpuset.cpus", "cpuset.mems"):
                    if not (part / name).read_text().strip():
                        _write(part / name, (part.parent / name).read_text().strip())
        return directory

    def _second(self, controller: str) -> Path:
        if not self._tree.has_second(controller) or self._tree.second is None:
            group = self._tree.second
            why = f"{group}, where our groups are, is without it" if group else "there is no group to make others in"
            hint = _HINT
            if group is not None and not os.access(group, os.W_OK):
                why, hint = f"{group} is nobody's here to write to", _HINT_INSIDE
            raise SetupFailed(f"nothing here can limit it: there is no controller {controller}", why=why, hint=hint)
        for number in range(len(self._parts)):
            part = self._tree.second.joinpath(*self._parts[:number])
            part.mkdir(exist_ok=True)
            if controller not in (part / "cgroup.subtree_control").read_text().split():
                _write(part / "cgroup.subtree_control", f"+{controller}")
        return self._made(self._tree.second)

    def _made(self, root: Path) -> Path:
        directory = root.joinpath(*self._parts)
        if not directory.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
        return directory

    def _set(self, directory: Path, setting: Setting) -> None:
        names = [name for name in setting.file.split("|") if (directory / name).exists()]
        if not names:
            if setting.needed:
                raise SetupFailed(
                    f"this kernel has no {setting.file}", why="the limit cannot be kept without it", hint=_HINT
                )
            return
        if setting.value != "<":
            _write(directory / names[0], setting.value)

    def _directories(self) -> Iterator[Path]:
        roots = {*self._tree.first.values(), *([self._tree.second] if self._tree.second else [])}
        for root in sorted(roots):
            # Of other users' groups one hears nothing at all.
            if os.path.isdir(directory := root.joinpath(*self._parts)):
                yield directory


def _remove_with_those_below(directory: Path) -> None:
    """A container may have made groups in its own."""
    for place, names, _ in os.walk(directory, topdown=False):
        for name in names:
            with suppress(FileNotFoundError):
                os.rmdir(f"{place}/{name}")
    os.rmdir(directory)


def sweep(tree: Tree, *, now: float | None = None) -> list[Path]:
    """Take away the groups that a crash has left empty; gives them."""
    gone = []
    now = time.time() if now is None else now
    for root in _roots(tree):
        for directory in _children(root / PARENT):
            with suppress(OSError):
                if now - directory.stat().st_ctime > _YOUNG_S and not (directory / "cgroup.procs").read_text().strip():
                    os.rmdir(directory)
                    gone.append(directory)
    return gone


def _roots(tree: Tree) -> Iterable[Path]:
    return sorted({*tree.first.values(), *([tree.second] if tree.second else [])})


def _children(directory: Path) -> list[Path]:
    try:
        return [each for each in directory.iterdir() if each.is_dir()]
    except OSError:
        return []


def _write(path: Path, text: str) -> None:
    """One write(2), as the kernel wants it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        error.filename = f"{path} = {text}"
        raise
    finally:
        os.close(fd)
