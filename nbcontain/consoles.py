"""Programs that somebody talks to from a terminal: what they say, where to type, letting go. `engine.consoles`.

Nothing here knows the user's own terminal: that is `terminal.py`, which attends a session.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Protocol

from nbcontain import standard_input
from nbcontain.errors import ContainerFailed, NbcontainError, NotRunning, SetupFailed, UsageError
from nbcontain.events import Emit, Finished, Output, Record, Started
from nbcontain.outcomes import RunResult, Tail, result_of
from nbcontain.runtime.console import resize
from nbcontain.runtime.container import Container
from nbcontain.runtime.generate import ExecOptions, RunOptions, environment_of
from nbcontain.runtime.leash import Leash
from nbcontain.runtime.messages import Channel, error_of
from nbcontain.sig_proxy import SignalProxy
from nbcontain.task import Task
from nbcontain.values import replace

if TYPE_CHECKING:
    from nbcontain.engine import Engine
    from nbcontain.handles import Container as Held

Size = tuple[int, int]
"""Rows and columns; zeros where nobody knows."""
_READ_BYTES = 1 << 16
_LAST_WORDS_MS = 200


class Session(Protocol):
    """A program that is being talked to."""

    name: str
    """What it is called, for people."""
    master: int
    """Where to write what is typed; -1 where nothing can be."""

    def output(self) -> Iterator[Output]:
        """What it says, to its end. Called once."""
        ...

    def result(self) -> None:
        """Once it has ended: nothing, or raises ContainerFailed and the like."""
        ...

    def detach(self) -> str:
        """Let it live on alone; gives what to tell the user."""
        ...

    def signal(self, number: int) -> bool:
        """Pass a signal on, where no terminal of its own does; False if that changes nothing (`sig_proxy`)."""
        ...

    def end(self) -> bool:
        """Have what lives for who listens ended: its `output` then comes to an end. False where nothing does."""
        ...

    def close(self) -> None:
        """Nobody listens any more: what lived for who listened ends. Idempotent."""
        ...

    def resize(self, size: Size) -> None: ...


class _Terminal:
    """The end at which one types."""

    master = -1

    def resize(self, size: Size) -> None:
        with suppress(OSError):
            if self.master >= 0:
                resize(self.master, size)

    def close(self) -> None:
        master, self.master = self.master, -1
        if master >= 0:
            os.close(master)


class ContainerSession(_Terminal):
    """A container's own program. What it says comes from its journal, so that nobody who is slow holds it up."""

    def __init__(self, container: Container, records: Generator[Record], leash: Leash | None) -> None:
        """`leash` is what it hangs on, if it lives for us."""
        self.container = container
        self.name = container.name
        self._records = records
        self._leash = leash
        self._code: int | None = None
        self._signals = SignalProxy(container)
        if container.info.terminal:
            with suppress(NbcontainError):
                # It may have ended already, and then there is only what it said.
                self.master = container.console()

    def output(self) -> Iterator[Output]:
        with closing(self._records) as records:
            for record in records:
                match record.event:
                    case Output():
                        yield record.event
                    case Finished(exit_code=code):
                        self._code = code

    def result(self) -> None:
        code = self._code
        if code is None and self._leash is None:
            # It ended just before we began to listen.
            code = self.container.wait(5)
        result_of(self.container.id, self.name, code, Tail())

    def detach(self) -> str:
        self.container.keep()
        return f"{self.name} goes on:  %container attach {self.name}"

    def signal(self, number: int) -> bool:
        return self._signals.tell(number)

    def end(self) -> bool:
        if self._leash is not None:
            self._leash.let_go()
        return self._leash is not None

    def close(self) -> None:
        super().close()
        self.end()


class ExecSession(_Terminal):
    """A further program in a container, at a terminal of its own; it lives as long as we hold the channel."""

    def __init__(self, container: Container, channel: Channel, ends: list[int]) -> None:
        """`ends` are both ends of its terminal."""
        self.name = container.name
        self.master, self._peer = ends
        self._channel = channel
        self._code: int | None = None
        os.set_blocking(self.master, False)

    def output(self) -> Iterator[Output]:
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        while self._code is None or self.master >= 0:
            ready = poll.poll(None if self._code is None else _LAST_WORDS_MS)
            if not ready or self.master < 0:
                # Closed by another thread meanwhile: the number may be another file's by now.
                return
            for fd, _ in ready:
                if fd == self._channel.fileno():
                    self._hear(poll)
                    continue
                try:
                    data = os.read(fd, _READ_BYTES)
                except BlockingIOError:
                    continue
                except OSError:
                    return
                yield Output(self.name, "stdout", data)

    def _hear(self, poll: select.poll) -> None:
        message, _ = self._channel.receive()
        if message is None or "exit_code" in message:
            self._code = int(message["exit_code"]) if message else 128 + signal.SIGKILL
            poll.unregister(self._channel)
            # Without ours, the terminal ends behind the last of what was written.
            os.close(self._peer)
            self._peer = -1
        elif "error" in message:
            raise error_of(message)

    def result(self) -> None:
        if self._code:
            raise ContainerFailed(f"the program in {self.name} ended with exit code {self._code}", self._code)

    def detach(self) -> str:
        self._channel.send({"do": "keep", "exec": True}, (self.master, self._peer))
        return f"the program in {self.name} goes on"

    def signal(self, number: int) -> bool:
        return False

    def end(self) -> bool:
        with suppress(OSError):
            self._channel.socket.shutdown(socket.SHUT_RDWR)
        return True

    def close(self) -> None:
        super().close()
        self._channel.close()
        if self._peer >= 0:
            os.close(self._peer)
            self._peer = -1


