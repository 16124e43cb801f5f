"""What a runtime of the specification hands to others: a terminal, a filter's listener, a pid, limits to a process."""

from __future__ import annotations

import _socket as socket
import array
import errno
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import SetupFailed
from nbcontain.linux import confine, syscalls
from nbcontain.oci.spec import Rlimit
from nbcontain.store import files

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

_LISTENER_S = 10.0


def send_console(path: str, master: int) -> None:
    """The terminal's master to who listens there; closes it. Raises SetupFailed."""
    try:
        _send(path, os.readlink(f"/proc/self/fd/{master}").encode(), master)
    except OSError as error:
        raise SetupFailed(
            f"cannot hand the terminal to {path}", errno=error.errno, path=path, why=error.strerror or ""
        ) from error
    finally:
        os.close(master)


def send_listener(
    config: Mapping[str, Any], pidfd: int, number: int, state: Mapping[str, object], *, taken: int
) -> None:
    """The descriptor on which a filter tells of calls, which the process has as `number` in a moment.

    `taken` is memory in which a byte says that it has been taken.

    Taken from outside, since the process itself may not be able to do anything any more that it does not tell of.
    """
    seccomp = config["linux"]["seccomp"]
    path = seccomp.get("listenerPath", "")
    deadline = time.monotonic() + _LISTENER_S
    while True:
        try:
            listener = syscalls.pidfd_getfd(pidfd, number)
            if "seccomp notify" in os.readlink(f"/proc/self/fd/{listener}"):
                break
            os.close(listener)
        except OSError as error:
            if error.errno != errno.EBADF:
                what = "cannot take the filter's listener"
                raise SetupFailed(what, errno=error.errno, why=error.strerror or "") from error
        if time.monotonic() > deadline:
            raise SetupFailed("the filter has no listener", why=f"not within {_LISTENER_S:.0f} s")
        time.sleep(0.0005)
    try:
        told = dict(state) | ({"metadata": seccomp["listenerMetadata"]} if seccomp.get("listenerMetadata") else {})
        _send(path, json.dumps(told).encode(), listener)
    except OSError as error:
        raise SetupFailed(
            f"cannot hand the filter's listener to {path}", errno=error.errno, path=path, why=error.strerror or ""
        ) from error
    finally:
        os.close(listener)
        os.pwrite(taken, b"1", 0)
        os.close(taken)


def _send(path: str, data: bytes, fd: int) -> None:
    """Data and a descriptor to a stream socket. By a descriptor of its directory: a socket's path ends at 108 bytes."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        end.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))], socket.MSG_NOSIGNAL)
    finally:
        os.close(directory)
        end.close()


def write_pid(path: str, pid: int) -> None:
    """The pid, in a file that is there as a whole or not at all. Raises SetupFailed."""
    try:
        files.replace(Path(path), str(pid).encode(), 0o644, durable=False)
    except OSError as error:
        raise SetupFailed(f"cannot write {path}", errno=error.errno, path=path, why=error.strerror or "") from error


def forget(path: Path) -> None:
    """Take a file away, if it is there."""
    files.unlink(path)


def limit(pid: int, rlimits: Sequence[Rlimit]) -> None:
    """Limits of a process that waits, which it could not set itself. It sets them again, and says what is wrong."""
    import resource

    for each in rlimits:
        number = confine.RLIMITS.get(each.type.removeprefix("RLIMIT_").lower())
        with suppress(OSError, ValueError):
            if number is not None:
                soft, hard = (-1 if value >= 1 << 63 else value for value in (each.soft, each.hard))
                resource.prlimit(pid, number, (soft, hard))
