"""Where an ordinary user's networks are: a user namespace with a network namespace in it. Entered by the worker.

In there the user is root, and makes bridges as root does. A container's own user namespace is made within this one, so
that the worker has power over the container's network, and the container none over this. Both namespaces are kept by
the *holder*, a process that does nothing else: whoever is killed, containers keep their network.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from nbcontain.channel import Channel, is_readable
from nbcontain.errors import NetworkError
from nbcontain.linux import starts, syscalls
from nbcontain.linux.idmap import IdMap
from nbcontain.linux.starts import start_of
from nbcontain.network.process import LOOK_S, fork_beside, is_forgotten
from nbcontain.network.uplink import end_all_of
from nbcontain.store import files

_NS_GET_PARENT = 0xB702
"""The user namespace that another one was made in (ioctl_ns(2))."""
_READY_S = 10.0


class Space:
    """The namespaces that this process has entered, and their holder."""

    def __init__(self, directory: Path, holder: int, *, is_new: bool) -> None:
        self._directory = directory
        self.holder = holder
        """A pid."""
        self._began = start_of(holder)
        self.is_new = is_new
        """Whether they were made by this process: nobody else is in them."""

    @property
    def users(self) -> str:
        """The user namespace's path, for whoever is to be born within."""
        return f"/proc/{self.holder}/ns/user"

    def keep(self) -> None:
        """Worker: have it held again, after somebody killed the holder. Raises OSError if the next one ends, too."""
        lock = files.try_lock(self._directory / "lock")
        if lock is not None:
            self.holder = _held(fork_beside(self._directory, lambda channel: _hold(channel, self._directory)), lock)
            self._began = start_of(self.holder)

    def end(self) -> None:
        """Let it go; it is gone when the last one in it is."""
        starts.kill(self.holder, self._began)


def entered(directory: Path, ids: IdMap, containers: Iterable[int]) -> Space:
    """Worker: enter the user's namespaces; they are made if nobody holds them. Raises NetworkError.

    `containers` are pids of those that live in networks: should all who held the namespaces have been killed, it is
    from these that the user namespace is had again, since theirs were made within.
    """
    files.make_directory(directory, durable=False)
    try:
        lock = files.try_lock(directory / "lock")
        if lock is None:
            holder = _holder(directory)
        else:
            holder = _made(directory, lock, ids, _parent_of(containers))
        for flag, name in ((syscalls.CLONE_NEWUSER, "user"), (syscalls.CLONE_NEWNET, "net")):
            fd = os.open(f"/proc/{holder}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
            syscalls.setns(fd, flag)
            os.close(fd)
            if flag == syscalls.CLONE_NEWUSER:
                _be_root()
    except OSError as error:
        raise NetworkError(
            "there can be no networks of your own here", why=f"{error.strerror or error}", hint="--network host",
        ) from error  # fmt: skip
    return Space(directory, holder, is_new=lock is not None)


def _be_root() -> None:
    """Worker, holder: of the user namespace that was just entered."""
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _holder(directory: Path) -> int:
    """Worker: the pid of who holds the lock, which was written down before it was ready. Raises OSError."""
    record = json.loads(files.read(directory / "holder.json", 1 << 10))
    if start_of(record["pid"]) != record["start"]:
        raise ProcessLookupError(errno.ESRCH, "the holder of the networks' namespaces is gone")
    return int(record["pid"])


def _made(directory: Path, lock: int, ids: IdMap, parent: int) -> int:
    """Worker: a holder, in namespaces that are made for it; in the user namespace `parent` unless that is -1."""
    channel = fork_beside(directory, lambda theirs: _begin(theirs, directory, enters=parent >= 0))
    try:
        if parent >= 0:
            channel.send({"enter": True}, [parent])
            os.close(parent)
        else:
            told, _ = channel.receive()
            if told is None:
                raise PermissionError(errno.EPERM, "no user namespace can be made")
            ids.write(int(told["pid"]))
            channel.send({"mapped": True})
    except BaseException:
        channel.close()
        os.close(lock)
        raise
    return _held(channel, lock)


def _held(channel: Channel, lock: int) -> int:
    """Worker: give the holder its lock; gives its pid. Raises OSError."""
    try:
        channel.send({"hold": True}, [lock])
        told = channel.receive()[0] if is_readable(channel, _READY_S) else None
    finally:
        channel.close()
        os.close(lock)
    if told is None:
        raise ProcessLookupError(errno.ESRCH, "the holder of the networks' namespaces ended at once")
    return int(told["pid"])


def _begin(channel: Channel, directory: Path, *, enters: bool) -> None:
    """The holder to be: make the namespaces."""
    if enters:
        _, (parent,) = channel.receive()
        syscalls.setns(parent, syscalls.CLONE_NEWUSER)
        os.close(parent)
    else:
        # Nobody but root may give us our map unless we can be looked at.
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        channel.send({"pid": os.getpid()})
        if channel.receive()[0] is None:
            return
    _be_root()
    syscalls.unshare(syscalls.CLONE_NEWNET)
    _hold(channel, directory)


def _hold(channel: Channel, directory: Path) -> None:
    """The holder: whoever is of this user may enter where it is, until it is killed or its store is removed."""
    message, fds = channel.receive()
    if message is None:
        return
    (lock,) = fds
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
    pid = os.getpid()
    record = json.dumps({"pid": pid, "start": start_of(pid)})
    files.replace(directory / "holder.json", record.encode(), durable=False)
    channel.send({"pid": pid})
    syscalls.close_others(fds)
    while not is_forgotten(lock):
        time.sleep(LOOK_S)
    end_all_of(pid)


def _parent_of(containers: Iterable[int]) -> int:
    """Worker: the user namespace that containers' own were made in, by a descriptor; -1 if there is none.

    That is the outermost one but for ours. A container may have made others within its own, and its first process may
    stand in one: the parent of that is the container's, who would have power over all networks.
    """
    here = os.stat("/proc/self/ns/user").st_ino
    for pid in containers:
        with suppress(OSError):
            chain = [os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)]
            try:
                while os.fstat(chain[-1]).st_ino != here:
                    chain.append(fcntl.ioctl(chain[-1], _NS_GET_PARENT))
                # The last is ours; and one that was made in ours itself is a container's that never was on networks.
                if len(chain) > 2:
                    return chain.pop(-2)
            finally:
                for fd in chain:
                    os.close(fd)
    return -1
