"""Programs that a bundle wants to be run at points of its container's life.

runtime-spec config.md#posix-platform-hooks. Run by the runtime outside, or by init, whose imports are frozen:
whatever is needed is imported here.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence

from nbcontain.errors import SetupFailed
from nbcontain.oci.spec import Hook

_TAIL_BYTES = 4096
NAMES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def run(name: str, hooks: Sequence[Hook], state: Mapping[str, object]) -> None:
    """Run them one after the other, with the state on their standard input. Raises SetupFailed at the first failure."""
    data = json.dumps(state).encode()
    for hook in hooks:
        _run(name, hook, data)


def run_all(name: str, hooks: Sequence[Hook], state: Mapping[str, object]) -> list[SetupFailed]:
    """Run all of them, whatever happens; gives the failures."""
    failures = []
    for hook in hooks:
        try:
            run(name, (hook,), state)
        except SetupFailed as error:
            failures.append(error)
    return failures


def _run(name: str, hook: Hook, data: bytes) -> None:
    memory = os.memfd_create("state", os.MFD_CLOEXEC)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(memory, data)
        os.lseek(memory, 0, os.SEEK_SET)
        actions = [
            (os.POSIX_SPAWN_DUP2, memory, 0), (os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_DUP2, writing, 2),
        ]  # fmt: skip
        env = dict(entry.partition("=")[::2] for entry in hook.env)
        try:
            pid = os.posix_spawn(
                hook.path, hook.args or (hook.path,), env, file_actions=actions, setpgroup=0,
                setsigmask=(), setsigdef=(signal.SIGPIPE,),
            )  # fmt: skip
        except OSError as error:
            raise SetupFailed(
                f"the {name} hook {hook.path} cannot be run",
                errno=error.errno, path=hook.path, why=error.strerror or "",
            ) from error  # fmt: skip
        os.close(writing)
        writing = -1
        status, said, is_late = _awaited(pid, reading, hook.timeout_s)
    finally:
        for fd in (memory, reading, *([writing] if writing >= 0 else [])):
            os.close(fd)
    text = said.decode("ascii", "replace").strip()
    if is_late:
        raise SetupFailed(f"the {name} hook {hook.path} took longer than {hook.timeout_s} s", why=text)
    code = os.waitstatus_to_exitcode(status)
    if code:
        ended = f"exit status {code}" if code > 0 else f"signal {-code}"
        raise SetupFailed(f"the {name} hook {hook.path} failed: {ended}", why=text)


def _awaited(pid: int, reading: int, timeout_s: int) -> tuple[int, bytes, bool]:
    """Its status, the end of what it said, and whether it was killed because it took too long."""
    deadline = time.monotonic() + timeout_s if timeout_s else None
    pidfd, said, is_late = os.pidfd_open(pid), b"", False
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(reading, select.POLLIN)
    try:
        while True:
            left = None if deadline is None or is_late else max(0.0, deadline - time.monotonic()) * 1000
            ready = {fd for fd, _ in poll.poll(left)}
            if not ready:
                is_late = True
                os.killpg(pid, signal.SIGKILL)
            if reading in ready:
                data = os.read(reading, _TAIL_BYTES)
                said = (said + data)[-_TAIL_BYTES:]
                if not data:
                    poll.unregister(reading)
            elif pidfd in ready:
                # What it left running may hold the pipe for ever.
                return os.waitpid(pid, 0)[1], said, is_late
    finally:
        os.close(pidfd)
