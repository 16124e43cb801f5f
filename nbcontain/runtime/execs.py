"""Further processes in a running container, and who asked for each. Everything here runs in the supervisor."""

from __future__ import annotations

import errno
import importlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from nbcontain.errors import NbcontainError, NotRunning, SetupFailed, Unavailable
from nbcontain.linux import pidfds, starts
from nbcontain.oci.spec import Spec
from nbcontain.runtime import answerers, init, rungs, stage, translated
from nbcontain.runtime.annotations import JOINS, USERNS
from nbcontain.runtime.bundle import Bundle
from nbcontain.runtime.messages import ROOTFS, Channel, Message, describe, is_readable
from nbcontain.runtime.namespaces import FLAGS, flags_of
from nbcontain.runtime.signals import exit_code
from nbcontain.runtime.waiting import Waiting, program, take_score
from nbcontain.values import dataclass

_READ_BYTES = 1 << 16
_AGAIN_S = 0.2
_ENDING_S = 0.2
"""So long a container's end is waited for that something tells of already."""


@dataclass(slots=True, eq=False)
class _Exec:
    """One of them. (Without a docstring dataclasses would import inspect, and the zygote grow by a tenth.)"""

    pid: int
    """A stage's, until that has said which process it has forked inside."""
    pidfd: int
    channel: Channel | None
    """Until it has become its program."""
    asked: Channel | None
    """None where whoever it was has left it running."""
    left: tuple[int, int] = (-1, -1)
    """Both ends of its terminal, then."""
    on_end: Callable[[int, str], None] | None = None
    """Told the exit code, and what hindered it if it could not be started."""
    error: str = ""
    detached: bool = False
    """Nobody will wait for it once it is started."""
    is_limited: bool = False
    """It is in its container's control group already, where that has one."""
    is_stage: bool = False
    """`pid` is a stage's."""
    stage: tuple[int, int] = (-1, -1)
    """A stage that has done its work, and has not been reaped: its pid and its pidfd."""


@contextmanager
def _ended_on_error(running: _Exec) -> Iterator[None]:
    """End a process that cannot be told what to be. Whoever asked is told of the error, and of nothing else.

    It is not waited for here, since it may be frozen: it is reaped like the others.
    """
    try:
        yield
    except BaseException:
        running.asked = running.on_end = None
        signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
        raise


