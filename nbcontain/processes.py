"""The processes inside a container as this machine sees them: docker's `top`, from /proc. `engine.processes`.

Nothing of the container's is run for it, nor a ps of this machine's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nbcontain.errors import UsageError
from nbcontain.values import dataclass

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.runtime.container import Container

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")
_LIMIT_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as /proc/PID has it (proc(5))."""

    pid: int
    stat: tuple[str, ...]
    """The fields of stat behind the name, so that number 0 is the state."""
    comm: str
    args: str
    status: Mapping[str, str]
    boot: float
    """When this machine started, in seconds since the epoch."""
    memory: int
    """Of the machine, in bytes."""

    @property
    def cpu_s(self) -> float:
        return (int(self.stat[11]) + int(self.stat[12])) / _TICKS

    @property
    def started(self) -> float:
        return self.boot + int(self.stat[19]) / _TICKS

    @property
    def elapsed_s(self) -> float:
        return max(0.0, time.time() - self.started)

    @property
    def percent(self) -> float:
        return 100 * self.cpu_s / max(1.0, self.elapsed_s)

    @property
    def resident(self) -> int:
        return int(self.stat[21]) * _PAGE


def _user(number: str) -> str:
    try:
        import pwd

        return pwd.getpwuid(int(number)).pw_name
    except (ImportError, KeyError, ValueError):
        return number


def _group(number: str) -> str:
    try:
        import grp

        return grp.getgrgid(int(number)).gr_name
    except (ImportError, KeyError, ValueError):
        return number


def _id(process: Process, kind: str, place: int) -> str:
    return process.status.get(kind, "?").split()[place]


