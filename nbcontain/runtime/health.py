"""A container's health: a program that is run in it again and again, and what its exit codes amount to.

docker's meaning (moby daemon/health.go): `starting` until a check succeeds or `Retries` have failed in a row; failures
within `StartPeriod` do not count. Run by the supervisor, and imported by it only for a container that has a check; the
results lie in the bundle as health.json, docker's State.Health.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from nbcontain.errors import NbcontainError
from nbcontain.oci import spec_codec
from nbcontain.runtime.annotations import GROUPS, USER
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.execs import Execs
from nbcontain.values import replace

_NANO = 1e9
_KEPT = 5
_OUTPUT_BYTES = 4096
_READ_BYTES = 1 << 16
_FAR_S = 1e9


class Health:
    """The checks of one run."""

    def __init__(
        self, bundle: Bundle, said: Mapping[str, Any], execs: Execs, poll: select.poll,
        on_change: Callable[[str], None], *, resumed: bool,
    ) -> None:  # fmt: skip
        """`said` is what container.json says of it; `on_change` is told each new status."""
        self._bundle, self._execs, self._poll, self._on_change = bundle, execs, poll, on_change
        self._said = said
        self._said_s: dict[str, float] = {
            "Interval": 30.0, "Timeout": 30.0, "StartPeriod": 0.0, "StartInterval": 5.0,
        } | {name: said[name] / _NANO for name in ("Interval", "Timeout", "StartPeriod", "StartInterval")
             if said.get(name)}  # fmt: skip
        self._asked: list[Callable[[dict[str, Any]], None]] = []
        self._pid = self._output_fd = -1
        self._output = b""
        self._old: list[int] = []
        self._began = 0.0
        self._ends_at = _FAR_S
        self._has_timed_out = False
        known = _read(bundle) if resumed else None
        self._status = str((known or {}).get("Status", "starting"))
        self._streak = int((known or {}).get("FailingStreak", 0))
        self._log: list[dict[str, Any]] = list((known or {}).get("Log", []))
        now = time.monotonic()
        self._started = float((known or {}).get("started", now))
        self._next = float((known or {}).get("next", now + self._interval()))
        if known is None:
            self._write()

    # --- when ---

    @property
    def due_at(self) -> float:
        """When something is to be done next, by the monotonic clock."""
        return self._ends_at if self.is_busy else self._next

    @property
    def is_busy(self) -> bool:
        """Whether a check is going on."""
        return self._pid >= 0

    def _interval(self) -> float:
        is_early = self._status == "starting" and time.monotonic() - self._started < self._said_s["StartPeriod"]
        return self._said_s["StartInterval" if is_early else "Interval"]

    def attend(self) -> None:
        """Do what is due."""
        while self._old:
            os.close(self._old.pop())
        if time.monotonic() < self.due_at:
            return
        if not self.is_busy:
            self._begin()
            return
        # Its output counts as far as it came.
        self._ends_at = _FAR_S
        self._has_timed_out = True
        for kill in (os.killpg, os.kill):
            try:
                # With what it has started; before it leads a group it is alone.
                kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def check_now(self, answer: Callable[[dict[str, Any]], None]) -> None:
        """Check once, now, for somebody who wants to know; a check that is going on will do."""
        self._asked.append(answer)
        if not self.is_busy:
            self._begin()

    # --- one check ---

    def _begin(self) -> None:
        self._output, self._has_timed_out, self._began = b"", False, time.time()
        if self._bundle.is_paused():
            # Nothing inside would answer.
            self._next = time.monotonic() + self._interval()
            self._answer({"ExitCode": -1, "Output": "the container is paused"})
            return
        spec = self._bundle.spec
        process = replace(spec.process, args=tuple(self._said["args"]), terminal=False, console_size=(0, 0))
        order = {
            "process": spec_codec.process_to_json(process), "user": spec.annotations.get(USER, ""),
            "groups": spec.annotations.get(GROUPS, ""),
        }  # fmt: skip
        reading, writing = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._pid = self._execs.start(None, order, [null, writing, writing], on_end=self._ended)
        except (OSError, NbcontainError) as error:
            # Also where the container ends just now, and there is nothing left to get into.
            os.close(reading)
            self._result(-1, getattr(error, "strerror", "") or str(error))
            return
        finally:
            os.close(writing)
            os.close(null)
        os.set_blocking(reading, False)
        self._output_fd = reading
        self._poll.register(reading, select.POLLIN)
        self._ends_at = time.monotonic() + self._said_s["Timeout"]

    def reads(self, fd: int) -> bool:
        """Take some of its output, if that is what `fd` is."""
        if fd != self._output_fd:
            return False
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return True
        if data:
            self._output = (self._output + data)[: _OUTPUT_BYTES + 1]
        else:
            self._close_output()
        return True

    def _close_output(self) -> None:
        if self._output_fd >= 0:
            self._poll.unregister(self._output_fd)
            # Closed when nothing that was seen in this round can be meant by its number any more.
            self._old.append(self._output_fd)
            self._output_fd = -1

    def _ended(self, code: int, error: str) -> None:
        while self._output_fd >= 0 and select.select([self._output_fd], [], [], 0)[0]:
            self.reads(self._output_fd)
        self._close_output()
        text = error or self._output.decode(errors="replace")
        code = -1 if error else code
        if len(self._output) > _OUTPUT_BYTES:
            text = self._output[:_OUTPUT_BYTES].decode(errors="replace") + "..."
        if self._has_timed_out:
            why = f"Health check exceeded timeout ({_duration(self._said_s['Timeout'])})"
            code, text = -1, f"{why}: {text}" if text else why
        self._result(code, text)

    def _result(self, code: int, output: str) -> None:
        """Count it as docker does (handleProbeResult), and say so."""
        self._pid, self._ends_at = -1, _FAR_S
        before = self._status
        if code == 0:
            self._streak, self._status = 0, "healthy"
        else:
            in_time = time.monotonic() - self._started < self._said_s["StartPeriod"]
            if not (before == "starting" and in_time):
                self._streak += 1
                if self._streak >= (self._said.get("Retries") or 3):
                    self._status = "unhealthy"
        entry = {"Start": _stamp(self._began), "End": _stamp(time.time()), "ExitCode": code, "Output": output}
        self._log = [*self._log, entry][-_KEPT:]
        self._next = time.monotonic() + self._interval()
        self._write()
        if self._status != before:
            self._on_change(self._status)
        self._answer(entry)

    def _answer(self, entry: dict[str, Any]) -> None:
        asked, self._asked = self._asked, []
        for answer in asked:
            answer({**entry, "Status": self._status})

    def _write(self) -> None:
        said = {
            "Status": self._status, "FailingStreak": self._streak, "Log": self._log,
            "started": self._started, "next": self._next,
        }  # fmt: skip
        try:
            self._bundle.replace_quickly("health.json", json.dumps(said).encode())
        except OSError:
            # A full disk: the next result is written again.
            return

    def end(self) -> None:
        """The run is over."""
        self._close_output()
        while self._old:
            os.close(self._old.pop())
        self._answer({"ExitCode": -1, "Output": "the container has ended"})


def _read(bundle: Bundle) -> dict[str, Any] | None:
    try:
        with open(bundle.path / "health.json", encoding="utf-8") as file:
            known = json.load(file)
        return known if isinstance(known, dict) else None
    except (OSError, ValueError):
        return None


def _stamp(at: float) -> str:
    """RFC 3339, to the nanosecond as far as the clock goes, in UTC."""
    seconds = int(at)
    when = time.gmtime(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", when) + f".{int((at - seconds) * 1e9):09d}Z"


def _duration(seconds: float) -> str:
    """As Go writes one of whole or broken seconds: 30s, 1m0s, 500ms."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest:g}s"