class Execs:
    """Those of one container, by the descriptors that tell of them in `poll`."""

    def __init__(self, bundle: Bundle, pidfd: int, poll: select.poll, *, is_root: bool) -> None:
        """`is_root` of the machine, and not of a user namespace only."""
        self._is_root = is_root
        self._bundle = bundle
        self._pidfd = pidfd
        self._poll = poll
        self._running: dict[int, _Exec] = {}
        self._read: tuple[tuple[int, int], Spec, bytes] | None = None
        self._last: Message | None = None
        """What was asked for last, where the next may be like it."""
        self._withheld: list[int] = []
        """Those that have ended and could not be reaped."""
        self._waiting: tuple[tuple[int, int], Waiting] | None = None
        """A stage for the next one, and which writing of the spec it knows."""

    def __len__(self) -> int:
        return len(self._running) + len(self._withheld)

    def start(
        self, client: Channel | None, message: Message, fds: list[int],
        on_end: Callable[[int, str], None] | None = None,
    ) -> int:  # fmt: skip
        """Have a process forked inside that becomes what the message says; `client` is told how that goes.

        Gives its pid, which is its own until `on_end` is told; that of a stage where a client is told. Raises
        NotRunning and the like.
        """
        self._require_door()
        if client is not None and (inside := self._awaited(message, fds)):
            running = self._followed(inside[0], client)
            running.is_stage, running.is_limited = True, inside[1]
        else:
            running = self._followed(self._joined(message, fds, is_asked=client is not None), client)
        running.on_end, running.detached = on_end, bool(message.get("detach"))
        if not running.is_stage:
            with _ended_on_error(running):
                self._let_go(running)
        return running.pid

    def _require_door(self) -> None:
        """Raise Unavailable where the kernel lets nobody enter a container that runs."""
        if pidfds.is_stand_in(self._pidfd):
            why = "this kernel lets nobody enter namespaces (setns), as gVisor of 2022"
            raise Unavailable(f"nothing can be started in {self._bundle.info.name} while it runs", why=why)

    def _let_go(self, running: _Exec) -> None:
        """What was forked inside waits for this."""
        if self._bundle.info.limited and not running.is_limited:
            from nbcontain.runtime import groups

            groups.enter(self._bundle, running.pid, is_root=self._is_root)
        assert running.channel is not None
        # Where the container ends just now it has been killed. It is waited for all the same, as init waits for it.
        with suppress(BrokenPipeError, ConnectionResetError):
            running.channel.send({"go": True})

    def _awaited(self, message: Message, fds: list[int]) -> tuple[stage.Inside, bool] | None:
        """The stage that waits, told what to fork inside; it is not waited for, as what it meets there may be slow.

        And whether it enters the container's control group by itself.
        """
        self._known()
        waiting = self._taken()
        if waiting is None:
            return None
        self._last = message
        doors: list[int] = []
        try:
            if self._bundle.info.limited:
                from nbcontain.runtime import groups

                doors = groups.doors(self._bundle, is_root=self._is_root)
            inside = waiting.join(message, [*fds[:3], *doors], limited=self._bundle.info.limited and not doors)
        except BaseException:
            waiting.end()
            raise
        finally:
            for fd in doors:
                os.close(fd)
        return (inside, bool(doors)) if inside is not None else None

    def _joined(self, message: Message, fds: list[int], *, is_asked: bool) -> stage.Inside:
        """A process inside that waits for its start. After one that somebody has asked for, there may be more."""
        spec, seccomp = self._known()
        root_fd, answered = -1, None
        try:
            if not rungs.named(self._bundle.info.rung).mounts:
                root_fd = os.open(self._bundle.rootfs[0].source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            answered = answerers.fork_for(self._bundle, spec, self._pidfd, self._follow)
            answers = answerers.Answers(
                self._bundle.info.answers, self._bundle.answers(), answered.fileno() if answered else -1
            )
            body = program(message, seccomp, root_fd, answers)
            if not rungs.named(self._bundle.info.rung).enters:
                place = translated.Place.of(spec, self._bundle.rootfs, str(self._bundle.path / "rootfs"))
                body.keywords["place"] = place
            kept = (*((root_fd,) if root_fd >= 0 else ()), *answers.kept)
            if USERNS in spec.annotations:
                from nbcontain.runtime import shifted

                shifted.give(spec, fds[:3])
            elif is_asked and not kept and not answers.words:
                self._last = message
            flags, first = flags_of(spec.linux.namespaces), partial(take_score, spec.process)
            try:
                return stage.join(self._pidfd, flags, body, (fds[0], fds[1], fds[2]), kept, first=first)
            except ChildProcessError:
                self._end_unheard()
                raise
            except SetupFailed as error:
                self._raise_if_ended(error.errno)
                raise
        finally:
            if root_fd >= 0:
                os.close(root_fd)
            if answered is not None:
                answered.close()

    def _raise_if_ended(self, number: object) -> None:
        """Of a container that has just ended it is not worth telling which step met that. Raises NotRunning."""
        if number not in (errno.ESRCH, errno.ENOMEM) or self._pidfd < 0:
            return
        # Nobody enters what is about to end (ESRCH); nothing is forked in there either, but that may be memory's lack.
        if number == errno.ESRCH or select.select([self._pidfd], [], [], _ENDING_S)[0]:
            raise NotRunning(f"{self._bundle.info.name} has ended")

    def _answer(self, running: _Exec, message: Message) -> None:
        """Tell who asked for it what has become of it."""
        if running.asked is not None:
            try:
                self._raise_if_ended(message.get("errno"))
            except NotRunning as error:
                message = describe(error)
            running.asked.tell(message)

    def _expect(self) -> None:
        """Where one has asked for a program, and has it no more, another may: have a stage wait for that."""
        if self._last is None or self._running or self._waiting is not None:
            return
        # Where there is no process to spare the next one is forked when it is asked for.
        with suppress(OSError, NbcontainError):
            spec, seccomp = self._known()
            assert self._read is not None
            flags = flags_of(spec.linux.namespaces)
            # Whatever is forked in there ends with its first process then, and that with us.
            own = "pid" in spec.linux.namespaces and "pid" not in spec.linux.paths and JOINS not in spec.annotations
            ends = own and not self._bundle.info.runtime
            self._waiting = self._read[0], Waiting(self._pidfd, flags, seccomp, self._last, ends=ends)

    def _taken(self) -> Waiting | None:
        """The stage that waits, unless the spec has been written anew since it was forked."""
        found, self._waiting = self._waiting, None
        if found is not None and self._read is not None and found[0] != self._read[0]:
            found[1].end()
            return None
        return found[1] if found is not None else None

    def dismiss(self) -> None:
        """No more are expected: the container has ended, or nobody has asked for long."""
        self._last = None
        if waiting := self._taken():
            waiting.end()

    def _known(self) -> tuple[Spec, bytes]:
        """Its spec, and the filter that was made of that; read again where somebody has written it anew."""
        status = os.stat(f"{self._bundle.path}/config.json")
        written = status.st_ino, status.st_mtime_ns
        if self._read is None or self._read[0] != written:
            spec = self._bundle.spec
            self._read = written, spec, self._bundle.seccomp(spec)
        return self._read[1:]

    def call(self, client: Channel, message: Message, fds: list[int]) -> None:
        """Have one of our own functions run where the container's files are; `client` is told what it gives.

        It is in the container's mount namespace and in no other, so that nobody inside sees its process.
        """
        self._require_door()
        for name in (ROOTFS, message["module"]):
            # Before the fork: in there nothing can be imported any more.
            importlib.import_module(name)
        flags = flags_of(self._bundle.spec.linux.namespaces, FLAGS["user"]) | FLAGS["mount"]
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            inside = stage.join(self._pidfd, flags, init.be_caller, (null, null, null))
        finally:
            os.close(null)
        with _ended_on_error(self._followed(inside, client)):
            inside.channel.send({"function": message["function"], "arguments": message["arguments"]}, fds)

    def _followed(self, inside: stage.Inside, client: Channel | None) -> _Exec:
        """What was forked inside, which is served and reaped from here on."""
        try:
            pidfd = os.pidfd_open(inside.pid)
        except BaseException:
            # It waits for its first message, and ends at the channel's end.
            inside.channel.close()
            os.waitpid(inside.pid, 0)
            raise
        running = _Exec(inside.pid, pidfd, inside.channel, client)
        for fd in (inside.channel.fileno(), pidfd):
            self._running[fd] = running
            self._poll.register(fd, select.POLLIN)
        return running

    def serve(self, fd: int) -> None:
        """One has become its program, or failed to, or has ended; or one that was left alone says something."""
        running = self._running.get(fd)
        if running is None:
            # Seen in the same round as what has ended it.
            return
        if fd == running.left[0]:
            self._discard(fd)
            return
        if fd == running.stage[1]:
            self._reap_stage(running)
            return
        if running.is_stage and fd == running.pidfd and not (running.channel and is_readable(running.channel, 0)):
            # It was killed before it could say what it has forked. What waits for a word ends when there is none.
            self._hang_up(running)
            self._end_unheard()
        if running.channel is not None and fd == running.channel.fileno():
            answer, console = running.channel.receive()
            if running.is_stage and answer is None:
                # Its end is heard next: only then it has left what it has forked to us.
                self._hang_up(running)
                return
            if running.is_stage and answer and "pid" in answer:
                self._adopt(running, int(answer["pid"]), waits=bool(answer.get("waits", True)))
                return
            if console:
                # It goes to who asked, and nobody else; what becomes of the program comes next.
                if running.asked is not None:
                    running.asked.tell(answer or {}, console)
                for each in console:
                    os.close(each)
                return
            self._hang_up(running)
            # A stage that says what hindered it has forked nothing.
            running.is_stage = False
            running.error = str(answer.get("message", "")) if answer else ""
            self._answer(running, answer or {"started": True})
            if running.detached:
                running.asked = None
        elif running.channel is None:
            status = self._status_of(running)
            if running.asked is not None:
                running.asked.tell({"exit_code": exit_code(status)})
            self._reap_stage(running)
            self._drop(fd)
            os.close(fd)
            if running.on_end is not None:
                running.on_end(exit_code(status), running.error)
            if running.left[1] >= 0:
                # Then the other end is at its end too, which is heard below.
                os.close(running.left[1])
            self._expect()

    def _adopt(self, running: _Exec, pid: int, *, waits: bool) -> None:
        """What its stage has forked is ours now, and is told to go on if it waits, or killed if nobody wants it."""
        client = running.asked
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            # Gone with the container, or it hears of it now, and ends. The stage is reaped as one that failed.
            self._hang_up(running)
            self._answer(running, describe(error))
            running.asked, running.error = None, str(error)
            return
        running.stage = running.pid, running.pidfd
        running.pid, running.pidfd, running.is_stage = pid, pidfd, False
        self._running[pidfd] = running
        self._poll.register(pidfd, select.POLLIN)
        try:
            with _ended_on_error(running):
                if client is None:
                    signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
                if waits:
                    self._let_go(running)
        except (OSError, NbcontainError) as error:
            if client is not None:
                client.tell(describe(error))

    def _end_unheard(self) -> None:
        """End what was forked inside by a stage that did not live to say so: it is our child now, and known to nobody.

        It is not waited for here, as in `_ended_on_error`.
        """
        known = {*self._withheld, *(each.pid for each in self._running.values())}
        for pid in starts.further_of(os.getpid()):
            if pid not in known:
                signal.pidfd_send_signal(self._follow(pid), signal.SIGKILL)

    def _follow(self, pid: int) -> int:
        """Somebody who is reaped, and of whom nobody wants to hear, as who answers calls. Gives the pidfd."""
        pidfd = os.pidfd_open(pid)
        self._running[pidfd] = _Exec(pid, pidfd, None, None)
        self._poll.register(pidfd, select.POLLIN)
        return pidfd

    def _hang_up(self, running: _Exec) -> None:
        """Nothing more is heard from it."""
        if running.channel is not None:
            self._drop(running.channel.fileno())
            running.channel.close()
            running.channel = None

    def _status_of(self, running: _Exec) -> int:
        """How one that has ended did so."""
        for _ in range(2):
            with suppress(ChildProcessError):
                pid, status = os.waitpid(running.pid, os.WNOHANG)
                if not pid:
                    # Whoever traces it hears of its end before us, and may be a program inside that never listens.
                    self._withheld.append(running.pid)
                    break
                return status
            # It was its stage's child until that ends.
            self._reap_stage(running)
        # Or `calls.end_rest` has killed it with the rest, and has waited for it.
        return signal.SIGKILL

    def due(self) -> list[float]:
        """Reap those that could not be before, without which no container ends; gives when to try again."""
        for pid in self._withheld.copy():
            try:
                is_left = os.waitpid(pid, os.WNOHANG)[0] == 0
            except ChildProcessError:
                is_left = False
            if not is_left:
                self._withheld.remove(pid)
        return [time.monotonic() + _AGAIN_S] if self._withheld else []

    def _reap_stage(self, running: _Exec) -> None:
        """A stage ends when it has forked."""
        pid, pidfd = running.stage
        if pid >= 0:
            running.stage = -1, -1
            self._drop(pidfd)
            os.close(pidfd)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def keep(self, client: Channel, fds: list[int]) -> None:
        """Let what this client asked for live on without it, at its terminal, whose ends these are."""
        for running in set(self._running.values()):
            if running.asked is client:
                running.asked, running.left = None, (os.dup(fds[0]), os.dup(fds[1]))
                self._running[running.left[0]] = running
                self._poll.register(running.left[0], select.POLLIN)

    def _discard(self, fd: int) -> None:
        """Nobody hears it, but it must not come to a stop for that."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(fd)
            os.close(fd)

    def abandon(self, client: Channel) -> None:
        """Nobody waits for its processes any more: an exec does not outlive who asked for it."""
        for running in self._running.values():
            if running.asked is client:
                signal.pidfd_send_signal(running.pidfd, signal.SIGKILL)
                if running.is_stage:
                    # What it may have forked is killed when that is known.
                    running.asked = None

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._running[fd]
