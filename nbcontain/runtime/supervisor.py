"""One container's parent: it holds the lock, the output and the exit code. Everything here runs in the supervisor.

It has no threads, never enters a namespace, and outlives the kernel.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nbcontain.errors import NotRunning
from nbcontain.events import Finished, Notice, Output, Started
from nbcontain.journal import FileJournal
from nbcontain.linux import syscalls
from nbcontain.linux.idmap import IdMap
from nbcontain.runtime import init, stage
from nbcontain.runtime.bundle import Bundle, State
from nbcontain.runtime.calls import raise_for, remove_as_root
from nbcontain.runtime.messages import Channel, Message, describe, error_of
from nbcontain.runtime.signals import signal_number
from nbcontain.store import files

GRACE_S = 0.5
"""What a container is given to end by itself when its leash is let go."""

_READ_BYTES = 1 << 16
_DRAIN_S = 5.0
_JOINED = {
    "mount": syscalls.CLONE_NEWNS,
    "pid": syscalls.CLONE_NEWPID,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "user": syscalls.CLONE_NEWUSER,
    "network": syscalls.CLONE_NEWNET,
}


@dataclass(slots=True)
class _Exec:
    """A further process in the container, and who asked for it."""

    pid: int
    pidfd: int
    channel: Channel | None
    """Until it has become its program."""
    asked: Channel


class Supervisor:
    """One run of one container."""

    def __init__(self, ids: IdMap, inside: stage.Inside, report: Channel, message: Message, fds: list[int]) -> None:
        self.ids = ids
        self.inside = inside
        self.report: Channel | None = report
        self.bundle = Bundle(Path(message["bundle"]))
        self.bundle.lock_fd = fds.pop(0)
        self.leash = fds.pop(0) if message["leash"] else -1
        self.stdin = fds.pop(0) if message["stdin"] else -1
        self.secrets = fds.pop(0) if message["secrets"] else -1
        self.outputs: dict[int, str] = {}
        self.starts_at_once: bool = message["start"]
        # First of all, so that init makes its root while the rest happens here.
        self._instruct(volatile=message["volatile"])
        self.info = self.bundle.info
        self.journal = FileJournal(self.bundle.path / "journal.jsonl")
        self.state = State()
        self.pidfd = os.pidfd_open(inside.pid)
        self.mounts_fd = -1
        self.kill_at = 0.0
        self.is_started = False
        self.execs: dict[int, _Exec] = {}
        self.clients: dict[int, Channel] = {}
        self.waiting: list[Channel] = []
        self.poll = select.poll()

    def run(self) -> None:
        try:
            self._create()
        except BaseException as error:  # noqa: BLE001 - told to whoever launched it
            # Whoever launched it raises this; the container stays, stopped, for another try.
            os.kill(self.inside.pid, signal.SIGKILL)
            os.waitpid(self.inside.pid, 0)
            self.bundle.write_state(
                replace(
                    self.state,
                    status="stopped",
                    exit_code=_exit_code_of(error),
                    error=str(error),
                    finished_at=time.time(),
                )
            )
            self._hang_up(describe(error))
            return
        if self.starts_at_once:
            self._start_for_launcher()
        self._watch()
        self._finish()

    # --- create -------------------------------------------------------------------------------

    def _create(self) -> None:
        """Everything up to the start: OCI's `created`."""
        self._listen()
        self.journal.open()
        for fd in self.outputs:
            self.poll.register(fd, select.POLLIN)
        self.state = State(status="created", pid=self.inside.pid, pid_start=_start_time(self.inside.pid))
        if not self.starts_at_once:
            self.bundle.write_state(self.state)
        answer, _ = self.inside.channel.receive()
        raise_for(answer)
        assert self.report is not None
        if not self.starts_at_once:
            self.report.send({"created": True})
        self.bundle.write_stubs(answer["made"] if answer else ())
        if self.info.remove:
            self._hold_mounts()
        self.poll.register(self.report, select.POLLIN)
        self.poll.register(self.pidfd, select.POLLIN)
        if self.leash >= 0:
            self.poll.register(self.leash, select.POLLIN)

    def _instruct(self, *, volatile: bool) -> None:
        """Tell init which container to become, and give it its standard streams."""
        stdin = self.stdin if self.stdin >= 0 else os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        pipes = {stream: os.pipe2(os.O_CLOEXEC) for stream in ("stdout", "stderr")}
        ends = [stdin, pipes["stdout"][1], pipes["stderr"][1], *([self.secrets] if self.secrets >= 0 else [])]
        message = {
            "do": "program",
            "bundle": str(self.bundle.path),
            "volatile": volatile,
            # Said beforehand, so that init need not wait for our answer to its "ready".
            "start": self.starts_at_once,
        }
        self.inside.channel.send(message, ends)
        for fd in ends:
            os.close(fd)
        for reading, _ in pipes.values():
            # The container can open its pipe by /proc/self/fd/1 and take away what poll saw.
            os.set_blocking(reading, False)
        self.outputs = {reading: stream for stream, (reading, _) in pipes.items()}

    def _hold_mounts(self) -> None:
        """Keep the mount namespace beyond init's end: unmounting takes a while, and nobody needs to wait for it.

        Only where the layer is thrown away, so that nothing else ever uses it while it is still mounted.
        """
        with suppress(PermissionError, FileNotFoundError, ProcessLookupError):
            # Refused where the user is another inside, without being root here, or too late: then init's end takes
            # a little longer.
            self.mounts_fd = os.open(f"/proc/{self.inside.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def _listen(self) -> None:
        """The control socket. By a descriptor of its directory, since a socket's path ends at 108 bytes."""
        files.unlink(self.bundle.path / "control.sock")
        directory = os.open(self.bundle.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(f"/proc/self/fd/{directory}/control.sock")
        self.listener.listen(16)
        os.close(directory)
        self.poll.register(self.listener, select.POLLIN)

    # --- start --------------------------------------------------------------------------------

    def _start(self) -> None:
        """Let init become the program. Raises what hindered it."""
        if self.is_started:
            return
        self.journal.append(Started(self.info.id, self.info.name))
        if not self.starts_at_once:
            self.inside.channel.send({"start": True})
        # End-of-file means that exec succeeded: the channel is close-on-exec. A packet is the error that stopped it.
        answer, _ = self.inside.channel.receive()
        self.inside.channel.close()
        self.is_started = True
        if answer is not None:
            error = error_of(answer)
            code = _exit_code_of(error)
            self.state = replace(self.state, status="stopped", error=error.message, exit_code=code)
            # Before anybody hears of the error, so that whoever asks then is told the same.
            self.bundle.write_state(self.state)
            self.journal.append(Notice(self.info.id, error.message, error.why))
            raise error
        self.state = replace(self.state, status="running", started_at=time.time())
        self.bundle.write_state(self.state)

    # --- the loop -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Serve output, requests, execs and the leash until init has ended."""
        while True:
            timeout_ms = None
            if self.kill_at:
                timeout_ms = max(0.0, self.kill_at - time.monotonic()) * 1000
            ready = self.poll.poll(timeout_ms)
            if self.kill_at and time.monotonic() >= self.kill_at:
                self.kill_at = 0.0
                self._signal(signal.SIGKILL)
            has_ended = False
            for fd, _ in ready:
                if fd == self.pidfd:
                    # Served last: what was written before the end is read first.
                    has_ended = True
                else:
                    self._serve(fd)
            if has_ended:
                return

    def _serve(self, fd: int) -> None:
        if fd in self.outputs:
            self._read(fd)
        elif self.report is not None and fd == self.report.fileno():
            self._serve_report()
        elif fd == self.leash:
            self.poll.unregister(fd)
            self._end_softly()
        elif fd == self.listener.fileno():
            self._accept()
        elif fd in self.clients:
            self._serve_client(self.clients[fd])
        else:
            self._serve_exec(fd)

    def _read(self, fd: int) -> bool:
        """Take some output; False at its end."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            self.poll.unregister(fd)
            os.close(fd)
            del self.outputs[fd]
            return False
        self._tell(Output(self.info.id, "stdout" if self.outputs[fd] == "stdout" else "stderr", data))
        return True

    def _tell(self, event: Output) -> None:
        try:
            self.journal.append(event)
        except OSError:
            # A full disk must not stop the container: it is drained on, and what was lost is lost.
            self.state = replace(self.state, error="output was lost: the disk is full")

    def _serve_report(self) -> None:
        """The launcher: a request to start, or its end."""
        assert self.report is not None
        message, _ = self.report.receive()
        if message is not None and message.get("do") == "start":
            self._start_for_launcher()
        elif message is None:
            self._hang_up(None)
            if not self.is_started:
                self._signal(signal.SIGKILL)

    def _start_for_launcher(self) -> None:
        try:
            self._start()
        except BaseException as error:  # noqa: BLE001 - raised where the start was asked for
            self._hang_up(describe(error))
        else:
            self._hang_up({"started": True})

    def _hang_up(self, message: Message | None) -> None:
        """The launcher's last word."""
        if self.report is None:
            return
        if message is not None:
            self.report.tell(message)
        if self.is_started or message is None:
            try:
                self.poll.unregister(self.report)
            except KeyError:
                pass
        self.report.close()
        self.report = None

    def _accept(self) -> None:
        client = Channel(self.listener.accept()[0])
        if client.peer_uid() not in (0, self.bundle.path.stat().st_uid):
            client.close()
            return
        self.clients[client.fileno()] = client
        self.poll.register(client, select.POLLIN)

    def _forget(self, client: Channel) -> None:
        fd = client.fileno()
        self.clients.pop(fd, None)
        if client in self.waiting:
            self.waiting.remove(client)
        for running in self.execs.values():
            # Nobody waits for it any more: an exec does not outlive who asked for it.
            if running.asked is client:
                signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
        self.poll.unregister(fd)
        client.close()

    def _serve_client(self, client: Channel) -> None:
        try:
            message, fds = client.receive()
        except (ValueError, LookupError, OSError, RecursionError, MemoryError):
            # Whoever sends what is no message is not worth the container's life.
            message, fds = None, []
        if message is None:
            self._forget(client)
            return
        try:
            match message.get("do"):
                case "start":
                    self._start()
                    client.tell({"started": True})
                case "kill":
                    self._signal(int(message["signal"]))
                    client.tell({"done": True})
                case "wait":
                    self.waiting.append(client)
                case "exec":
                    self._exec(client, message, fds)
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            client.tell(describe(error))
        finally:
            for fd in fds:
                os.close(fd)

    def _signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def _end_softly(self) -> None:
        """The leash was let go: ask, then kill. With init the whole pid namespace ends."""
        self._signal(signal_number(self.info.stop_signal) if self.is_started else signal.SIGKILL)
        self.kill_at = time.monotonic() + GRACE_S

    # --- exec ---------------------------------------------------------------------------------

    def _exec(self, client: Channel, message: Message, fds: list[int]) -> None:
        if not self.is_started:
            raise NotRunning(f"{self.info.name} has not been started")
        flags = 0
        for name in self.bundle.spec.linux.namespaces:
            flags |= _JOINED[name]
        inside = stage.join(self.pidfd, flags, init.be_process, (fds[0], fds[1], fds[2]))
        inside.channel.send({"process": message["process"], "user": message["user"]})
        running = _Exec(inside.pid, os.pidfd_open(inside.pid), inside.channel, client)
        for fd in (inside.channel.fileno(), running.pidfd):
            self.execs[fd] = running
            self.poll.register(fd, select.POLLIN)

    def _serve_exec(self, fd: int) -> None:
        running = self.execs[fd]
        if running.channel is not None and fd == running.channel.fileno():
            answer, _ = running.channel.receive()
            self._drop(fd)
            running.channel.close()
            running.channel = None
            running.asked.tell(answer or {"started": True})
        elif running.channel is None:
            self._drop(fd)
            os.close(fd)
            _, status = os.waitpid(running.pid, 0)
            running.asked.tell({"exit_code": _exit_code(status)})

    def _drop(self, fd: int) -> None:
        self.poll.unregister(fd)
        del self.execs[fd]

    # --- the end ------------------------------------------------------------------------------

    def _finish(self) -> None:
        """What is left of the output, the exit code, and for --rm the removal."""
        _, status = os.waitpid(self.inside.pid, 0)
        code = _exit_code(status)
        if self.state.exit_code is not None and self.state.error:
            code = self.state.exit_code
        self._drain()
        self.state = replace(self.state, status="stopped", exit_code=code, finished_at=time.time())
        try:
            self.bundle.write_state(self.state)
        finally:
            rubbish = self._put_aside() if self.info.remove else []
            try:
                self.journal.append(Finished(self.info.id, "done" if code == 0 else "failed", exit_code=code))
            except OSError:
                pass
            for client in self.waiting:
                client.tell({"exit_code": code})
            self.journal.close()
            if self.mounts_fd >= 0:
                os.close(self.mounts_fd)
            for path in rubbish:
                self._remove(path)

    def _put_aside(self) -> list[Path]:
        """Free the names of what --rm removes, before anybody hears of the end; gives where it lies now.

        Followers, who hold the files open, still read what comes.
        """
        tmp = self.bundle.path.parent.parent / "tmp"
        aside: list[Path] = []
        with suppress(FileNotFoundError):
            # Somebody may be removing it at the same time: rm -f.
            for path in filter(None, (self.bundle.active_directory(), self.bundle.path)):
                target = tmp / f".tmp-{len(aside)}-{self.info.id}"
                files.move(path, target)
                aside.append(target)
        return aside

    def _drain(self) -> None:
        """Everything inside is dead, so the pipes end; unless somebody outside was handed one."""
        deadline = time.monotonic() + _DRAIN_S
        while self.outputs and time.monotonic() < deadline:
            poll = select.poll()
            for fd in self.outputs:
                poll.register(fd, select.POLLIN)
            for fd, _ in poll.poll(100):
                self._read(fd)

    def _remove(self, path: Path) -> None:
        try:
            files.remove_tree(path)
        except PermissionError:
            remove_as_root(self.ids, path)


def _exit_code(status: int) -> int:
    """As shells count: 128 and the signal for a killed program."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _exit_code_of(error: BaseException) -> int:
    return int(getattr(error, "exit_status", 125))


def _start_time(pid: int) -> int:
    """When a process began, in clock ticks since boot (proc(5), stat, field 22)."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as lines:
        return int(lines.read().rpartition(")")[2].split()[19])
