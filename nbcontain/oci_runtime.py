"""`nbcontain-runtime`: an OCI runtime for whoever calls one, such as podman (runtime-spec runtime.md, 1.0 to 1.2).

This is the command line; what it does is in `runtime.oci_life`. Light on purpose: it is started for each step of a
container's life, and again from a sealed copy of the interpreter for those in which a process of ours enters one.
"""

from __future__ import annotations

import os
import sys

import nbcontain.runtime.later  # noqa: F401 - for its effect
from nbcontain.runtime.oci_words import COMMANDS, LIMITS, Words, misused

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from nbcontain.oci.spec import Process
    from nbcontain.runtime.oci_life import Wishes
    from nbcontain.runtime.oci_state import Place

_SEALED = "create", "run", "exec"
"""Commands whose process, or a child of it, is inside a container for a while."""
_PROGRAM = (
    "import gc, os, sys; gc.disable(); sys.path.append(sys.argv[1]); "
    "from nbcontain.oci_runtime import main; status = main(sys.argv[2:], sealed=True); "
    "sys.stdout.flush(); os._exit(status)"
)
"""Without Python's farewell, which takes a tenth of the time: all that it takes apart goes with the process."""
_PASSED_ON = ("XDG_RUNTIME_DIR", "LISTEN_FDS", "NOTIFY_SOCKET")


def main(words: Sequence[str] | None = None, *, sealed: bool = False) -> int:
    """Do one thing and give the exit status: 0, the container's own of `run` and `exec`, or 1 (of those, 125 …)."""
    words = sys.argv[1:] if words is None else words
    if "--version" in words[:1] or "-v" in words[:1]:
        return _say_version()
    if not words or words[0] in ("--help", "-h", "help"):
        sys.stdout.write(f"usage: nbcontain-runtime [--root DIR] [--log FILE] COMMAND …\n\n{' '.join(COMMANDS)}\n")
        return 0
    from nbcontain.errors import NbcontainError

    found = Words()
    try:
        found = Words.parse(words)
        if found.command in _SEALED and not sealed:
            _execute_sealed(list(words))
        return _Doing(found).run()
    except NbcontainError as error:
        _complain(found, error)
        return error.exit_status if found.command in ("run", "exec") and error.exit_status > 1 else 1
    except OSError as error:
        from nbcontain.errors import SetupFailed

        why = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        _complain(found, SetupFailed(f"{found.command} failed", why=why))
        return 1
    except KeyboardInterrupt:
        return 130


def _say_version() -> int:
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("nbcontain")
    except PackageNotFoundError:
        number = "0"
    sys.stdout.write(f"nbcontain-runtime version {number}\nspec: 1.2.1\n")
    return 0


def _execute_sealed(words: list[str]) -> None:
    """Begin again from a copy of the interpreter that nobody can change (CVE-2019-5736). Raises SetupFailed."""
    from nbcontain.errors import SetupFailed
    from nbcontain.runtime.sealed import command, environment, sealed_copy

    executable = os.path.realpath(sys.executable)
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    env = {**environment(executable), **{name: os.environ[name] for name in _PASSED_ON if name in os.environ}}
    try:
        copy = sealed_copy(executable)
        os.execve(f"/proc/self/fd/{copy}", command(executable, _PROGRAM, package, *words), env)
    except OSError as error:
        raise SetupFailed("cannot run from a copy of the interpreter", why=error.strerror or str(error)) from error


# --- telling what went wrong ------------------------------------------------------------------------


def _complain(found: Words, error: Exception) -> None:
    _log(found, "error", _text_of(error))


def _text_of(error: Any) -> str:
    """In one line. For a program that is not there in the words that callers look for."""
    from nbcontain.errors import CommandNotExecutable, CommandNotFound

    parts = [error.message, error.why]
    if isinstance(error, CommandNotFound) and error.path:
        parts = [f"executable file `{error.path}` not found in $PATH", "No such file or directory"]
    elif isinstance(error, CommandNotExecutable):
        parts = [f"cannot execute `{error.path}`", error.why, "Permission denied"]
    text = ": ".join(part for part in parts if part)
    return f"{text} (try: {error.hint})" if error.hint and len(text) + len(error.hint) < 400 else text


