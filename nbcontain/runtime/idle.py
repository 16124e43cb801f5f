"""How a supervisor becomes its idle self, the pump: by executing itself. Run by the supervisor.

The process stays: its children, its being their subreaper, ignored signals, locks and descriptors, and the
container's PR_SET_PDEATHSIG, which waits for the end of a thread (prctl(2)), not for an execve.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nbcontain.linux import little_pump, syscalls
from nbcontain.runtime import output_lines, pump, sealed
from nbcontain.values import dataclass

_PACKAGE = Path(__file__).resolve().parents[2]
_PUMP = "import sys; sys.path.append(sys.argv[1] + '/nbcontain/runtime'); from pump import main; main()"


@dataclass(frozen=True, slots=True)
class Idle:
    """All that a supervisor has to remember over an execve; descriptors are -1 where there is none."""

    bundle: str
    task: str
    pid: int
    lock: int
    pidfd: int
    listener: int
    journal: int
    mounts: int
    outputs: Mapping[int, str]
    ids: Mapping[str, object]
    master: int = -1
    """The terminal, which is among the outputs, and its other end."""
    peer: int = -1
    network: int = -1
    """The network and the user namespace that it keeps for its next run."""
    user: int = -1
    silent: int = -1
    """Where output goes that nobody wants: /dev/null."""
    lost: int = 0
    """How many bytes of output were lost so far."""
    wake: float = 0.0
    """When to awake by itself, by the monotonic clock; 0 is never."""
    limit: int = 0
    """How large the journal may become, in bytes; 0 is no limit."""
    delay: float = 0.0
    """What the restart policy waited for the last time, in seconds."""

    def words(self) -> list[str]:
        """Itself as the arguments of a program; the first ones are all that the pump reads."""
        watched = f"{self.pidfd} {self.listener}"
        rest = {name: getattr(self, name) for name in _REST} | {"ids": dict(self.ids)}
        return [
            str(_PACKAGE), self.task, str(self.sink), self.names, watched, self.digits,
            repr(self.wake) if self.wake else "", str(self.sink_limit), json.dumps(rest),
        ]  # fmt: skip

    @property
    def sink(self) -> int:
        """Where output is written."""
        return self.silent if self.silent >= 0 else self.journal

    @property
    def sink_limit(self) -> int:
        """How large that may become."""
        return 0 if self.silent >= 0 else self.limit

    @property
    def names(self) -> str:
        """What the outputs are called, a word each."""
        return " ".join(f"{fd}:{stream}" for fd, stream in self.outputs.items())

    @property
    def digits(self) -> str:
        """How many bytes were lost, so that it can be written over."""
        return f"{self.lost:020}"

    @classmethod
    def of(cls, words: list[str]) -> Idle:
        """The one whose `words` these are."""
        _, task, _, outputs, _, lost, _, _, rest = words
        streams = {int(fd): stream for fd, _, stream in (word.partition(":") for word in outputs.split())}
        return cls(task=task, outputs=streams, lost=int(lost), **json.loads(rest))

    def descriptors(self) -> list[int]:
        """Every descriptor it keeps."""
        ends = (
            self.lock, self.pidfd, self.listener, self.journal, self.mounts, self.peer, self.network, self.user,
            self.silent, *self.outputs,
        )  # fmt: skip
        return [fd for fd in ends if fd >= 0]


_REST = (
    "bundle", "pid", "lock", "pidfd", "listener", "journal", "mounts", "master", "peer", "network", "user", "silent",
    "wake", "limit", "delay",
)  # fmt: skip


def is_possible() -> bool:
    """Whether this process was executed from a sealed copy: then it can be again."""
    return os.readlink("/proc/self/exe").startswith("/memfd:")


def fall_asleep(state: Idle) -> None:
    """Become the little pump, or else Python's; returns only where neither can be, and then all is as before.

    The program of Python's is the interpreter on disk, whose pages all that run it share: nothing is forked from an
    idle supervisor, so nothing inside can reach it.
    """
    for fd in state.descriptors():
        os.set_inheritable(fd, True)
    words = state.words()
    command = sealed.command(sys.executable, _PUMP, *words, environment=True)
    with suppress(OSError):
        little = sealed.sealed_file("pump", _little(state, words, command).program(os.uname().machine))
        try:
            os.execve(little, ["nbcontain-pump", state.task], {})
        finally:
            os.close(little)
    try:
        os.execve(sys.executable, command, sealed.SMALL)
    except OSError:
        hold(state)


def _little(state: Idle, words: list[str], command: list[str]) -> little_pump.LittlePump:
    """The little pump, which has as arguments for its later selves what Python's has, and says in them what changed."""
    whole = sealed.command(sys.executable, pump.WHOLE, *words)
    heads = {fd: output_lines.after_time(state.task, stream) for fd, stream in state.outputs.items()}
    return little_pump.LittlePump(
        outputs=heads, names=state.names, watched=(state.pidfd, state.listener), lost=state.digits,
        journal=state.sink, limit_bytes=state.sink_limit, wake=state.wake,
        whole=little_pump.Execution(sys.executable, whole, sealed.environment(sys.executable)),
        other=little_pump.Execution(sys.executable, command, sealed.SMALL),
    )  # fmt: skip


def hold(state: Idle) -> None:
    """Keep the descriptors to this program."""
    for fd in state.descriptors():
        os.set_inheritable(fd, False)


def resume() -> None:
    """A supervisor that was idle, executed again: go on where it was."""
    # It is executed for this, and the pump, which imports this module too, is not.
    from nbcontain.runtime import stage
    from nbcontain.runtime.supervisor import Supervisor

    was = Idle.of(sys.argv[1:])
    hold(was)
    syscalls.close_others(was.descriptors())
    os.environ.clear()
    gc.disable()
    stage.run(Supervisor.resumed(was).attend)
