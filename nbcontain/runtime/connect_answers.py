"""Answers to connect(2), where nothing else leads out of an ordinary user's networks: by sockets of this machine's.

The answerer stands in this machine's network. Where a program's own routes lead to the gateway of a network that leads
out, it makes a socket like the program's here, connects it, and puts it in the place of that one (as bypass4netns
does). What is let through to the kernel later may find one of these where another one was: so nothing of this machine's
loopback can be reached by it, wherever it is connected (`linux.swaps`). Run by the answerer.
"""

from __future__ import annotations

import _socket as socket
import errno
import json
import os
import select
import struct
import time
from contextlib import suppress
from itertools import islice

from nbcontain.linux import epolls, notify, routes, swaps, syscalls
from nbcontain.linux.notify import Call
from nbcontain.linux.routes import Routes, namespace_of
from nbcontain.linux.swaps import Peer
from nbcontain.runtime.asked import MASK, Asked
from nbcontain.values import dataclass

_ADDRESS_BYTES = 128
_SYS_CONNECT, _SYS_LISTEN = 3, 4
_WAITING = 256
"""Connections at a time that programs wait for."""
_CALLED_AGAIN_S = 1.0
"""A signal ends a call, and mostly the program, or the kernel for it, calls again: so long its connection is kept."""
_MOST_LISTENED = 1 << 30
_LOOKED_AT = 1024
"""Descriptors of a program, from the lowest on, that are looked at for what else is to know of the other socket."""
_EPOLLS = 256
_TOLD = 256
"""Of one connection, among all of them."""
_INFO_BYTES = 4 << 20
"""Of one descriptor: of an epoll, some forty thousand others."""
_RECORD_BYTES = 1 << 20


@dataclass(slots=True, eq=False)
class _Waiting:
    """A connection that is not made yet, and who waits for it."""

    call: Call
    number: int
    made: socket.socket
    key: tuple[int, int, bytes]
    """Who waits for what: a thread, the inode of its own socket, and the address that it said."""
    gives_up_at: float = 0.0
    """When its program waits no longer (SO_SNDTIMEO); 0 for never."""
    left_at: float = 0.0
    """When it was found that nobody waits; 0 if somebody does."""
    error: int = -1
    """What came of it; -1 if that is not known."""