class Consoles:
    """Talking to what an engine runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, options: RunOptions, size: Size, emit: Emit) -> Session:
        """Make a container and run it; it ends with the session, unless that is detached."""
        with ExitStack() as undoing:
            # First: where it cannot be had, nothing has been made.
            undoing.callback((leash := Leash()).let_go)
            container = self._engine.create_held(replace(options, console_size=size), emit)
            records = undoing.enter_context(closing(container.follow()))
            self._engine.life.launch(container, leash, 0 if options.interactive and not options.tty else None, emit)
            undoing.pop_all()
        return ContainerSession(container, records, leash)

    def attach(self, container: Container, size: Size) -> Session:
        """What a running container says from now on. Raises NotRunning."""
        if container.status != "running":
            raise NotRunning(f"{container.name} is not running", hint=f"%container start -a {container.name}")
        session = ContainerSession(container, container.follow(from_now=True), None)
        if not container.info.terminal:
            # Nobody holds its other end where it was handed something to read, or nothing.
            with suppress(OSError):
                session.master = os.open(container.bundle.stdin, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        session.resize(size)
        return session

    def start(self, container: Container, size: Size, *, interactive: bool) -> Session:
        """Run a stopped container again, and say what it says. It goes on without us, as docker's does."""
        if container.status == "running":
            return self.attach(container, size)
        records = container.follow(from_now=True)
        try:
            self._engine.start(container, stdin=0 if interactive and not container.info.terminal else None)
        except BaseException:
            records.close()
            raise
        session = ContainerSession(container, records, None)
        session.resize(size)
        return session

    def exec_task(
        self, options: ExecOptions, stdin: Any = None,
        around: Callable[[Held], AbstractContextManager[object]] = nullcontext,
    ) -> Task[RunResult]:  # fmt: skip
        """Run a further program in a running container. Raises NotRunning, CommandNotFound, ContainerFailed."""
        engine = self._engine
        container = engine.running(options.name)
        if not options.command:
            raise UsageError(f"exec {options.name}: which program?", hint=f"%container exec {options.name} ls /")
        env = environment_of(options, engine.environ)
        exec_id = self._told(container, options)

        def body(emit: Emit) -> RunResult:
            output = Tail()
            task = f"exec-{exec_id[:8]}"

            def on_output(stream: Any, data: bytes) -> None:
                event = Output(task, stream, data)
                output.add(event)
                emit(event)

            emit(Started(task, " ".join(options.command)))
            with leash, around(container), standard_input.opened(stdin, interactive=options.interactive) as fd:
                code = container.execute(
                    options.command, env=env, cwd=options.workdir, user=options.user, on_output=on_output,
                    stdin=fd, leash=leash, privileged=options.privileged, exec_id=exec_id,
                )  # fmt: skip
                emit(Finished(task, "done" if code == 0 else "failed", exit_code=code))
                return result_of(container.id, container.name, code, output, check=not options.no_raise, within=True)

        leash = Leash()
        task = Task(f"exec {options.name}", body)
        task.on_cancel(leash.let_go)
        return task

    def exec_detached(self, options: ExecOptions) -> None:
        """Start a further program in a running container and leave it alone. Raises as `exec_task`'s does."""
        container = self._engine.running(options.name)
        if not options.command:
            raise UsageError(f"exec {options.name}: which program?", hint=f"%container exec -d {options.name} sh -c …")
        container.exec_detached(
            options.command, env=environment_of(options, self._engine.environ), cwd=options.workdir, user=options.user,
            privileged=options.privileged, exec_id=self._told(container, options),
        )  # fmt: skip

    def _told(self, container: Container, options: ExecOptions) -> str:
        """Tell of the program, and give it docker's kind of id."""
        exec_id = os.urandom(32).hex()
        words = " ".join(options.command)
        created, started = f"exec_create: {words}", f"exec_start: {words}"
        self._engine.events.container(container, created, started, execID=exec_id)
        return exec_id

    def exec(self, options: ExecOptions, size: Size) -> Session:
        """Run a further program in a running container, at a terminal of its own. Raises NotRunning."""
        container = self._engine.running(options.name)
        if not options.command:
            raise UsageError(f"exec {options.name}: which program?", hint=f"%container exec -it {options.name} sh")
        channel, ends = container.exec_terminal(
            options.command, env=("TERM=xterm", *environment_of(options, self._engine.environ)),
            cwd=options.workdir, user=options.user, size=size, privileged=options.privileged,
        )  # fmt: skip
        if len(ends) != 2:
            channel.close()
            raise SetupFailed(f"{container.name} gave no terminal")
        return ExecSession(container, channel, ends)