def _log(found: Words, level: str, text: str) -> None:
    """To standard error, and to --log as --log-format says."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    path = found.get("log")
    if path:
        import json
        import time
        from pathlib import Path

        from nbcontain.store import files

        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if found.get("log_format") == "json":
            line = json.dumps({"msg": shown, "level": level, "time": now})
        else:
            line = f"time={now} level={level} msg={json.dumps(shown)}"
        try:
            fd = files.open_to_append(Path(path), 0o644)
            files.write(fd, f"{line}\n".encode())
            os.close(fd)
        except OSError as error:
            sys.stderr.write(f"cannot write to {path}: {error.strerror}\n")
    sys.stderr.write(f"nbcontain-runtime: {level}: {shown}\n")
    sys.stderr.flush()


# --- the commands -----------------------------------------------------------------------------------


class _Doing:
    """One command."""

    def __init__(self, found: Words) -> None:
        from nbcontain.runtime import oci_state

        self.found = found
        if found.has("systemd-cgroup"):
            raise misused("--systemd-cgroup is not here", "control groups are made as files: leave it out (cgroupfs)")
        if found.get("cgroup_manager") not in ("", "cgroupfs"):
            raise misused(f"--cgroup-manager {found.get('cgroup_manager')} is not here", "cgroupfs")
        self.root = oci_state.root_directory(found.get("root"))

    def run(self) -> int:
        handler: Callable[[], int] = getattr(self, f"_{self.found.command or 'nothing'}")
        return handler()

    def _nothing(self) -> int:
        raise misused("there is no command", f"one of {', '.join(COMMANDS)}")

    def _warn(self, text: str) -> None:
        _log(self.found, "warning", text)

    def _place(self, *, more: bool = False) -> Place:
        from nbcontain.runtime.oci_state import Place

        if not self.found.rest:
            raise misused(f"{self.found.command} needs the id of a container", "")
        if len(self.found.rest) > 1 and not more:
            raise misused(f"{self.found.command}: {self.found.rest[1]!r} is too much", "one id")
        return Place(self.root, self.found.rest[0])

    def _wishes(self) -> Wishes:
        from nbcontain.runtime.oci_life import Wishes

        text = self.found.get("preserve_fds") or "0"
        if not text.isdecimal() or int(text) > 1000:
            raise misused(f"--preserve-fds {text!r} is no number", "")
        preserved = int(text)
        for fd in range(3, 3 + preserved):
            try:
                os.set_inheritable(fd, True)
            except OSError:
                raise misused(f"--preserve-fds {preserved}: there is no descriptor {fd}", "") from None
        pid_file = self.found.get("pid_file")
        return Wishes(
            console_socket=self.found.get("console_socket"), pid_file=os.path.abspath(pid_file) if pid_file else "",
            preserved=preserved, pivot=not self.found.has("no-pivot"), group=self.found.get("cgroup"),
        )  # fmt: skip

    def _bundle(self) -> Path:
        from pathlib import Path

        return Path(self.found.get("bundle") or ".")

    def _create(self) -> int:
        from nbcontain.runtime import oci_life

        place, wishes = self._place(), self._wishes()
        begun = oci_life.create(place, self._bundle(), wishes, self._warn)
        if begun.master >= 0:
            oci_life.delete(place, self._warn, force=True)
            raise misused("process.terminal needs somebody who takes it", "--console-socket PATH")
        return 0

    def _start(self) -> int:
        from nbcontain.runtime import oci_life

        oci_life.start(self._place(), self._warn)
        return 0

    def _run(self) -> int:
        from nbcontain.runtime import oci_foreground, oci_life

        place, wishes = self._place(), self._wishes()
        detached = self.found.has("detach", "d")
        if not detached:
            oci_foreground.adopt()
        begun = oci_life.create(place, self._bundle(), wishes, self._warn)
        try:
            if detached and begun.master >= 0:
                raise misused("a detached terminal needs somebody who takes it", "--console-socket PATH")
            oci_life.start(place, self._warn)
            return 0 if detached else oci_foreground.attend(begun.pid, begun.master)
        except BaseException:
            oci_life.delete(place, self._warn, force=True)
            raise
        finally:
            if not detached and not self.found.has("keep") and (place.path / "state.json").exists():
                oci_life.delete(place, self._warn, force=True)

    def _exec(self) -> int:
        from nbcontain.runtime import oci_exec, oci_foreground

        place, wishes = self._place(more=True), self._wishes()
        process = self._process(place)
        detached = self.found.has("detach", "d")
        if process.terminal and detached and not wishes.console_socket:
            raise misused("a detached terminal needs somebody who takes it", "--console-socket PATH")
        if not detached:
            oci_foreground.adopt()
        begun = oci_exec.execute(place, process, wishes)
        return 0 if detached else oci_foreground.attend(begun.pid, begun.master)

    def _process(self, place: Place) -> Process:
        """What `exec` is to run: a document, or the container's own process with other words."""
        from nbcontain.oci import spec_codec, strict_json
        from nbcontain.runtime.oci_check import without_unknown
        from nbcontain.values import replace

        found = self.found
        if path := found.get("process"):
            with open(path, "rb") as file:
                document = strict_json.load(file.read(strict_json.DOCUMENT_LIMIT + 1), "process")
            process, _ = without_unknown(spec_codec.process_from_json(document.values))
            if found.has("tty", "t"):
                process = replace(process, terminal=True)
            return process
        if len(found.rest) < 2:
            raise misused("exec needs a program", "exec ID PROGRAM …")
        place.require()
        process = place.spec().process
        changes: dict[str, Any] = {
            "args": tuple(found.rest[1:]),
            "terminal": found.has("tty", "t"),
            "env": (*process.env, *found.lists.get("env", ())),
            "cwd": found.get("cwd") or process.cwd,
            "no_new_privileges": process.no_new_privileges or found.has("no-new-privs"),
            "apparmor": found.get("apparmor") or process.apparmor,
            "label": found.get("label") or process.label,
        }
        if user := found.get("user"):
            uid, _, gid = user.partition(":")
            if not uid.isdecimal() or (gid and not gid.isdecimal()):
                raise misused(f"--user {user!r} is no number", "--user 1000:1000")
            changes["user"] = replace(process.user, uid=int(uid), gid=int(gid or 0))
        if gids := [each for text in found.lists.get("gids", ()) for each in text.split(",")]:
            if not all(each.isdecimal() for each in gids):
                raise misused(f"--additional-gids {','.join(gids)!r}: these are no numbers", "--additional-gids 5")
            user_now = changes.get("user", process.user)
            groups = (*user_now.additional_gids, *map(int, gids))
            changes["user"] = replace(user_now, additional_gids=tuple(dict.fromkeys(groups)))
        if caps := tuple(found.lists.get("cap", ())):
            for name in ("capabilities", "effective", "permitted"):
                if (names := getattr(process, name)) is not None:
                    changes[name] = tuple(dict.fromkeys((*names, *caps)))
        return without_unknown(replace(process, **changes))[0]

    def _state(self) -> int:
        from nbcontain.runtime import oci_state

        place = self._place()
        return _print(oci_state.document(place, place.known()))

    def _kill(self) -> int:
        from nbcontain.runtime import oci_life
        from nbcontain.runtime.signals import signal_number

        words = self.found.rest[1:]
        if len(words) > 1:
            raise misused(f"kill: {words[1]!r} is too much", "kill ID [SIGNAL]")
        number = signal_number(words[0] if words else "TERM")
        oci_life.kill(self._place(more=True), number, every=self.found.has("all", "a"))
        return 0

    def _delete(self) -> int:
        from nbcontain.errors import ContainerNotFound
        from nbcontain.runtime import oci_life

        place, force = self._place(), self.found.has("force", "f")
        try:
            oci_life.delete(place, self._warn, force=force)
        except ContainerNotFound:
            if not force:
                raise
        return 0

    def _ps(self) -> int:
        from nbcontain.runtime import oci_report

        text = oci_report.processes(self._place(more=True), self.found.get("format") or "table", self.found.rest[1:])
        sys.stdout.write(text)
        return 0

    def _list(self) -> int:
        from nbcontain.runtime import oci_report

        sys.stdout.write(oci_report.listing(self.root, self.found.get("format"), quiet=self.found.has("quiet", "q")))
        return 0

    def _pause(self) -> int:
        return self._freeze(frozen=True)

    def _resume(self) -> int:
        return self._freeze(frozen=False)

    def _freeze(self, *, frozen: bool) -> int:
        from nbcontain.errors import NotRunning, SetupFailed
        from nbcontain.runtime import oci_state

        place = self._place()
        with place.alone():
            known = place.known()
            wanted, how = ("running", "created") if frozen else ("paused",), oci_state.status(place, known)
            if how not in wanted:
                raise NotRunning(f"cannot {self.found.command} container {place.id}: it is {how}")
            group = oci_state.group_of(known)
            if group is None:
                raise SetupFailed(f"cannot {self.found.command} container {place.id}: it has no control group")
            group.freeze(frozen=frozen)
        return 0

    def _update(self) -> int:
        from nbcontain.runtime import oci_report

        place = self._place()
        path = self.found.get("resources")
        given = {name: self.found.values[name] for name in LIMITS if name in self.found.values}
        oci_report.update(place, path, given)
        return 0

    def _spec(self) -> int:
        from nbcontain.runtime import oci_report

        oci_report.write_example(self._bundle(), rootless=self.found.has("rootless"))
        return 0

    def _features(self) -> int:
        from nbcontain.runtime import oci_report

        return _print(oci_report.features())


def _print(document: object) -> int:
    import json

    sys.stdout.write(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