def _clock(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


def _elapsed(seconds: float) -> str:
    text = _clock(seconds)
    return text[3:] if text.startswith("00:") else text


def _begun(process: Process) -> str:
    """ps' STIME: the hour today, the day before."""
    then = time.localtime(process.started)
    return time.strftime("%H:%M" if process.elapsed_s < 86400 else "%b%d", then)


def _tty(process: Process) -> str:
    number = int(process.stat[4])
    if not number:
        return "?"
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
    return f"pts/{(major - 136) * 256 + minor}" if 136 <= major <= 143 else f"tty{minor}" if major == 4 else "?"


def _state(process: Process) -> str:
    """The letter, and ps' remarks: s leads a session, l has threads, + is in the foreground, < and N are niceness."""
    nice = int(process.stat[16])
    marks = "<" if nice < 0 else "N" if nice > 0 else ""
    marks += "s" if int(process.stat[3]) == process.pid else ""
    marks += "l" if int(process.stat[17]) > 1 else ""
    marks += "+" if process.stat[5] == process.stat[2] and process.stat[4] != "0" else ""
    return process.stat[0] + marks


Column = tuple[str, Callable[[Process], str]]
_COLUMNS: Mapping[tuple[str, ...], Column] = {
    ("pid", "tgid", "hpid"): ("PID", lambda p: str(p.pid)),
    ("ppid",): ("PPID", lambda p: p.stat[1]),
    ("pgid", "pgrp"): ("PGID", lambda p: p.stat[2]),
    ("sid", "sess", "session"): ("SID", lambda p: p.stat[3]),
    ("user", "euser", "uname", "huser"): ("USER", lambda p: _user(_id(p, "Uid", 1))),
    ("ruser",): ("RUSER", lambda p: _user(_id(p, "Uid", 0))),
    ("uid", "euid"): ("UID", lambda p: _id(p, "Uid", 1)),
    ("ruid",): ("RUID", lambda p: _id(p, "Uid", 0)),
    ("group", "egroup", "hgroup"): ("GROUP", lambda p: _group(_id(p, "Gid", 1))),
    ("rgroup",): ("RGROUP", lambda p: _group(_id(p, "Gid", 0))),
    ("gid", "egid"): ("GID", lambda p: _id(p, "Gid", 1)),
    ("rgid",): ("RGID", lambda p: _id(p, "Gid", 0)),
    ("groups",): ("GROUPS", lambda p: ",".join(p.status.get("Groups", "").split()) or "-"),
    ("c",): ("C", lambda p: str(int(p.percent))),
    ("pcpu", "%cpu"): ("%CPU", lambda p: f"{p.percent:.1f}"),
    ("pmem", "%mem"): ("%MEM", lambda p: f"{100 * p.resident / p.memory:.1f}"),
    ("vsz", "vsize"): ("VSZ", lambda p: str(int(p.stat[20]) // 1024)),
    ("rss", "rssize", "rsz"): ("RSS", lambda p: str(p.resident // 1024)),
    ("tty", "tt", "tname"): ("TTY", _tty),
    ("stat",): ("STAT", _state),
    ("state", "s"): ("S", lambda p: p.stat[0]),
    ("stime", "start", "bsdstart", "start_time"): ("STIME", _begun),
    ("lstart",): ("STARTED", lambda p: time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(p.started))),
    ("time", "cputime"): ("TIME", lambda p: _clock(p.cpu_s)),
    ("etime",): ("ELAPSED", lambda p: _elapsed(p.elapsed_s)),
    ("etimes",): ("ELAPSED", lambda p: str(int(p.elapsed_s))),
    ("nice", "ni"): ("NI", lambda p: p.stat[16]),
    ("pri",): ("PRI", lambda p: str(39 - int(p.stat[15]))),
    ("nlwp", "thcount"): ("NLWP", lambda p: p.stat[17]),
    ("psr",): ("PSR", lambda p: p.stat[36]),
    ("comm", "ucmd", "ucomm"): ("COMMAND", lambda p: p.comm),
    ("args", "cmd", "command"): ("COMMAND", lambda p: p.args or f"[{p.comm}]"),
    ("capeff",): ("EFFECTIVE CAPS", lambda p: p.status.get("CapEff", "?")),
    ("capprm",): ("PERMITTED CAPS", lambda p: p.status.get("CapPrm", "?")),
    ("capinh",): ("INHERITED CAPS", lambda p: p.status.get("CapInh", "?")),
    ("capbnd",): ("BOUNDING CAPS", lambda p: p.status.get("CapBnd", "?")),
    ("capamb",): ("AMBIENT CAPS", lambda p: p.status.get("CapAmb", "?")),
    ("seccomp",): (
        "SECCOMP", lambda p: {"0": "disabled", "1": "strict", "2": "filter"}.get(p.status.get("Seccomp", ""), "?")
    ),
}
BY_NAME: Mapping[str, Column] = {name: column for names, column in _COLUMNS.items() for name in names}
_FULL: tuple[tuple[str, str], ...] = (
    ("user", "UID"), ("pid", "PID"), ("ppid", "PPID"), ("c", "C"), ("stime", "STIME"), ("tty", "TTY"),
    ("time", "TIME"), ("args", "CMD"),
)  # fmt: skip
"""ps -ef, which is docker's own."""
_BSD: tuple[tuple[str, str], ...] = (
    ("user", "USER"), ("pid", "PID"), ("%cpu", "%CPU"), ("%mem", "%MEM"), ("vsz", "VSZ"), ("rss", "RSS"),
    ("tty", "TTY"), ("stat", "STAT"), ("stime", "START"), ("time", "TIME"), ("args", "COMMAND"),
)  # fmt: skip
_PLAIN = (("pid", "PID"), ("tty", "TTY"), ("time", "TIME"), ("comm", "CMD"))


def columns(words: Sequence[str]) -> list[tuple[str, Callable[[Process], str]]]:
    """The columns that ps would show for these options, or that podman's descriptors name. Raises UsageError."""
    chosen: list[tuple[str, str]] = []
    rest = list(words)
    base: tuple[tuple[str, str], ...] = () if rest else _FULL
    while rest:
        word = rest.pop(0)
        names = word.lstrip("-")
        if word.startswith("--format="):
            chosen += _listed(word.partition("=")[2])
        elif word == "--format" or (word in ("o", "-o") or (names.endswith("o") and set(names[:-1]) <= set("eAaxd"))):
            if not rest:
                raise UsageError(f"top {word}: which columns?", hint="-o pid,user,args")
            chosen += _listed(rest.pop(0))
        elif not word.startswith("-") and all(name.partition("=")[0].lower() in BY_NAME for name in word.split(",")):
            chosen += _listed(word)
        elif word.startswith("-o"):
            chosen += _listed(word[2:])
        elif names and set(names) <= set("eAaxdfFww"):
            base = _FULL if "f" in names.lower() else base or _PLAIN
        elif names and set(names) <= set("auxw"):
            base = _BSD
        else:
            raise UsageError(
                f"top {word}: no such column, and no option of ps that is known here",
                hint="-ef, aux, -o pid,user,args, or the columns themselves: " + ", ".join(sorted(BY_NAME)),
            )
    if words and set("".join(words)) <= set("auxw"):
        base = _BSD
    return [(title, BY_NAME[name][1]) for name, title in chosen or base]


def _listed(text: str) -> list[tuple[str, str]]:
    found = []
    for each in text.replace(" ", ",").split(","):
        name, equals, title = each.partition("=")
        if name.lower() not in BY_NAME:
            raise UsageError(f"top: there is no column {name!r}", hint=", ".join(sorted(BY_NAME)))
        found.append((name.lower(), title if equals else BY_NAME[name.lower()][0]))
    return found


class Processes:
    """Looks at processes of running containers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, container: Container) -> list[Process]:
        """All of a container's, by pid. Raises NotRunning."""
        self._engine.running(container.id)
        boot = _boot_time()
        memory = os.sysconf("SC_PHYS_PAGES") * _PAGE
        found = [each for pid in self._engine.resources.pids(container) if (each := _process(pid, boot, memory))]
        return sorted(found, key=lambda each: each.pid)


def _boot_time() -> float:
    with open("/proc/stat", encoding="ascii") as lines:
        return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), 0.0)


def _process(pid: int, boot: float, memory: int) -> Process | None:
    """None for one that is gone."""
    try:
        texts = {}
        for name in ("stat", "status", "cmdline"):
            with open(f"/proc/{pid}/{name}", "rb") as file:
                texts[name] = file.read(_LIMIT_BYTES).decode(errors="replace")
        head, _, tail = texts["stat"].rpartition(")")
        status = dict(line.split(":", 1) for line in texts["status"].splitlines() if ":" in line)
        fields = tuple(tail.split())
        if len(fields) < 37:
            return None
        return Process(
            pid, fields, head.partition("(")[2], texts["cmdline"].rstrip("\0").replace("\0", " "),
            {name: value.strip() for name, value in status.items()}, boot, memory,
        )  # fmt: skip
    except (OSError, ValueError):
        return None
