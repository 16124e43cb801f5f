"""The command line of `nbcontain-runtime`: its commands and their options, as runc and crun have them."""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Sequence

_GLOBAL = {
    "--root": "root", "--log": "log", "--log-format": "log_format", "--debug": "", "--systemd-cgroup": "",
    "--cgroup-manager": "cgroup_manager", "--rootless": "rootless", "--criu": "criu",
}  # fmt: skip
_COMMON = {"--bundle": "bundle", "-b": "bundle", "--console-socket": "console_socket", "--pid-file": "pid_file",
           "--preserve-fds": "preserve_fds", "--no-pivot": "", "--no-new-keyring": ""}  # fmt: skip
LIMITS = (
    "memory", "memory-swap", "memory-reservation", "cpu-share", "cpu-shares", "cpu-quota", "cpu-period", "cpuset-cpus",
    "cpuset-mems", "pids-limit", "blkio-weight", "kernel-memory", "kernel-memory-tcp", "cpu-rt-period",
    "cpu-rt-runtime",
)  # fmt: skip
COMMANDS: dict[str, dict[str, str]] = {
    "create": _COMMON,
    "run": {**_COMMON, "--detach": "", "-d": "", "--keep": ""},
    "start": {},
    "state": {},
    "kill": {"--all": "", "-a": ""},
    "delete": {"--force": "", "-f": ""},
    "exec": {
        "--console-socket": "console_socket", "--pid-file": "pid_file", "--preserve-fds": "preserve_fds",
        "--process": "process", "-p": "process", "--cwd": "cwd", "--env": "env*", "-e": "env*", "--user": "user",
        "-u": "user", "--additional-gids": "gids*", "-g": "gids*", "--cap": "cap*", "-c": "cap*", "--tty": "", "-t": "",
        "--detach": "", "-d": "", "--no-new-privs": "", "--apparmor": "apparmor", "--process-label": "label",
        "--ignore-paused": "", "--cgroup": "cgroup",
    },  # fmt: skip
    "ps": {"--format": "format", "-f": "format"},
    "list": {"--format": "format", "-f": "format", "--quiet": "", "-q": ""},
    "pause": {},
    "resume": {},
    "update": {"--resources": "resources", "-r": "resources", **{f"--{name}": name for name in LIMITS}},
    "spec": {"--bundle": "bundle", "-b": "bundle", "--rootless": ""},
    "features": {},
}
"""What can be asked for: options by their names, "" for those without a value, * for those that may be repeated."""


class Words:
    """A command line, taken apart."""

    def __init__(self) -> None:
        self.command = ""
        self.flags: set[str] = set()
        self.values: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.rest: list[str] = []

    @classmethod
    def parse(cls, words: Sequence[str]) -> Words:
        """Raises UsageError."""
        found, known, waiting = cls(), _GLOBAL, list(words)
        while waiting:
            word = waiting.pop(0)
            if word == "--":
                found.rest += waiting
                break
            if not word.startswith("-") or word == "-":
                if not found.command:
                    if word not in COMMANDS:
                        raise misused(f"there is no command {word!r}", f"one of {', '.join(COMMANDS)}")
                    found.command, known = word, COMMANDS[word]
                    continue
                found.rest.append(word)
                if found.command == "exec" and (len(found.rest) > 1 or "process" in found.values):
                    found.rest += waiting
                    break
                continue
            found._take(word, known, waiting)
        return found

    def _take(self, word: str, known: dict[str, str], waiting: list[str]) -> None:
        name, sign, value = word.partition("=")
        if name not in known:
            raise misused(f"{self.command or 'nbcontain-runtime'} knows no {name}", f"it knows {', '.join(known)}")
        key = known[name]
        if not key:
            if not sign or value == "true":
                self.flags.add(name.lstrip("-"))
            return
        if not sign:
            if not waiting:
                raise misused(f"{name} needs a value", "")
            value = waiting.pop(0)
        if key.endswith("*"):
            self.lists.setdefault(key[:-1], []).append(value)
        else:
            self.values[key] = value

    def has(self, *names: str) -> bool:
        return bool(self.flags & set(names))

    def get(self, key: str) -> str:
        return self.values.get(key, "")


def misused(message: str, hint: str) -> Exception:
    """The UsageError that says so."""
    from nbcontain.errors import UsageError

    return UsageError(message, hint=hint)