class ConnectAnswers:
    """Each public method answers the call that it is called after."""

    def __init__(self, asked: Asked, poll: select.poll, route: socket.socket, record: tuple[int, str]) -> None:
        """`route` is of the container's network namespace; `record` says where its networks lead: directory, name."""
        self._asked, self._poll = asked, poll
        self._inside, self._outside = Routes(route), Routes(routes.asking())
        self._ports = swaps.ports_of_connections(asked.proc)
        self._record = Gateways(*record)
        self._waiting: dict[int, _Waiting] = {}

    def socketcall(self, call: Call) -> None:
        """The same of programs of 32 bits."""
        which = call.arguments[0] & MASK
        call.arguments = notify.numbers(self._asked.read(call, call.arguments[1], 12 if which == _SYS_CONNECT else 8))
        (self.connect if which == _SYS_CONNECT else self.listen)(call)

    def connect(self, call: Call) -> None:
        number, size_bytes = call.arguments[0] & MASK, call.arguments[2] & MASK
        said, to, end = b"", None, None
        try:
            # Read once: what is decided here is about what is done here.
            said = self._asked.read(call, call.arguments[1], size_bytes) if 16 <= size_bytes <= _ADDRESS_BYTES else b""
            to = swaps.peer(said)
            end = self._socket_of(call, number) if swaps.is_of_internet(said) else None
        except OSError as error:
            # A process that we may not look into reaches what is near all the same; what is far, as far as the relay
            # takes it. Where nothing leads out any more, it may have one of our sockets still, which would.
            is_hidden = isinstance(error, PermissionError) and self._record.read()
            if not is_hidden and (to is not None or not said):
                raise
        if end is None:
            self._asked.let_through(call)
            return
        try:
            if to is not None:
                self._connect(call, number, end, to, said)
            elif end.family in (socket.AF_INET, socket.AF_INET6) and not namespace_of(end.fileno()):
                # One of ours. What it is locked to holds it, too.
                self._asked.fail(call, errno.ENETUNREACH)
            else:
                self._asked.let_through(call)
        finally:
            end.close()

    def _socket_of(self, call: Call, number: int) -> socket.socket | None:
        """The caller's socket; None for what is none, or not there: the kernel says so."""
        if number > 1 << 30:
            return None
        process = self._asked.pidfd(call.pid)
        try:
            end = swaps.socket_of(syscalls.pidfd_getfd(process, number))
        except OSError as error:
            if error.errno in (errno.EBADF, errno.ENOTSOCK, errno.EAFNOSUPPORT):
                return None
            raise
        finally:
            os.close(process)
        self._asked.check(call)
        return end

    def _connect(self, call: Call, number: int, end: socket.socket, to: Peer, said: bytes) -> None:
        if not swaps.can_be_swapped(end):
            self._asked.let_through(call)
            return
        key = call.pid, os.fstat(end.fileno()).st_ino, said
        namespace = namespace_of(end.fileno())
        if namespace not in (0, self._inside.namespace):
            # Of a namespace that a program made for itself, from which nothing leads out.
            self._asked.let_through(call)
            return
        if waiting := self._left_behind(key):
            waiting.call, waiting.number, waiting.left_at = call, number, 0.0
            if waiting.error >= 0:
                self._finish(waiting)
            return
        if not self._leads_out(to):
            if namespace:
                self._asked.let_through(call)
            else:
                # One of ours, of a connection that failed. Nobody leads it back in.
                self._asked.fail(call, errno.ENETUNREACH)
            return
        before = 0 if namespace else end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if before not in (0, errno.ECONNRESET):
            # How the last one failed, which is told first (connect(2), EINPROGRESS). A reset one had not failed.
            self._asked.fail(call, before)
            return
        self._begin(call, number, end, to, key)

    def _leads_out(self, to: Peer) -> bool:
        """Whether the way to it goes by the gateway of a network that leads out, and not by a link of the program's."""
        try:
            route = self._inside.to(to.route_family, to.packed)
        except OSError:
            return False
        return route.bits == 0 and route.gateway in self._record.read()

    def _begin(self, call: Call, number: int, end: socket.socket, to: Peer, key: tuple[int, int, bytes]) -> None:
        waits = os.get_blocking(end.fileno())
        if waits and len(self._waiting) >= _WAITING:
            raise OSError(errno.EAGAIN, "")
        interface = self._outside.interface(to.route_family, to.packed)
        if interface <= routes.LOOPBACK:
            raise OSError(errno.EHOSTUNREACH, "")
        made, error = swaps.connected_like(end, interface, to, self._ports)
        try:
            if error == 0 or error == errno.EINPROGRESS and not waits:
                # Before the caller goes on: its epolls tell of the old one as long as anybody has it.
                end.close()
                self._put(call, number, made, key[1], waits=waits)
                self._asked.fail(call, error)
            elif error != errno.EINPROGRESS:
                self._asked.fail(call, error)
            else:
                seconds, micros = struct.unpack("@ll", end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16))
                limit_s = seconds + micros / 1e6
                self._poll.register(made.fileno(), select.POLLOUT)
                until = time.monotonic() + limit_s if limit_s else 0.0
                self._waiting[made.fileno()] = _Waiting(call, number, made, key, until)
                return
        except BaseException:
            made.close()
            raise
        made.close()

    def listen(self, call: Call) -> None:
        """One of ours, of a connection that failed, is not to be a port of this machine's."""
        end = self._socket_of(call, call.arguments[0] & MASK)
        if end is None or end.family not in (socket.AF_INET, socket.AF_INET6):
            if end is not None:
                end.close()
            self._asked.let_through(call)
            return
        try:
            if not namespace_of(end.fileno()):
                raise PermissionError(errno.EACCES, "")
            # Not the kernel: it would take whatever has the number by then.
            end.listen(min(call.arguments[1] & MASK, _MOST_LISTENED))
        finally:
            end.close()
        self._asked.give(call)

    # --- those that take a while ---

    def serve(self, fd: int) -> None:
        """A connection that somebody waits for was made, or failed."""
        waiting = self._waiting.get(fd)
        if waiting is None:
            return
        self._poll.unregister(fd)
        waiting.error = waiting.made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._finish(waiting)

    def tick(self) -> int | None:
        """Time has passed. Gives the milliseconds after which it has to be looked at again; None for never."""
        now = time.monotonic()
        for waiting in list(self._waiting.values()):
            if waiting.left_at:
                if now >= waiting.left_at + _CALLED_AGAIN_S:
                    self._drop(waiting)
            elif waiting.gives_up_at and now >= waiting.gives_up_at:
                self._poll.unregister(waiting.made.fileno())
                waiting.error = errno.EINPROGRESS
                self._finish(waiting)
            elif not notify.is_waiting(self._asked.listener, waiting.call):
                waiting.left_at = now
        return 100 if self._waiting else None

    def _left_behind(self, key: tuple[int, int, bytes]) -> _Waiting | None:
        """The connection that the same program waited for when a signal came."""
        return next((each for each in self._waiting.values() if each.key == key), None)

    def _finish(self, waiting: _Waiting) -> None:
        if not notify.is_waiting(self._asked.listener, waiting.call):
            waiting.left_at = waiting.left_at or time.monotonic()
            return
        try:
            if waiting.error in (0, errno.EINPROGRESS):
                self._put(waiting.call, waiting.number, waiting.made, waiting.key[1], waits=True)
            self._asked.fail(waiting.call, waiting.error)
        except OSError as error:
            self._asked.fail(waiting.call, error.errno or errno.EIO)
        finally:
            self._drop(waiting)

    def _drop(self, waiting: _Waiting) -> None:
        with suppress(KeyError):
            self._poll.unregister(waiting.made.fileno())
        del self._waiting[waiting.made.fileno()]
        waiting.made.close()

    # --- putting it in place ---

    def _put(self, call: Call, number: int, made: socket.socket, inode: int, *, waits: bool) -> None:
        """Have the caller's descriptor, and its copies, be this socket. Raises OSError."""
        os.set_blocking(made.fileno(), waits)
        names, polls = self._who_knows(call, number, inode)
        if number not in names:
            raise OSError(errno.EBADF, "")
        for each in names:
            if not notify.put(self._asked.listener, call, made.fileno(), each, close_on_exec=self._closes(call, each)):
                raise OSError(errno.EBADF, "")
        if polls:
            self._tell(call, made, polls)

    def _closes(self, call: Call, number: int) -> bool:
        """Whether a descriptor of the caller's goes when it executes a program (proc(5), fdinfo)."""
        return bool(int(self._fdinfo(call, number).partition(b"flags:")[2].split()[0], 8) & os.O_CLOEXEC)

    def _fdinfo(self, call: Call, number: int) -> bytes:
        fd = self._asked.open_of(call.pid, f"fdinfo/{number}", os.O_RDONLY)
        try:
            found = b""
            while len(found) < _INFO_BYTES and (part := os.read(fd, 1 << 16)):
                found += part
            return found
        finally:
            os.close(fd)

    def _who_knows(self, call: Call, number: int, inode: int) -> tuple[list[int], list[tuple[int, int, int, int]]]:
        """What the caller knows the socket by: descriptors, and epolls with what is to be written there."""
        directory = self._asked.open_of(call.pid, "fd", os.O_RDONLY | os.O_DIRECTORY)
        names: list[int] = []
        numbers: list[int] = []
        try:
            with os.scandir(directory) as entries:
                lowest = sorted(int(entry.name) for entry in islice(entries, _LOOKED_AT))
            for each in dict.fromkeys((number, *lowest)):
                with suppress(OSError):
                    link = os.readlink(str(each), dir_fd=directory)
                    if link == f"socket:[{inode}]":
                        names.append(each)
                    elif link == "anon_inode:[eventpoll]":
                        numbers.append(each)
        finally:
            os.close(directory)
        polls: list[tuple[int, int, int, int]] = []
        for each in numbers[:_EPOLLS]:
            with suppress(OSError):
                polls += [(each, *found) for found in epolls.registered(self._fdinfo(call, each), inode)]
        self._asked.check(call)
        return names, polls[:_TOLD]

    def _tell(self, call: Call, made: socket.socket, polls: list[tuple[int, int, int, int]]) -> None:
        """Have the caller's epolls tell of the new socket as they told of the old one, as far as that can be."""
        process = self._asked.pidfd(call.pid)
        try:
            for epoll, fd, events, data in polls:
                # It is closed by now, or a copy of one that was told (EEXIST), or we have no number left.
                with suppress(OSError):
                    theirs = syscalls.pidfd_getfd(process, epoll)
                    try:
                        epolls.add_as(theirs, made.fileno(), fd, events, data)
                    finally:
                        os.close(theirs)
        finally:
            os.close(process)


