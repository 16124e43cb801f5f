"""One container's parent: it holds the lock, the output and the exit code. Everything here runs in the supervisor.

It has no threads, never enters a namespace, and outlives the kernel.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

from nbcontain.errors import NbcontainError
from nbcontain.events import Finished, Notice, Started
from nbcontain.journal import FileJournal
from nbcontain.linux import pidfds
from nbcontain.linux.idmap import IdMap
from nbcontain.linux.starts import start_time
from nbcontain.runtime import calls, endings, idle, requests, stage
from nbcontain.runtime.bundle import Bundle, State
from nbcontain.runtime.execs import Execs
from nbcontain.runtime.messages import Channel, Listener, Message, describe, error_of
from nbcontain.runtime.outputs import LOST, Outputs
from nbcontain.runtime.remains import Remains
from nbcontain.runtime.signals import exit_code, stop_number
from nbcontain.store import events_log
from nbcontain.store.layout import Layout
from nbcontain.store.rotation import opened
from nbcontain.values import replace

TYPE_CHECKING = False  # typing's own would cost every process of ours its import
if TYPE_CHECKING:
    from collections.abc import Callable

    from nbcontain.runtime.health import Health

GRACE_S = 0.5
"""What a container is given to end by itself when its leash is let go."""
_QUIET_S = 2.0
"""Without a wish for so long, a supervisor becomes small."""
_DAY_S = 86400.0
_REAPED_S = 2.0
"""So long the further programs of a container that has ended are waited for; they are dead."""


class Supervisor:
    """A container from its start to its end: one run, and those that its restart policy makes of it."""

    def __init__(self, ids: IdMap, bundle: Bundle, pid: int, pidfd: int, listener: Listener | None = None) -> None:
        self.ids = ids
        self.bundle = bundle
        self.info = bundle.info
        self.pid = pid
        self.pidfd = pidfd
        """-1 between two runs."""
        self.inside: Channel | None = None
        """To init, until it has become the program."""
        self.report: Channel | None = None
        """To the launcher, until it has heard of the start."""
        self.leash = self.telling = self.mounts_fd = self.network_fd = self.user_fd = -1
        """The leash's end, and what tells of ours; and namespaces that are kept beyond init's end."""
        self.journal = FileJournal(bundle.path / "journal.jsonl")
        self.outputs = Outputs(self.info.id, self.journal)
        self.state = State()
        self.stand_in = 0  # for init, where another runtime makes that
        self.remains = Remains()
        self.kill_at = self.delay_s = 0.0
        self.starts_at_once = self.is_started = self.is_ending = False
        """`is_ending`: it is not to be started again by itself."""
        self.poll = select.poll()
        self.clients = requests.Clients(self, listener or Listener())
        self.execs = Execs(bundle, pidfd, self.poll, is_root=ids.is_identity)
        self.health: Health | None = None
        self.may_sleep = idle.is_possible() and not pidfds.is_stand_in(pidfd)
        self.quiet_since = time.monotonic()

    @classmethod
    def ordered(cls, ids: IdMap, inside: stage.Inside, report: Channel, message: Message, fds: list[int]) -> Supervisor:
        """The supervisor of a container that is to be made, as a launcher's message says."""
        bundle = Bundle(Path(message["bundle"]))
        bundle.lock_fd = fds.pop(0)
        leash, telling, stdin = (fds.pop(0) if message[name] else -1 for name in ("leash", "telling", "stdin"))
        inside = calls.replaced(inside, bundle, ids)
        doors = calls.begin_limits(bundle, inside.pid, ids)
        calls.begin_mounts(bundle, ids)
        secrets = fds if message["secrets"] else ()
        # So that init makes its root while the rest happens here.
        ends = calls.be_program(inside.channel, inside.pid, bundle, message, stdin, secrets, doors=doors)
        made = cls(ids, bundle, inside.pid, pidfds.opened(inside.pid))
        made.inside, made.report, made.leash = inside.channel, report, leash
        made.remains.predecessor, made.telling = inside.predecessor, telling
        made.outputs.are(ends)
        made.starts_at_once = message["start"]
        made.choose_sink()
        return made

    @classmethod
    def resumed(cls, was: idle.Idle) -> Supervisor:
        """The supervisor that was idle."""
        bundle = Bundle(Path(was.bundle))
        bundle.lock_fd = was.lock
        made = cls(IdMap.from_numbers(was.ids), bundle, was.pid, was.pidfd, Listener(was.listener))
        made.mounts_fd, made.network_fd, made.user_fd = was.mounts, was.network, was.user
        made.outputs.are(was.outputs, was.master, was.peer)
        made.outputs.lost_bytes = was.lost
        made.journal.adopt(was.journal, is_torn=bool(was.lost))
        made.delay_s = was.delay
        if was.silent >= 0:
            os.close(was.silent)
        made.state = bundle.state()
        made.is_started = True
        made.choose_sink()
        made.outputs.watch(made.poll)
        for fd in (was.pidfd, was.listener):
            made.poll.register(fd, select.POLLIN)
        made._watch_health(resumed=True)
        return made

    def run(self) -> None:
        try:
            self.clients.open()
            if self.info.log:
                self.journal.adopt(opened(self.journal.path))
            else:
                self.journal.open()
            self.create()
        except BaseException as error:  # noqa: BLE001 - told to whoever launched it
            # Whoever launched it raises this; the container stays, stopped, for another try.
            self.abort(error)
            self.bundle.write_state(replace(self.state, status="stopped", finished_at=time.time()))
            requests.hang_up(self, describe(error))
            return
        if self.starts_at_once:
            requests.start_for_launcher(self)
        self.attend()

    def attend(self) -> None:
        """To the end of the container."""
        while True:
            if self.pidfd >= 0:
                self._watch()
                self._reap()
            if not endings.runs_again(self):
                break
        self._finish()

    # --- create -------------------------------------------------------------------------------

    def adopt(self, inside: stage.Inside) -> None:
        """Another first process, for another run."""
        self.pid, self.pidfd, self.inside = inside.pid, pidfds.opened(inside.pid), inside.channel
        self.execs = Execs(self.bundle, self.pidfd, self.poll, is_root=self.ids.is_identity)
        self.starts_at_once, self.is_started = True, False

    def create(self) -> None:
        """Everything up to the start: OCI's `created`. Raises what hindered it."""
        self.outputs.watch(self.poll)
        self.state = replace(self.state, status="created", pid=self.pid, pid_start=start_time(self.pid))
        if not self.starts_at_once:
            self.bundle.write_state(self.state)
        if self.info.remove:
            # Looked up now, while init works, and not when somebody waits for the end.
            _ = self.bundle.active_directory
        assert self.inside is not None
        answer, console = self.inside.receive()
        stage.raise_for(answer)
        assert answer is not None
        calls.follow(self, answer)
        held = {name: console.pop(0) for name in answer["held"]}
        self.remains.fds += [console.pop(0) for _ in range(answer.get("unwanted", 0))]
        self.mounts_fd = held.pop("mnt", -1)
        if console:
            self.outputs.are({}, *console)
            self.outputs.watch(self.poll)
        if self.report is not None:
            if not self.starts_at_once:
                self.report.send({"created": True}, [held["net"]] if "net" in held else [])
            self.poll.register(self.report, select.POLLIN)
        self.bundle.write_stubs(answer["made"])
        endings.hold_network(self, held)
        self.poll.register(self.pidfd, select.POLLIN)
        if self.leash >= 0:
            self.poll.register(self.leash, select.POLLIN)

    def choose_sink(self) -> None:
        """Where output goes, now that somebody listens or nobody does; and how large its file may become."""
        if self.info.log:
            self.outputs.choose(self.info, leashed=self.leash >= 0, heard=bool(self.clients.listening))

    # --- start --------------------------------------------------------------------------------

    def start(self) -> None:
        """Let init become the program. Raises what hindered it."""
        if self.is_started:
            return
        assert self.inside is not None
        with suppress(OSError):
            self.journal.append(Started(self.info.id, self.info.name))
        if not self.starts_at_once:
            self.inside.send({"start": True})
        # End-of-file means that exec succeeded: the channel is close-on-exec. A packet is the error that stopped it.
        answer, _ = self.inside.receive()
        self.inside.close()
        if self.stand_in:
            os.waitpid(self.stand_in, 0)
        self.is_started = True
        if answer is not None:
            error = error_of(answer)
            self.is_ending = True
            code = int(getattr(error, "exit_status", 125))
            self.state = replace(self.state, status="stopped", error=error.message, exit_code=code)
            # Before anybody hears of the error, so that whoever asks then is told the same.
            self.bundle.write_state(self.state)
            with suppress(OSError):
                self.journal.append(Notice(self.info.id, error.message, error.why))
            raise error
        self.state = replace(self.state, status="running", started_at=time.time())
        self.bundle.write_state(self.state)
        # By whom its end is told too: in this order, however soon that comes.
        self.tell("start")
        self._watch_health(resumed=False)

    def _watch_health(self, *, resumed: bool) -> None:
        if not self.info.health:
            return
        # Only now: what most containers have no use for, no supervisor carries with it.
        from nbcontain.runtime.health import Health

        self.health = Health(
            self.bundle, self.info.health, self.execs, self.poll,
            lambda status: self.tell(f"health_status: {status}"), resumed=resumed,
        )  # fmt: skip

    # --- the loop -----------------------------------------------------------------------------

    def _watch(self) -> None:
        """Serve output, requests, execs, checks and the leash until init has ended."""
        while not self.serve_for(None):
            pass

    def serve_for(self, longest_s: float | None) -> bool:
        """Serve what comes next, waiting so long at most; True once init has ended."""
        now = time.monotonic()
        moments = [now + longest_s] if longest_s is not None else []
        if self.kill_at:
            moments.append(self.kill_at)
        if self.health is not None:
            moments.append(self.health.due_at)
        moments += [*self.execs.due(), *(self.remains.due(now) if self.is_started else ())]
        if self._is_idle():
            if now >= self.quiet_since + _QUIET_S:
                self._sleep()
            else:
                moments.append(self.quiet_since + _QUIET_S)
        # poll(2) counts milliseconds in 31 bits.
        ready = self.poll.poll(min(_DAY_S, max(0.0, min(moments) - now)) * 1000 if moments else None)
        if self.kill_at and time.monotonic() >= self.kill_at:
            self.kill_at = 0.0
            self.signal(signal.SIGKILL)
        if self.health is not None:
            self.health.attend()
        has_ended = False
        for fd, _ in ready:
            if fd == self.pidfd:
                # Served last: what was written before the end is read first.
                has_ended = pidfds.has_ended(fd)
            else:
                self._serve(fd)
        return has_ended

    def _is_idle(self) -> bool:
        """Whether nobody wants anything but that the output is kept.

        Whoever holds a leash waits for the end, which awakening would delay by what an interpreter's start takes.
        """
        busy = self.report or self.clients or self.execs or self.kill_at or self.leash >= 0 or self.pidfd < 0
        if self.health is not None and self.health.due_at - time.monotonic() < _QUIET_S:
            return False
        return self.may_sleep and self.is_started and not busy

    def _sleep(self) -> None:
        """Become small, until something happens. Returns only where that cannot be."""
        if self.outputs.lost_bytes:
            self._write_lost()
        self.may_sleep = False
        self.execs.dismiss()
        assert self.bundle.lock_fd is not None
        silent = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC) if self.outputs.is_unheard else -1
        idle.fall_asleep(
            idle.Idle(
                bundle=str(self.bundle.path), task=self.info.id, pid=self.pid, lock=self.bundle.lock_fd,
                pidfd=self.pidfd, listener=self.clients.listener.fileno(), journal=self.journal.fileno(),
                mounts=self.mounts_fd, outputs=self.outputs.ends, ids=self.ids.numbers(),
                master=self.outputs.master, peer=self.outputs.peer, network=self.network_fd, user=self.user_fd,
                silent=silent, lost=self.outputs.lost_bytes, wake=self.health.due_at if self.health else 0.0,
                limit=self.journal.limit_bytes, delay=self.delay_s,
            )
        )  # fmt: skip
        if silent >= 0:
            os.close(silent)

    def _write_lost(self) -> None:
        """That output was lost, and how much, for who looks while it runs."""
        if self.state.dropped_bytes != self.outputs.lost_bytes:
            self.state = replace(self.state, error=LOST, dropped_bytes=self.outputs.lost_bytes)
            self.write_state()

    def _serve(self, fd: int) -> None:
        if fd in self.outputs.ends:
            self.outputs.read(fd, self.poll)
            return
        self.quiet_since = time.monotonic()
        if self.report is not None and fd == self.report.fileno():
            requests.serve_report(self)
        elif fd == self.leash:
            self.poll.unregister(fd)
            self._end_softly()
        elif not (self.clients.serve(fd) or (self.health is not None and self.health.reads(fd))):
            self.execs.serve(fd)

    # --- what can be asked of it --------------------------------------------------------------

    def kill(self, number: int, *, final: bool) -> None:
        """Send the first process a signal; a `final` one is somebody's wish that it ends, and stays so."""
        if final:
            self.is_ending = True
            self.state = replace(self.state, stopped_by_hand=True)
        self.signal(number)

    def signal(self, number: int) -> None:
        """To the first process, if there is one."""
        if self.pidfd < 0:
            return
        with suppress(ProcessLookupError):
            pidfds.send(self.pidfd, number)

    def reread(self) -> None:
        """What it is called, or asked to be, has been changed."""
        self.info = self.bundle.reread()
        endings.hold_network(self, {})

    def told_exec(self, message: Message) -> Callable[[int, str], None]:
        """What is to be told of the end of a further program."""
        words = str(message.get("id", ""))
        return lambda code, _: self.tell("exec_die", execID=words, exitCode=str(code))

    def cut_leash(self) -> None:
        """Whoever wanted the container lets it live on without them."""
        if self.leash >= 0:
            with suppress(KeyError):
                self.poll.unregister(self.leash)
            os.close(self.leash)
            self.leash = -1
            self.choose_sink()

    def _end_softly(self) -> None:
        """The leash was let go: ask, then kill. With init the whole pid namespace ends."""
        self.is_ending = True
        self.signal(stop_number(self.info.stop_signal) if self.is_started else signal.SIGKILL)
        self.kill_at = time.monotonic() + GRACE_S

    # --- the end ------------------------------------------------------------------------------

    def abort(self, error: BaseException) -> None:
        """End what could not be started."""
        if self.pidfd >= 0:
            self.signal(signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._forget_pidfd()
        code = int(getattr(error, "exit_status", 125))
        self.state = replace(self.state, exit_code=code, error=str(error))

    def _forget_pidfd(self) -> None:
        with suppress(KeyError):
            self.poll.unregister(self.pidfd)
        pidfds.close(self.pidfd)
        self.pidfd = -1

    def _reap(self) -> None:
        """Init has ended, and everything inside with it: what is left of the output, and how it went."""
        _, status = os.waitpid(self.pid, 0)
        code = exit_code(status)
        self.execs.dismiss()
        calls.end_rest(self.bundle)
        if self.state.exit_code is not None and self.state.error and self.state.status == "stopped":
            code = self.state.exit_code
        self.kill_at = 0.0
        self._forget_pidfd()
        self.outputs.drain()
        if self.health is not None:
            self.health.end()
            self.health = None
        if self.info.restart:
            until = time.monotonic() + _REAPED_S
            while self.execs and time.monotonic() < until:
                self.serve_for(0.1)
        was_killed, peak = calls.end_limits(self.bundle, self.ids, self.journal)
        self.state = replace(self.state, oom_killed=was_killed, memory_peak=peak)
        if was_killed:
            self.tell("oom")
        if self.outputs.lost_bytes:
            self.state = replace(self.state, error=LOST, dropped_bytes=self.outputs.lost_bytes)
        self.state = replace(self.state, exit_code=code, finished_at=time.time())

    def write_state(self) -> None:
        """A full disk keeps nobody from going on."""
        with suppress(OSError, NbcontainError):
            self.bundle.write_state(self.state)

    def _finish(self) -> None:
        """The exit code, and for --rm the removal."""
        self.state = replace(self.state, status="stopped")
        code = self.state.exit_code or 0
        rubbish = None
        try:
            if self.info.remove:
                # What has no name any more needs no state.
                rubbish = endings.put_aside(self.bundle)
            else:
                self.bundle.write_state(self.state)
        finally:
            with suppress(OSError):
                self.journal.append(Finished(self.info.id, "done" if code == 0 else "failed", exit_code=code))
            if self.telling >= 0:
                os.close(self.telling)
            self.clients.tell_end(code)
            self.journal.close()
            if self.mounts_fd >= 0:
                os.close(self.mounts_fd)
            self.tell("die", exitCode=str(code))
            if rubbish:
                self.tell("destroy")
                endings.remove(self, rubbish)
            if self.info.remove:
                calls.end_mounts(self.bundle, self.ids)

    def tell(self, action: str, **attributes: str) -> None:
        """Tell of an event (see `events_log`)."""
        if self.info.build_step:
            return
        told = {**self.info.labels, "image": self.info.image, "name": self.info.name, **attributes}
        path = Layout(self.bundle.path.parent.parent).events
        events_log.record(path, "container", action, self.info.id, told)
