"""What the processes say to each other: one JSON object a packet, with file descriptors beside it.

Channels are SOCK_SEQPACKET sockets: a packet arrives whole or not at all, and end-of-file means that
the other end is gone. Errors travel as the type's name and what the kernel said, and are raised again,
typed, where they arrive.
"""

from __future__ import annotations

# The socket module would cost every process of ours the enumerations of all that sockets can be.
import _socket as socket
import array
import errno as codes
import json
import os
import select
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nbcontain import errors
from nbcontain.errors import SetupFailed

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]
else:
    Message = dict

CONTROL = "control.sock"
"""A supervisor's."""
_INLINE_BYTES = 1 << 16
_PACKET_BYTES = _INLINE_BYTES + 1
_LARGE = "$large"
_FDS = 250
"""The kernel's limit for one packet is 253."""


class Channel:
    """One end of a connection."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    @classmethod
    def of(cls, fd: int) -> Channel:
        """The end that this descriptor is."""
        # Said, since the kernel would be asked for it otherwise.
        return cls(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=fd))

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two ends of a new connection, both close-on-exec."""
        first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(first), cls(second)

    def fileno(self) -> int:
        return self.socket.fileno()

    def peer_uid(self) -> int:
        """The user who connected (unix(7), SO_PEERCRED)."""
        data = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(data[4:8], sys.byteorder)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a packet; raises BrokenPipeError or ConnectionResetError when nobody is there."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > _INLINE_BYTES:
            # More than a packet takes: the object goes into memory of its own, and the packet says so.
            memory = os.memfd_create("message", os.MFD_CLOEXEC)
            try:
                with os.fdopen(os.dup(memory), "wb") as file:
                    file.write(data)
                self._send(json.dumps({_LARGE: len(data)}).encode(), [*fds, memory])
            finally:
                os.close(memory)
        else:
            self._send(data, fds)

    def _send(self, data: bytes, fds: Sequence[int]) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)

    def say(self, packet: bytes) -> None:
        """Send a packet that is written already, for who may touch next to no memory."""
        self.socket.send(packet, socket.MSG_NOSIGNAL)

    def tell(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send to somebody who may be gone, hung up on, or asleep with a full buffer: then nobody is told."""
        with suppress(OSError):
            self.socket.setblocking(False)
            try:
                self.send(message, fds)
            finally:
                self.socket.setblocking(True)

    def receive(self) -> tuple[Message | None, list[int]]:
        """The next packet and its fds (close-on-exec); (None, []) at end-of-file. Waits."""
        fds = array.array("i")
        try:
            data, ancillary = self._packet(fds.itemsize)
        except ConnectionResetError:
            return None, []
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        try:
            if data:
                return _message(data, fds), list(fds)
        except BaseException:
            _close(fds)
            raise
        _close(fds)
        return None, []

    def _packet(self, fd_bytes: int) -> tuple[bytes, list[tuple[int, int, bytes]]]:
        given = _PACKET_BYTES, socket.CMSG_SPACE(_FDS * fd_bytes), socket.MSG_CMSG_CLOEXEC
        try:
            return self.socket.recvmsg(*given)[:2]
        except ConnectionResetError:
            # It has left something of ours unread. That is told once, and before what it said last.
            return self.socket.recvmsg(*given)[:2]

    def say_no_more(self) -> None:
        """Let the other end know that nothing comes any more; it can still be heard. Raises OSError."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.socket.close()


def _message(data: bytes, fds: array.array[int]) -> Message:
    """What a packet says; the memory of a large one is taken from `fds`. Raises ValueError for what is none."""
    message = json.loads(data)
    if isinstance(message, dict) and _LARGE in message:
        if not fds:
            raise ValueError("a large packet comes with its memory")
        with os.fdopen(fds.pop(), "rb") as file:
            file.seek(0)
            message = json.load(file)
    if not isinstance(message, dict):
        raise ValueError("a packet is one JSON object")
    return message


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


class Listener:
    """A control socket, which others connect to."""

    def __init__(self, fd: int | None = None) -> None:
        """`fd` is one that is open already."""
        self.socket = (
            socket.socket(fileno=fd) if fd is not None else socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        )

    def open(self, directory: Path, name: str = CONTROL) -> None:
        """Listen in this directory. By a descriptor of it, since a socket's path ends at 108 bytes."""
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.socket.bind(f"/proc/self/fd/{fd}/{name}")
            self.socket.listen(16)
        finally:
            os.close(fd)

    def accept(self) -> Channel:
        """The next who connected. Waits."""
        return Channel.of(self.socket._accept()[0])  # type: ignore[attr-defined]

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()


def connect(directory: Path, name: str = CONTROL) -> Channel:
    """A channel to whoever listens in `directory`: a supervisor, by its name. Raises OSError if there is none."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        end.connect(f"/proc/self/fd/{fd}/{name}")
    except BaseException:
        end.close()
        raise
    finally:
        os.close(fd)
    return Channel(end)


def is_readable(channel: Channel | Listener, timeout_s: float | None) -> bool:
    """Whether something comes within this time; None waits for ever."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def answer_of(channel: Channel, timeout_s: float | None, doing: str, handed: list[int] | None = None) -> Message:
    """The next packet; raises the error that it describes, and SetupFailed if none comes.

    Its descriptors are added to `handed`, for the caller to close; without that they are closed.
    """
    if not is_readable(channel, timeout_s):
        raise SetupFailed(f"{doing} takes longer than {timeout_s:.0f} s")
    message, fds = channel.receive()
    if handed is not None:
        handed += fds
    else:
        _close(fds)
    if message is None:
        raise SetupFailed(f"{doing}: the process that did it was killed")
    if "error" in message:
        raise error_of(message)
    return message


def describe(error: BaseException, where: str = "") -> Message:
    """An exception as a packet. `where` says what was being done, for errors that do not say it themselves."""
    if isinstance(error, errors.NbcontainError):
        return {
            "error": type(error).__name__,
            "message": error.message,
            "why": error.why,
            "hint": error.hint,
            "errno": getattr(error, "errno", None),
            "path": getattr(error, "path", ""),
        }
    if isinstance(error, OSError) and error.errno is not None:
        full = error.errno in (codes.ENOSPC, codes.EDQUOT)
        path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        reason = error.strerror or os.strerror(error.errno)
        return {
            "error": "DiskFull" if full else "SetupFailed",
            "message": where or "a step of the container's setup failed",
            "why": f"{path}: {reason}" if path else reason,
            "hint": "",
            "errno": error.errno,
            "path": path,
        }
    return {
        "error": "SetupFailed",
        "message": where or "a step of the container's setup failed",
        "why": f"{type(error).__name__}: {error}",
        "hint": "",
        "errno": None,
        "path": "",
    }


def error_of(message: Message) -> errors.NbcontainError:
    """The typed exception that a packet describes."""
    kind = getattr(errors, str(message.get("error")), None)
    text, why, hint = (str(message.get(name) or "") for name in ("message", "why", "hint"))
    if isinstance(kind, type) and issubclass(kind, errors.SetupFailed):
        number = message.get("errno")
        return kind(
            text,
            errno=number if isinstance(number, int) else None,
            path=str(message.get("path") or ""),
            why=why,
            hint=hint,
        )
    plain = (
        errors.StoreError, errors.ContainerError, errors.Unavailable, errors.BuildError, errors.NetworkError,
        errors.UsageError,
    )  # fmt: skip
    if (
        isinstance(kind, type)
        and issubclass(kind, plain)
        and kind not in (errors.DigestMismatch, errors.ContainerFailed, errors.StepFailed)
    ):
        return kind(text, why=why, hint=hint)
    return errors.SetupFailed(text, why=why, hint=hint)
