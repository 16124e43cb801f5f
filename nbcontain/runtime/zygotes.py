"""A zygote as whoever has it started sees it: a process, and a channel to it. Run by the kernel.

Light on purpose: a command on a terminal begins with one before it has imported what it needs itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from pathlib import Path

from nbcontain.runtime.messages import Channel
from nbcontain.runtime.sealed import ENVIRONMENT, command, environment, sealed_copy

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

PUMP_BYTES = 1 << 16
_SIGKILL = 9  # the module that names it would be one more to wait for
_PACKAGE = Path(__file__).resolve().parents[2]
_PROGRAM = (
    "import gc, sys; gc.disable(); sys.path.extend(sys.argv[2:]); import nbcontain.runtime.later; "
    "from nbcontain.runtime.zygote import main; main(int(sys.argv[1]))"
)


class Zygote:
    """A program in a session of its own, without subprocess, whose import takes as long as a container's start.

    It waits for the first message, which tells it what it is to be. What else is inheritable of this process's
    descriptors is its own to close, as it does.
    """

    def __init__(self, *, sealed: bool = True) -> None:
        """Execute one, from a sealed copy of the interpreter or from that itself. Raises OSError."""
        self.orders, theirs = Channel.pair()
        executable = interpreter()
        name = str(executable)
        self.stderr, writing = os.pipe2(os.O_CLOEXEC)
        copy = -1
        try:
            copy = sealed_copy(name) if sealed else os.open(executable, os.O_RDONLY | os.O_CLOEXEC)
            quiet = [(os.POSIX_SPAWN_OPEN, number, "/dev/null", os.O_RDWR, 0) for number in (0, 1)]
            self.pid = os.posix_spawn(
                f"/proc/self/fd/{copy}", command(name, _PROGRAM, str(theirs.fileno()), *_paths()),
                environment(name) if sealed else ENVIRONMENT, setsid=True,
                file_actions=[
                    *quiet, (os.POSIX_SPAWN_DUP2, writing, 2), (os.POSIX_SPAWN_DUP2, theirs.fileno(), theirs.fileno()),
                ],
            )  # fmt: skip
        except BaseException:
            self.orders.close()
            os.close(self.stderr)
            raise
        finally:
            os.close(writing)
            theirs.close()
            if copy >= 0:
                os.close(copy)

    def listen_no_more(self) -> None:
        """What its children write from here on is nobody's business."""
        os.close(self.stderr)
        self.stderr = -1

    def end(self) -> str:
        """End it, whatever it does: a zygote holds nothing that anybody would miss. Gives what it complained of."""
        # Somebody else may reap all children of this process.
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, _SIGKILL)
            os.waitpid(self.pid, 0)
        if self.stderr < 0:
            return ""
        with os.fdopen(self.stderr, "rb", buffering=0) as stderr:
            os.set_blocking(self.stderr, False)
            return (stderr.read(PUMP_BYTES) or b"").decode(errors="replace")


def interpreter() -> Path:
    """What a zygote is executed from."""
    return Path(os.path.realpath(sys.executable))


def _found(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ModuleNotFoundError:
        # Not even the package that it would be in: what is compressed with it cannot be read.
        return None


def _paths() -> list[str]:
    """Where a zygote finds this package, and zstd where the interpreter does not bring it along."""
    found = _found("backports.zstd") if sys.version_info < (3, 14) else None
    others = [str(Path(found.origin).parents[2])] if found is not None and found.origin else []
    return list(dict.fromkeys([str(_PACKAGE), *others]))
