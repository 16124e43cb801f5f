"""One container's parent: it holds the lock, the output and the exit code. Everything here runs in the supervisor.

It has no threads, never enters a namespace, and outlives the kernel.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import NotRunning
from nbcontain.events import Finished, Notice, Started
from nbcontain.journal import FileJournal
from nbcontain.linux.idmap import IdMap
from nbcontain.runtime import idle, stage
from nbcontain.runtime.bundle import Bundle, State, start_time
from nbcontain.runtime.calls import be_program, begin_limits, born_anew, end_limits, end_rest, raise_for, remove_as_root
from nbcontain.runtime.execs import Execs, exit_code
from nbcontain.runtime.messages import Channel, Listener, Message, describe, error_of
from nbcontain.runtime.outputs import LOST, Outputs
from nbcontain.runtime.signals import signal_number
from nbcontain.store import events_log, files
from nbcontain.store.layout import Layout
from nbcontain.values import replace

GRACE_S = 0.5
"""What a container is given to end by itself when its leash is let go."""

_QUIET_S = 2.0
"""Without a wish for so long, a supervisor becomes small."""


class Supervisor:
    """One run of one container."""

    def __init__(self, ids: IdMap, bundle: Bundle, pid: int, pidfd: int) -> None:
        self.ids = ids
        self.bundle = bundle
        self.info = bundle.info
        self.pid = pid
        self.pidfd = pidfd
        self.inside: Channel | None = None
        """To init, until it has become the program."""
        self.report: Channel | None = None
        """To the launcher, until it has heard of the start."""
        self.listener = Listener()
        self.leash = -1
        self.mounts_fd = -1
        self.journal = FileJournal(bundle.path / "journal.jsonl")
        self.outputs = Outputs(self.info.id, self.journal)
        self.state = State()
        self.kill_at = 0.0
        self.starts_at_once = self.is_started = False
        self.clients: dict[int, Channel] = {}
        self.waiting: list[Channel] = []
        self.poll = select.poll()
        self.execs = Execs(bundle, pidfd, self.poll, is_root=ids.is_identity)
        self.may_sleep = idle.is_possible()
        self.quiet_since = time.monotonic()

    @classmethod
    def ordered(cls, ids: IdMap, inside: stage.Inside, report: Channel, message: Message, fds: list[int]) -> Supervisor:
        """The supervisor of a container that is to be made, as a launcher's message says."""
        bundle = Bundle(Path(message["bundle"]))
        bundle.lock_fd = fds.pop(0)
        leash = fds.pop(0) if message["leash"] else -1
        stdin = fds.pop(0) if message["stdin"] else -1
        if bundle.info.unusual:
            inside = born_anew(inside, bundle.spec, ids, bundle.info.rung)
        begin_limits(bundle, inside.pid, ids)
        # First of all, so that init makes its root while the rest happens here.
        ends = be_program(inside.channel, inside.pid, bundle, message, stdin, fds if message["secrets"] else ())
        made = cls(ids, bundle, inside.pid, os.pidfd_open(inside.pid))
        made.inside, made.report, made.leash = inside.channel, report, leash
        made.outputs.are(ends)
        made.starts_at_once = message["start"]
        return made

    @classmethod
    def resumed(cls, was: idle.Idle) -> Supervisor:
        """The supervisor that was idle."""
        bundle = Bundle(Path(was.bundle))
        bundle.lock_fd = was.lock
        made = cls(IdMap.from_numbers(was.ids), bundle, was.pid, was.pidfd)
        made.listener.close()
        made.listener = Listener(was.listener)
        made.mounts_fd = was.mounts
        made.outputs.are(was.outputs, was.master, was.peer)
        made.journal.adopt(was.journal)
        made.state = bundle.state()
        made.is_started = True
        made.outputs.has_lost = was.lost or made.state.error == LOST
        made.outputs.watch(made.poll)
        for fd in (was.pidfd, was.listener):
            made.poll.register(fd, select.POLLIN)
        return made

    def run(self) -> None:
        try:
            self._create()
        except BaseException as error:  # noqa: BLE001 - told to whoever launched it
            # Whoever launched it raises this; the container stays, stopped, for another try.
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
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
        self.attend()

    def attend(self) -> None:
        """To the end of the container."""
        self._watch()
        self._finish()

    # --- create -------------------------------------------------------------------------------

    def _create(self) -> None:
        """Everything up to the start: OCI's `created`."""
        self._listen()
        self.journal.open()
        self.outputs.watch(self.poll)
        self.state = State(status="created", pid=self.pid, pid_start=start_time(self.pid))
        if not self.starts_at_once:
            self.bundle.write_state(self.state)
        assert self.inside is not None
        assert self.report is not None
        answer, console = self.inside.receive()
        raise_for(answer)
        if console:
            self.outputs.are({}, *console)
            self.outputs.watch(self.poll)
        if not self.starts_at_once:
            self.report.send({"created": True})
        self.bundle.write_stubs(answer["made"] if answer else ())
        if self.info.remove:
            self._hold_mounts()
        self.poll.register(self.report, select.POLLIN)
        self.poll.register(self.pidfd, select.POLLIN)
        if self.leash >= 0:
            self.poll.register(self.leash, select.POLLIN)

    def _hold_mounts(self) -> None:
        """Keep the mount namespace beyond init's end: unmounting takes a while, and nobody needs to wait for it.

        Only where the layer is thrown away, so that nothing else ever uses it while it is still mounted.
        """
        with suppress(PermissionError, FileNotFoundError, ProcessLookupError):
            # Refused where the user is another inside, without being root here, or too late: then init's end takes
            # a little longer.
            self.mounts_fd = os.open(f"/proc/{self.pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def _listen(self) -> None:
        """The control socket."""
        files.unlink(self.bundle.path / "control.sock")
        self.listener.open(self.bundle.path)
        self.poll.register(self.listener, select.POLLIN)

    # --- start --------------------------------------------------------------------------------

    def _start(self) -> None:
        """Let init become the program. Raises what hindered it."""
        if self.is_started:
            return
        assert self.inside is not None
        self.journal.append(Started(self.info.id, self.info.name))
        if not self.starts_at_once:
            self.inside.send({"start": True})
        # End-of-file means that exec succeeded: the channel is close-on-exec. A packet is the error that stopped it.
        answer, _ = self.inside.receive()
        self.inside.close()
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
            elif self._is_idle():
                timeout_ms = max(0.0, self.quiet_since + _QUIET_S - time.monotonic()) * 1000
                if timeout_ms == 0:
                    self._sleep()
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

    def _is_idle(self) -> bool:
        """Whether nobody wants anything but that the output is kept.

        Whoever holds a leash waits for the end, which awakening would delay by what an interpreter's start takes.
        """
        busy = self.report or self.clients or self.execs or self.kill_at or self.leash >= 0
        return self.may_sleep and self.is_started and not busy

    def _sleep(self) -> None:
        """Become small, until something happens. Returns only where that cannot be."""
        if self.outputs.has_lost:
            self.bundle.write_state(replace(self.state, error=LOST))
        self.may_sleep = False
        assert self.bundle.lock_fd is not None
        idle.fall_asleep(
            idle.Idle(
                bundle=str(self.bundle.path), task=self.info.id, pid=self.pid, lock=self.bundle.lock_fd,
                pidfd=self.pidfd, listener=self.listener.fileno(), journal=self.journal.fileno(),
                mounts=self.mounts_fd, outputs=self.outputs.ends, ids=self.ids.numbers(),
                master=self.outputs.master, peer=self.outputs.peer,
            )
        )  # fmt: skip

    def _serve(self, fd: int) -> None:
        if fd in self.outputs.ends:
            self.outputs.read(fd, self.poll)
            return
        self.quiet_since = time.monotonic()
        if self.report is not None and fd == self.report.fileno():
            self._serve_report()
        elif fd == self.leash:
            self.poll.unregister(fd)
            self._end_softly()
        elif fd == self.listener.fileno():
            self._accept()
        elif fd in self.clients:
            self._serve_client(self.clients[fd])
        else:
            self.execs.serve(fd)

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
        client = self.listener.accept()
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
        self.execs.abandon(client)
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
                case "console":
                    if self.outputs.master < 0:
                        raise NotRunning(f"{self.info.name} has no terminal")
                    client.tell({"console": True}, (self.outputs.master,))
                case "keep" if fds:
                    self.execs.keep(client, fds)
                case "keep":
                    self._cut_leash()
                    client.tell({"done": True})
                case "exec":
                    if not self.is_started:
                        raise NotRunning(f"{self.info.name} has not been started")
                    self.execs.start(client, message, fds)
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

    def _cut_leash(self) -> None:
        """Whoever wanted the container lets it live on without them."""
        if self.leash >= 0:
            self.poll.unregister(self.leash)
            os.close(self.leash)
            self.leash = -1

    def _end_softly(self) -> None:
        """The leash was let go: ask, then kill. With init the whole pid namespace ends."""
        self._signal(signal_number(self.info.stop_signal) if self.is_started else signal.SIGKILL)
        self.kill_at = time.monotonic() + GRACE_S

    # --- the end ------------------------------------------------------------------------------

    def _finish(self) -> None:
        """What is left of the output, the exit code, and for --rm the removal."""
        _, status = os.waitpid(self.pid, 0)
        code = exit_code(status)
        end_rest(self.bundle)
        if self.state.exit_code is not None and self.state.error:
            code = self.state.exit_code
        self.outputs.drain()
        if end_limits(self.bundle, self.ids, self.journal):
            self.state = replace(self.state, oom_killed=True)
        if self.outputs.has_lost:
            self.state = replace(self.state, error=LOST)
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
            self._tell("die", exitCode=str(code))
            if rubbish:
                self._tell("destroy")
            for path in rubbish:
                self._remove(path)

    def _tell(self, action: str, **attributes: str) -> None:
        """Tell of an event. Nobody waits for it, and a disk that takes no more keeps nobody from working."""
        if self.info.build_step:
            return
        told = {**self.info.labels, "image": self.info.image, "name": self.info.name, **attributes}
        with suppress(OSError):
            path = Layout(self.bundle.path.parent.parent).events
            events_log.record(path, "container", action, self.info.id, told)

    def _put_aside(self) -> list[Path]:
        """Free the names of what --rm removes, before anybody hears of the end; gives where it lies now.

        Followers, who hold the files open, still read what comes.
        """
        tmp = self.bundle.path.parent.parent / "tmp"
        aside: list[Path] = []
        with suppress(FileNotFoundError):
            # Somebody may be removing it at the same time: rm -f.
            # The container before its layer: nobody may see one without, also if we die in between.
            for path in filter(None, (self.bundle.path, self.bundle.active_directory())):
                target = tmp / f".tmp-{len(aside)}-{self.info.id}"
                files.move(path, target)
                aside.append(target)
        return aside

    def _remove(self, path: Path) -> None:
        try:
            files.remove_tree(path)
        except PermissionError:
            remove_as_root(self.ids, path, self.info.rung)


def resume() -> None:
    """A supervisor that was idle, executed again: go on where it was."""
    was = idle.Idle.of(sys.argv[1:])
    idle.hold(was)
    os.environ.clear()
    gc.disable()
    stage.run(Supervisor.resumed(was).attend)


def _exit_code_of(error: BaseException) -> int:
    return int(getattr(error, "exit_status", 125))