class Gateways:
    """Which gateways lead out, by the record of who is on which networks. Only the networks' worker writes it."""

    def __init__(self, directory: int, name: str) -> None:
        self._directory, self._name = directory, name
        self._seen: tuple[int, int] = (0, 0)
        self._found: frozenset[bytes] = frozenset()

    def read(self) -> frozenset[bytes]:
        """As it is now. A container that is on no network any more has none."""
        try:
            status = os.stat(self._name, dir_fd=self._directory)
            if (status.st_mtime_ns, status.st_ino) != self._seen:
                fd = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._directory)
                try:
                    data = os.read(fd, _RECORD_BYTES)
                finally:
                    os.close(fd)
                self._found = gateways(data)
                self._seen = status.st_mtime_ns, status.st_ino
        except (OSError, ValueError, KeyError, TypeError):
            self._seen, self._found = (0, 0), frozenset()
        return self._found


def gateways(record: bytes) -> frozenset[bytes]:
    """Those of the networks that lead out, packed: of a sandbox as JSON. Pure."""
    found = set()
    for each in json.loads(record)["endpoints"]:
        for family, text in ((socket.AF_INET, each.get("gateway")), (socket.AF_INET6, each.get("gateway6"))):
            if text:
                found.add(socket.inet_pton(family, text))
    return frozenset(found)
